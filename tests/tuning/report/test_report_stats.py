"""Tests medians, intervals, targets, profiles and effects against known results."""

import itertools
import math

import numpy as np
import pytest

from tests.tuning.report.report_rows import row
from tuning.report.importance import coordinates, importances, varied
from tuning.report.stats import (
    best_so_far,
    cost,
    effect,
    estimate,
    from_cost,
    profile,
    ratios_to_fastest,
    target_cost,
    to_target,
)

INF = math.inf


def test_cost_is_lower_if_better_and_infinite_for_failures():
    assert cost(row(best=3.0)) == 3.0
    assert cost(row(best=0.9, mode="max")) == -0.9
    assert cost(row(best=0.9, status="stopped")) == 0.9
    for bad in (
        row(best=None),
        row(best=3.0, status="diverged"),
        row(best=3.0, status="failed"),
        row(best=math.nan),
    ):
        assert cost(bad) == INF
    assert from_cost(-0.9, "max") == 0.9 and from_cost(3.0, "min") == 3.0


def test_estimate_of_five_values_has_their_range():
    found = estimate([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.median, found.low, found.high, found.count) == (3.0, 1.0, 5.0, 5)


def test_estimate_of_many_values_has_the_sign_tests_interval():
    from scipy.stats import binom

    found = estimate(list(range(21, 0, -1)))
    # The interval omits five values at each end. With six, its coverage would be 92%.
    assert (found.median, found.low, found.high) == (11, 6, 16)
    assert (
        found.coverage
        == pytest.approx(1 - 2 * binom.cdf(5, 21, 0.5))
        == pytest.approx(0.9734, abs=1e-4)
    )
    assert 1 - 2 * binom.cdf(6, 21, 0.5) < 0.95


@pytest.mark.parametrize(
    ("count", "coverage"),
    [(2, 0.5), (3, 0.75), (4, 0.875), (5, 0.9375), (6, 0.96875), (7, 0.984375), (9, 0.9609375)],
)
def test_estimate_contains_the_true_median_as_often_as_its_coverage(count: int, coverage: float):
    draws = np.random.default_rng(count).exponential(size=(4000, count))
    found = [estimate(list(draw)) for draw in draws]
    assert {each.coverage for each in found} == {coverage}
    held = np.mean([each.low <= math.log(2) <= each.high for each in found])
    assert abs(held - coverage) < 4 * math.sqrt(coverage * (1 - coverage) / 4000)


def test_estimate_may_be_infinite_but_is_never_nan():
    found = estimate([1.0, 2.0, INF])
    assert (found.median, found.low, found.high) == (2.0, 1.0, INF)
    assert estimate([INF, INF]).median == INF and estimate([INF, INF]).high == INF
    assert estimate([]).count == 0 and math.isnan(estimate([]).median)
    assert estimate([2.0]).median == 2.0 and math.isnan(estimate([2.0]).low)


def test_target_cost_is_the_median_over_arms_of_the_untuned_medians():
    rows = [row("a", "default", seed, best) for seed, best in enumerate((1.0, 2.0, 9.0))]  # 2
    rows += [row("b", "default", seed, best) for seed, best in enumerate((5.0, 4.0, 6.0))]  # 5
    rows += [row("c", "default", seed, None, status="diverged") for seed in range(3)]  # ∞
    rows += [
        row("a", "search", 0, 0.1),
        row("b", "tuned", 7, 0.1),
        row("a", "default", 9, 0.0, status="running"),
    ]
    assert target_cost(rows) == 5.0
    assert target_cost([each for each in rows if each.arm == "c"]) is None
    # The median over these two arms is ∞, so the target is the worst finite value.
    assert target_cost(rows[6:9] + rows[3:6]) == 5.0


def test_target_cost_without_untuned_runs_is_the_median_of_the_search():
    assert target_cost([row(best=best) for best in (3.0, 1.0, 2.0)]) == 2.0
    assert target_cost([row(best=best, mode="max") for best in (0.3, 0.1, 0.2)]) == -0.2
    assert target_cost([]) is None


def test_to_target_returns_steps_and_seconds():
    curve = [(10, 0.5, 9.0), (20, 1.0, math.nan), (30, 1.5, 4.0), (40, 2.0, 5.0)]
    trained = row(best=4.0, curve=curve)
    assert to_target(trained, 4.0) == (30, 1.5)
    assert to_target(trained, 9.0) == (10, 0.5)
    assert to_target(trained, 3.9) == (INF, INF)
    assert to_target(trained, None) == (INF, INF)
    assert to_target(row(best=4.0, curve=curve, status="diverged"), 9.0) == (INF, INF)
    upwards = row(best=0.8, mode="max", curve=[(10, 0.5, 0.3), (20, 1.0, 0.8)])
    assert to_target(upwards, -0.8) == (20, 1.0)


def test_profile_of_known_ratios():
    times = {
        "a": {0: 10.0, 1: 40.0, 2: INF},
        "b": {0: 20.0, 1: 20.0, 2: INF},
        "c": {0: INF, 1: 20.0},
    }
    ratios = ratios_to_fastest(times)
    assert ratios == {"a": [1.0, 2.0, INF], "b": [2.0, 1.0, INF], "c": [INF, 1.0, INF]}
    assert profile(ratios["a"], [1.0, 1.99, 2.0, 1e9]) == [1 / 3, 1 / 3, 2 / 3, 2 / 3]
    assert profile([], [1.0]) == [0.0]


def test_best_so_far_equals_all_orders():
    costs = [5.0, 1.0, 3.0, 2.0, 8.0]
    found = best_so_far(costs)
    orders = np.minimum.accumulate(np.array(list(itertools.permutations(costs))), axis=1)
    np.testing.assert_allclose(found.mean, orders.mean(0))
    np.testing.assert_array_equal(
        found.median, np.quantile(orders, 0.5, axis=0, method="inverted_cdf")
    )
    np.testing.assert_array_equal(
        found.low, np.quantile(orders, 0.25, axis=0, method="inverted_cdf")
    )
    np.testing.assert_array_equal(
        found.high, np.quantile(orders, 0.75, axis=0, method="inverted_cdf")
    )
    assert best_so_far(costs[::-1]) == found  # the order of the trials does not matter


def test_best_so_far_with_diverged_trials():
    found = best_so_far([INF, 2.0, INF, 1.0])
    assert found.mean[:2] == [INF, INF] and math.isfinite(found.mean[2])
    assert found.median == [2.0, 1.0, 1.0, 1.0]
    assert best_so_far([INF]).median == [INF] and best_so_far([]).median == []


def test_effect_is_paired_by_seed():
    found = effect({1: 10.0, 2: 20.0, 3: 30.0}, {3: 31.0, 2: 21.0, 1: 12.0, 4: 0.0})
    assert found is not None and found.paired
    assert (found.difference.median, found.difference.low, found.difference.high) == (
        -1.0,
        -2.0,
        -1.0,
    )
    assert (found.better, found.worse, found.pairs, found.significant) == (3, 0, 3, False)
    # With three seeds, the interval of one in four pairs of equal arms excludes 0.
    assert found.excludes_zero
    six = effect({seed: 1.0 for seed in range(6)}, {seed: 2.0 + seed for seed in range(6)})
    assert six is not None and six.significant
    even = effect({1: 2.0, 2: 1.0, 3: 3.0}, {1: 2.0, 2: 2.0, 3: 2.0})
    assert even is not None and (even.better, even.worse, even.pairs) == (1, 1, 3)


def test_effect_without_common_seeds():
    found = effect({1: 10.0, 2: 11.0, 3: 12.0}, {4: 1.0, 5: 2.0, 6: 30.0})
    assert found is not None and not found.paired
    assert found.difference.median == 9.0 and (found.better, found.worse, found.pairs) == (3, 6, 9)
    assert (found.difference.low, found.difference.high, found.difference.coverage) == (
        -20.0,
        11.0,
        0.5,
    )
    assert effect({}, {1: 1.0}) is None


def test_effect_of_failures():
    found = effect({1: INF, 2: INF, 3: 1.0}, {1: INF, 2: 5.0, 3: 2.0})
    assert found is not None
    assert (found.difference.median, found.difference.low, found.difference.high) == (
        0.0,
        -1.0,
        INF,
    )


def test_effect_of_a_failure_on_each_side_is_zero():
    found = effect({1: INF, 2: 3.0}, {1: 2.0, 2: INF})
    assert found is not None
    assert (found.difference.median, found.difference.low, found.difference.high) == (
        0.0,
        -INF,
        INF,
    )
    assert (found.better, found.worse, found.excludes_zero) == (1, 1, False)
    assert (
        estimate([-INF, -INF, 1.0, INF]).median == -INF
        and estimate([1.0, 2.0, INF, INF]).median == INF
    )


def test_importances_find_the_parameter_that_matters():
    random = np.random.default_rng(0)
    rows = []
    for number in range(40):
        rate, idle, kind = 10 ** random.uniform(-4, 0), random.uniform(), random.choice(["x", "y"])
        best = abs(math.log10(rate) + 2) + 0.01 * random.normal()
        rows.append(
            row(
                best=best,
                number=number,
                params={"rate": rate, "idle": idle, "kind": str(kind), "fixed": 3},
            )
        )
    found = importances(rows)
    assert found is not None and set(found.importance) == {"rate", "idle", "kind"}
    assert found.explained > 0.7 and found.importance["rate"] > 0.7
    assert max(found.importance["idle"], found.importance["kind"]) < 0.1


def test_importances_of_noise_explain_nothing():
    random = np.random.default_rng(1)
    rows = [
        row(best=random.normal(), params={"a": random.uniform(), "b": random.uniform()})
        for _ in range(40)
    ]
    found = importances(rows)
    assert found is not None and found.explained < 0.1


@pytest.mark.parametrize(
    "rows",
    [
        [row(best=float(n), params={"a": n, "b": n}) for n in range(11)],  # too few
        [row(best=float(n), params={"a": n, "b": 1}) for n in range(20)],  # one parameter
        [row(best=1.0, params={"a": n, "b": n}) for n in range(20)],  # all alike
    ],
)
def test_importances_need_enough_trials_and_parameters(rows):
    assert importances(rows) is None


def test_coordinates_of_numbers_and_names():
    logarithmic = coordinates([1e-4, 1e-2, 1.0])
    assert logarithmic.log
    np.testing.assert_allclose(logarithmic.position, [0, 0.5, 1])
    np.testing.assert_allclose(coordinates([1, 3, 2]).position, [0, 1, 0.5])
    np.testing.assert_allclose(coordinates([True, None, False]).position, [0.5, 1.0, 0.0])
    assert [text for _, text in coordinates([True, None, False]).ticks] == ["off", "on", "–"]
    np.testing.assert_allclose(coordinates([2.0, 2.0]).position, [0.5, 0.5])
    assert coordinates([[64, 32], "x"]).ticks[0][1] == "[64, 32]"
    assert varied([row(params={"a": 1, "b": [2]}), row(params={"a": 2, "b": [2]})]) == ["a"]
