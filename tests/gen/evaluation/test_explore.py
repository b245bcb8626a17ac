"""Tests clusters, anomaly scores and maps against brute force and numbers worked out by hand."""

from itertools import permutations

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.evaluation import explore

RNG = np.random.default_rng(0)


def test_matched_accuracy_equals_the_best_of_all_permutations():
    label, clusters = RNG.integers(4, size=60), RNG.integers(4, size=60)
    best = max((np.array(names)[clusters] == label).mean() for names in permutations(range(4)))
    assert explore.matched_accuracy(clusters, label) == pytest.approx(best)
    assert explore.matched_accuracy((label + 1) % 4, label) == 1.0
    # each cluster one row, four classes
    assert explore.matched_accuracy(np.arange(60), label) == pytest.approx(4 / 60)


def test_cluster_finds_separate_clouds():
    label = np.repeat([0, 1, 2], 40)
    codes = RNG.normal(size=(120, 2)) * 0.1 + np.array([[0, 0], [5, 0], [0, 5]])[label]
    found = explore.evaluate_clusters(explore.cluster(codes, 3), label)
    assert found == {"nmi": pytest.approx(1), "ari": pytest.approx(1), "accuracy": 1.0}
    unrelated = explore.evaluate_clusters(RNG.integers(3, size=120), label)
    assert unrelated["nmi"] < 0.1 and abs(unrelated["ari"]) < 0.1


def test_auroc_equals_the_share_of_ordered_pairs():
    normal, anomalous = RNG.integers(0, 6, 30).astype(float), RNG.integers(2, 9, 20).astype(float)
    pairs = np.mean([(a > n) + 0.5 * (a == n) for a in anomalous for n in normal])
    assert explore.auroc(normal, anomalous) == pytest.approx(pairs)


def test_reconstruction_errors_are_means_of_rows():
    values = np.zeros((2, 1, 2, 2), np.float32)
    found = explore.reconstruction_errors(values, values + np.array([1, 3]).reshape(2, 1, 1, 1))
    assert found.tolist() == [1.0, 9.0]


def test_map_picture_draws_each_class_in_its_colour():
    codes = np.concatenate([RNG.normal(size=(50, 2)) + 8, RNG.normal(size=(50, 2)) - 8])
    label = np.repeat([0, 1], 50)
    picture = explore.map_picture(codes, label, ("cats", "dogs"), "pets", pixels=300)
    assert picture.shape == (300, 300, 3) and picture.dtype == np.uint8
    # tab10: class 0 blue, class 1 orange
    blue = (picture[:, :, 2].astype(int) - picture[:, :, 0] > 60).nonzero()
    orange = (picture[:, :, 0].astype(int) - picture[:, :, 2] > 60).nonzero()
    upper = [rows[rows < 280] for rows in (blue[0], orange[0])]  # without the legend
    assert blue[1].size > 20 and orange[1].size > 20
    assert upper[0].mean() < upper[1].mean()  # +8 is drawn above −8


@pytest.mark.parametrize("classes", [12, 25])
def test_map_picture_of_long_codes_and_many_classes(classes):
    codes, label = RNG.normal(size=(100, 7)), np.arange(100) % classes
    assert explore.map_picture(codes, label, pixels=200).std() > 5
    assert explore.map_picture(codes, None, pixels=200).std() > 5


def test_explore_functions_report_bad_input_in_one_line():
    codes, label = RNG.normal(size=(10, 2)), np.arange(10) % 2
    with pytest.raises(ConfigError, match="--clusters 11"):
        explore.cluster(codes, 11)
    with pytest.raises(ConfigError, match="NaN"):
        explore.cluster(np.full((10, 2), np.nan), 2)
    with pytest.raises(ConfigError, match="one class"):
        explore.evaluate_clusters(label, np.zeros(10, int))
    with pytest.raises(ConfigError, match="two numbers or more: .* --code 2, or .* --latent 2"):
        explore.map_picture(codes[:, :1], label)
    with pytest.raises(ConfigError, match="two rows or more, and there are 1"):
        explore.map_picture(RNG.normal(size=(1, 3)), label[:1])
    with pytest.raises(ConfigError, match="anomalies need normal rows"):
        explore.auroc(np.zeros(0), np.ones(3))
