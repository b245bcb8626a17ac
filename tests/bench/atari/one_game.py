"""One Atari game as a Gymnasium environment, for the rivals that play a single environment.

It is ALE's vector environment with one lane, as all systems of the table play it: grey frames of
84x84 pixels, a stack of 4, 4 frames per step with the maximum of the last two, up to 30 no-ops at
the start, rewards clipped to ±1, no sticky actions. Since this environment skips frames itself, no
wrapper may skip any more (a wrapper that does belongs on an id such as `PongNoFrameskip-v4`).
"""

from typing import Any, cast

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from tests.bench.rivals import workload


class OneGame(gymnasium.Env[np.ndarray, int]):
    """A lost life ends the return, as in Mnih 2015: it terminates, and `reset` goes on with the
    same game.

    Args:
        game: an Atari game in snake case.
        seed: seed of the first reset; later games follow from it.
    """

    def __init__(self, game: str, seed: int):
        self._env = workload.make_atari(game, 1, autoreset_mode=AutoresetMode.SAME_STEP)
        self.observation_space = Box(0, 255, (4, 84, 84), np.uint8)
        self.action_space = Discrete(int(cast(Discrete, self._env.single_action_space).n))
        self._seed: int | None = seed
        self._lives = 0
        self._next = np.zeros((4, 84, 84), np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return the first observation of the next game, or the current one of a game that goes on
        after a lost life. `seed` is ignored after the first reset.
        """
        if self._seed is not None:
            obs, info = self._env.reset(seed=self._seed)
            self._seed, self._lives, self._next = None, int(info["lives"][0]), obs[0].copy()
        return self._next, {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self._env.step(np.array([action], np.int64))
        # SAME_STEP: at the end of a game, `obs` is already the next game's first observation.
        self._next = obs[0].copy()
        over = bool(terminated[0] or truncated[0])
        life_lost = int(info["lives"][0]) < self._lives and not over
        self._lives = int(info["lives"][0])
        last = np.array(info["final_obs"][0]) if over else self._next
        return last, float(reward[0]), bool(terminated[0]) or life_lost, bool(truncated[0]), {}

    def close(self) -> None:
        self._env.close()
