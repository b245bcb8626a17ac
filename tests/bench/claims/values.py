"""What a network expects against what its policy gets: mean max Q and the realised return.

A policy plays greedily. In every state, max_a Q(s, a) is what the network expects of the rest of
the episode. The realised return is the discounted sum of the rewards that followed, by the same
rules by which the learner counts them: clipped, ended by a termination (and by a lost life, if that
ends a return). The difference of the two means is the overestimation of van Hasselt 2016
(https://arxiv.org/abs/1509.06461, section "Quality of the learned value estimates").

Shapes: E lanes, T steps.
"""

from typing import NamedTuple

import numpy as np
import torch

from genray.rl.collect import Lanes
from genray.rl.env import EnvConfig, make_env
from genray.rl.exploration import epsilon_greedy
from genray.rl.networks import QNetwork

MOST_UNKNOWN = 0.02
"""A state counts if the rewards after the last step played would be discounted to this share of
their value, or less.
"""


class Values(NamedTuple):
    """Means over the states of a roll of greedy play, and the scores of its episodes."""

    q: float | None
    """Mean of max_a Q(s, a); None, as is `realised`, if no state counts."""
    realised: float | None
    """Mean of the discounted return that followed."""
    states: int
    """Number of states that count."""
    score: float
    """Mean score of the first episode of each lane; rewards are not clipped."""
    unfinished: int
    """Lanes whose first episode did not end; their scores are incomplete."""


def measure(
    network: QNetwork,
    config: EnvConfig,
    *,
    gamma: float,
    lanes: int,
    steps: int,
    seed: int,
    epsilon: float = 0.0,
) -> Values:
    """Play `steps` steps in each of `lanes` lanes with the network's policy."""
    env = make_env(config, lanes, num_threads=1)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 3]))
    network.eval()
    q_TE, reward_TE, discount_TE = (np.zeros((steps, lanes)) for _ in range(3))
    cut_TE, valid_TE = np.zeros((steps, lanes), bool), np.zeros((steps, lanes), bool)
    score_E, first_E = np.zeros(lanes), np.ones(lanes, bool)
    try:
        seen = Lanes(env.reset(int(rng.integers(2**31 - lanes))), config, 0)
        over_E = np.zeros(lanes, bool)
        for t in range(steps):
            q_EA = seen.q_values(network, torch.device("cpu"))
            action_E = epsilon_greedy(q_EA, np.full(lanes, epsilon), rng)
            step = env.step(action_E)
            dies_E = step.terminated_E | (step.life_lost_E & (config.life_loss == "terminal"))
            q_TE[t], reward_TE[t] = q_EA.max(axis=1), np.clip(step.reward_E, -1, 1)
            # A lane whose frame was an episode's last only restarts in this step.
            valid_TE[t] = ~over_E
            discount_TE[t] = np.where(dies_E, 0.0, gamma)
            cut_TE[t] = step.truncated_E & ~step.terminated_E
            score_E += step.reward_E * first_E
            seen.push(step.frame_EHW, action_E, begins_E=over_E)
            over_E = step.terminated_E | step.truncated_E
            first_E &= ~over_E
    finally:
        env.close()
    realised_TE, unknown_TE = discounted_returns(reward_TE, discount_TE, cut_TE)
    counts_TE = valid_TE & (unknown_TE <= MOST_UNKNOWN)
    states = int(counts_TE.sum())
    return Values(
        q=float(q_TE[counts_TE].mean()) if states else None,
        realised=float(realised_TE[counts_TE].mean()) if states else None,
        states=states,
        score=float(score_E.mean()),
        unfinished=int(first_E.sum()),
    )


def discounted_returns(
    reward_TE: np.ndarray, discount_TE: np.ndarray, cut_TE: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (the discounted sum of the rewards from each step on, the discount of the first reward
    that was not seen), float64 [T, E].

    `discount_TE`: γ, or 0 where the return ends. `cut_TE`: a limit ended the episode after this
    step, so later rewards belong to another one. The second array is 0 where the return is
    complete.
    """
    return_TE, unknown_TE = np.zeros_like(reward_TE), np.zeros_like(reward_TE)
    return_E, unknown_E = np.zeros(reward_TE.shape[1]), np.ones(reward_TE.shape[1])
    for t in range(len(reward_TE) - 1, -1, -1):
        return_E = reward_TE[t] + discount_TE[t] * np.where(cut_TE[t], 0.0, return_E)
        unknown_E = discount_TE[t] * np.where(cut_TE[t], 1.0, unknown_E)
        return_TE[t], unknown_TE[t] = return_E, unknown_E
    return return_TE, unknown_TE
