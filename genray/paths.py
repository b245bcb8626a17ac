"""Marks options that hold paths, and makes these paths absolute, so that another process finds the
same file.
"""

import dataclasses
import itertools
import os
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class HoldsPath:
    """Marks a text option that may contain a path: `PREFIX:PATH` with one of `prefixes`, or, if
    `bare` is True, a path alone.

    URLs (s3://…) stay unchanged, and so do values with one of the prefixes `others` (pattern:7).
    """

    prefixes: tuple[str, ...] = ()
    bare: bool = False
    others: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    """Prefixes after which letters, digits and underscores alone are a name and not a path
    (screens:road_runner)."""

    def absolute(self, text: str) -> str:
        """Return `text` with its path made absolute, relative to the working directory of this
        process.
        """
        prefix, colon, path = text.partition(":")
        if not text or "://" in text:
            return text
        if colon and prefix in self.prefixes:
            if not path or (prefix in self.names and path.replace("_", "").isalnum()):
                return text
            return f"{prefix}:{absolute_path(path)}"
        if not self.bare or (colon and prefix in self.others):
            return text
        return str(absolute_path(text))


DATA = HoldsPath(
    ("folder", "folder-text", "atari", "paintings", "screens", "pairs", "episodes"),
    names=("screens", "episodes"),
)
DataName = Annotated[str, DATA]
"""A data set's name: digits, folder:PATH, …"""
OptimizerName = Annotated[str, HoldsPath(("learned",))]
"""An optimizer's name: adam, learned:RUN, …"""
FeaturesName = Annotated[str, HoldsPath(("model",))]
"""Features of pictures: auto, vgg19, model:PATH, …"""
StyleName = Annotated[str, HoldsPath(bare=True, others=("pattern",))]
"""A picture's path, or pattern:SEED."""
StylesName = Annotated[str, HoldsPath(("folder",))]
"""patterns, or folder:PATH."""
PathOrUrl = Annotated[str, HoldsPath(bare=True)]
"""A path on this machine, or a URL."""


def free_path(path: Path) -> Path:
    """Return `path`, or path-2, path-3, … before the suffix if there is such a file."""
    numbers = itertools.count(2)
    free = path
    while os.path.lexists(free):
        free = path.with_stem(f"{path.stem}-{next(numbers)}")
    return free


def absolute_path(path: str | Path) -> Path:
    """Return `path` as an absolute path with `~` expanded. Unlike `Path.resolve`, links stay
    links.
    """
    # `os.path.expanduser` keeps a name such as "~backup.png"; `Path.expanduser` raises an error.
    return Path(os.path.abspath(os.path.expanduser(path)))


def absolute_paths(config: T) -> T:
    """Copy the dataclass `config` and its nested dataclasses, with every path made absolute."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, config)):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            changed[field.name] = absolute_paths(value)
        elif isinstance(value, Path):
            changed[field.name] = absolute_path(value)
        elif isinstance(value, str) and (mark := _mark(hints[field.name])) is not None:
            changed[field.name] = mark.absolute(value)
    result: T = dataclasses.replace(typing.cast(Any, config), **changed)
    return result


def _mark(hint: Any) -> HoldsPath | None:
    """Find the mark in `Annotated[str, HoldsPath(…)]`, also within `… | None`."""
    for each in (hint, *typing.get_args(hint)):
        for mark in getattr(each, "__metadata__", ()):
            if isinstance(mark, HoldsPath):
                return mark
    return None
