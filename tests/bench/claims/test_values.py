"""Tests realised returns by hand, and the measurement on a game whose returns are known."""

import numpy as np
import pytest
import torch

from genray.rl.catch import BOARD
from genray.rl.env import EnvConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.bench.claims.values import discounted_returns, measure

CATCH = EnvConfig(env="genray.rl.catch:Catch")


def column(*values: float) -> np.ndarray:
    return np.array(values, float)[:, None]


def test_returns_end_at_a_termination_and_go_on_to_the_last_step():
    reward_TE, discount_TE = column(1, 2, 4, 8), column(0.5, 0.0, 0.5, 0.5)
    never_TE = np.zeros((4, 1), bool)
    returns, unknown = discounted_returns(reward_TE, discount_TE, never_TE)
    np.testing.assert_allclose(returns[:, 0], [1 + 0.5 * 2, 2, 4 + 0.5 * 8, 8])
    np.testing.assert_allclose(unknown[:, 0], [0, 0, 0.25, 0.5])


def test_returns_do_not_cross_a_cut():
    cut_TE = np.array([[False], [True], [False]])
    returns, unknown = discounted_returns(column(1, 2, 4), column(0.5, 0.5, 0.0), cut_TE)
    np.testing.assert_allclose(returns[:, 0], [1 + 0.5 * 2, 2, 4])
    np.testing.assert_allclose(unknown[:, 0], [0.25, 0.5, 0])


def constant_network(value: float) -> QNetwork:
    """A network that expects `value` of every action."""
    network = QNetwork(NetworkConfig(channels=(2, 2, 2), hidden=4, dueling=False), 3)
    for parameter in network.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.constant_(network.advantage[-1].bias, value)  # type: ignore[arg-type]
    return network


def test_measured_values_of_catch():
    """The network holds left (the first of equal actions), so every return is ±γ^k for the k steps
    that are left, and the mean realised return follows from the mean score.
    """
    gamma, steps = 0.9, BOARD - 1
    found = measure(constant_network(0.25), CATCH, gamma=gamma, lanes=64, steps=steps, seed=0)
    powers = np.mean([gamma**k for k in range(steps)])
    assert found.q == pytest.approx(0.25)
    assert found.states == 64 * steps and found.unfinished == 0
    assert -1 < found.score < -0.5
    assert found.realised == pytest.approx(found.score * powers)


def test_states_whose_return_is_unknown_do_not_count():
    """Two steps of an unfinished episode: nothing is known of the return, and 12 + 5 rows are one
    episode, a restart and an unfinished one.
    """
    network = constant_network(0.0)
    short = measure(network, CATCH, gamma=0.99, lanes=4, steps=2, seed=0)
    assert short.states == 0 and short.q is None and short.unfinished == 4
    longer = measure(network, CATCH, gamma=0.99, lanes=4, steps=BOARD + 5, seed=0)
    assert longer.states == 4 * (BOARD - 1) and longer.unfinished == 0
