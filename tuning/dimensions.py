"""Defines the dimensions of a search space: ranges, integers, choices and switches.

Each dimension varies one setting. Ray is imported only in `to_tune`.
"""

import math
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from genray.errors import require

Coordinate = bool | int | float | str


@dataclass(frozen=True)
class Dimension:
    """One setting that is varied. A dimension maps [0, 1) to its values; intervals of equal length
    have equal probability.
    """

    path: str

    def at(self, share: float) -> Any:
        """Return the value at position `share` in [0, 1)."""
        raise NotImplementedError

    def clip(self, value: Any) -> Any:
        """Return the nearest value of the dimension."""
        raise NotImplementedError

    def ends(self) -> tuple[Any, ...]:
        """Return extreme values. If the configuration is valid for them, it is valid for all values
        between.
        """
        raise NotImplementedError

    def grid(self, count: int) -> list[Any]:
        """Return about `count` evenly spaced values. Returns all values if there are no more than
        `count`, or if the values have no order.
        """
        return list(dict.fromkeys(self.at((index + 0.5) / count) for index in range(count)))

    @property
    def few(self) -> int | None:
        """Number of values; None for a continuous range."""
        return None

    def to_tune(self) -> Any:
        """Return the search domain of Ray Tune."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise ConfigError if the dimension is empty or contradicts itself."""


@dataclass(frozen=True)
class Uniform(Dimension):
    """A real number between `low` and `high`."""

    low: float
    high: float

    def check(self) -> None:
        require(
            math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high,
            f"{self.path}: {type(self).__name__}({self.low:g}, {self.high:g}) is empty; low must "
            "be below high",
        )

    def at(self, share: float) -> float:
        return self.clip(self.low + share * (self.high - self.low))

    def clip(self, value: Any) -> float:
        return float(min(max(float(value), self.low), self.high))  # rounding may exceed a bound

    def ends(self) -> tuple[float, ...]:
        return self.low, self.high

    def to_tune(self) -> Any:
        from ray import tune

        return tune.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform(Uniform):
    """A positive number whose logarithm is uniform, for learning rates and penalties."""

    def check(self) -> None:
        super().check()
        require(
            self.low > 0,
            f"{self.path}: LogUniform({self.low:g}, {self.high:g}): low must be above 0, e.g. 1e-5",
        )

    def at(self, share: float) -> float:
        return self.clip(math.exp(math.log(self.low) + share * math.log(self.high / self.low)))

    def to_tune(self) -> Any:
        from ray import tune

        return tune.loguniform(self.low, self.high)


@dataclass(frozen=True)
class Integers(Dimension):
    """An integer from `low` to `high`, both included. With `log`, its logarithm is approximately
    uniform.
    """

    low: int
    high: int
    log: bool = False

    def check(self) -> None:
        require(
            isinstance(self.low, Integral)
            and isinstance(self.high, Integral)
            and self.low <= self.high,
            f"{self.path}: Integers({self.low}, {self.high}) is empty; low must be at most high, "
            "both whole",
        )
        require(
            not self.log or self.low >= 1,
            f"{self.path}: Integers({self.low}, …, log=True): low must be ≥ 1",
        )

    def at(self, share: float) -> int:
        if self.log:
            return self.clip(
                math.floor(
                    math.exp(math.log(self.low) + share * math.log((self.high + 1) / self.low))
                )
            )
        return self.clip(self.low + math.floor(share * (self.high - self.low + 1)))

    def clip(self, value: Any) -> int:
        return int(min(max(round(value), self.low), self.high))

    def ends(self) -> tuple[int, ...]:
        return self.low, self.high

    @property
    def few(self) -> int | None:
        count = self.high - self.low + 1
        return count if count <= 8 else None

    def to_tune(self) -> Any:
        from ray import tune

        # Ray Tune excludes the upper bound.
        return (tune.lograndint if self.log else tune.randint)(self.low, self.high + 1)


@dataclass(frozen=True)
class Choice(Dimension):
    """One of a list of values: names, numbers, booleans, or tuples (`model.widths`)."""

    values: tuple[Any, ...]

    def check(self) -> None:
        require(len(self.values) > 0, f"{self.path}: Choice of nothing; give at least one value")
        texts = [coordinate(value) for value in self.values]
        twice = [text for index, text in enumerate(texts) if text in texts[:index]]
        require(not twice, f"{self.path}: Choice names {', '.join(map(str, twice))} twice")

    def at(self, share: float) -> Any:
        return self.values[min(len(self.values) - 1, math.floor(share * len(self.values)))]

    def clip(self, value: Any) -> Any:
        known = {coordinate(each): each for each in self.values}
        return known.get(coordinate(value), self.values[0])

    def ends(self) -> tuple[Any, ...]:
        return tuple(self.values)

    def grid(self, count: int) -> list[Any]:
        return list(self.values)

    @property
    def few(self) -> int | None:
        return len(self.values)

    def to_tune(self) -> Any:
        from ray import tune

        return tune.choice([coordinate(value) for value in self.values])


@dataclass(frozen=True)
class Switch(Dimension):
    """Either `off` or a value of `on`, each with probability 1/2: tests whether a regulariser
    helps, and how strong it should be.
    """

    on: Dimension
    off: Any = 0.0

    @property
    def name(self) -> str:
        """Name of the coordinate that selects on or off."""
        return f"{self.path}?"

    def check(self) -> None:
        require(
            self.on.path == self.path,
            f"{self.path}: the switch is of {self.on.path}; both must name one setting",
        )
        require(not isinstance(self.on, Switch), f"{self.path}: a switch of a switch")
        self.on.check()

    def ends(self) -> tuple[Any, ...]:
        return (self.off, *self.on.ends())


def coordinate(value: Any) -> Coordinate:
    """Return a value in a form that search algorithms accept: a tuple becomes its text."""
    if isinstance(value, tuple | list):
        return " ".join(map(str, value))
    return value
