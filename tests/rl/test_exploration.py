"""Tests ε: Ape-X's ladder, the schedule, and how often a lane explores."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from genray.rl.exploration import (
    EpsilonGreedy,
    ExploreConfig,
    annealed,
    epsilon_greedy,
    final_epsilons,
    ladder,
    longest_hold,
)


def test_ladder_by_hand():
    """ε_i = 0.4^(1 + 7i/(N−1)): from 0.4 to 0.4^8 = 0.00065536."""
    np.testing.assert_allclose(ladder(8), [0.4**power for power in range(1, 9)], rtol=1e-12)
    assert ladder(256)[0] == 0.4
    assert ladder(256)[-1] == pytest.approx(0.00065536)
    assert ladder(1).tolist() == [0.4]
    assert ladder(3, base=0.5, power=2.0).tolist() == [0.5, 0.25, 0.125]


def test_shared_gives_every_lane_the_same():
    assert final_epsilons(ExploreConfig(exploration="shared", epsilon=0.1), 3).tolist() == [0.1] * 3
    assert final_epsilons(ExploreConfig(epsilon=0.4, epsilon_power=7), 2).tolist() == [
        0.4,
        pytest.approx(0.4**8),
    ]


def test_anneals_from_1_to_the_final_value_and_stays():
    final = np.array([0.4, 0.1])
    assert annealed(final, 0, 100).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(annealed(final, 50, 100), [0.7, 0.55])
    for step in (100, 101, 10**9):
        assert annealed(final, step, 100).tolist() == final.tolist()
    assert annealed(final, 0, 0).tolist() == final.tolist()  # no annealing


def test_explores_with_probability_epsilon_and_evenly():
    """With ε, the best of 4 actions has probability 1 − ε + ε/4, and each other action ε/4."""
    rng = np.random.default_rng(0)
    epsilon_E = np.array([0.0, 0.1, 0.5, 1.0])
    q_EA = np.tile([0.0, 3.0, 1.0, 2.0], (4, 1))
    draws = 10_000
    counts_EA = np.zeros((4, 4), int)
    for _ in range(draws):
        counts_EA[np.arange(4), epsilon_greedy(q_EA, epsilon_E, rng)] += 1
    assert counts_EA[0].tolist() == [0, draws, 0, 0]
    for lane, epsilon in enumerate(epsilon_E[1:], start=1):
        expected = np.full(4, epsilon / 4 * draws)
        expected[1] += (1 - epsilon) * draws
        assert stats.chisquare(counts_EA[lane], expected).pvalue > 1e-3


def test_draws_the_same_randomness_whatever_epsilon_is():
    """The ε of one lane must not change the random numbers of another lane."""
    after = []
    for epsilon in (0.0, 1.0):
        rng = np.random.default_rng(1)
        epsilon_greedy(np.zeros((5, 3)), np.full(5, epsilon), rng)
        after.append(rng.random())
    assert after[0] == after[1]


def test_persistence_holds_random_actions_for_zeta_steps():
    """With ε = 1 and no greedy steps between, the number of steps that actions are held follows
    P(z) ∝ z^−2.
    """
    rng = np.random.default_rng(0)
    choose = EpsilonGreedy(500, persistence=2.0)
    begun = []
    q_EA = np.zeros((500, 1000))
    q_EA[:, 0] = 1.0  # the greedy action; 999 others, so that two draws in a row hardly ever agree
    for _ in range(60):
        fresh_E = choose.left_E == 0
        action_E = choose(q_EA, np.ones(500), rng)
        assert (action_E == choose.held_E).all()
        begun += (choose.left_E[fresh_E] + 1).tolist()
    lengths = np.array(begun)
    expected = 1 / np.arange(1, 6) ** 2.0 / (np.pi**2 / 6)
    observed = np.array([(lengths == z).mean() for z in range(1, 6)])
    np.testing.assert_allclose(observed, expected, atol=4 * 0.5 / np.sqrt(len(lengths)))
    assert lengths.max() <= 100


def test_longest_hold_falls_when_epsilon_has_its_final_value():
    explore = ExploreConfig(
        persistence=1.25, random_steps=30, anneal_steps=70, max_held_steps=60, max_held_steps_end=10
    )
    assert [longest_hold(explore, step) for step in (0, 99, 100, 10**6)] == [60, 60, 10, 10]
    always = replace(explore, max_held_steps_end=0)
    assert [longest_hold(always, step) for step in (0, 100)] == [60, 60]


def test_epsilon_greedy_without_persistence_holds_no_action():
    choose = EpsilonGreedy(4)
    choose(np.zeros((4, 3)), np.ones(4), np.random.default_rng(0))
    assert not choose.left_E.any()
