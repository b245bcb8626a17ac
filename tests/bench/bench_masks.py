"""Counts illegal actions in a million steps of an environment with action masks. `python -m
tests.bench.bench_masks [--quick]`

In each step, every action is illegal with probability .7, and illegal actions look best: their
reward would be 1, that of a legal one is 0. Actions are random (a ladder of ε), held for several
steps, or greedy, and the network learns meanwhile. The environment counts actions that its mask
forbids.
"""

import argparse
import time

import numpy as np
import torch

from genray.rl.agent import LocalAgent
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.env import EnvConfig
from genray.rl.env_protocol import Step
from genray.rl.env_spaces import mask_field
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.observation import Field, Observation
from genray.rl.replay import ReplayConfig
from tests.bench.common import describe_machine, last_json_line, print_table

ACTIONS, LANES, EPISODE = 6, 100, 50
OBSERVATION = Observation(
    fields=(Field(name="x", kind="vector", shape=(2,), dtype="float32"), mask_field(ACTIONS))
)


class Masks:
    """Draws an observation and a mask for each step. Implements `FrameVectorEnv`."""

    num_actions, observation, frame_shape = ACTIONS, OBSERVATION, OBSERVATION.frame_shape

    def __init__(self, num_lanes: int):
        self.num_lanes, self.steps, self.illegal = num_lanes, 0, 0

    def reset(self, seed: int) -> np.ndarray:
        """Begin new episodes."""
        self._rng = np.random.default_rng(seed)
        self._age_E = self._rng.integers(EPISODE, size=self.num_lanes)
        self._over_E = np.zeros(self.num_lanes, bool)
        return self._draw()

    def step(self, action_E: np.ndarray) -> Step:
        """Count the illegal actions. The action after an episode's end is ignored."""
        legal_E = self._mask_EA[np.arange(self.num_lanes), action_E]
        self.steps += int((~self._over_E).sum())
        self.illegal += int((~legal_E & ~self._over_E).sum())
        self._age_E = np.where(self._over_E, 0, self._age_E + 1)
        self._over_E = self._age_E >= EPISODE
        never_E = np.zeros(self.num_lanes, bool)
        reward_E = (~legal_E).astype(np.float32)
        return Step(self._draw(), reward_E, self._over_E.copy(), never_E, never_E)

    def close(self) -> None:
        """Do nothing."""

    def _draw(self) -> np.ndarray:
        self._mask_EA = self._rng.random((self.num_lanes, ACTIONS)) < 0.3
        chosen_E = self._rng.integers(ACTIONS, size=self.num_lanes)
        self._mask_EA[np.arange(self.num_lanes), chosen_E] = True
        x_E2 = self._rng.normal(size=(self.num_lanes, 2)).astype(np.float32)
        return OBSERVATION.pack({"x": x_E2, "action_mask": self._mask_EA})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_030_000)
    parser.add_argument("--quick", action="store_true", help="20,000 steps")
    arguments = parser.parse_args()
    steps = 20_000 if arguments.quick else arguments.steps
    torch.set_num_threads(1)
    config = DQNConfig(
        env=EnvConfig(env="tests.bench.bench_masks:Masks"),
        network=NetworkConfig(hidden=32),
        replay=ReplayConfig(capacity=20_000, min_size=1_000, samples_per_insert=0.2),
        learner=LearnerConfig(batch_size=64),
        explore=ExploreConfig(persistence=2.0),
        collect=CollectConfig(collectors=1, envs_per_collector=LANES, chunk_rows=20),
        run=RunConfig(device="cpu", steps=steps),
    )
    agent, start = LocalAgent(config), time.process_time()
    agent.advance(steps, seconds=36_000.0)
    env = agent.collectors[0].env
    found = {"steps": env.steps, "illegal": env.illegal, "updates": agent.learner.updates}  # type: ignore[attr-defined]
    found["cpu_s"] = round(time.process_time() - start)
    agent.close()
    title = f"Illegal actions; {describe_machine()}"
    print_table(title, tuple(found), [tuple(f"{value:,}" for value in found.values())])
    last_json_line({"bench": "masks", **found})


if __name__ == "__main__":
    main()
