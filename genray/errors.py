"""The error tree: two kinds, because a person does two different things about them.

    GenrayError
    ├── UsageError      the request was wrong: change it and try again          (exit status 2)
    │   ├── ConfigError     an option's value
    │   ├── CheckpointError a damaged or foreign checkpoint or model on disk
    │   ├── ResourceError   the machine lacks what was asked for
    │   └── SealedError     the test split, asked for while choices are still made
    └── RunFault        a sound request failed on the way: resume it            (exit status 1)

Every message is one line that names the option, the value, and a valid choice or the next command.
"""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)


class GenrayError(Exception):
    """Base of every error that genray raises on purpose."""

    exit_status = 1


class UsageError(GenrayError):
    """The request cannot be carried out as it was made; nothing was written."""

    exit_status = 2


class ConfigError(UsageError):
    """An option has a value that makes no sense, alone or beside another."""


class CheckpointError(UsageError):
    """What lies on disk is damaged, incomplete, or not genray's."""


class ResourceError(UsageError):
    """The machine or cluster lacks what the request needs (a GPU, disk space, CPUs)."""


class SealedError(UsageError):
    """Something asked for the test split of sealed data: choices are made on the validation
    split alone.
    """


class RunFault(GenrayError):
    """A run failed on the way; the message names the last checkpoint and how to resume it."""


def first_line(error: BaseException) -> str:
    """What an error says, in one line: its first, or the next one where PyTorch's first is a
    mere heading.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        return lines[1]
    return lines[0] if lines else type(error).__name__


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError(message)` unless `condition` holds."""
    if not condition:
        raise ConfigError(message)


def disk_error(place: object, error: OSError) -> ResourceError:
    """The error to raise for an OSError while `place`, an --out, was written: its cause and a
    remedy.

    Only a full disk is called one. The path of the error comes first where it is another one.
    """
    reason = error.strerror or str(error) or type(error).__name__
    named = f"{error.filename}: " if error.filename and str(error.filename) != str(place) else ""
    if error.errno in FULL:
        advice = "free some space, or choose another --out"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "choose an --out that can be written"
    else:
        advice = "choose another --out if the cause is this disk"
    return ResourceError(f"{place}: {named}{reason}; {advice}")
