"""Implements Catch, a very small game for tests, and BlindCatch, which needs memory. Catch is also
an example for `--env module:factory`.

A ball falls from a random column. A paddle on the bottom row moves left, stays, or moves right.
The reward is +1 for a catch and −1 for a miss, at the last step. An agent has to use the frame
and to assign credit over several steps, but needs no memory. The board has 12x12 cells of 7x7
pixels, drawn as 84x84 frames, so that the network for Atari can play it. The highest
mean return is 1.0; random play gets about −0.7.
"""

from typing import Any

import numpy as np

from genray.rl.env import Step

BOARD = 12
CELL = 7


class Catch:
    """Plays E boards (lanes) in lockstep. Every episode has exactly BOARD − 1 steps.

    Implements `FrameVectorEnv` and `SavesState`.

    Args:
        num_lanes: E.
    """

    num_actions = 3
    frame_shape = (BOARD * CELL, BOARD * CELL)
    board, cell = BOARD, CELL

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        self._last_row = self.board - 1
        self._rng = np.random.default_rng()
        self._row_E = np.zeros(num_lanes, np.int64)
        self._column_E = np.zeros(num_lanes, np.int64)
        self._paddle_E = np.zeros(num_lanes, np.int64)
        self._over_E = np.zeros(num_lanes, bool)

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng(seed)
        self._over_E[:] = False
        self._begin(np.ones(self.num_lanes, bool))
        return self._draw()

    def step(self, action_E: np.ndarray) -> Step:
        begins_E, self._over_E = self._over_E, np.zeros(self.num_lanes, bool)
        moved_E = np.clip(self._paddle_E + action_E - 1, 0, self.board - 1)
        self._paddle_E = np.where(begins_E | ~self._moves_E, self._paddle_E, moved_E)
        self._row_E += ~begins_E
        self._begin(begins_E)
        self._over_E = ~begins_E & (self._row_E == self._last_row)
        caught_E = self._paddle_E == self._column_E
        reward_E = np.where(self._over_E, np.where(caught_E, 1.0, -1.0), 0.0).astype(np.float32)
        never_E = np.zeros(self.num_lanes, bool)
        return Step(self._draw(), reward_E, self._over_E.copy(), never_E, never_E)

    def close(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        arrays = {
            name: getattr(self, f"_{name}_E").tolist()
            for name in ("row", "column", "paddle", "over")
        }
        return {"rng": self._rng.bit_generator.state, **arrays}

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        self._rng.bit_generator.state = state["rng"]
        for name in ("row", "column", "paddle", "over"):
            setattr(self, f"_{name}_E", np.array(state[name]))
        return self._draw()

    def _begin(self, lanes_E: np.ndarray) -> None:
        column_E, paddle_E = self._rng.integers(self.board, size=(2, self.num_lanes))
        self._row_E = np.where(lanes_E, 0, self._row_E)
        self._column_E = np.where(lanes_E, column_E, self._column_E)
        self._paddle_E = np.where(lanes_E, paddle_E, self._paddle_E)

    @property
    def _moves_E(self) -> np.ndarray:
        """Lanes whose paddle moves in the next step; bool [E]."""
        return np.ones(self.num_lanes, bool)

    @property
    def _shows_ball_E(self) -> np.ndarray:
        """Lanes whose frame shows the ball; bool [E]."""
        return np.ones(self.num_lanes, bool)

    def _draw(self) -> np.ndarray:
        board = np.zeros((self.num_lanes, self.board, self.board), np.uint8)
        lane = np.arange(self.num_lanes)
        board[lane, self.board - 1, self._paddle_E] = 128
        lane = lane[self._shows_ball_E]
        board[lane, self._row_E[lane], self._column_E[lane]] = 255
        return board.repeat(self.cell, axis=1).repeat(self.cell, axis=2)


class BlindCatch(Catch):
    """Plays Catch with a ball that is seen in the first frame only, so that an agent needs memory.

    The paddle does not move in the first `hidden` steps of the fall, and moves during the last 7
    steps, in which it can reach every column. With `hidden` ≥ S, a stack of S frames shows the ball
    in no step in which the paddle moves, so the best policy without memory catches one ball in 8:
    its mean return is 2 / 8 − 1 = −0.75. The best policy with memory catches all: 1.0. The board
    has 8x8 cells of 5x5 pixels, drawn as 40x40 frames.

    Implements `FrameVectorEnv` and `SavesState`.

    Args:
        num_lanes: E.
        hidden: steps after the first frame in which the paddle does not move.
    """

    board, cell = 8, 5
    frame_shape = (40, 40)

    def __init__(self, num_lanes: int, hidden: int = 4):
        if hidden < 0:
            raise ValueError(f"hidden is {hidden}; it must be ≥ 0")
        super().__init__(num_lanes)
        self._hidden = hidden
        self._last_row = hidden + self.board - 1

    @property
    def _moves_E(self) -> np.ndarray:
        return self._row_E >= self._hidden

    @property
    def _shows_ball_E(self) -> np.ndarray:
        return self._row_E == 0
