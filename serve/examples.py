"""Example pictures of the page: photographs that are installed, and drawn patterns."""

import functools
import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genray.gen.data.photos import MORE, credits, more_photographs, photographs
from genray.gen.images.patterns import pattern, pattern_name
from genray.gen.images.pictures import scaled
from serve.png import encode_png

PATTERNS = (11, 15, 1, 3, 18, 8, 6, 4)
"""Seeds of the patterns: swirls, waves, mosaic, marble, rings, scales, dots, weave."""
LONGEST = 512
"""Longer side of an example in pixels."""
TITLES = {
    "china": "Temple",
    "flower": "Flower",
    "astronaut": "Astronaut",
    "chelsea": "Cat",
    "coffee": "Coffee",
    "rocket": "Rocket",
}


@dataclass(frozen=True)
class Example:
    """An example picture; `example_rgb` loads its pixels."""

    name: str
    title: str
    kind: str
    """"photograph" or "pattern"."""
    credit: str


@functools.lru_cache(1)
def examples() -> dict[str, Example]:
    """Return all examples by name, photographs first. No picture is decoded or drawn."""
    found: dict[str, Example] = {}
    for name in ("china", "flower"):
        found[name] = Example(name, TITLES[name], "photograph", credits())
    package = importlib.util.find_spec("skimage")
    places = [
        Path(place, "data") for place in (package and package.submodule_search_locations) or []
    ]
    for file, credit in MORE.items():
        if any((place / file).is_file() for place in places):
            name, about = file.partition(".")[0], f"photograph {credit}, from scikit-image"
            found[name] = Example(name, TITLES[name], "photograph", about)
    for seed in PATTERNS:
        name = pattern_name(seed)
        about = f"pattern {seed} ({name}), drawn by genray"
        found[name] = Example(name, name.capitalize(), "pattern", about)
    return found


@functools.lru_cache(4)
def example_rgb(name: str) -> np.ndarray:
    """Return the pixels of an example, uint8 [H, W, 3], at most LONGEST long."""
    seeds = {pattern_name(seed): seed for seed in PATTERNS}
    if name in seeds:
        return pattern(seeds[name], LONGEST // 2)
    found = photographs() if name in ("china", "flower") else more_photographs()
    return scaled(found[name], LONGEST)


@functools.lru_cache(64)
def example_png(name: str, longest: int) -> bytes:
    """Return an example as a PNG with a longer side of at most `longest` pixels."""
    rgb = example_rgb(name)
    return encode_png(scaled(rgb, min(longest, max(rgb.shape[:2]))))


def described() -> list[dict[str, Any]]:
    """Describe all examples as JSON-serialisable values."""
    return [asdict(each) for each in examples().values()]
