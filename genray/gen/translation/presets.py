"""Presets of pix2pix and CycleGAN: each function returns a complete configuration."""

from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.translation.config import (
    CycleGANConfig,
    Pix2PixConfig,
    TranslatorModelConfig,
)


def pix2pix_grey() -> Pix2PixConfig:
    """Configure a small pix2pix that colours grey photographs of 64x64 pixels.

    Departures from pix2pix_256: a sixteenth of the widths, patches of 34 pixels, batches of 8 with
    batch norm, and a moving average.
    """
    return Pix2PixConfig(
        data=DataConfig(data="photos", size=64, augment=("flip",)),
        fit=FitConfig(steps=600, batch_size=8, validate_every=100),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=5e-4, beta1=0.5),
        model=SMALL,
        pairs="grey",
        ema=0.99,
    )


def pix2pix_edges() -> Pix2PixConfig:
    """Configure a small pix2pix that paints game frames of 64x64 pixels from their edges.

    Run `genray data atari --size 64 --games …` first. The networks are those of pix2pix_grey. 1,500
    steps of 8 frames take 110 to 400 s of one core.
    """
    return Pix2PixConfig(
        data=DataConfig(data="atari", size=64),
        fit=FitConfig(steps=1500, batch_size=8, validate_every=250),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=5e-4, beta1=0.5),
        model=SMALL,
        pairs="edges",
        edge_sigma=0.5,
        ema=0.99,
    )


def pix2pix_256() -> Pix2PixConfig:
    """Configure the paper's pix2pix for pictures of 256x256 pixels: 200 epochs, one pair a step.

    The data set "photos" has crops of at most 192 pixels, so --data names your own pictures. Train
    on a GPU. Departure: the learning rate falls along half a cosine, not from the middle of the run
    along a line.
    """
    return Pix2PixConfig(
        data=DataConfig(data="paintings", size=256, augment=("flip", "crop")),
        fit=FitConfig(epochs=200, batch_size=1),
        optimizer=OptimizerConfig(
            optimizer="adam", learning_rate=2e-4, beta1=0.5, schedule="cosine"
        ),
        pairs="edges",
    )


# With instance norm, frames of few edges, such as Pong's, got a black spot.
SMALL = TranslatorModelConfig(
    widths=(32, 64, 128, 128, 128, 128), norm="batch", discriminator_width=24,
    discriminator_layers=2,
)  # fmt: skip


def cyclegan_small() -> CycleGANConfig:
    """Configure a small CycleGAN for images of 64x64 pixels, of which --data has two classes.

    Departures from cyclegan_256: a quarter of the widths, 3 residual blocks, patches of 34 pixels,
    a higher learning rate, a moving average, and no identity losses, which only keep the colours of
    a picture. 800 steps of 2 images of each domain take about 300 s of one core.
    """
    return CycleGANConfig(
        data=DataConfig(data="atari", size=64),
        fit=FitConfig(steps=800, batch_size=2, validate_every=200),
        optimizer=OptimizerConfig(optimizer="adam", learning_rate=4e-4, beta1=0.5),
        model=TranslatorModelConfig(
            network="resnet", widths=(16, 32, 64), residual=3, dropout=0.0,
            discriminator_width=24, discriminator_layers=2,
        ),
        identity_weight=0.0,
        ema=0.99,
    )  # fmt: skip


def cyclegan_256() -> CycleGANConfig:
    """Configure the paper's CycleGAN for pictures of 256x256 pixels, one of each domain a step.

    Train on a GPU, on two folders: --data folder:A --to folder:B. Departure: the learning rate
    falls along half a cosine, not from the middle of the run along a line.
    """
    return CycleGANConfig(
        data=DataConfig(data="photos", size=256, augment=("flip", "crop")),
        to="paintings",
        fit=FitConfig(epochs=200, batch_size=1),
        optimizer=OptimizerConfig(
            optimizer="adam", learning_rate=2e-4, beta1=0.5, schedule="cosine"
        ),
        model=TranslatorModelConfig(network="resnet", widths=(64, 128, 256), dropout=0.0),
    )
