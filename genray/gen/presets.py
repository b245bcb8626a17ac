"""Named configurations are functions: each returns a value, complete, to be changed with
dataclasses.replace.

The autoencoders' presets stand in ae_presets.py, the style models' in images/style_presets.py.
"""

from dataclasses import replace

from genray.gen.data.config import DataConfig
from genray.gen.gan.task import GANConfig, GANModelConfig
from genray.gen.images.classifier import ClassifierConfig, ClassifierModelConfig
from genray.gen.training.fit import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.vae import VAEConfig, VAEModelConfig

# -- VAE -------------------------------------------------------------------------------------------


def vae_digits() -> VAEConfig:
    """A dense VAE on scikit-learn's digits: 1,167 training rows, 200 epochs = 2,200 steps, about
    10 s of one core.
    """
    return VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=200, batch_size=100, validate_every=220),
        model=VAEModelConfig(latent=10, widths=(256, 128)),
    )


def vae_mnist() -> VAEConfig:
    """The usual MLP VAE on fixed-binarised MNIST (published bound of such models: 89.9 nats)."""
    return VAEConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=100, batch_size=100),
        model=VAEModelConfig(latent=16, widths=(512,), binarise="fixed"),
    )


def vae_conv_digits() -> VAEConfig:
    """A convolutional VAE on digits: 8 → 4 → 2 pixels."""
    return VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=200, batch_size=100, validate_every=220),
        model=VAEModelConfig(network="conv", latent=10, widths=(32, 64)),
    )


def vae_conv_atari() -> VAEConfig:
    """A convolutional VAE on colour frames of games, 32x32, with a learned Gaussian decoder."""
    return VAEConfig(
        data=DataConfig(data="atari"),
        fit=FitConfig(epochs=20, batch_size=128),
        model=VAEModelConfig(
            network="conv", latent=32, widths=(32, 64, 128), likelihood="gaussian"
        ),
    )


# -- GAN -------------------------------------------------------------------------------------------


def gan_mnist() -> GANConfig:
    """The dense GAN of the lectures, to the letter: one hidden layer of 128 in each player,
    slope 0.01, z ~ U(−1, 1)^100, real labels 0.9, Adam 0.002, batch 100, 100 epochs = 54,000
    steps, samples every epoch.

    Its loss is the one that the source's code uses, the non-saturating; `--loss minimax` is the
    one that it states.
    """
    return GANConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=100, batch_size=100),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=0.002),
        model=GANModelConfig(network="dense", latent=100, prior="uniform", slope=0.01),
        loss="non-saturating",
        label_smoothing=0.1,
    )


def gan_digits() -> GANConfig:
    """A small convolutional GAN on scikit-learn's digits: no download, a minute of one core."""
    return GANConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(steps=3000, batch_size=64, validate_every=300),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=5e-4, beta1=0.5),
        model=GANModelConfig(
            network="conv",
            latent=32,
            prior="normal",
            generator_widths=(128, 64),
            discriminator_widths=(64, 128),
            kernel=3,
            slope=0.2,
            generator_norm="batch",
            discriminator_norm="spectral",
        ),
        loss="hinge",
        ema=0.99,
    )


def dcgan_svhn() -> GANConfig:
    """DCGAN on SVHN, to the letter: z ~ U(−1, 1)^100 → 4·4·512 → 256 → 128 → 3 by 5x5 transposed
    convolutions of stride 2; 64 → 128 → 256 → one logit; batch norm, slope 0.2, Adam 2e-4 with
    β1 = 0.5, batch 128, 25 epochs.

    On two cores a step takes most of a second, and 25 epochs are 12,875 steps (65,931 training
    rows): it wants a GPU.
    """
    return GANConfig(
        data=DataConfig(data="svhn"),
        fit=FitConfig(epochs=25, batch_size=128),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=2e-4, beta1=0.5),
        model=GANModelConfig(
            network="conv",
            latent=100,
            prior="uniform",
            generator_widths=(512, 256, 128),
            discriminator_widths=(64, 128, 256),
            kernel=5,
            slope=0.2,
            generator_norm="batch",
            discriminator_norm="batch",
        ),
        loss="non-saturating",
    )


def dcgan_atari() -> GANConfig:
    """DCGAN at a quarter of its width on 32x32 colour frames of games: what a core can train in
    minutes.

    Departures from the source (dcgan_svhn): a discriminator that sees four images at once and
    has spectral norm for batch norm, the hinge loss, Adam 5e-4, batch 64, and an average of the
    generator. Games differ so much from each other that the source's generator, and one with
    these changes but `pack`, leaves one or two out.
    """
    return GANConfig(
        data=DataConfig(data="atari"),
        fit=FitConfig(epochs=20, batch_size=64),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=5e-4, beta1=0.5),
        model=GANModelConfig(
            network="conv",
            latent=100,
            prior="uniform",
            generator_widths=(128, 64, 32),
            discriminator_widths=(16, 32, 64),
            pack=4,
            kernel=5,
            slope=0.2,
            generator_norm="batch",
            discriminator_norm="spectral",
        ),
        loss="hinge",
        ema=0.99,
    )


def dcgan_game() -> GANConfig:
    """DCGAN at a quarter of its width on frames of one game, with the source's losses and norms
    (dcgan_svhn).

    `dcgan_atari`, which was made for several games, ends with one picture of the background;
    this one varies a little more, but within minutes it, too, paints who moves in front only
    faintly.
    """
    several, source = dcgan_atari(), dcgan_svhn()
    return replace(
        several,
        fit=FitConfig(epochs=20, batch_size=128),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=2e-4, beta1=0.5),
        model=replace(several.model, pack=1, discriminator_norm="batch"),
        loss=source.loss,
    )


# -- classifier ------------------------------------------------------------------------------------


def classifier_digits() -> ClassifierConfig:
    """The judge of samples on digits: about 98% of the held-out digits, in 10 s of one core."""
    return ClassifierConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=60, batch_size=100, validate_every=110),
        model=ClassifierModelConfig(channels=(32, 64), features=64),
    )


def classifier_atari() -> ClassifierConfig:
    """Which game is it? Colour frames at 64 pixels, four blocks of two convolutions: the network
    of the dreams.

    Needs `genray data atari --size 64 --games …` first, best of a dozen games or more. Without
    the other colours it would tell games by their backgrounds alone, and dream of glare instead
    of shapes. 400 steps of 64 frames: under 3 minutes of one core.
    """
    return ClassifierConfig(
        data=DataConfig(data="atari", size=64, augment=("flip", "crop", "colour")),
        fit=FitConfig(steps=400, batch_size=64, validate_every=100),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=1e-3),
        model=ClassifierModelConfig(
            channels=(16, 32, 64, 96), convolutions=2, features=96, batch_norm=True
        ),
    )


def classifier_cifar10() -> ClassifierConfig:
    """A small VGG on CIFAR-10: six convolutions with batch norm, mirrored and shifted images; it
    wants a GPU.
    """
    return ClassifierConfig(
        data=DataConfig(data="cifar10", augment=("flip", "shift")),
        fit=FitConfig(epochs=30, batch_size=128),
        optimizer=OptimizerConfig(optimizer="adamw", learning_rate=1e-3),
        model=ClassifierModelConfig(
            channels=(64, 128, 256), convolutions=2, features=256, batch_norm=True, dropout=0.3
        ),
    )
