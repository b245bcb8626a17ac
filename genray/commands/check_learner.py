"""`genray check-learner`: compares learned values with known ones on tiny environments."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import check_bounds, seed
from genray.errors import require
from genray.options import parse


@dataclass(frozen=True, kw_only=True)
class CheckLearnerConfig:
    """Train on tiny environments whose values are known, and compare. Each environment exposes one
    kind of bug, such as a missing discount or a bootstrap after a termination. Takes about 30
    seconds.
    """

    only: tuple[str, ...] = ()
    """Names of checks; default: all."""
    seed: int = seed(0)
    device: Literal["auto", "cpu", "cuda"] = "cpu"
    """Device of the learner."""


def check_learner(argv: list[str], prog: str) -> int:
    """Run `genray check-learner`; returns the exit status, 1 if a check fails."""
    options = parse(CheckLearnerConfig, argv, prog)
    check_bounds(options)
    from genray.machine import resolve_device
    from genray.rl.sanity.checks import CHECKS
    from genray.rl.sanity.run import run_checks

    names = [check.name for check in CHECKS]
    for name in options.only:
        require(name in names, f"--only {name}: no such check; there are {', '.join(names)}")
    chosen = tuple(check for check in CHECKS if not options.only or check.name in options.only)
    device = resolve_device(options.device)
    results = run_checks(chosen, options.seed, device, lambda line: print(line, flush=True))
    failed = [result.check.name for result in results if not result.passed]
    seconds = sum(result.seconds for result in results)
    if failed:
        print(f"{len(failed)} of {len(results)} checks failed: {', '.join(failed)}")
        return 1
    print(f"all {len(results)} checks passed in {seconds:.0f} s")
    return 0
