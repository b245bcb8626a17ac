"""What all runs of `bench_environments` share: the tasks, the clock of CPU time, the evaluation."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np

Act = Callable[[np.ndarray], np.ndarray]
"""Observations of E lanes -> greedy actions, [E]."""


@dataclass(frozen=True)
class Task:
    """An environment, and how long training may take."""

    name: str
    """The preset."""
    cpu_s: float = math.inf
    """CPU seconds of training; inf: the preset's steps."""
    goal: float | None = None
    """The mean of 100 episodes that a seed should reach."""
    published: str = ""
    """A published score of a DQN, with its number of agent steps."""
    env_id: str = ""
    """Gymnasium's name, for the rivals; "": no rival plays it."""


TASKS = {
    "cartpole": Task("cartpole", 60.0, 495.0, "CleanRL 495.1 (500,000)", env_id="CartPole-v1"),
    "acrobot": Task("acrobot", 120.0, -96.0, "CleanRL −95.6 (500,000)", env_id="Acrobot-v1"),
    "lunar_lander": Task("lunar_lander", goal=200.0, published="RL Zoo 154.4 (100,000)"),
    "empty": Task("minigrid", goal=0.95),
    "doorkey": Task("doorkey", goal=0.95),
    "breakout": Task("minatar"),
}


@dataclass
class Run:
    """The clock and the scores of one run. The clock counts the CPU time of this process."""

    task: Task
    seed: int
    cpu_s: float
    """CPU seconds after which training ends."""
    episodes: int = 100
    moments: dict[str, dict[str, Any]] = field(default_factory=dict)
    _start_s: float | None = None
    _outside_s: float = 0.0

    def spent_s(self) -> float:
        """Return the CPU seconds of training since the first call, without those of `score`."""
        if self._start_s is None:
            self._start_s = time.process_time()
        return time.process_time() - self._start_s - self._outside_s

    def over(self) -> bool:
        """Whether the CPU time of training is used up; the first call starts the clock."""
        return self.spent_s() >= self.cpu_s

    def score(self, moment: str, steps: int, updates: int, play: Callable[[], list[float]]) -> None:
        """Note the totals so far and the scores of `play`, which does not count as training."""
        spent_s, before_s = self.spent_s(), time.process_time()
        scores = play()
        self._outside_s += time.process_time() - before_s
        self.moments[moment] = {
            "steps": steps,
            "updates": updates,
            "cpu_s": round(spent_s, 1),
            "score": statistics.fmean(scores),
            "lowest": min(scores),
        }

    def play(self, act: Act) -> list[float]:
        """Return the scores of a rival's greedy policy; seeds as for genray's evaluation."""
        return play_episodes(act, self.task.env_id, self.episodes, 10_000 + self.seed)


def play_episodes(act: Act, env_id: str, episodes: int, seed: int) -> list[float]:
    """Play one whole episode in each of `episodes` lanes; return their returns."""
    make = partial(gymnasium.make, env_id)
    envs = gymnasium.vector.SyncVectorEnv([make] * episodes)
    try:
        observations, _ = envs.reset(seed=seed)
        score_E, playing_E = np.zeros(episodes), np.ones(episodes, bool)
        while playing_E.any():
            observations, reward_E, terminated_E, truncated_E, _ = envs.step(act(observations))
            # A lane whose episode has ended plays further ones, whose rewards do not count.
            score_E += reward_E * playing_E
            playing_E &= ~(terminated_E | truncated_E)
        return score_E.tolist()
    finally:
        envs.close()
