"""Tests the statistics of score tables on tables that are small enough to work out by hand."""

import itertools
import math

import numpy as np
import pytest

from tests.bench.atari.statistics import apart, improvement, iqm, median_or_missed, profile


def test_iqm_drops_the_lowest_and_the_highest_quarter_of_all_runs():
    # 0 and 100 are two quarters of {0, 1, 3, 100}; the mean of 1 and 3 is left.
    assert iqm({"a": [100.0, 0.0], "b": [3.0, 1.0]}).value == 2.0
    # ⌊6/4⌋ = 1 run of each side: (1 + 2 + 4 + 5) / 4.
    assert iqm({"a": [0.0, 1.0, 2.0], "b": [4.0, 5.0, 90.0]}).value == 3.0


def test_iqm_interval_draws_the_runs_of_each_game_from_that_game():
    """A bootstrap that mixed the games would give an interval from 0 to 10."""
    assert iqm({"a": [0.0, 0.0], "b": [10.0, 10.0]}) == (5.0, 5.0, 5.0)


def test_iqm_interval_equals_the_enumerated_bootstrap():
    games = ([0.0, 1.0, 5.0], [2.0, 4.0, 9.0])
    draws = [list(itertools.product(runs, repeat=3)) for runs in games]  # 27 x 27 resamples
    values = [np.mean(sorted([*a, *b])[1:-1]) for a, b in itertools.product(*draws)]
    found = iqm(dict(zip("ab", games)))
    exact = np.percentile(values, (2.5, 97.5), method="inverted_cdf")
    np.testing.assert_allclose(found[1:], exact, atol=0.13)  # a step of the distribution is 1/4
    assert found.low < found.value < found.high


def test_iqm_of_single_runs_has_no_interval():
    found = iqm({"a": [1.0], "b": [3.0]})
    assert found.value == 2.0 and math.isnan(found.low) and math.isnan(found.high)
    assert found.to_json() == [2.0, None, None]


def test_improvement_counts_pairs_and_half_of_the_ties():
    # Game a: 5 beats 1 and 3, 3 beats 1 and ties with 3: 3.5 of 4. Game b: 0 of 4.
    ours, theirs = {"a": [5.0, 3.0], "b": [0.0, 1.0]}, {"b": [7.0, 8.0], "a": [1.0, 3.0]}
    assert improvement(ours, theirs).value == pytest.approx((3.5 / 4 + 0) / 2)
    assert improvement(theirs, ours).value == pytest.approx(1 - 3.5 / 8)


def test_improvement_interval_equals_the_enumerated_bootstrap():
    ours, theirs = [5.0, 3.0], [1.0, 4.0]
    values = [
        np.mean([(x > y) + (x == y) / 2 for x in xs for y in ys])
        for xs in itertools.product(ours, repeat=2)
        for ys in itertools.product(theirs, repeat=2)
    ]
    found = improvement({"a": ours}, {"a": theirs})
    exact = np.percentile(values, (2.5, 97.5), method="inverted_cdf")
    assert exact.tolist() == [0.0, 1.0]  # 0 is the result of 1 of the 16 resamples
    np.testing.assert_allclose(found[1:], exact)


def test_improvement_refuses_different_games():
    with pytest.raises(ValueError, match="different games"):
        improvement({"a": [1.0]}, {"b": [1.0]})


def test_profile_is_the_share_of_runs_above_the_threshold_averaged_over_games():
    # Game a: 0, 1, 2; game b: 2. At τ = 1: 1/3 of a and all of b, hence 2/3.
    threshold_T = np.array([-1.0, 0.0, 1.0, 2.0])
    found = profile({"a": [0.0, 1.0, 2.0], "b": [2.0, 2.0]}, threshold_T)
    np.testing.assert_allclose(found.share_T, [1.0, (2 / 3 + 1) / 2, (1 / 3 + 1) / 2, 0.0])
    # All of the three draws of game a are 2 in 1 of 27 resamples, and none is in 8 of 27.
    np.testing.assert_allclose(found.low_T, [1.0, 0.5, 0.5, 0.0])
    np.testing.assert_allclose(found.high_T, [1.0, 1.0, 1.0, 0.0])


def test_intervals_are_apart_only_if_they_share_no_point():
    one, other = iqm({"a": [0.0, 0.0]}), iqm({"a": [1.0, 1.0]})
    assert apart(one, other) and apart(other, one) and not apart(one, one)
    assert not apart(one, iqm({"a": [5.0]}))  # a single run has no interval


def test_median_counts_missed_targets_as_infinite():
    assert median_or_missed([3, None, 1]) == 3
    assert median_or_missed([3, None, None]) == math.inf
