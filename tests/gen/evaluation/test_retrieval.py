"""Tests the index against a plain loop, and its metrics by hand and on real data."""

from fractions import Fraction

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.evaluation import retrieval
from genray.gen.evaluation.retrieval import CodeIndex

RNG = np.random.default_rng(0)


def slow_distance(one: np.ndarray, other: np.ndarray, metric: str) -> float:
    if metric == "hamming":
        return sum(a != b for a, b in zip(one.tolist(), other.tolist()))
    if metric == "cosine":
        return 1 - sum(a * b for a, b in zip(one, other)) / (sum(one**2) * sum(other**2)) ** 0.5
    return sum((a - b) ** 2 for a, b in zip(one, other)) ** 0.5


@pytest.mark.parametrize("metric", ["euclidean", "cosine", "hamming"])
@pytest.mark.parametrize("width", [3, 8, 65])
def test_code_index_search_equals_a_plain_loop(metric, width):
    codes, queries = RNG.normal(size=(50, width)), RNG.normal(size=(7, width))
    if metric == "hamming":
        codes, queries = codes > 0, queries > 0
    rows, distances = CodeIndex(codes, metric).search(queries, 5)
    for query in range(7):
        slow = [(slow_distance(queries[query], codes[row], metric), row) for row in range(50)]
        nearest = sorted(slow)[:5]
        assert rows[query].tolist() == [row for _, row in nearest]
        np.testing.assert_allclose(
            distances[query], [distance for distance, _ in nearest], atol=1e-9
        )


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_code_index_is_exact_for_codes_far_from_zero(metric: str):
    """The codes are float32 near 1e4 that differ in their last bits; the twin is rational."""
    far = np.linspace(1e4, 4e4, 40, dtype=np.float32)
    near = far + RNG.integers(-3, 4, (60, 40)).astype(np.float32) * np.spacing(far)
    near[50:] = near[:10]  # exact ties
    rows, _ = CodeIndex(near, metric).search(near[:6], 20)
    for query in range(6):
        exact = [
            (exact_distance(near[query], row, metric), number) for number, row in enumerate(near)
        ]
        assert rows[query].tolist() == [number for _, number in sorted(exact)[:20]]


def exact_distance(one: np.ndarray, other: np.ndarray, metric: str) -> Fraction:
    """Return an exact number that grows with the distance: |a − b|², or 1 − cos².

    All cosines are positive.
    """
    a, b = ([Fraction(float(value)) for value in each] for each in (one, other))
    if metric == "euclidean":
        return sum(((x - y) ** 2 for x, y in zip(a, b)), Fraction())
    product = sum((x * y for x, y in zip(a, b)), Fraction())
    return 1 - product**2 / (sum(x * x for x in a) * sum(y * y for y in b))


def test_code_index_search_keeps_the_order_of_many_queries():
    codes = RNG.normal(size=(600, 4))
    rows, distances = CodeIndex(codes).search(codes, 1)
    assert rows[:, 0].tolist() == list(range(600)) and distances.max() < 1e-6


def test_code_index_packs_bits():
    bits = RNG.random((1000, 32)) > 0.5
    # one 64-bit word a row, against 256,000 as floats
    assert CodeIndex(bits, "hamming").nbytes == 8000


def test_evaluate_retrieval_by_hand():
    """The rows are 1, 2, 3, 4 with labels 1, 0, 1, 0, and the query is 0 with label 1.

    So AP = (1/1 + 2/3) / 2 and P@2 = 1/2.
    """
    codes, label = np.array([[1.0], [2.0], [3.0], [4.0]]), np.array([1, 0, 1, 0])
    found = retrieval.evaluate_retrieval(codes, label, np.zeros((1, 1)), np.array([1]), k=2)
    assert found["precision_at_2"] == 0.5
    assert found["map"] == pytest.approx((1 + 2 / 3) / 2)
    # A query of label 0 meets 0, 1, 0, 1 reversed: (1/2 + 2/4) / 2. One without relevant rows does
    # not count.
    both = retrieval.evaluate_retrieval(codes, label, np.zeros((3, 1)), np.array([1, 0, 9]), k=2)
    assert both["map"] == pytest.approx((5 / 6 + 1 / 2) / 2)
    assert both["precision_at_2"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_leave_one_out_equals_a_search_among_the_other_rows(metric: retrieval.Metric):
    codes, label = RNG.normal(size=(300, 4)), RNG.integers(3, size=300)
    codes[7] = codes[8]  # equal rows: neither is removed in place of the other
    one = [
        retrieval.evaluate_retrieval(
            np.delete(codes, row, 0), np.delete(label, row), codes[[row]], label[[row]], metric, 5
        )
        for row in range(300)
    ]
    found = retrieval.leave_one_out(codes, label, metric, k=5)
    for key in ("precision_at_5", "map"):
        assert found[key] == pytest.approx(np.mean([each[key] for each in one]), abs=1e-12)
    rows = np.sort(RNG.permutation(300)[:270])
    some = retrieval.leave_one_out(codes, label, metric, 5, rows)
    for key in ("precision_at_5", "map"):
        assert some[key] == pytest.approx(np.mean([one[row][key] for row in rows]), abs=1e-12)
    with pytest.raises(ConfigError, match="no row has another row of its class"):
        retrieval.leave_one_out(codes, np.arange(300), metric)


def test_mean_average_precision_equals_that_of_scikit_learn():
    from sklearn.metrics import average_precision_score

    codes, queries = RNG.normal(size=(80, 5)), RNG.normal(size=(300, 5))
    label, query_label = RNG.integers(4, size=80), RNG.integers(4, size=300)
    distance = np.concatenate(list(CodeIndex(codes).distances(queries)))
    theirs = [average_precision_score(label == query_label[q], -distance[q]) for q in range(300)]
    ours = retrieval.evaluate_retrieval(codes, label, queries, query_label)["map"]
    assert ours == pytest.approx(np.mean(theirs), abs=1e-12)


def test_baselines_of_digits_equal_the_published_figures():
    """The test rows are the queries, the 1,297 training rows the database: mAP is .669 for raw
    pixels and .685 for PCA with 10 components.
    """
    data = load_data(DataConfig())
    rows = retrieval.database(data)
    assert len(rows) == 1297 and rows.label is not None and data.test.label is not None
    found = retrieval.baselines(
        rows.all().numpy(),
        rows.label.numpy(),
        data.test.all().numpy(),
        data.test.label.numpy(),
        numbers=10,
    )
    assert round(found["raw"]["map"], 3) == 0.669
    assert round(found["pca-10"]["map"], 3) == 0.685
    assert found["chance"]["precision_at_10"] == pytest.approx(0.1, abs=0.005)


def test_bit_thresholds_give_as_many_ones_as_zeros():
    codes = RNG.exponential(size=(1001, 6))
    bits = retrieval.binarize(codes, retrieval.bit_thresholds(codes))
    assert bits.dtype == bool and bits.sum(0).tolist() == [500] * 6


def test_retrieval_functions_report_bad_input_in_one_line():
    index = CodeIndex(RNG.normal(size=(5, 3)))
    with pytest.raises(ConfigError, match=r"--neighbours 6: must lie in 1\.\.5"):
        index.search(np.zeros((1, 3)), 6)
    with pytest.raises(ConfigError, match="queries have 4 numbers, and the index 3"):
        index.search(np.zeros((1, 4)), 1)
    with pytest.raises(ConfigError, match="NaN"):
        CodeIndex(np.array([[np.nan]]))
    with pytest.raises(ConfigError, match="needs bits"):
        CodeIndex(np.zeros((2, 2)), "hamming")
    with pytest.raises(ConfigError, match="no query has a row of its class"):
        retrieval.evaluate_retrieval(
            np.zeros((5, 3)), np.zeros(5, int), np.zeros((1, 3)), np.ones(1, int), k=5
        )
