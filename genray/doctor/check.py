"""Defines the result of a check, and constants that several checks share."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
REINSTALL = "make clean test   (or: pip install --force-reinstall {} -c constraints.txt)"


@dataclass(frozen=True, kw_only=True)
class Check:
    """The result of one check.

    With the status `fail`, the finding would stop a run; with `warn`, it would slow or limit a run.
    `repair` says how to repair the finding.
    """

    name: str
    status: Status
    detail: str
    repair: str = ""


def ok(name: str, detail: str) -> Check:
    """Return the result of a check that passed."""
    return Check(name=name, status="ok", detail=detail)


def warn(name: str, detail: str, repair: str) -> Check:
    """Return the result of a check whose finding would slow or limit a run."""
    return Check(name=name, status="warn", detail=detail, repair=repair)


def fail(name: str, detail: str, repair: str) -> Check:
    """Return the result of a check whose finding would stop a run."""
    return Check(name=name, status="fail", detail=detail, repair=repair)
