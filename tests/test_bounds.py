"""Bounds of configuration fields: what passes, what is refused, and the message."""

import math
from dataclasses import dataclass

import pytest

from genray.bounds import bounded, check_bounds, seed
from genray.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = bounded(10, min=1)
    share: float = bounded(0.5, min=0, max=1, example=0.5)
    decay: float = bounded(0.9, min=0, below=1)
    rate: float = bounded(0.1, above=0, note="a second", example=10)
    target: float = bounded(0.05, above=0, below=1)
    lanes: int = bounded(4, min=1, max=8, note="(8: all)")
    cap: float = bounded(1.0, max=2)
    widths: tuple[int, ...] = bounded((8, 4), min=1, example="256 128")
    seed: int = seed()
    free: int = 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "--steps 0: must be ≥ 1"),
        ({"share": -0.1}, "--share -0.1: must lie in [0, 1], e.g. 0.5"),
        ({"share": 1.1}, "--share 1.1: must lie in [0, 1], e.g. 0.5"),
        ({"share": math.nan}, "--share nan: must lie in [0, 1], e.g. 0.5"),
        ({"decay": 1.0}, "--decay 1.0: must lie in [0, 1)"),
        ({"rate": 0.0}, "--rate 0.0: must be > 0 a second, e.g. 10"),
        ({"target": 0.0}, "--target 0.0: must lie in (0, 1)"),
        ({"target": 1.0}, "--target 1.0: must lie in (0, 1)"),
        ({"lanes": 9}, "--lanes 9: must lie in 1..8 (8: all)"),
        ({"cap": 2.5}, "--cap 2.5: must be ≤ 2"),
        ({"widths": (8, 0)}, "--widths 8 0: each must be ≥ 1, e.g. 256 128"),
        ({"seed": -1}, "--seed -1: must lie in 0..2^31 − 1"),
        ({"seed": 2**31}, "--seed 2147483648: must lie in 0..2^31 − 1"),
    ],
)
def test_check_bounds_refuses_with_the_option(change: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        check_bounds(Config(**change))
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "change",
    [{}, {"share": 0.0}, {"share": 1.0}, {"decay": 0.0}, {"lanes": 8}, {"cap": 2}, {"widths": ()}],
)
def test_check_bounds_takes_the_bounds_themselves(change: dict):
    check_bounds(Config(**change))
