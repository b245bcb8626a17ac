"""Tests the sum tree against cumulative sums, and its draws against P(i)."""

import numba
import numpy as np
import pytest
from scipy import stats

from genray.rl import kernels
from genray.rl.sum_tree import SumTree
from tests.oracles import NaiveSumTree

SIZES = [1, 2, 7, 8, 9, 63, 64, 65, 100, 512, 513, 4097, 5000]


def whole_numbers(rng: np.random.Generator, size: int) -> np.ndarray:
    """Return priorities whose sums are exact in any order, so that both trees agree on every bound.
    Many priorities are 0.
    """
    return rng.integers(0, 9, size).astype(float) * (rng.random(size) < 0.7)


@pytest.mark.parametrize("size", SIZES)
def test_agrees_with_cumulative_sums_through_many_changes(size: int):
    rng = np.random.default_rng(size)
    tree, naive = SumTree(size), NaiveSumTree(size)
    for _ in range(20):
        count = int(rng.integers(1, 2 * size + 1))
        index_B = rng.integers(size, size=count)  # with duplicates: the last one counts
        priority_B = whole_numbers(rng, count)
        tree.set(index_B, priority_B)
        naive.set(index_B, priority_B)
        assert tree.total == naive.total
        np.testing.assert_array_equal(tree.get(np.arange(size)), naive.priority)
        if not naive.total:
            continue
        right_edges = naive.priority.cumsum()
        inside = rng.random(50) * naive.total
        on_edges = np.concatenate([right_edges, right_edges - naive.priority])
        just_below = np.nextafter(right_edges, -1)
        for mass_B in (
            inside,
            on_edges[on_edges < naive.total],
            just_below[just_below >= 0],
            np.zeros(1),
        ):
            np.testing.assert_array_equal(tree.find(mass_B), naive.find(mass_B))


@pytest.mark.parametrize("size", SIZES)
def test_never_finds_a_leaf_of_priority_0(size: int):
    """Real-valued priorities differ in size, and rounding changes the bounds, but the tree never
    returns a leaf of priority 0.
    """
    rng = np.random.default_rng(size)
    tree = SumTree(size)
    priority = 10.0 ** rng.uniform(-12, 6, size) * (rng.random(size) < 0.3)
    priority[rng.integers(size)] = 1.0
    tree.set(np.arange(size), priority)
    edges = np.concatenate([priority.cumsum(), [0.0, tree.total]])
    around = np.concatenate(
        [edges, np.nextafter(edges, -1), np.nextafter(edges, np.inf), rng.random(2000) * tree.total]
    )
    found = tree.find(np.clip(around, 0, np.nextafter(tree.total, 0)))
    assert (found >= 0).all() and (found < size).all()
    assert (priority[found] > 0).all()
    assert (priority[tree.sample(500, rng)] > 0).all()


def test_sum_tree_find_after_rounding_returns_the_leaf_before():
    """Two ties, both rounded to even, lead to leaf 3, whose priority is 0. The case was
    constructed, because random draws do not reach it.
    """
    ulp = 2.0**-52
    tree = SumTree(8)
    tree.set(np.array([0, 2]), np.array([1.5 * ulp, 1.5]))
    assert tree.total == 1.5 + 2 * ulp
    assert tree.find(np.array([1.5 + ulp])).tolist() == [2]


def test_duplicates_in_one_call_count_once():
    tree = SumTree(20)
    tree.set(np.array([3, 3, 11, 3]), np.array([5.0, 7.0, 1.0, 2.0]))
    assert tree.total == 3.0
    tree.set(np.array([3, 3]), 4.0)
    assert tree.total == 5.0


def test_parents_do_not_drift_after_many_changes():
    """Parents are recomputed, so the total equals the sum of the leaves after a million changes."""
    rng = np.random.default_rng(0)
    tree = SumTree(1000)
    for _ in range(500):
        tree.set(rng.integers(1000, size=2000), 10.0 ** rng.uniform(-6, 6, 2000))
    tree.set(np.arange(1000), 1e-6)
    assert tree.total == pytest.approx(1e-3, rel=1e-12)


def test_draws_follow_the_priorities():
    """Chi-square of independent draws against P(i) = p_i / Σp."""
    rng = np.random.default_rng(1)
    priority = rng.exponential(size=300) * (rng.random(300) < 0.8)
    tree = SumTree(300)
    tree.set(np.arange(300), priority)
    draws = 60_000
    counts = np.bincount(tree.find(rng.random(draws) * tree.total), minlength=300)
    assert counts[priority == 0].sum() == 0
    drawn = priority * draws / priority.sum() >= 5  # chi-square wants at least 5 expected in a cell
    observed = np.append(counts[drawn], counts[~drawn].sum())
    expected = np.append(priority[drawn], priority[~drawn].sum()) * draws / priority.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    # The same test must notice priorities that are only 10% wrong; otherwise it shows nothing.
    tilted = expected * np.where(np.arange(len(expected)) % 2, 1.1, 0.9)
    assert stats.chisquare(observed, tilted * draws / tilted.sum()).pvalue < 1e-6


def test_sum_tree_sample_is_unbiased_with_less_variance():
    rng = np.random.default_rng(2)
    priority = rng.exponential(size=40)
    tree = SumTree(40)
    tree.set(np.arange(40), priority)
    batches, size = 2000, 32
    counts = np.array([np.bincount(tree.sample(size, rng), minlength=40) for _ in range(batches)])
    p = priority / priority.sum()
    standard_error = np.sqrt(size * p * (1 - p) / batches)
    assert (np.abs(counts.mean(axis=0) - size * p) < 4.5 * standard_error).all()
    assert counts.var(axis=0).sum() < 0.7 * (size * p * (1 - p)).sum()
    # One index of probability p is drawn floor(size·p) − 1 to ceil(size·p) + 1 times in *every*
    # batch.
    assert (np.abs(counts - size * p) < 2).all()


def test_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="at least one leaf"):
        SumTree(0)
    tree = SumTree(10)
    with pytest.raises(ValueError, match="every priority is 0"):
        tree.sample(1, np.random.default_rng(0))
    tree.set(np.array([1]), 2.0)
    for index, priority in (
        ([0, 10], 1.0),
        ([-1], 1.0),
        ([0], -1.0),
        ([0], np.nan),
        ([0, 2], [1.0, np.inf]),
    ):
        with pytest.raises(ValueError):
            tree.set(np.array(index), np.array(priority))
        assert tree.total == 2.0 and tree.get(np.arange(10)).sum() == 2.0  # nothing was changed
    with pytest.raises(ValueError, match="do not fit"):
        tree.restore(np.zeros(9))


def test_restores_bit_for_bit():
    rng = np.random.default_rng(3)
    tree, again = SumTree(777), SumTree(777)
    tree.set(rng.integers(777, size=2000), rng.exponential(size=2000))
    again.restore(tree.state())
    assert again.total == tree.total
    draws = [t.sample(100, np.random.default_rng(5)).tolist() for t in (tree, again)]
    assert draws[0] == draws[1]


def test_works_where_compiled_code_cannot_be_kept(monkeypatch):
    """Without a writable folder, Numba raises at decoration, and each process compiles the loop
    itself.
    """
    real = numba.njit

    def njit(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", njit)

    @kernels.compiled
    def add(a, b):
        return a + b

    assert add(2, 3) == 5
