"""Runs `genray` without replacing dead learners, as the negative control that fault tests must
notice.
"""

import sys

from genray.cli import main
from genray.errors import RunFault


def give_up(self: object, error: Exception) -> None:
    raise RunFault(f"the learner died ({error}), and recovery is switched off")


if __name__ == "__main__":
    from genray.distributed.learner_group import LearnerGroup

    LearnerGroup.restart = give_up  # type: ignore[method-assign]
    sys.exit(main())
