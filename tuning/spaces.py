"""Defines search spaces: the settings of a trainer that vary together, and the points of a search.

    space = Space(LogUniform("optimizer.learning_rate", 1e-5, 1e-1), Integers("model.latent", 2,
    32))
    space.check(vae_digits())    # raises ConfigError for unknown paths and values of a wrong type
    tune.run(trainable("vae", vae_digits()), config=space.to_tune(), metric="validation_loss",
    mode="min")

A *point* of a space is a dictionary of its coordinates. `resolve` turns it into settings: a
switch has a coordinate of its own (`optimizer.l2?`), and a tuple's is its text.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genray.errors import ConfigError, require
from tuning.dimensions import (
    Choice,
    Coordinate,
    Dimension,
    Integers,
    LogUniform,
    Switch,
    Uniform,
    coordinate,
)
from tuning.settings import changed, check_path

__all__ = [
    "Choice",
    "Coordinate",
    "Dimension",
    "Integers",
    "LogUniform",
    "Space",
    "Switch",
    "Uniform",
]


class Space:
    """Dimensions that are varied together.

    Args:
        dimensions: one for each setting. Raises ConfigError if two dimensions vary the same
            setting, or if a dimension is empty.
    """

    def __init__(self, *dimensions: Dimension):
        self.dimensions = dimensions
        paths = [dimension.path for dimension in dimensions]
        twice = sorted({path for path in paths if paths.count(path) > 1})
        require(not twice, f"the space varies {', '.join(twice)} twice; leave one of the two out")
        for dimension in dimensions:
            dimension.check()
        # The dimension of each coordinate. A switch has two coordinates, so that every search
        # algorithm can represent it.
        self.coordinates: dict[str, Dimension] = {}
        for dimension in dimensions:
            if isinstance(dimension, Switch):
                self.coordinates[dimension.name] = Choice(dimension.name, (False, True))
                self.coordinates[dimension.path] = dimension.on
            else:
                self.coordinates[dimension.path] = dimension

    def __repr__(self) -> str:
        return f"Space({', '.join(map(repr, self.dimensions))})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and other.dimensions == self.dimensions

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def paths(self) -> tuple[str, ...]:
        """The settings that the space varies."""
        return tuple(dimension.path for dimension in self.dimensions)

    def check(self, config: Any) -> None:
        """Raise ConfigError unless `config` has the setting of every dimension and accepts its
        values.
        """
        for dimension in self.dimensions:
            check_path(type(config), dimension.path)
            for value in dimension.ends():
                candidate = changed(config, {dimension.path: value})
                try:
                    candidate.validate()
                except ConfigError as error:
                    raise ConfigError(f"{dimension.path} = {coordinate(value)}: {error}") from error

    def at(self, shares: Sequence[float]) -> dict[str, Coordinate]:
        """Return the point at `shares`, which holds one position in [0, 1) for each coordinate."""
        return {
            name: coordinate(dimension.at(float(share)))
            for (name, dimension), share in zip(self.coordinates.items(), shares, strict=True)
        }

    def resolve(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Convert a point to settings: dotted path → JSON-serializable value."""
        settings: dict[str, Any] = {}
        for dimension in self.dimensions:
            value = point[dimension.path]
            if isinstance(dimension, Switch) and not point[dimension.name]:
                value = dimension.off
            elif isinstance(dimension, Choice):
                value = dimension.clip(value)
            settings[dimension.path] = list(value) if isinstance(value, tuple) else value
        return settings

    def point(self, settings: Mapping[str, Any]) -> dict[str, Coordinate]:
        """Return the point that resolves to `settings`. A dimension that is switched off gets the
        value in its middle.
        """
        point: dict[str, Coordinate] = {}
        for dimension in self.dimensions:
            value = settings[dimension.path]
            if isinstance(dimension, Switch):
                point[dimension.name] = coordinate(value) != coordinate(dimension.off)
                value = value if point[dimension.name] else dimension.on.at(0.5)
            point[dimension.path] = coordinate(value)
        return point

    def clip(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return `point` with every coordinate clipped to its dimension; other keys stay
        unchanged.
        """
        inside = {
            name: each.clip(point[name]) for name, each in self.coordinates.items() if name in point
        }
        return {**point, **{name: coordinate(value) for name, value in inside.items()}}

    # -- points ------------------------------------------------------------------------------------

    def random(self, count: int, seed: Sequence[int]) -> list[dict[str, Coordinate]]:
        """Draw `count` independent points; the first n of them do not depend on `count`."""
        return [
            self.at(shares)
            for shares in np.random.default_rng(list(seed)).random((count, len(self)))
        ]

    def quasi_random(self, count: int, seed: Sequence[int]) -> list[dict[str, Coordinate]]:
        """Draw `count` points of a scrambled Sobol' sequence. They are more even than independent
        points, above all along one axis.

        [Sobol' 1967; recommended for tuning by Bousquet 2017, https://arxiv.org/abs/1706.03200]
        """
        from scipy.stats import qmc

        if len(self) == 0:
            return [{} for _ in range(count)]
        sobol = qmc.Sobol(len(self), scramble=True, rng=np.random.default_rng(list(seed)))
        # The sequence is balanced for powers of two. Its beginning is the same for every power.
        shares = sobol.random_base2(max(1, math.ceil(math.log2(count))))
        return [self.at(row) for row in np.minimum(shares[:count], np.nextafter(1.0, 0.0))]

    def grid(self, most: int) -> list[dict[str, Coordinate]]:
        """Return the finest regular grid of at most `most` points; all ranges have the same number
        of values.

        Raises ConfigError if the choices alone give more points.
        """

        def axes(count: int) -> list[list[Any]]:
            return [
                each.grid(max(count, each.few or 0)) if each.few else each.grid(count)
                for each in self.coordinates.values()
            ]

        def size(count: int) -> int:
            return math.prod(len(axis) for axis in axes(count))

        require(
            size(1) <= most,
            f"--trials {most}: the grid has at least {size(1)} points; use --trials {size(1)} or "
            "more",
        )
        ranges = any(not each.few for each in self.coordinates.values())
        count = 1
        while ranges and size(count + 1) <= most:
            count += 1
        names = list(self.coordinates)
        points = (
            dict(zip(names, map(coordinate, values))) for values in itertools.product(*axes(count))
        )
        # Points that differ only in settings of a switch that is off are duplicates.
        unlike = {repr(sorted(self.resolve(point).items())): point for point in points}
        return list(unlike.values())

    # -- for Ray Tune, and on disk -----------------------------------------------------------------

    def to_tune(self) -> dict[str, Any]:
        """Return the search space of Ray Tune, for `tune.run(trainable(…), config=space.to_tune())`
        and its search algorithms.
        """
        return {name: dimension.to_tune() for name, dimension in self.coordinates.items()}

    def to_list(self) -> list[Any]:
        """Return a JSON-serializable list; `from_list` is the inverse."""
        return [_to_plain(dimension) for dimension in self.dimensions]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> "Space":
        """Create the space that `to_list` described."""
        return cls(*(_from_plain(value) for value in values))


_KINDS = {kind.__name__: kind for kind in (Uniform, LogUniform, Integers, Choice, Switch)}


def _to_plain(dimension: Dimension) -> dict[str, Any]:
    values: dict[str, Any] = {"kind": type(dimension).__name__}
    for name, value in vars(dimension).items():
        if isinstance(value, Dimension):
            value = _to_plain(value)
        elif isinstance(value, tuple):
            value = [list(each) if isinstance(each, tuple) else each for each in value]
        values[name] = value
    return values


def _from_plain(values: Mapping[str, Any]) -> Dimension:
    fields = {name: value for name, value in values.items() if name != "kind"}
    if "on" in fields:
        fields["on"] = _from_plain(fields["on"])
    if "values" in fields:
        fields["values"] = tuple(
            tuple(each) if isinstance(each, list) else each for each in fields["values"]
        )
    if isinstance(fields.get("off"), list):
        fields["off"] = tuple(fields["off"])
    return _KINDS[values["kind"]](**fields)
