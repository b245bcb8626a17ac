"""Compiles functions to machine code with Numba."""

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` compiled to machine code, which is cached on disk and which lets other
    Python threads run.

    Numba chooses the directory of the cache: `__pycache__` beside the function's file if it can be
    written, else the user's cache directory.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither directory can be written: compile in each process
        return numba.njit(nogil=True)(function)
