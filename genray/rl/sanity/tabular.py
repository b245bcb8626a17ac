"""Defines the tiny environments of `genray check-learner`, each of which exposes one kind of bug.

Shapes: E lanes, H height, W width.

An environment is a table: what each action does in each state. The agent sees the state, as a
one-hot vector or as a white square of a grid of 3x3 squares, so its values can be written down by
hand. The observation after a termination is blank. Similar suites: bsuite [Osband 2020,
https://arxiv.org/abs/1908.03568] and the environments `ocean` of PufferLib [Suarez 2024,
https://arxiv.org/abs/2406.12905].
"""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genray.rl.env import Step
from genray.rl.observation import Field, Observation

GRID = 3
SQUARE = 12
"""Height and width of a square, in pixels. 3·12 = 36 is the least side that the convolutions take.
"""
SIDE = GRID * SQUARE
BLANK = -1
"""The picture without a white square, and the state after a termination."""


class Outcome(NamedTuple):
    """What an action does in a state."""

    reward: float
    to: int = BLANK
    """The next state; BLANK: the episode terminates."""
    probability: float = 1.0


@dataclass(frozen=True)
class Table:
    """An environment of at most 9 states, and the factory that makes it."""

    num_actions: int
    outcomes: dict[tuple[int, int], tuple[Outcome, ...]]
    """(state, action) -> the possible outcomes."""
    starts: tuple[int, ...] = (0,)
    """States in which an episode begins, with equal probability."""
    time_limit: int = 0
    """Steps after which an episode is truncated; 0: never."""
    frames: bool = False
    """Whether observations are frames, uint8 [36, 36], instead of one-hot vectors, float32 [9]."""
    pictures: dict[int, int] = field(default_factory=dict)
    """Squares of states that do not show the square of their own number."""
    illegal: dict[int, tuple[int, ...]] = field(default_factory=dict)
    """State -> its illegal actions. If any are, vectors have a mask of legal actions beside them. A
    step with an illegal action raises KeyError.
    """

    @property
    def observation(self) -> Observation | None:
        """The arrays of an observation; None: observations are frames."""
        if self.frames:
            return None
        fields = [Field(name="state", kind="vector", shape=(GRID * GRID,), dtype="float32")]
        if self.illegal:
            shape = (self.num_actions,)
            fields.append(Field(name="action_mask", kind="mask", shape=shape, dtype="uint8"))
        return Observation(fields=tuple(fields))

    def observe(self, state: int) -> np.ndarray:
        """Return the frame or the packed record of a state, uint8 [H, W]."""
        if self.observation is None:
            return picture(self.pictures.get(state, state))
        illegal = self.illegal.get(state, ())
        legal = [action not in illegal for action in range(self.num_actions)]
        one_hot = np.arange(GRID * GRID) == state
        arrays = {"state": one_hot[None], "action_mask": np.array([legal])}
        return self.observation.pack(arrays)[0]

    def __call__(self, num_lanes: int) -> "TabularEnv":
        """Make the environment: a table is the factory that `--env module:factory` names."""
        return TabularEnv(self, num_lanes)


def same(num_actions: int, *steps: tuple[int, float, int]) -> dict[tuple[int, int], tuple]:
    """Return outcomes for steps (state, reward, next state) that all actions make."""
    return {
        (state, action): (Outcome(reward, to),)
        for state, reward, to in steps
        for action in range(num_actions)
    }


BANDIT_REWARDS = ((1.0, 0.0, -0.5), (-1.0, 0.5, 0.0), (0.25, -0.75, 0.75))
"""The reward of each action (column) in each state (row) of `bandit`."""
SQUARES = (1.0, 4.0, 9.0)
"""The rewards of `squared_rewards`, step by step."""
DOUBLE_REWARDS = (0.0, 1.0, 0.5)
"""The rewards of the actions in the second state of `double`."""

bandit = Table(
    3,
    {
        (state, action): (Outcome(reward),)
        for state, rewards in enumerate(BANDIT_REWARDS)
        for action, reward in enumerate(rewards)
    },
    starts=(0, 1, 2),
    frames=True,
)
"""Three states, and the episode ends after one action."""

one_step_credit = Table(
    3,
    {(0, action): (Outcome(0.0, 1 + action),) for action in range(3)}
    | same(3, (1, 1.0, BLANK), (2, 0.0, BLANK), (3, -1.0, BLANK)),
)
"""An action leads to one of three states; the next step is rewarded, whatever its action."""

delayed_credit = Table(
    2,
    {(0, 0): (Outcome(0.0, 1),), (0, 1): (Outcome(0.0, 5),)}
    | same(2, (1, 0.0, 2), (2, 0.0, 3), (3, 0.0, 4), (4, 1.0, BLANK))
    | same(2, (5, 0.0, 6), (6, 0.0, 7), (7, 0.0, 8), (8, -1.0, BLANK)),
)
"""The first action chooses between a way to +1 and a way to −1, each with four more steps."""

stochastic_reward = Table(
    2,
    {
        (0, 0): (Outcome(1.0, probability=0.75), Outcome(-1.0, probability=0.25)),
        (0, 1): (Outcome(1.0, probability=0.25), Outcome(-1.0, probability=0.75)),
    },
)
"""One state, whose rewards are +1 or −1 with the means 0.5 and −0.5."""

endings = Table(
    2,
    same(2, (0, 1.0, 0), (1, 1.0, 2), (2, 1.0, 3), (3, 1.0, BLANK)),
    starts=(0, 1),
    time_limit=4,
)
"""State 0 goes on until the time limit truncates it. States 1 to 3 terminate by themselves."""

discount = Table(
    2,
    {(0, 0): (Outcome(0.0, 1),), (0, 1): (Outcome(0.0, 2),)}
    | same(2, (1, 1.0, BLANK), (2, 0.0, 3), (3, 0.0, 4), (4, 0.0, 5), (5, 1.5, BLANK)),
)
"""Action 0 is rewarded with 1 at the second step, action 1 with 1.5 at the fifth. Without a
discount, action 1 would be better.
"""

squared_rewards = Table(2, same(2, (0, SQUARES[0], 1), (1, SQUARES[1], 2), (2, SQUARES[2], BLANK)))
"""Three steps with the rewards 1, 4 and 9."""

double = Table(
    3,
    same(3, (0, 0.0, 1))
    | {(1, action): (Outcome(reward),) for action, reward in enumerate(DOUBLE_REWARDS)},
)
"""Two steps; the action of the second one is rewarded."""

priorities = Table(
    2,
    same(2, (0, 1.0, BLANK))
    | {
        (1, action): (Outcome(1.0, probability=0.5), Outcome(-1.0, probability=0.5))
        for action in range(2)
    },
    starts=(0, 1),
)
"""The reward of state 0 is certain, the reward of state 1 is +1 or −1."""

frame_stack = Table(
    2,
    same(2, (0, 0.0, 2), (1, 0.0, 3), (2, 1.0, BLANK), (3, -1.0, BLANK)),
    starts=(0, 1),
    frames=True,
    pictures={3: 2},
)
"""States 2 and 3 look alike: only the frame before shows whether the reward is 1 or −1."""

action_mask = Table(
    3,
    same(3, (0, 0.0, 1)) | {(1, 1): (Outcome(1.0),), (1, 2): (Outcome(0.5),)},
    illegal={1: (0,)},
)
"""Two steps; in the second one, action 0 is illegal."""


def picture(square: int) -> np.ndarray:
    """Return a frame with one white square, or a blank frame; uint8 [H, W]."""
    frame_HW = np.zeros((SIDE, SIDE), np.uint8)
    if square != BLANK:
        top, left = square // GRID * SQUARE, square % GRID * SQUARE
        frame_HW[top : top + SQUARE, left : left + SQUARE] = 255
    return frame_HW


class TabularEnv:
    """Plays E lanes of a table. Implements `FrameVectorEnv`.

    Args:
        table: the environment.
        num_lanes: E.
    """

    def __init__(self, table: Table, num_lanes: int):
        self.num_lanes, self.num_actions = num_lanes, table.num_actions
        self.observation = table.observation
        self._table = table
        self._rng = np.random.default_rng()
        self._state_E = np.zeros(num_lanes, np.int64)
        self._age_E = np.zeros(num_lanes, np.int64)
        self._over_E = np.zeros(num_lanes, bool)
        states = [BLANK, *range(GRID * GRID)]
        self._frame_NHW = np.stack([table.observe(state) for state in states])
        height, width = self._frame_NHW.shape[1:]
        self.frame_shape = (height, width)

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng(seed)
        self._over_E[:] = False
        for lane in range(self.num_lanes):
            self._begin(lane)
        return self._draw()

    def step(self, action_E: np.ndarray) -> Step:
        reward_E = np.zeros(self.num_lanes, np.float32)
        terminated_E, truncated_E = np.zeros((2, self.num_lanes), bool)
        for lane, action in enumerate(action_E):
            if self._over_E[lane]:  # this step only restarts the lane
                self._begin(lane)
                continue
            outcomes = self._table.outcomes[int(self._state_E[lane]), int(action)]
            drawn = self._rng.random()
            for outcome in outcomes:
                drawn -= outcome.probability
                if drawn < 0:
                    break
            self._state_E[lane] = outcome.to
            self._age_E[lane] += 1
            reward_E[lane] = outcome.reward
            terminated_E[lane] = outcome.to == BLANK
            truncated_E[lane] = not terminated_E[lane] and (
                self._age_E[lane] == self._table.time_limit
            )
        self._over_E = terminated_E | truncated_E
        no_life_E = np.zeros(self.num_lanes, bool)
        return Step(self._draw(), reward_E, terminated_E, truncated_E, no_life_E)

    def close(self) -> None:
        pass

    def _begin(self, lane: int) -> None:
        self._state_E[lane] = self._rng.choice(self._table.starts)
        self._age_E[lane] = 0

    def _draw(self) -> np.ndarray:
        return self._frame_NHW[self._state_E + 1]
