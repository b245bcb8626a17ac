"""Small translations and their images, for the tests of pix2pix and CycleGAN."""

from typing import Any

import torch

from genray.gen.data.types import Data, Split
from genray.gen.training.config import FitConfig
from genray.gen.translation.config import CycleGANConfig, Pix2PixConfig, TranslatorModelConfig

UNET = TranslatorModelConfig(widths=(3, 4, 5, 5), discriminator_width=3, discriminator_layers=1)
RESNET = TranslatorModelConfig(
    network="resnet", widths=(3, 4, 5), residual=1, dropout=0.0, discriminator_width=3,
    discriminator_layers=1,
)  # fmt: skip


def scenes(pairs: bool = False, side: int = 16, labelled: bool = True) -> Data:
    """Return 24 images of 3 channels in −1..1: red ones with the label 0, blue ones with 1.

    `pairs`: each row begins with a fourth channel, the images' mean.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 100, (24, 3, side, side), dtype=torch.uint8, generator=generator)
    label = torch.arange(24) % 2
    images[torch.arange(24), 2 * label] += 150
    if pairs:
        images = torch.cat([images.float().mean(1, keepdim=True).byte(), images], 1)
    cuts = ((0, 12), (12, 18), (18, 24))
    parts = [Split(images[a:b], label[a:b] if labelled else None, -1.0, 1.0) for a, b in cuts]
    about = {"pairs": {"kind": "grey", "channels": [1, 3]}} if pairs else {}
    return Data("scenes", *parts, ("red", "blue") if labelled else (), "", about)


def _fit(changes: dict[str, Any]) -> FitConfig:
    return FitConfig(
        **{"steps": 6, "batch_size": 2, "validate_every": 3, "log_every": 2}
        | changes.pop("fit", {})
    )


def pix2pix(**changes: Any) -> Pix2PixConfig:
    return Pix2PixConfig(**{"fit": _fit(changes), "model": UNET, "ema": 0.9, **changes})


def cyclegan(**changes: Any) -> CycleGANConfig:
    return CycleGANConfig(
        **{"fit": _fit(changes), "model": RESNET, "ema": 0.9, "pool": 3, **changes}
    )
