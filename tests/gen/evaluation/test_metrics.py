"""Tests the metrics against closed forms and against slow twins."""

import math

import numpy as np
import pytest
import torch
from scipy import linalg
from torch import Tensor, nn

from genray.errors import ConfigError
from genray.gen.data.types import Split
from genray.gen.evaluation import metrics
from genray.gen.evaluation.metrics import Extractor
from tests.helpers.gen import pca_gaussian_samples


def normal(rows: int, features: int, seed: int) -> Tensor:
    return torch.randn(
        rows, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )


# -- Fréchet ---------------------------------------------------------------------------------------


def with_moments(rows: int, mean: np.ndarray, covariance: np.ndarray, seed: int) -> Tensor:
    """Return rows whose sample mean and unbiased covariance are exactly the given ones."""
    x = np.random.default_rng(seed).standard_normal((rows, len(mean)))
    x -= x.mean(0)
    x = x @ np.linalg.inv(np.linalg.cholesky(np.cov(x, rowvar=False))).T
    return torch.from_numpy(x @ np.linalg.cholesky(covariance).T + mean)


def test_frechet_distance_of_two_gaussians_is_the_closed_form():
    """With diagonal covariances, the distance is Σ (μ − ν)² + Σ (σ − τ)²."""
    mean, other = np.array([0.0, 1.0, -2.0]), np.array([0.5, 1.0, 1.0])
    sigma, tau = np.array([1.0, 2.0, 0.5]), np.array([3.0, 0.1, 0.5])
    a = with_moments(50, mean, np.diag(sigma**2), 0)
    b = with_moments(80, other, np.diag(tau**2), 1)
    expected = ((mean - other) ** 2).sum() + ((sigma - tau) ** 2).sum()
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_correlated_gaussians_agrees_with_scipys_matrix_root():
    rng = np.random.default_rng(0)
    first, second = (m @ m.T + np.eye(5) for m in rng.standard_normal((2, 5, 5)))
    mean, other = rng.standard_normal((2, 5))
    a, b = with_moments(40, mean, first, 2), with_moments(60, other, second, 3)
    root = linalg.sqrtm(first @ second)
    expected = ((mean - other) ** 2).sum() + np.trace(first + second - 2 * root).real
    assert metrics.frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert metrics.frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_a_set_to_itself_is_0_also_where_the_covariance_is_singular():
    for rows in (100, 4):  # 4 rows of 10 features
        x = normal(rows, 10, 0)
        assert metrics.frechet_distance(x, x) == pytest.approx(0, abs=1e-6)
        assert metrics.frechet_distance(x, x + 2) == pytest.approx(40, rel=1e-6)


def test_pca_frechet_grows_with_a_shift_of_the_images():
    images = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    distance = metrics.PCAFrechet(Split(images), components=16)
    assert distance(images, images) == pytest.approx(0, abs=1e-6)
    # All 16 components: an orthogonal change of axes, which keeps distances.
    assert distance(images, images + 0.5) == pytest.approx(16 * 0.25, rel=1e-4)


# -- kernel distance, precision, recall ------------------------------------------------------------


def naive_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    def kernel(a, b) -> float:
        return (a @ b / len(a) + 1) ** 3

    def among(z) -> float:
        pairs = [kernel(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j]
        return sum(pairs) / len(pairs)

    between = [kernel(a, b) for a in x for b in y]
    return among(x) + among(y) - 2 * sum(between) / len(between)


def test_kernel_distance_is_the_unbiased_mmd():
    a, b = normal(12, 4, 0), normal(12, 4, 1) * 2 + 1
    state = torch.get_rng_state()
    found = metrics.kernel_distance(a, b, subsets=3, subset_size=200)
    assert found == pytest.approx(naive_kernel_distance(a.numpy(), b.numpy()), rel=1e-4)
    # a metric must not move the training's random numbers
    assert torch.equal(state, torch.get_rng_state())


def test_kernel_distance_of_the_same_distribution_is_about_0():
    found = [
        metrics.kernel_distance(normal(200, 4, 2 * i), normal(200, 4, 2 * i + 1)) for i in range(10)
    ]
    assert abs(np.mean(found)) < 0.02
    assert min(found) < 0  # An unbiased estimate is sometimes below 0.
    assert metrics.kernel_distance(normal(200, 4, 0), normal(200, 4, 1) + 1) > 1


def naive_precision(real: np.ndarray, fake: np.ndarray, k: int) -> float:
    inside = 0
    for point in fake:
        for i, centre in enumerate(real):
            others = sorted(
                np.linalg.norm(centre - other) for j, other in enumerate(real) if j != i
            )
            if np.linalg.norm(point - centre) <= others[k - 1]:
                inside += 1
                break
    return inside / len(fake)


def test_precision_and_recall_agree_with_the_slow_twin():
    real, fake = normal(40, 3, 0), normal(30, 3, 1) * 1.3 + 0.3
    found = metrics.precision_recall(real, fake)
    assert found == pytest.approx(
        (
            naive_precision(real.numpy(), fake.numpy(), 3),
            naive_precision(fake.numpy(), real.numpy(), 3),
        )
    )
    assert min(found) > 0.1 and max(found) < 1


def test_precision_recall_of_a_narrow_and_of_a_wide_generator():
    real = torch.cat([normal(100, 2, 0) - 20, normal(100, 2, 1) + 20])
    precision, recall = metrics.precision_recall(real, normal(200, 2, 2) + 20)  # one of two modes
    assert precision > 0.9 and recall < 0.55
    wide = torch.cat([real + 0.01, normal(200, 2, 3) * 300])
    precision, recall = metrics.precision_recall(real, wide)
    assert precision < 0.6 and recall > 0.99


# -- a classifier as a feature extractor -----------------------------------------------------------


class Brightness(nn.Module):
    """A classifier with three classes of the mean pixel, in 0..255; its features are the pixels."""

    low, high, shape = 0.0, 255.0, (1, 2, 2)

    def __init__(self):
        super().__init__()
        self.edges = nn.Parameter(torch.tensor([40.0, 128.0, 215.0]))

    def features(self, x: Tensor) -> Tensor:
        return x.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        return -(x.flatten(1).mean(1, keepdim=True) - self.edges).square() / 100


def level(value: float, count: int) -> Tensor:
    return torch.full((count, 1, 2, 2), value)


def test_extractor_scales_images_to_the_range_of_its_classifier():
    extractor = Extractor(Brightness())
    features = extractor.features(
        torch.tensor([-1.0, 0.0, 1.0]).reshape(3, 1, 1, 1).expand(3, 1, 2, 2), -1.0, 1.0
    )
    assert features[:, 0].tolist() == [0.0, 127.5, 255.0]
    assert extractor.features(level(0.5, 1)).flatten().tolist() == [127.5] * 4


def test_extractor_distance_has_the_extractors_hash_and_counts():
    images = torch.rand(30, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    fcd = Extractor(Brightness()).distance(images, images[:20])
    assert (fcd.num_real, fcd.num_generated) == (30, 20)
    assert fcd.extractor == Extractor(Brightness()).name and len(fcd.extractor) == 16
    assert fcd.value == pytest.approx(
        metrics.frechet_distance(images * 255, images[:20] * 255), rel=1e-5
    )
    other = Brightness()
    other.edges.data[0] += 1e-4
    assert Extractor(other).name != fcd.extractor
    assert Extractor(Brightness()).distance(images, images).value == pytest.approx(0, abs=1e-3)


def test_extractor_modes_counts_classes_with_a_tenth_of_their_share():
    extractor = Extractor(Brightness())
    dark, grey, bright, unsure = 40 / 255, 128 / 255, 215 / 255, 84 / 255
    # 300 images, 3 classes: 10 make a mode, 9 do not.
    images = torch.cat([level(dark, 200), level(grey, 10), level(bright, 9), level(unsure, 81)])
    assert extractor.probabilities(level(unsure, 1)).max() < 0.9
    assert extractor.modes(images) == 2
    assert extractor.modes(images[:200]) == 1


def test_extractor_refuses_images_of_another_size():
    with pytest.raises(ConfigError, match=r"--extractor: .*\(1, 2, 2\).*\(1, 3, 3\)"):
        Extractor(Brightness()).features(torch.zeros(1, 1, 3, 3))


def test_generator_report_has_all_figures():
    images = torch.rand(300, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    report = metrics.generator_report(Extractor(Brightness()), images[:100], images[100:])
    assert (report["fcd_real"], report["fcd_generated"]) == (100, 200)
    assert report["precision"] > 0.8 and report["recall"] > 0.8 and report["modes"] >= 1
    assert all(math.isfinite(value) for value in report.values())


def test_pca_gaussian_samples_have_the_moments_of_the_training_images():
    train = normal(500, 9, 0) @ normal(9, 9, 1) * 0.05 + 0.5
    samples = pca_gaussian_samples(train.reshape(500, 1, 3, 3), 20000, -9.0, 9.0, components=9)
    assert samples.shape == (20000, 1, 3, 3)
    torch.testing.assert_close(
        samples.flatten(1).mean(0), train.mean(0).float(), rtol=0.02, atol=0.02
    )
    torch.testing.assert_close(
        samples.flatten(1).T.cov(), train.T.cov().float(), rtol=0.1, atol=0.005
    )
