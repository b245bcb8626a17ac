"""Runs checks, and renders their results as a table."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from genray.errors import GenrayError
from genray.rl.agent import LocalAgent
from genray.rl.sanity.checks import Check, Measured


@dataclass(frozen=True)
class Result:
    """The result of one check."""

    check: Check
    measured: tuple[Measured, ...]
    """Empty if the training failed."""
    fault: str
    """Why the training failed; "" if it did not."""
    seconds: float

    @property
    def allowed(self) -> float:
        """The largest allowed difference between a learned and an expected value."""
        largest = max((abs(each.expected) for each in self.measured), default=1.0)
        return self.check.tolerance * max(1.0, largest)

    def is_right(self, measured: Measured) -> bool:
        """Return whether a learned value is close enough to the expected one; False for NaN."""
        return abs(measured.learned - measured.expected) <= self.allowed

    @property
    def passed(self) -> bool:
        return not self.fault and all(map(self.is_right, self.measured))


def run_check(check: Check, seed: int = 0, device: str = "cpu", threads: int = 1) -> Result:
    """Train on the environment of `check`; return the learned values beside the expected ones.

    `threads`: PyTorch threads; one is the fastest for so small a network.
    """
    start = time.monotonic()
    measured: tuple[Measured, ...] = ()
    fault = ""
    config = check.config(seed, device)
    agent = LocalAgent(config, threads)
    try:
        check.prepare(agent)
        while agent.steps < config.run.steps:
            agent.advance(config.run.steps, seconds=3600.0)
        measured = check.measured(agent)
    except GenrayError as error:
        fault = str(error)
    finally:
        agent.close()
    return Result(check, measured, fault, time.monotonic() - start)


HEADER = f"{'check':<18} {'value':<40} {'analytic':>9} {'learned':>9}  verdict"


def run_checks(
    checks: tuple[Check, ...], seed: int, device: str, say: Callable[[str], None]
) -> list[Result]:
    """Run `checks` one after the other, and say a table row for each value as soon as it is known.
    A line below a failed check says what may be wrong.
    """
    say(HEADER)
    results = []
    for check in checks:
        result = run_check(check, seed, device)
        results.append(result)
        for number, each in enumerate(result.measured):
            name = "" if number else check.name
            verdict = "ok" if result.is_right(each) else f"FAILED (± {result.allowed:.2f} allowed)"
            say(
                f"{name:<18} {each.label:<40} {each.expected:>9.3f} {each.learned:>9.3f}  {verdict}"
            )
        if result.fault:
            say(f"{check.name:<18} {'the training ended':<40} {'':>9} {'':>9}  FAILED")
            say(f"{'':<18} {result.fault}")
        if not result.passed:
            say(f"{'':<18} check {check.finds}")
    return results
