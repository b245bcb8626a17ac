"""Answers of actors, and what it means when none comes."""

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from genray.errors import GenrayError, RunFault

MAX_FAILURES = 30  # in a row, without one portion of work between them: it will not come back
RETRY_S = 1.0  # pause before an actor that died is given work again


def get(reference: ray.ObjectRef) -> Any:
    """`ray.get` for what the run cannot do without.

    An error that genray or the disk raised inside the actor comes out as itself; anything else
    as a RunFault.
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
    """The last line of what Ray tells about a failure: the exception itself, when there was one."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
