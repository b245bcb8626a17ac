"""The variants that `bench_claims` compares, and the games that they play."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from genray.rl import presets
from genray.rl.catch import BOARD, CELL, Catch
from genray.rl.config import DQNConfig

VARIANTS: dict[str, tuple[bool, bool, bool]] = {
    "vanilla": (False, False, False),
    "double": (True, False, False),
    "prioritized": (False, True, False),
    "dueling": (False, False, True),
    "all": (True, True, True),
}
"""Name: whether the variant is double, prioritized, dueling. Nothing else differs."""


EPISODE_STEPS = 5


@dataclass(frozen=True)
class Task:
    """A game, the configuration that all variants share, and how a run is measured."""

    make: Callable[[], DQNConfig]
    steps: int
    """Agent steps of a run."""
    every: int
    """Agent steps between two measurements."""
    target: float
    """Score to reach: the claim "fewer updates" is about the first measurement at this score."""
    lanes: int
    """Lanes of a measurement."""
    roll_steps: int
    """Steps of each lane in a measurement."""
    epsilon: float = 0.001


def _game(game: str) -> DQNConfig:
    config = presets.preset("road_runner", game)
    return replace(
        config,
        collect=replace(config.collect, n_step=3),
        learner=replace(config.learner, average_updates=0),
    )


class ShortCatch(Catch):
    """Catch that costs little: frames of 36x36 pixels, the least that the convolutions accept, with
    cells of 3x3 pixels instead of 7x7, and episodes of EPISODE_STEPS steps. The ball begins in the
    middle row, and the paddle at most as many columns away as it can go, so every ball can be
    caught.
    """

    frame_shape = (3 * BOARD, 3 * BOARD)

    def _begin(self, lanes_E: np.ndarray) -> None:
        super()._begin(lanes_E)
        distance_E = self._rng.integers(-EPISODE_STEPS, EPISODE_STEPS + 1, size=self.num_lanes)
        paddle_E = np.clip(self._column_E + distance_E, 0, BOARD - 1)
        self._row_E = np.where(lanes_E, BOARD - 1 - EPISODE_STEPS, self._row_E)
        self._paddle_E = np.where(lanes_E, paddle_E, self._paddle_E)

    def _draw(self) -> np.ndarray:
        return np.ascontiguousarray(super()._draw()[:, ::CELL, ::CELL]).repeat(3, 1).repeat(3, 2)


def _catch() -> DQNConfig:
    config = presets.catch()
    return replace(
        config,
        env=replace(config.env, env="tests.bench.claims.variants:ShortCatch"),
        network=replace(config.network, channels=(16, 32, 64)),
        # One-step returns carry a reward back by one step per copy to w⁻.
        learner=replace(config.learner, learning_rate=1e-3, target_period_updates=50),
        replay=replace(config.replay, beta_anneal_updates=1_400),
        explore=replace(config.explore, anneal_steps=2_000),
        collect=replace(config.collect, n_step=1),
    )


TASKS = {
    # Play is greedy, and each lane plays one episode. 6,000 steps make about 1,130 updates.
    "catch": Task(_catch, 6_000, 250, target=0.9, lanes=128, roll_steps=EPISODE_STEPS, epsilon=0.0),
    "road_runner": Task(
        lambda: _game("road_runner"), 40_000, 2_000, target=1_500, lanes=8, roll_steps=1_200
    ),
    "up_n_down": Task(
        lambda: _game("up_n_down"), 40_000, 2_000, target=1_500, lanes=8, roll_steps=1_200
    ),
}


def configure(task: str, variant: str, seed: int) -> DQNConfig:
    """Return the configuration of a run."""
    config = TASKS[task].make()
    double, prioritized, dueling = VARIANTS[variant]
    return replace(
        config,
        network=replace(config.network, dueling=dueling),
        learner=replace(config.learner, double=double),
        replay=replace(config.replay, prioritized=prioritized),
        run=replace(config.run, seed=seed, device="cpu"),
    )
