"""Learning-rate schedules, as factors that multiply the learning rate at each update.

Each schedule is a pure function of the update's number, so that a resumed run needs only this
number.
"""

import math
from typing import Literal, get_args

Schedule = Literal[
    "constant", "inverse-sqrt", "cosine", "linear", "step", "exponential", "one-cycle"
]
SCHEDULES: tuple[str, ...] = get_args(Schedule)

STEPS = 3
"""Number of levels of the step schedule: the learning rate drops after one third and after two
thirds of the updates.
"""


def factor(schedule: str, update: int, total: int, *, rate: float = 0.1, warmup: int = 0) -> float:
    """Return the factor that multiplies the learning rate η at the update t = `update`.

    The updates are t = 0, 1, …, `total` − 1. For later updates, the factor of inverse-sqrt
    continues to fall, and the factor of every other schedule stays constant.

    - constant: 1
    - inverse-sqrt: 1/√(t+1), the rate of online convex optimisation
      [Zinkevich 2003, https://www.aaai.org/Papers/ICML/2003/ICML03-120.pdf]
    - cosine: from 1 to 0 along half a cosine [Loshchilov 2017, https://arxiv.org/abs/1608.03983,
      without restarts]
    - linear: from 1 to 0
    - step: multiplied by `rate` after one third and after two thirds of the updates
    - exponential: from 1 to `rate`, by the same factor at each update
    - one-cycle: along cosines, from 1/25 up to 1 at 30% of the updates, then down to 4e-6
      [Smith 2018, https://arxiv.org/abs/1708.07120; departure: momentum stays constant]

    For the first `warmup` updates, the factor of every schedule is multiplied by (t+1)/warmup.
    Raises ValueError for an unknown schedule.
    """
    begin = min(1.0, (update + 1) / warmup) if warmup else 1.0
    if schedule == "constant":
        return begin
    if schedule == "inverse-sqrt":
        return begin / math.sqrt(update + 1)
    done = min(update, total) / max(1, total)
    match schedule:
        case "cosine":
            return begin * (1 + math.cos(math.pi * done)) / 2
        case "linear":
            return begin * (1 - done)
        case "step":
            # The exponent is computed with integers, because in floating point ⌊3·(1/3)⌋ depends on
            # rounding.
            return begin * rate ** min(STEPS - 1, STEPS * min(update, total) // max(1, total))
        case "exponential":
            return begin * rate**done
        case "one-cycle":
            rises = 0.3
            if done < rises:
                return begin * _along_cosine(1 / 25, 1.0, done / rises)
            return begin * _along_cosine(1.0, 1 / 25e4, (done - rises) / (1 - rises))
    raise ValueError(f"no schedule {schedule!r}; there are {', '.join(SCHEDULES)}")


def needs_total(schedule: str) -> bool:
    """Return whether the schedule depends on the total number of updates."""
    return schedule not in ("constant", "inverse-sqrt")


def _along_cosine(start: float, end: float, done: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * done)) / 2
