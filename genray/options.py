"""Parses command-line options with tyro. Every error becomes one line, instead of tyro's box."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from genray.config import check_finite
from genray.errors import ConfigError
from genray.paths import absolute_paths
from genray.runs.storage import is_url

T = TypeVar("T")


def parse(cls: type[T], argv: Sequence[str], prog: str, default: T | None = None) -> T:
    """Build an instance of the dataclass `cls` from command-line options.

    Option names are flat (`--alpha`, not `--replay.alpha`). All paths in the result are absolute.
    `--help` prints the options and exits.

    Raises ConfigError with one line for an unknown option (the line suggests similar names), a
    missing option, an unreadable value, or a number that is not finite.
    """
    errors = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with (
            contextlib.redirect_stderr(errors),
            _wide_terminal("--help" not in argv and "-h" not in argv),
        ):
            flat: Any = tyro.conf.OmitArgPrefixes[cls]  # type: ignore[misc, valid-type]
            options: T = tyro.cli(flat, args=list(argv), prog=prog, **extra)
    except SystemExit as error:
        if not error.code:
            raise
        raise ConfigError(_one_line(errors.getvalue(), prog)) from None
    check_finite(options)
    return absolute_paths(options)


def _one_line(box: str, prog: str) -> str:
    """Extract the message and the suggested options from tyro's box."""
    raw = box.splitlines()
    # If the output encoding has no box characters, the title is the first line.
    if not box.lstrip().startswith("╭"):
        raw = raw[1:]
    lines = [re.sub(r"^\s*│|│\s*$", "", line).rstrip() for line in raw]
    lines = [line for line in lines if line.strip(" ─-") and not re.match(r"^\s*[╭╰]", line)]
    message = lines[0].strip().rstrip(":") if lines else "unreadable options"
    options = dict.fromkeys(
        match.group(1) for line in lines[1:] if (match := re.match(r"\s+(--[a-z][\w-]+)", line))
    )
    message = message.replace("Unrecognized options", "no such option").replace(
        "Error parsing ", ""
    )
    # An option that may also be None: name its other type only.
    message = re.sub(
        r"no type matching \{None\}\|(\w+) could be instantiated from \['(.*)'\]",
        r"could not convert '\2' to \1",
        message,
    )
    if message.startswith("Missing from") and options:
        message = f"missing {', '.join(options)}"
    if message.startswith("no such option") and options:
        message += f"; did you mean {', '.join(list(options)[:3])}?"
    return f"{message} (`{prog} --help` lists all options)"


@contextlib.contextmanager
def _wide_terminal(on: bool):
    """If `on`, prevent tyro from wrapping its messages at the terminal's width."""
    before = os.environ.get("COLUMNS")
    if on:
        os.environ["COLUMNS"] = "1000"
    try:
        yield
    finally:
        if on:
            os.environ.pop("COLUMNS")
            if before is not None:
                os.environ["COLUMNS"] = before


def option_value(argv: Sequence[str], name: str) -> str | None:
    """Return the value of the option `name` (with its hyphens) in `argv`; None if it is absent.

    Options that set the defaults of other options are read in this way, before `argv` is parsed.
    """
    for index, word in enumerate(argv):
        if word == name and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def given(argv: Sequence[str], name: str) -> bool:
    """Return whether the option `name` (such as "--seed"), or its `--no-` form, is in `argv`."""
    words = {word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")}
    return bool(words & {name, name.replace("--", "--no-", 1)})


def folder_argument(argv: list[str], prog: str, name: str, example: str) -> tuple[Path, list[str]]:
    """Split `argv` into (the run or model directory before the options, the other words).

    The help text calls the directory `name`. With --help and no directory, the returned path is the
    working directory. Raises ConfigError if the directory is missing (the message contains
    `example`), or if it is a URL.
    """
    if argv and not argv[0].startswith("-"):
        if is_url(argv[0]):
            raise ConfigError(
                f"{argv[0]}: a URL; copy its folder `model` to this machine and name the copy"
            )
        return Path(argv[0]), argv[1:]
    if "-h" in argv or "--help" in argv:
        print(f"{prog} {name} [options]   {name}: a run directory, or a model directory\n")
        return Path(), argv
    raise ConfigError(f"{prog}: name a {name.lower()} first, e.g. {prog} {example}")


def fail(error: Exception, status: int) -> int:
    """Print one line about `error`; returns the exit status."""
    print(f"error: {str(error).strip()}", file=sys.stderr)
    return status
