"""Named configurations are functions: each returns a value, complete, to be changed with dataclasses.replace.

The autoencoders' presets stand beside their configuration, in autoencoders.py.
"""

from genray.gen.data import DataConfig
from genray.gen.fit import FitConfig
from genray.gen.gan import GANConfig, GANModelConfig
from genray.gen.images.classifier import ClassifierConfig, ClassifierModelConfig
from genray.gen.optimizers import OptimizerConfig
from genray.gen.vae import VAEConfig, VAEModelConfig

# -- VAE ---------------------------------------------------------------------------------------------------------------


def vae_digits() -> VAEConfig:
    """A dense VAE on scikit-learn's digits: 1,167 training rows, 200 epochs = 2,200 steps, about 10 s of one core."""
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
        model=VAEModelConfig(network="conv", latent=32, widths=(32, 64, 128), likelihood="gaussian"),
    )


# -- GAN ---------------------------------------------------------------------------------------------------------------


def gan_mnist() -> GANConfig:
    """The dense GAN of the lectures, to the letter: one hidden layer of 128 in each player, slope 0.01, z ~ U(−1, 1)^100,
    real labels 0.9, Adam 0.002, batch 100, 100 epochs = 54,000 steps, samples every epoch.

    Its loss is the one that the source's code uses, the non-saturating; `--loss minimax` is the one that it states.
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
    """DCGAN on SVHN, to the letter: z ~ U(−1, 1)^100 → 4·4·512 → 256 → 128 → 3 by 5x5 transposed convolutions of
    stride 2; 64 → 128 → 256 → one logit; batch norm, slope 0.2, Adam 2e-4 with β1 = 0.5, batch 128, 25 epochs.

    On two cores a step takes most of a second, and 25 epochs are 12,875 steps (65,931 training rows): it wants a GPU.
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
    """DCGAN at a quarter of its width on 32x32 colour frames of games: what two cores can train in minutes."""
    return GANConfig(
        data=DataConfig(data="atari"),
        fit=FitConfig(epochs=20, batch_size=128),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=2e-4, beta1=0.5),
        model=GANModelConfig(
            network="conv",
            latent=100,
            prior="uniform",
            generator_widths=(128, 64, 32),
            discriminator_widths=(16, 32, 64),
            kernel=5,
            slope=0.2,
            generator_norm="batch",
            discriminator_norm="batch",
        ),
        loss="non-saturating",
        ema=0.99,
    )


# -- classifier --------------------------------------------------------------------------------------------------------


def classifier_digits() -> ClassifierConfig:
    """The judge of samples on digits: about 98% of the held-out digits, in 10 s of one core."""
    return ClassifierConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=60, batch_size=100, validate_every=110),
        model=ClassifierModelConfig(channels=(32, 64), features=64),
    )
