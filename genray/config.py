"""Converts configurations (frozen dataclasses) to plain dictionaries and YAML, and back, with
strict checks.

A YAML configuration is a record of a run and not a language. It is always written with all fields.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml

from genray.errors import CheckpointError, ConfigError
from genray.runs.files import writing_file

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """Convert nested dataclasses to nested dictionaries of JSON-serializable values (tuples become
    lists).
    """

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        return (
            [plain(item) for item in value] if isinstance(value, list | tuple) else _scalar(value)
        )

    return plain(dataclasses.asdict(config))


def from_dict(cls: type[T], values: dict[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from the result of `to_dict`; a missing field gets its default.

    Raises ConfigError for an unknown field or a value of the wrong type, with the field's full
    name.
    """
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            raise ConfigError(
                f"{where}{name}: no such option; there are {', '.join(sorted(fields))}"
            )
    return cls(
        **{name: _convert(hints[name], value, f"{where}{name}") for name, value in values.items()}
    )


def _scalar(value: Any) -> Any:
    """Convert a NumPy or PyTorch scalar to the equal Python value; return anything else
    unchanged.
    """
    if isinstance(value, bool | int | float | str) and type(value).__module__ == "builtins":
        return value
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return int(value) if isinstance(value, numbers.Integral) else value


def _convert(hint: Any, value: Any, where: str) -> Any:
    value = _scalar(value)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value, f"{where}.")
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(arg for arg in args if arg is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        inner = args[:1] * len(value) if args[1:] == (...,) else args
        if len(inner) == len(value):
            return tuple(_convert(arg, item, where) for arg, item in zip(inner, value, strict=True))
    if origin is typing.Literal and value in args:
        return args[args.index(value)]
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return _finite(float(value), where)
    if (
        isinstance(hint, type)
        and isinstance(value, hint)
        and (hint is not int or not isinstance(value, bool))
    ):
        return value
    choices = (
        f"one of {', '.join(map(repr, args))}"
        if origin is typing.Literal
        else f"a {getattr(hint, '__name__', hint)}"
    )
    raise ConfigError(f"{where}: {value!r} is not {choices}")


def refuse_changes(before: Any, now: Any, names: Sequence[str]) -> None:
    """Raise ConfigError if a resumed run changes an option that cannot change.

    The message names the option.

    Args:
        before: the configuration with which the run began.
        now: the configuration of the resumed run.
        names: what cannot change, as "part.field", or "part" for all fields of a part.
    """
    for name in names:
        old, new = before, now
        for each in name.split("."):
            old, new = getattr(old, each), getattr(new, each)
        if dataclasses.is_dataclass(old):
            refuse_changes(
                before, now, [f"{name}.{field.name}" for field in dataclasses.fields(old)]
            )
        elif old != new:
            field = name.rpartition(".")[2]
            raise ConfigError(
                f"{_as_option(field, new)}: this run began with {_as_option(field, old)}, and a "
                "resumed "
                f"run cannot change that; leave it out, or start a new run"
            )


def _as_option(field: str, value: Any) -> str:
    """Format a value as on the command line."""
    name = field.replace("_", "-")
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    if isinstance(value, tuple):
        return " ".join([f"--{name}", *map(str, value)])
    return f"--{name} {value}" if value != "" else f'--{name} ""'


def whole_number(text: str) -> int | None:
    """Parse a text of 1 to 18 digits (0 to 9) as a number; None for any other text.

    `str.isdigit` alone is not enough, because it accepts "²", which `int` refuses.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def _finite(value: float, where: str, example: Any = None) -> float:
    if not math.isfinite(value):
        such = f", e.g. {example:g}" if isinstance(example, float) else ""
        raise ConfigError(f"{where} {value}: must be a finite number{such}")
    return value


def check_finite(config: Any) -> None:
    """Raise ConfigError, with the option's name, for a field of `config` that is infinite or
    NaN.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            check_finite(value)
        for each in value if isinstance(value, list | tuple) else (value,):
            if isinstance(each, float):
                _finite(each, "--" + field.name.replace("_", "-"), field.default)


def save_yaml(config: Any, path: Path) -> None:
    """Write `config` to a YAML file, which is replaced atomically. Raises OSError."""
    with writing_file(path) as temporary:
        temporary.write_text(yaml.safe_dump(to_dict(config), sort_keys=False), encoding="utf-8")


def load_yaml(cls: type[T], path: Path) -> T:
    """Read a configuration of class `cls`.

    Raises CheckpointError if the file is missing, or does not contain such a configuration as YAML.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"{path.parent}: not a run directory (no {path.name})") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CheckpointError(
            f"{path}: not readable YAML ({str(error).splitlines()[0]})"
        ) from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: contains no configuration")
    try:
        return from_dict(cls, values)
    except ConfigError as error:  # the wrong option is in the file, not on the command line
        name = str(error).partition(":")[0]
        raise CheckpointError(
            f"{path}: its {name} does not fit {cls.__name__}; the run may be of another command or "
            "version: name a run of this command"
        ) from error
