"""Reads and changes settings of a configuration by dotted path, e.g. `optimizer.learning_rate`,
`model.widths`.

A path follows the nested frozen dataclasses of the trainers. A value has the type of its field, or
is text as on a command line (`256 128` for a tuple of numbers).
"""

import ast
import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from genray.config import from_dict, to_dict
from genray.errors import ConfigError

T = TypeVar("T")


def setting_paths(cls: type, prefix: str = "") -> dict[str, Any]:
    """Map every dotted path of a configuration class to the type of its value, in the order of the
    fields.
    """
    hints = typing.get_type_hints(cls)
    paths: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            paths |= setting_paths(typing.cast(type, hint), f"{prefix}{field.name}.")
        else:
            paths[prefix + field.name] = hint
    return paths


def check_path(cls: type, path: str) -> Any:
    """Return the type of the setting at `path`. Raises ConfigError with the nearest names for an
    unknown path.
    """
    paths = setting_paths(cls)
    if path in paths:
        return paths[path]
    # Suggest paths with the same last word, because users often remember only this word.
    word = path.rpartition(".")[2]
    near = [known for known in paths if known.rpartition(".")[2] == word]
    near += difflib.get_close_matches(path, paths, n=3, cutoff=0.5)
    lasts = {known.rpartition(".")[2]: known for known in paths}
    near += [lasts[each] for each in difflib.get_close_matches(word, lasts, n=2, cutoff=0.7)]
    hint = (
        f"did you mean {', '.join(dict.fromkeys(near))}?"
        if near
        else f"the settings are {', '.join(paths)}"
    )
    raise ConfigError(f"{path}: no such setting of {cls.__name__}; {hint}")


def changed(config: T, settings: Mapping[str, Any]) -> T:
    """Return `config` with some settings changed. The result is not validated as a whole.

    Raises ConfigError for an unknown path or a value of the wrong type.
    """
    values = to_dict(config)
    for path, value in settings.items():
        hint = check_path(type(config), path)
        *parents, name = path.split(".")
        part = values
        for parent in parents:
            part = part[parent]
        part[name] = from_text(value, hint) if isinstance(value, str) else value
    return from_dict(type(config), values)


def setting(config: Any, path: str) -> Any:
    """Return the value at `path`. Raises ConfigError for an unknown path."""
    check_path(type(config), path)
    for name in path.split("."):
        config = getattr(config, name)
    return config


def from_text(text: str, hint: Any) -> Any:
    """Parse `text` for a field of type `hint`. Invalid text is returned unchanged, and the later
    type check reports it.
    """
    if hint is str or (typing.get_origin(hint) is typing.Literal and text in typing.get_args(hint)):
        return text
    if typing.get_origin(hint) is tuple:
        inner = typing.get_args(hint)[0]
        return [from_text(word, inner) for word in text.replace(",", " ").strip("()[] ").split()]
    if hint is bool:
        return {
            "true": True,
            "yes": True,
            "on": True,
            "false": False,
            "no": False,
            "off": False,
        }.get(text.lower(), text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, int | float | bool) or value is None else text


def parse_settings(words: typing.Iterable[str]) -> dict[str, str]:
    """Parse `path=value` words into a dictionary. Raises ConfigError for a word without `=`."""
    settings = {}
    for word in words:
        path, equals, value = word.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {word}: write PATH=VALUE, e.g. optimizer.learning_rate=1e-3")
        settings[path.strip()] = value.strip()
    return settings


def format_settings(settings: Mapping[str, Any]) -> str:
    """Format settings for a message or a model card: "model.latent = 8, beta = 0.5"."""
    return ", ".join(
        f"{path} = {value:.3g}" if isinstance(value, float) else f"{path} = {value}"
        for path, value in settings.items()
    )
