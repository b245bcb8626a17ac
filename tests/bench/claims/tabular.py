"""Q-learning and double Q-learning with tables, on a game where the maximum overestimates.

The game is Example 6.7 of Sutton and Barto 2018, Reinforcement Learning. Every episode begins in
state A. Going right ends it with reward 0. Going left leads to state B with reward 0, where each of
ACTIONS_B actions ends the episode with a reward from N(−0.1, 1). Left is the wrong choice, because
its value is −0.1, but the largest of B's estimated values is positive for a long time.

The double form has two tables. A coin chooses the one that is updated; that table chooses the best
action of the next state, and the other table gives its value [van Hasselt 2010, Double Q-learning].
The targets are genray's own functions, which a DQN uses with w and w⁻ in place of the tables.

Shapes: R independent runs, A actions of a state.
"""

from typing import NamedTuple

import numpy as np
import torch

from genray.rl import targets

ACTIONS_B = 10
MEAN_REWARD = -0.1
STEP_SIZE = 0.1
EPSILON = 0.1
OPTIMAL_LEFT = EPSILON / 2
"""Share of left by a player that knows that right is better, and explores."""


class Learned(NamedTuple):
    """What the runs did and believed, by episode; float64 [episodes], means over the runs."""

    left: np.ndarray
    """Share of runs that went left."""
    value_B: np.ndarray
    """Value of B that the next update of A would use; the true value is MEAN_REWARD."""


class Tables:
    """One table of values (Q-learning) or two (double Q-learning) for states A and B of R runs."""

    def __init__(self, runs: int, double: bool):
        copies = 2 if double else 1
        self.double = double
        self.a_CRA = torch.zeros(copies, runs, 2)
        self.b_CRA = torch.zeros(copies, runs, ACTIONS_B)

    def target_R(self, return_R: torch.Tensor, discount_R: torch.Tensor, own: int) -> torch.Tensor:
        """Return the target of table `own` for a transition to B."""
        if not self.double:
            return targets.q_learning_target(return_R, discount_R, self.b_CRA[0])
        other = 1 - own
        return targets.double_q_target(return_R, discount_R, self.b_CRA[own], self.b_CRA[other])

    def learn(
        self, table_CRA: torch.Tensor, action_R: np.ndarray, target_CR: torch.Tensor,
        coin_R: np.ndarray, which_R: np.ndarray,
    ) -> None:  # fmt: skip
        """Move the values of the actions taken towards their targets, in the runs `which_R` and in
        the table that the coin chose.
        """
        runs = torch.from_numpy(np.flatnonzero(which_R))
        table, action = torch.from_numpy(coin_R)[runs], torch.from_numpy(action_R)[runs]
        delta = target_CR[table, runs] - table_CRA[table, runs, action]
        table_CRA[table, runs, action] += STEP_SIZE * delta


def play(runs: int, episodes: int, *, double: bool, seed: int = 0) -> Learned:
    """Play `episodes` episodes in each of `runs` independent runs, ε-greedily in the sum of the
    tables.
    """
    rng = np.random.default_rng(seed)
    tables = Tables(runs, double)
    copies = len(tables.a_CRA)
    zero_R, one_R = torch.zeros(runs), torch.ones(runs)
    left, value = np.zeros(episodes), np.zeros(episodes)
    for episode in range(episodes):
        value[episode] = float(tables.target_R(zero_R, one_R, own=0).mean())
        action_R = choose(tables.a_CRA.sum(0).numpy(), rng)
        goes_left_R = action_R == 0
        left[episode] = goes_left_R.mean()
        coin_R = rng.integers(copies, size=runs)
        discount_R = torch.from_numpy(goes_left_R.astype(np.float32))  # γ = 1 to B, 0 to the end
        target_CR = torch.stack([tables.target_R(zero_R, discount_R, own) for own in range(copies)])
        tables.learn(tables.a_CRA, action_R, target_CR, coin_R, np.ones(runs, bool))
        # Those that went left act once in B.
        action_R = choose(tables.b_CRA.sum(0).numpy(), rng)
        reward_R = torch.from_numpy(rng.normal(MEAN_REWARD, 1.0, runs).astype(np.float32))
        coin_R = rng.integers(copies, size=runs)
        target_CR = reward_R.expand(copies, runs)
        tables.learn(tables.b_CRA, action_R, target_CR, coin_R, goes_left_R)
    return Learned(left, value)


def choose(q_RA: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return ε-greedy actions, int64 [R]; equal values are chosen with equal probability."""
    runs, actions = q_RA.shape
    tied = q_RA == q_RA.max(axis=1, keepdims=True)
    best_R = np.where(tied, rng.random(q_RA.shape), -1.0).argmax(axis=1)
    random_R = rng.integers(actions, size=runs)
    return np.where(rng.random(runs) < EPSILON, random_R, best_R)
