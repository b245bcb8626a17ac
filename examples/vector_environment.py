"""Train an agent on a Gymnasium environment of your own whose observations are vectors: a boat must
stop at a pier.

    python examples/vector_environment.py
    cd examples && genray train dqn --preset cartpole --env vector_environment:Pier    # on Ray

What you see: the mean score, −1 for each step far from the pier, first of random actions, then of
the trained agent, and its choice for one observation.
"""

import argparse
from dataclasses import replace

import gymnasium
import numpy as np
import torch
from gymnasium import spaces

from genray.rl import LocalAgent
from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate, random_play
from genray.rl.presets import cartpole


class Pier(gymnasium.Env):
    """An action accelerates the boat left, not at all, or right."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)  # distance, speed
    action_space = spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._distance, self._speed, self._age = self.np_random.uniform(-2, 2), 0.0, 0
        return self._observe(), {}

    def step(self, action):
        self._speed += 0.05 * (action - 1)
        self._distance += self._speed
        self._age += 1
        stopped = abs(self._distance) < 0.15 and abs(self._speed) < 0.08
        return self._observe(), -min(abs(self._distance), 1.0), stopped, self._age >= 60, {}

    def _observe(self) -> np.ndarray:
        return np.array([self._distance, self._speed], np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=12_000, help="agent steps of all lanes")
    agent = LocalAgent(config := replace(cartpole(), env=EnvConfig(env="vector_environment:Pier")))
    agent.advance(parser.parse_args().steps, seconds=3_600.0)
    print("random actions:", random_play(config.env, episodes=64).summary())
    network = agent.network()
    print("trained agent:", evaluate(network, config.env, episodes=64, epsilon=0.0).summary())
    # The network reads packed observations, [batch, 1, 1, bytes]: here, of one boat.
    record = network.observation.pack({"": np.array([[-1.0, 0.0]])})[:, None]
    action = int(network(torch.from_numpy(record)).argmax())
    print("1 left of the pier, at rest:", ["accelerate left", "wait", "accelerate right"][action])
