"""What a check finds, and the words that several checks share."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warn", "fail"]

GIB = 2**30
REINSTALL = "make clean test   (or: pip install --force-reinstall {} -c constraints.txt)"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding: `fail` would stop a run, `warn` would slow or limit one; `mend` says what to
    do.
    """

    name: str
    status: Status
    detail: str
    mend: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name=name, status="ok", detail=detail)


def warn(name: str, detail: str, mend: str) -> Check:
    return Check(name=name, status="warn", detail=detail, mend=mend)


def fail(name: str, detail: str, mend: str) -> Check:
    return Check(name=name, status="fail", detail=detail, mend=mend)
