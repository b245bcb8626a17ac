"""Plays Catch at a limited speed, so that two cores that simulate six hosts can answer health
checks.
"""

import time

import numpy as np

from genray.rl.catch import Catch
from genray.rl.env import Step

# 4 lanes, 2 collectors: at most 200 agent steps/s, and at 8 samples per insert 50 updates/s of 32
STEP_S = 0.04


class SlowCatch(Catch):
    def step(self, action_E: np.ndarray) -> Step:
        time.sleep(STEP_S)
        return super().step(action_E)
