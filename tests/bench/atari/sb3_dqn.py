"""Stable-Baselines3's DQN with the settings of `bench_learning`, which suit runs of minutes.

8 lanes of ALE's vector environment, n-step returns of 5, a narrow network (16, 32, 32 and 256), one
update on 32 transitions for every 4 agent steps, ε from 1 to .02 over 15,000 steps.
"""

import copy

import numpy as np
import torch
from stable_baselines3.common.callbacks import BaseCallback

from tests.bench.atari.protocol import Player, Trial, player_of
from tests.bench.rivals.sb3 import ENDLESS, quick_dqn

CAPACITY = 100_000


class Watch(BaseCallback):
    """Tells the trial of every step, and ends training when the trial says so."""

    def __init__(self, trial: Trial):
        super().__init__()
        self._trial = trial

    def _on_training_start(self) -> None:
        self._on_step()

    def _on_step(self) -> bool:
        return self._trial.tick(self.num_timesteps, self.model._n_updates, self._copy_policy)

    def _copy_policy(self) -> Player:
        network = copy.deepcopy(self.model.q_net).eval()

        def q_values(stack_ESHW: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return network(torch.from_numpy(stack_ESHW)).numpy()

        return player_of(q_values)


def train(trial: Trial) -> None:
    """Train on the trial's game until the trial's time is over."""
    model = quick_dqn(trial.game, trial.seed, CAPACITY, adam_epsilon=1e-8)
    model.learn(ENDLESS, callback=Watch(trial), log_interval=None)  # type: ignore[arg-type]
