"""Named configurations of style models: two for a core or two, two of the papers' widths for a
GPU.
"""

from dataclasses import replace

from genray.gen.data.config import DataConfig
from genray.gen.images.style.base import StyleTrainConfig
from genray.gen.images.style.networks import StyleNetConfig
from genray.gen.training.fit import FitConfig
from genray.gen.training.optimizers import OptimizerConfig


def style_fast() -> StyleTrainConfig:
    """One style on crops of two photographs, no download: minutes of one core. `--style PICTURE`
    names the style.
    """
    return StyleTrainConfig(
        data=DataConfig(data="photos", size=96, validation=0.05),
        fit=FitConfig(steps=700, batch_size=2, validate_every=175),
        # A short memory of squared gradients: the first ones are far larger than those that follow.
        optimizer=OptimizerConfig(
            learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup_updates=30
        ),
        model=StyleNetConfig(widths=(16, 32, 64), residual=3, kernel=5),
        content_weight=0.3,
    )


def style_best() -> StyleTrainConfig:
    """`style_fast` for nine times as long, from mirrored crops too: about twenty minutes of one
    core.
    """
    short = style_fast()
    return replace(
        short,
        data=replace(short.data, augment=("flip",)),
        model=replace(short.model, modulated=True),
        fit=replace(short.fit, steps=6_000, validate_every=1_500, checkpoint_every=500),
    )


def style_any() -> StyleTrainConfig:
    """Any style, learnt from our own patterns, on crops of two photographs, no download: a
    minute or two of one core.

    It restyles a shallow layer, at half the size, which so short a training can decode: colours,
    contrast and grain of the style more than its strokes.
    """
    return StyleTrainConfig(
        method="style_any",
        data=DataConfig(data="photos", size=64, validation=0.05),
        fit=FitConfig(steps=800, batch_size=2, validate_every=200),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup_updates=30
        ),
        model=StyleNetConfig(widths=(16, 32), residual=2, encoder_layer="conv3"),
        content_weight=0.05,
        tv=0.5,
    )


def style_fast_full() -> StyleTrainConfig:
    """Johnson's widths, 256 pixels and 40,000 steps of 4 pictures, with VGG-19: wants a GPU, and
    a folder of pictures (the paper: COCO's 80,000).
    """
    return StyleTrainConfig(
        data=DataConfig(data="folder:pictures", size=256, validation=0.02),
        fit=FitConfig(steps=40_000, batch_size=4, validate_every=2_000),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        model=StyleNetConfig(widths=(32, 64, 128), residual=5),
        features="vgg19",
    )


def style_any_full() -> StyleTrainConfig:
    """Huang's: VGG-19 up to its conv4_1, a decoder of its mirrored widths, 256 pixels, 160,000
    steps of 8 pictures. Wants a GPU, a folder of contents (COCO) and one of paintings (WikiArt):
    `--data folder:… --styles folder:…`.
    """
    return StyleTrainConfig(
        method="style_any",
        data=DataConfig(data="folder:pictures", size=256, validation=0.02),
        fit=FitConfig(steps=160_000, batch_size=8, validate_every=5_000),
        optimizer=OptimizerConfig(learning_rate=1e-4),
        model=StyleNetConfig(widths=(64, 64, 128, 256), residual=0, encoder_layer="conv4_1"),
        features="vgg19",
        styles="folder:paintings",
        style_layers=("conv1_1", "conv2_1", "conv3_1", "conv4_1"),
        identity_weight=0.0,
    )
