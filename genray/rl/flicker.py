"""Flickering Atari: an environment whose frames are blank at random.

A stack of four frames then often lacks the newest ones, so an agent that remembers has an
advantage. [Hausknecht 2015, https://arxiv.org/abs/1507.06527]

Shapes: E lanes, H height, W width.
"""

import numpy as np

from genray.rl.env_protocol import FrameVectorEnv, Step


class Flicker:
    """Replaces each frame of `env` by a blank one with a fixed probability, lane by lane.

    The same seed of `reset` gives the same blank frames. Nothing else of a step changes.

    Args:
        env: the environment; it is closed with this one.
        probability: of a blank frame, 0 to 1.
    """

    def __init__(self, env: FrameVectorEnv, probability: float):
        self._env, self._probability = env, probability
        self.num_lanes, self.num_actions = env.num_lanes, env.num_actions
        self.frame_shape = env.frame_shape
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng((seed, 0xF11C))  # not the environment's own numbers
        return self._blank(self._env.reset(seed))

    def step(self, action_E: np.ndarray) -> Step:
        step = self._env.step(action_E)
        return step._replace(frame_EHW=self._blank(step.frame_EHW))

    def close(self) -> None:
        self._env.close()

    def _blank(self, frame_EHW: np.ndarray) -> np.ndarray:
        frame_EHW[self._rng.random(self.num_lanes) < self._probability] = 0
        return frame_EHW
