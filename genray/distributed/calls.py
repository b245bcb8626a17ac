"""Reads the results of calls to Ray actors and turns Ray's failures into genray's errors."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.errors import GenrayError, RunFault

MAX_FAILURES = 30  # failures in a row, without any result between them, that end the run
RETRY_S = 1.0  # seconds before an actor that died is called again


def get(reference: ray.ObjectRef) -> Any:
    """Return the result of a call without which the run cannot continue.

    If the call raised a GenrayError or an OSError inside the actor, raises this error. Raises
    RunFault for another exception in the actor, and if the actor died.
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
    """Return the last line of Ray's message, which names the original exception if there is one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
