"""The work that every system in `bench_end_to_end` does, in one place, and the clock that
measures it.

Eight lanes of one game on ALE's vector environment, DQN's preprocessing (grey 84x84, 4 frames
skipped, stack of 4, up to 30 no-ops, no sticky actions), rewards clipped to ±1, one update on 32
transitions for every 8 agent steps, Nature's network.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

from ale_py.vector_env import AtariVectorEnv

from tests.bench.common import tree_cpu_s

GAME = "road_runner"  # episodes end often, so every system also pays for its resets
NUM_ENVS = 8
BATCH_SIZE = 32
STEPS_PER_UPDATE = 8  # one update for each step of all lanes
NATURE_CHANNELS = (32, 64, 64)
NATURE_HIDDEN = 512
CAPACITY = 50_000
LEARNING_STARTS = 800  # agent steps; enough for a batch, soon reached even at 40 steps/s
WARM_UP_S = 5.0  # of learning, before the clock starts
EPSILON = 0.05
GAMMA = 0.99
LEARNING_RATE = 1e-4
TARGET_PERIOD_UPDATES = 2_500


def make_atari(game: str = GAME, num_envs: int = NUM_ENVS, **choices: Any) -> AtariVectorEnv:
    """ALE's vector environment as every system here gets it; its C++ threads are its own choice
    (one a core).
    """
    return AtariVectorEnv(game, num_envs, reward_clipping=True, **choices)


def parse_arguments(
    description: str, add: Callable[[argparse.ArgumentParser], Any] | None = None
) -> argparse.Namespace:
    """The command line that all systems share; also tells PyTorch its threads."""
    import torch

    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=1, help="PyTorch's threads")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the measured window")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--game", default=GAME)
    if add:
        add(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


class Stopwatch:
    """Agent steps a second between the end of the warm-up and the end of the window."""

    def __init__(self, seconds: float):
        self._seconds = seconds
        self._learning_since: float | None = None
        self._start: tuple[float, float, int, int] | None = None

    def tick(self, steps: int, updates: int) -> dict[str, float] | None:
        """Tell totals so far, often; the result when the window is over.

        The clock starts WARM_UP_S after the first update.
        """
        now = time.monotonic()
        if updates and self._learning_since is None:
            self._learning_since = now
        if self._learning_since is None or now < self._learning_since + WARM_UP_S:
            return None
        if self._start is None:
            self._start = (now, tree_cpu_s(), steps, updates)
            return None
        wall_s, steps, updates = (
            now - self._start[0],
            steps - self._start[2],
            updates - self._start[3],
        )
        if wall_s < self._seconds:
            return None
        return {
            "steps_per_s": steps / wall_s,
            "cpu_s": tree_cpu_s() - self._start[1],
            "wall_s": wall_s,
            "steps": steps,
            "steps_per_update": steps / max(updates, 1),
            "load": os.getloadavg()[0],
        }
