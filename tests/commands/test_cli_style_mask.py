"""Tests `genray stylize --mask`: what is styled, soft edges, two styles, clips and errors."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.gen.images.clips import read_clip
from genray.gen.images.style.mask import mix, soften
from genray.media import write_clip
from tests.helpers.pictures import read_about
from tests.helpers.stylize import QUICK, folder, models, pixels, run

__all__ = ["folder", "models"]  # pytest finds the fixtures by their names here


@pytest.fixture
def masked(models: Path) -> Path:
    """A mask that is white in the left half."""
    mask = np.zeros((48, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(models / "mask.png")
    Image.fromarray(255 - mask).save(models / "right.png")
    return models


def styled(folder: Path, words: str, out: str = "out.png") -> np.ndarray:
    model = [str(folder / word) if word in ("fast", "any") else word for word in words.split()]
    assert run(folder, *model, "--out", out) == 0
    return pixels(folder / out).astype(int)


def test_mask_styles_the_inside_and_leaves_the_outside_unchanged(masked: Path):
    content = pixels(masked / "content.png").astype(int)
    for method in (f"content.png style.jpg {' '.join(QUICK)}", "content.png --model fast"):
        whole = styled(masked, method)
        found = styled(masked, f"{method} --mask mask.png --feather 0")
        assert np.array_equal(found[:, :32], whole[:, :32])
        assert np.array_equal(found[:, 32:], content[:, 32:])
        assert not np.array_equal(found[:, :32], content[:, :32])
    about = read_about(masked / "out.png")
    assert about["mask"] == {"name": "mask.png", "feather": 0.0, "outside": "content"}


def test_mask_gives_two_styles_inside_and_outside(masked: Path):
    for method in (" ".join(QUICK), "--model any"):
        first, second = (
            styled(masked, f"content.png {style} {method}") for style in ("style.jpg", "other.webp")
        )
        both = f"content.png style.jpg other.webp {method} --feather 0"
        found = styled(masked, f"{both} --mask right.png")
        assert np.array_equal(found, np.concatenate([second[:, :32], first[:, 32:]], 1))


def test_mask_has_soft_edges_of_the_feathers_width():
    mask = np.zeros((40, 200), np.uint8)
    mask[:, :100] = 255
    weight = soften(mask, 10, 40, 200)  # 10% of 200 pixels
    assert weight[:, :85].min() > 0.99 and weight[:, 115:].max() < 0.01
    assert 0.4 < weight[20, 99] < 0.6 and (np.diff(weight[20]) <= 0).all()
    assert np.array_equal(soften(mask, 0, 40, 200), mask / np.float32(255))
    assert soften(mask, 5, 20, 100).shape == (20, 100)  # a result of another size
    black, white = np.zeros((40, 200, 3), np.uint8), np.full((40, 200, 3), 255, np.uint8)
    assert np.abs(mix(white, black, weight)[..., 0] - 255 * weight).max() <= 0.5


def test_mask_of_a_clip_leaves_the_outside_of_each_frame(masked: Path):
    content = pixels(masked / "content.png")
    frames = [np.roll(content, shift, 0) for shift in (0, 6)]
    write_clip(masked / "clip.mp4", iter(frames), fps=5, scale=1)
    for method in ("style.jpg --frame-steps 2 " + " ".join(QUICK), "--model fast"):
        words = f"clip.mp4 {method} --mask mask.png --feather 0".split()
        named = [str(masked / w) if w in ("clip.mp4", "fast") else w for w in words]
        assert run(masked, *named, "--out", str(masked / "out.mp4")) == 0
        before, after = (list(read_clip(masked / name)) for name in ("clip.mp4", "out.mp4"))
        assert len(after) == 2
        for one, other in zip(before, after):
            off = np.abs(one.astype(int) - other).mean((0, 2))
            assert off[36:].max() < 12 < off[:28].mean()  # an MP4 is not exact


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("content.png style.jpg --mask small.png", "small.png: 20x16 pixels, and the content has"),
        ("content.png style.jpg --mask nothing.png", "no such file"),
        ("content.png style.jpg --mask text.png", "--mask"),
        ("content.png style.jpg --mask black.png", "has no white pixels"),
        ("content.png style.jpg --mask mask.png --feather -1", "--feather -1"),
        ("content.png style.jpg other.webp style.jpg --mask mask.png", "one style, or two"),
        ("content.png style.jpg other.webp --mask mask.png --weights 1 2", "without --weights"),
    ],
)
def test_mask_errors_are_one_line(masked: Path, capsys, words: str, message: str):
    Image.new("L", (20, 16), 255).save(masked / "small.png")
    Image.new("L", (64, 48), 90).save(masked / "black.png")
    (masked / "text.png").write_text("no picture")
    assert run(masked, *words.split(), "--out", "out.png", *QUICK) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and message in error
    assert not (masked / "out.png").exists()
