"""Train an agent on an environment of your own: a dot must reach a target on a line.

    python examples/own_environment.py
    cd examples && genray train dqn --preset catch --env own_environment:Reach    # the same, on Ray

What you see: the share of games in which the dot reaches the target in time (the mean score), first
of random actions, then of the trained agent. genray/rl/env.py explains the interface.
"""

import argparse
from dataclasses import replace

import numpy as np

from genray.rl import LocalAgent
from genray.rl.env import EnvConfig, Step
from genray.rl.evaluate import evaluate, random_play
from genray.rl.presets import catch

CELLS, LIMIT = 12, 12  # cells of the line; steps of a game


class Reach:
    """Many games in lockstep (lanes). After the last step of a game, one step begins the next."""

    num_actions, frame_shape = 2, (84, 84)  # left and right

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng(seed)
        self._dot, self._target, self._age = np.zeros((3, self.num_lanes), int)
        return self.step(np.zeros(self.num_lanes, int), np.ones(self.num_lanes, bool)).frame_EHW

    def step(self, action_E: np.ndarray, begins: np.ndarray | None = None) -> Step:
        begins = self._over if begins is None else begins
        new_dot, new_target = self._rng.integers(CELLS, size=(2, self.num_lanes))
        self._dot = np.where(begins, new_dot, np.clip(self._dot + 2 * action_E - 1, 0, CELLS - 1))
        self._target = np.where(begins, new_target, self._target)
        self._age = np.where(begins, 0, self._age + 1)
        reached = ~begins & (self._dot == self._target)
        late = ~begins & ~reached & (self._age >= LIMIT)
        self._over, no = reached | late, np.zeros(self.num_lanes, bool)
        # The picture: the target's cell in the upper half, the dot's cell in the lower half.
        cells = np.stack([self._target, self._dot], 1)[:, :, None] == np.arange(CELLS)
        frame = (255 * cells.astype(np.uint8)).repeat(42, axis=1).repeat(7, axis=2)
        return Step(frame, reached.astype(np.float32), self._over, no, no)

    def close(self) -> None: ...


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12_000, help="agent steps of all lanes")
    agent = LocalAgent(config := replace(catch(), env=EnvConfig(env="own_environment:Reach")))
    agent.advance(parser.parse_args().steps, seconds=3_600.0)
    print("random actions:", random_play(config.env, episodes=64).summary())
    result = evaluate(agent.network(), config.env, episodes=64, epsilon=0.0)
    print("trained agent:", result.summary())
