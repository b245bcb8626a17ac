"""Train an agent on an environment with an action mask: fill a bag with the most valuable things.

    python examples/masked_environment.py
    cd examples && genray train dqn --preset cartpole --env masked_environment:Bag    # on Ray

What you see: the mean value of the bag, of random legal actions and of the trained agent.
"""

import argparse
from dataclasses import replace

import gymnasium
import numpy as np
from gymnasium import spaces

from genray.rl import LocalAgent
from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate, random_play
from genray.rl.presets import cartpole

THINGS = 6


class Bag(gymnasium.Env):
    """An action puts a thing into the bag, if it is not there yet and not too heavy: weight 1."""

    observation_space = spaces.Box(0, 1, (2 * THINGS + 1,), np.float32)
    action_space = spaces.Discrete(THINGS)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.weight, self.value = self.np_random.uniform(0.1, 0.6, (2, THINGS))
        self._left, self._here = 1.0, np.ones(THINGS, bool)
        return self._observe(), self._info()

    def step(self, action):
        assert self.legal()[action], "the agent never takes an illegal action"
        self._left -= self.weight[action]
        self._here[action] = False
        return self._observe(), self.value[action], not self.legal().any(), False, self._info()

    def legal(self) -> np.ndarray:
        return self._here & (self.weight <= self._left)

    def _info(self) -> dict:
        return {"action_mask": self.legal()}  # nothing is legal after the last step, which is fine

    def _observe(self) -> np.ndarray:
        here = self._here * np.stack([self.weight, self.value])
        return np.append(here.ravel(), self._left).astype(np.float32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=20_000, help="agent steps of all lanes")
    agent = LocalAgent(config := replace(cartpole(), env=EnvConfig(env="masked_environment:Bag")))
    agent.advance(parser.parse_args().steps, seconds=3_600.0)
    print(f"random legal actions: {random_play(config.env, episodes=500).mean:.2f}")
    trained = evaluate(agent.network(), config.env, episodes=500, epsilon=0.0)
    print(f"trained agent: {trained.mean:.2f}")
