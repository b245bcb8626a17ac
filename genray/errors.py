"""Exceptions of genray. There are two kinds, because users react to them in two different ways.

    GenrayError
    ├── UsageError      the request was wrong: change it and try again          (exit status 2)
    │   ├── ConfigError     an option's value
    │   ├── CheckpointError a missing, damaged or unsuitable checkpoint, model or run
    │   ├── ResourceError   the machine lacks what was requested
    │   └── SealedError     access to the test split while choices are still made
    └── RunFault        a valid request failed during the run: resume it        (exit status 1)

Every message is one line. It says what is wrong, for example which option and which value. It also
names a valid choice or the next command.
"""

import errno

FULL = (errno.ENOSPC, errno.EDQUOT)


class GenrayError(Exception):
    """Base of all exceptions that genray raises intentionally."""

    exit_status = 1


class UsageError(GenrayError):
    """The request cannot be carried out."""

    exit_status = 2


class ConfigError(UsageError):
    """The value of an option is invalid, alone or together with another option."""


class CheckpointError(UsageError):
    """A checkpoint, model or run is missing, damaged or incomplete, or does not fit the request."""


class ResourceError(UsageError):
    """The machine or cluster lacks what the request needs (a GPU, disk space, permission, CPUs)."""


class SealedError(UsageError):
    """The test split of sealed data was requested. Choices may only use the validation split."""


class RunFault(GenrayError):
    """A run failed. If there is a checkpoint, the message names it and the command that resumes the
    run.
    """


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message.

    If this line is only PyTorch's heading, returns the second line. If there is no message, returns
    the name of the error's class.
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
    """Return the error to raise if writing to `place`, the value of --out, raised an OSError.

    The message contains the cause and a remedy. Only a full disk is reported as full. If the
    error's path differs from `place`, the message names both paths.
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
