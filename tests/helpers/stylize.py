"""Pictures, small style models, and `genray stylize` on them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray import cli
from genray.gen.images.features import untrained
from genray.gen.images.style.adain_net import AdaINNet, build_style_any
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.transformer_net import TransformerNet, build_style_fast
from genray.runs.modelstore import save_model

QUICK = ["--steps", "4", "--scales", "1", "--features", "untrained"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:48, :64]
    content = np.stack([3 * x, 5 * y, 255 - 2 * (x + y)], -1).clip(0, 255).astype(np.uint8)
    style = random.integers(0, 256, (12, 16, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    Image.fromarray(content).save(tmp_path / "content.png")
    Image.fromarray(style).save(tmp_path / "style.jpg")
    Image.fromarray(255 - style).save(tmp_path / "other.webp")
    alpha = (x * 4).astype(np.uint8)
    Image.fromarray(np.dstack([content, alpha])).save(tmp_path / "clear.png")
    return tmp_path


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def run(folder: Path, *words: str) -> int:
    names = [
        str(folder / word) if (folder / word).suffix in (".png", ".jpg", ".webp") else word
        for word in words
    ]
    return cli.main(["stylize", *names])


SMALL = StyleNetConfig(widths=(4, 8), residual=1, kernel=3, encoder_layer="conv2")


def plain(config: StyleNetConfig) -> dict:
    return {
        name: list(v) if isinstance(v := getattr(config, name), tuple) else v
        for name in vars(config)
    }


@pytest.fixture
def models(folder: Path) -> Path:
    torch.manual_seed(0)
    about = {"features": "untrained"}
    fast = TransformerNet(SMALL, about)
    any_ = AdaINNet(SMALL, untrained(0), 48, about)
    base = {
        "net": plain(SMALL),
        "model": plain(SMALL),
        "style_side": 48,
        "about": about,
        **plain(SMALL),
    }
    encoder = any_.encoder.config()  # type: ignore[union-attr, operator]
    save_model(folder / "fast" / "model", "style_fast", base, fast.state_dict(), "card")
    save_model(
        folder / "any" / "model",
        "style_any",
        {**base, "encoder": encoder},
        any_.state_dict(),
        "card",
    )
    assert build_style_fast(base) and build_style_any({**base, "encoder": encoder})
    return folder
