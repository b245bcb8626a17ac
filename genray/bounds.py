"""Declares the bounds of a configuration's numbers beside their defaults, and checks them.

    @dataclass(frozen=True, kw_only=True)
    class RunConfig:
        steps: int = bounded(1_000_000, min=1)
        evaluate_epsilon: float = bounded(0.001, min=0, max=1)

        def validate(self) -> None:
            check_bounds(self)

`RunConfig(steps=0).validate()` raises ConfigError("--steps 0: must be ≥ 1"). A check that involves
several fields stays in `validate`.
"""

import dataclasses
from typing import Any, TypeVar

from genray.errors import require

T = TypeVar("T")

MAX_SEED = 2**31 - 1
_KEY = "genray.bounds"


def bounded(
    default: T,
    *,
    min: float | None = None,
    max: float | None = None,
    above: float | None = None,
    below: float | None = None,
    example: object = None,
    note: str = "",
) -> T:
    """Return a dataclass field whose value must lie within bounds, which `check_bounds` checks.

    If the value is a tuple, each of its elements must lie within the bounds.

    Args:
        default: the field's default.
        min, max: bounds that the value may equal.
        above, below: bounds that the value cannot equal.
        example: a good value, which the message names: "e.g. 30".
        note: what the message says after the bounds, such as the meaning of 0.
    """
    bounds = _Bounds(min, max, above, below, example, note)
    made: Any = dataclasses.field(default=default, metadata={_KEY: bounds})
    return made


def seed(default: int = 0) -> int:
    """Return a dataclass field for the seed of a random number generator."""
    return bounded(default, min=0, max=MAX_SEED)


def check_bounds(config: Any) -> None:
    """Raise ConfigError for the first field of `config` that lies outside its bounds.

    The message names the field as a command-line option. NaN lies outside all bounds. None is not
    checked; it stands for a default that depends on other options. Fields that are configurations
    themselves are not checked here; their own `validate` checks them.
    """
    for field in dataclasses.fields(config):
        bounds: _Bounds | None = field.metadata.get(_KEY)
        value = getattr(config, field.name)
        if bounds is not None and value is not None:
            several = isinstance(value, tuple | list)
            written = " ".join(map(str, value)) if several else value
            require(
                all(bounds.hold(each) for each in (value if several else (value,))),
                f"--{field.name.replace('_', '-')} {written}: "
                f"{'each ' if several else ''}{bounds.words(field.default)}",
            )


@dataclasses.dataclass(frozen=True)
class _Bounds:
    min: float | None
    max: float | None
    above: float | None
    below: float | None
    example: object
    note: str

    def hold(self, value: Any) -> bool:
        return (
            (self.min is None or value >= self.min)
            and (self.max is None or value <= self.max)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def words(self, default: Any) -> str:
        """Return the end of an error's message, such as "must lie in [0, 1), e.g. 0.5"."""
        low = self.above if self.min is None else self.min
        high = self.below if self.max is None else self.max
        if high is None:
            text = f"must be {'>' if self.min is None else '≥'} {_number(low)}"
        elif low is None:
            text = f"must be {'<' if self.max is None else '≤'} {_number(high)}"
        elif isinstance(default, float) or self.min is None or self.max is None:
            left, right = "(" if self.min is None else "[", ")" if self.max is None else "]"
            text = f"must lie in {left}{_number(low)}, {_number(high)}{right}"
        else:
            text = f"must lie in {_number(low)}..{_number(high)}"
        note = f" {self.note}" if self.note else ""
        example = f", e.g. {self.example}" if self.example is not None else ""
        return text + note + example


def _number(value: float | None) -> str:
    if value == MAX_SEED:
        return "2^31 − 1"
    return f"{value:g}" if isinstance(value, float) else str(value)
