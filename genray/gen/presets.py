"""Presets of VAEs, GANs and classifiers: each function returns a complete configuration.

Use `dataclasses.replace` to change a returned configuration. The presets of autoencoders are in
autoencoder/presets.py, and the presets of style models are in images/style/presets.py.
"""

from dataclasses import replace

from genray.gen.data.config import DataConfig
from genray.gen.gan.config import GANConfig, GANModelConfig
from genray.gen.images.classifier import ClassifierConfig, ClassifierModelConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.vae import VAEConfig, VAEModelConfig

# -- VAE -------------------------------------------------------------------------------------------


def vae_digits() -> VAEConfig:
    """Configure a dense VAE on scikit-learn's digits.

    200 epochs of 1,167 rows are 2,200 steps, which take about 10 s on one core.
    """
    return VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=200, batch_size=100, validate_every=220),
        model=VAEModelConfig(latent=10, widths=(256, 128)),
    )


def vae_mnist() -> VAEConfig:
    """Configure a dense VAE on MNIST with pixels that are binarised once (`binarise="fixed"`).

    The published negative ELBO of such models is 89.9 nats.
    """
    return VAEConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=100, batch_size=100),
        model=VAEModelConfig(latent=16, widths=(512,), binarise="fixed"),
    )


def vae_conv_digits() -> VAEConfig:
    """Configure a convolutional VAE on digits, with feature maps of 8x8 → 4x4 → 2x2 pixels."""
    return VAEConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=200, batch_size=100, validate_every=220),
        model=VAEModelConfig(network="conv", latent=10, widths=(32, 64)),
    )


def vae_mnist5k() -> VAEConfig:
    """Configure a dense VAE on 5,000 digits of MNIST with pixels that are binarised anew at each
    step, so that 3,600 training rows suffice.

    60 epochs of 36 batches are 2,160 steps, which take about 10 s of one core.
    """
    return VAEConfig(
        data=DataConfig(data="mnist5k"),
        fit=FitConfig(epochs=60, batch_size=100, validate_every=216),
        model=VAEModelConfig(latent=16, widths=(512,), binarise="dynamic"),
    )


def vae_conv_mnist5k() -> VAEConfig:
    """Configure a convolutional VAE on 5,000 digits of MNIST: 28x28 → 14x14 → 7x7 pixels."""
    return VAEConfig(
        data=DataConfig(data="mnist5k"),
        fit=FitConfig(epochs=40, batch_size=100, validate_every=180),
        model=VAEModelConfig(network="conv", latent=16, widths=(32, 64), binarise="dynamic"),
    )


def vae_conv_atari() -> VAEConfig:
    """Configure a convolutional VAE on 32x32 colour frames of games, with a Gaussian decoder whose
    standard deviation is learned.
    """
    return VAEConfig(
        data=DataConfig(data="atari"),
        fit=FitConfig(epochs=20, batch_size=128),
        model=VAEModelConfig(
            network="conv", latent=32, widths=(32, 64, 128), likelihood="gaussian"
        ),
    )


# -- GAN -------------------------------------------------------------------------------------------


def gan_mnist() -> GANConfig:
    """Configure a dense GAN on MNIST.

    Each network has one hidden layer of 128 units with a leaky ReLU of slope 0.01. Latents are
    z ~ U(−1, 1)^100, the label of real images is 0.9, and Adam has the learning rate 0.002. 100
    epochs of 540 batches are 54,000 steps; with `--data mnist5k`, which needs no download, they are
    3,600 steps.

    The loss is non-saturating; use `--loss minimax` for the original loss.
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
    """Configure a small convolutional GAN on scikit-learn's digits.

    Training takes about a minute on one core.
    """
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


def gan_mnist5k() -> GANConfig:
    """Configure a small DCGAN on 5,000 digits of MNIST, 28x28 pixels.

    The generator has feature maps of 7x7 and 14x14 pixels, and 4x4 kernels: the stride of 2 divides
    the kernel's side, so that samples have no grid. 1,500 steps take two minutes of one core.

    Departures from dcgan_svhn: z ~ N(0, I), a label of 0.9 for real images, the learning rate 1e-3,
    and samples from a moving average of the generator.
    """
    return GANConfig(
        data=DataConfig(data="mnist5k"),
        fit=FitConfig(steps=1500, batch_size=64, validate_every=500),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=1e-3, beta1=0.5),
        model=GANModelConfig(
            network="conv",
            latent=64,
            prior="normal",
            generator_widths=(64, 32),
            discriminator_widths=(32, 64),
            kernel=4,
            slope=0.2,
            generator_norm="batch",
            discriminator_norm="batch",
        ),
        loss="non-saturating",
        label_smoothing=0.1,
        ema=0.99,
    )


def dcgan_svhn() -> GANConfig:
    """Configure DCGAN on SVHN.

    In the generator, a dense layer maps z ~ U(−1, 1)^100 to 512 channels of 4x4 pixels, and three
    5x5 transposed convolutions of stride 2 have 256, 128 and 3 channels. The discriminator has
    convolutions with 64, 128 and 256 channels, and one logit. Both have batch norm and leaky ReLUs
    of slope 0.2. Adam has the learning rate 2e-4 and β1 = 0.5.

    Train on a GPU: on two cores a step takes most of a second, and 25 epochs of 65,931 rows in
    batches of 128 are 12,875 steps.
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
    """Configure DCGAN with a quarter of the widths, on 32x32 colour frames of games.

    Training takes minutes on one core.

    Departures from dcgan_svhn: the discriminator classifies four images together (`pack`) and has
    spectral norm instead of batch norm. The loss is hinge, Adam has the learning rate 5e-4, batches
    have 64 rows, and samples come from a moving average of the generator. Because the games differ
    much from each other, a generator without these changes, or without `pack` alone, omits one or
    two of the games.
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
    """Configure DCGAN with a quarter of the widths, and dcgan_svhn's loss and norms, for one game.

    On one game, `dcgan_atari` (for several games) generates only the background. The samples of
    this preset vary a little more, but after a few minutes of training moving objects are still
    faint.
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
    """Configure a classifier of digits for evaluating samples.

    After 10 s of training, its accuracy is 98%.
    """
    return ClassifierConfig(
        data=DataConfig(data="digits"),
        fit=FitConfig(epochs=60, batch_size=100, validate_every=110),
        model=ClassifierModelConfig(channels=(32, 64), features=64),
    )


def classifier_dense_mnist() -> ClassifierConfig:
    """Configure a dense classifier of MNIST: 784 → 500 → 500 → 10, sigmoid units and a softmax.

    After each hidden layer, 0.8 of the units are dropped in training. 20 epochs of 540 batches of
    100 are 10,800 steps; with `--data mnist5k`, which needs no download, they are 720 steps.
    """
    return ClassifierConfig(
        data=DataConfig(data="mnist"),
        fit=FitConfig(epochs=20, batch_size=100),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=1e-3),
        model=ClassifierModelConfig(
            network="dense", widths=(500, 500), activation="sigmoid", dropout=0.8
        ),
    )


def classifier_atari() -> ClassifierConfig:
    """Configure a classifier of 64x64 colour frames by game, for Deep Dream.

    The network has four blocks of two convolutions. Run `genray data atari --size 64 --games …`
    first, with a dozen games or more. Without the colour augmentation, the network would recognise
    games by their backgrounds alone, and dreams would show glare instead of shapes. 400 steps of 64
    frames take less than 3 minutes on one core.
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
    """Configure a small VGG on CIFAR-10: six convolutions with batch norm, on mirrored and shifted
    images.

    Without a GPU, training takes too long.
    """
    return ClassifierConfig(
        data=DataConfig(data="cifar10", augment=("flip", "shift")),
        fit=FitConfig(epochs=30, batch_size=128),
        optimizer=OptimizerConfig(optimizer="adamw", learning_rate=1e-3),
        model=ClassifierModelConfig(
            channels=(64, 128, 256), convolutions=2, features=256, batch_norm=True, dropout=0.3
        ),
    )
