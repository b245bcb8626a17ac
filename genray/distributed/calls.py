"""Reads the results of calls to Ray actors and turns Ray's failures into genray's errors."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.errors import GenrayError, RunFault

MAX_FAILURES = 30  # failures in a row, without any result between them, that end the run
RETRY_S = 1.0  # pause before an actor that died is called again


def get(reference: ray.ObjectRef) -> Any:
    """Return the result of a call that the run needs.

    Raises the original error if genray or the disk raised it inside the actor (GenrayError,
    OSError), otherwise RunFault.
    """
    try:
        return ray.get(reference)
    except RayTaskError as error:
        if isinstance(error.cause, GenrayError | OSError):
            raise error.cause from None
        raise RunFault(f"an actor failed: {cause(error)}") from error
    except RayError as error:
        raise RunFault(f"an actor died: {cause(error)}") from error


def cause(error: Exception) -> str:
    """Return the last line of Ray's message, which has the original exception if there was one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
