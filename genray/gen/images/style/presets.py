"""Returns presets of style models: four small ones for a CPU, two with the papers' widths."""

from dataclasses import replace

from genray.gen.data.config import DataConfig
from genray.gen.images.style.base import StyleTrainConfig
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.training.fit import FitConfig
from genray.gen.training.optimizers import OptimizerConfig


def style_fast() -> StyleTrainConfig:
    """Return the preset of a network for one style that trains in minutes on one core.

    Nothing is downloaded. The contents are crops of two photographs, or of six if scikit-image is
    installed. `--style PICTURE` selects the style.
    """
    return StyleTrainConfig(
        data=DataConfig(data="photos", size=96, validation=0.05),
        fit=FitConfig(steps=700, batch_size=2, validate_every=175),
        # A small β2, because the first gradients are far larger than later ones.
        optimizer=OptimizerConfig(
            learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup_updates=30
        ),
        model=StyleNetConfig(widths=(16, 32, 64), residual=3, kernel=5),
    )


def style_best() -> StyleTrainConfig:
    """Return `style_fast` with nine times the steps, mirrored crops and modulation.

    Training takes 20 minutes on one core.
    """
    short = style_fast()
    return replace(
        short,
        data=replace(short.data, augment=("flip",)),
        model=replace(short.model, modulated=True),
        fit=replace(short.fit, steps=6_000, validate_every=1_500, checkpoint_every=500),
    )


def style_any() -> StyleTrainConfig:
    """Return the preset of a network for any style that trains in two minutes on one core.

    Nothing is downloaded. The styles are procedural patterns, and the contents are crops of two
    photographs; `--styles folder:PATH` trains on paintings. The statistics of colours and of three
    layers are replaced, and the loss compares Gram matrices. The styles are larger than the
    contents, so that strokes are large.
    """
    return StyleTrainConfig(
        method="style_any",
        data=DataConfig(data="photos", size=96, validation=0.05),
        fit=FitConfig(steps=500, batch_size=2, validate_every=125),
        optimizer=OptimizerConfig(
            learning_rate=3e-3, beta2=0.99, schedule="cosine", warmup_updates=30
        ),
        model=StyleNetConfig(widths=(16, 32, 64, 64), residual=2, skips=True),
        style_size=128,
        statistics="gram",
        content_weight=0.02,
        tv=0.5,
    )


def style_micro() -> StyleTrainConfig:
    """Return the preset of a MicroAST: `style_any` with an own small encoder in place of a
    pretrained one.

    The data, the styles and the style loss are those of `style_any`, and training takes about as
    long.
    """
    short = style_any()
    return replace(
        short,
        method="style_micro",
        fit=replace(short.fit, steps=350, validate_every=175),
        model=StyleNetConfig(widths=(16, 32, 64), residual=2, kernel=3, skips=True, separable=True),
        content_weight=0.05,
    )


def style_fast_full() -> StyleTrainConfig:
    """Return Johnson's network with VGG-19, for pictures of 256 pixels, 40,000 steps of 4 pictures.

    Training needs a GPU, and a directory of pictures (the paper: COCO's 80,000).
    """
    return StyleTrainConfig(
        data=DataConfig(data="folder:pictures", size=256, validation=0.02),
        fit=FitConfig(steps=40_000, batch_size=4, validate_every=2_000),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        model=StyleNetConfig(widths=(32, 64, 128), residual=5),
        features="vgg19",
    )


def style_any_full() -> StyleTrainConfig:
    """Return Huang's model: VGG-19 up to conv4_1, and a decoder with the same widths in reverse.

    Training has 160,000 steps of 8 pictures of 256 pixels. It needs a GPU, a directory of contents
    (the paper: COCO) and a directory of paintings (WikiArt): `--data folder:… --styles folder:…`.
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
