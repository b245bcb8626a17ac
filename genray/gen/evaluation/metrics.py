"""What is measured about reconstructions, samples and codes, under honest names.

Shapes: N real rows, M generated rows, F features, K classes, C channels, H height, W width.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from genray.errors import require
from genray.gen.data.types import Split

# -- reconstructions -------------------------------------------------------------------------------


def mse(x: Tensor, reconstruction: Tensor) -> float:
    """Mean squared error of all values, in the square of their unit."""
    return (x.double() - reconstruction.double()).square().mean().item()


def psnr(error: float, low: float = 0.0, high: float = 1.0) -> float:
    """Peak signal-to-noise ratio of a mean squared error, dB: 10 log10 (range² / MSE); ∞ for no
    error.
    """
    return float(10 * np.log10((high - low) ** 2 / error)) if error else float("inf")


def pca_mse(train: Tensor, test: Tensor, code: int) -> float:
    """The test MSE of PCA with `code` components fitted to `train`: what a linear autoencoder of
    that size can do.
    """
    model = PCA(min(code, len(train), train[0].numel()), svd_solver="full").fit(_flat(train))
    flat = _flat(test)
    return float(np.mean((flat - model.inverse_transform(model.transform(flat))) ** 2))


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).cpu().double().numpy()


# -- distances between sets of features ------------------------------------------------------------


def frechet_distance(a_NF: Tensor, b_MF: Tensor) -> float:
    """‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) of the two sets' Gaussians, in float64.

    [Dowson 1982, https://doi.org/10.1016/0047-259X(82)90077-X; for images Heusel 2017,
    https://arxiv.org/abs/1706.08500] Covariances are the unbiased ones (N − 1). The distance
    itself is biased upwards for few rows.
    """
    require(
        min(len(a_NF), len(b_MF)) >= 2, "a Fréchet distance needs two rows of each set, at least"
    )
    a, b = _flat(a_NF), _flat(b_MF)
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (Σ_a Σ_b)^½ = tr (Σ_a^½ Σ_b Σ_a^½)^½, and this one is symmetric: real eigenvalues, also of
    # singular matrices.
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root_a @ covariance_b @ root_a).clip(0)).sum()
    difference = a.mean(0) - b.mean(0)
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return float(max(distance, 0.0))  # rounding can leave −1e-15 for equal sets


def kernel_distance(
    real_NF: Tensor, fake_MF: Tensor, subsets: int = 50, subset_size: int = 200
) -> float:
    """The kernel distance (KID's estimator: unbiased MMD² under the kernel (x·y/F + 1)³), mean
    over random subsets.

    [Bińkowski 2018, https://arxiv.org/abs/1801.01401; torchmetrics' implementation] It may be a
    little below 0.
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(subset_size, len(real_NF), len(fake_MF))
    require(size >= 2, "a kernel distance needs two rows of each set, at least")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it keeps all features in memory
        metric = KernelInceptionDistance(feature=nn.Identity(), subsets=subsets, subset_size=size)
    # It draws the subsets from the global generator, which belongs to the training.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        metric.update(real_NF.cpu().double(), real=True)
        metric.update(fake_MF.cpu().double(), real=False)
        return float(metric.compute()[0])


def precision_recall(real_NF: Tensor, fake_MF: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """(precision, recall) of a generator: the share of samples inside the real set's manifold,
    and the other way round.

    A set's manifold: the balls around its rows that reach to their `neighbours`-th nearest row
    of the set. [Kynkäänniemi 2019, https://arxiv.org/abs/1904.06991]
    """
    real, fake = real_NF.flatten(1).double(), fake_MF.flatten(1).double()
    require(
        min(len(real), len(fake)) > neighbours,
        f"precision and recall need more than {neighbours} rows of each set",
    )
    return _inside(fake, real, neighbours), _inside(real, fake, neighbours)


def _inside(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    exact = "donot_use_mm_for_euclid_dist"  # the quick formula gives a row a distance > 0 to itself
    radius = (
        torch.cdist(manifold, manifold, compute_mode=exact).kthvalue(neighbours + 1, dim=1).values
    )  # + itself
    return (
        (torch.cdist(points, manifold, compute_mode=exact) <= radius).any(1).double().mean().item()
    )


# -- a classifier as a judge -----------------------------------------------------------------------


@dataclass(frozen=True)
class FCD:
    """A Fréchet classifier distance, which means nothing without its extractor and its counts.
    Not FID.
    """

    value: float
    extractor: str
    """Hash of the classifier's tensors: distances of different extractors are not comparable."""
    num_real: int
    num_generated: int
    """The distance is biased upwards for few images: compare equal counts only."""


class Extractor:
    """A classifier whose features judge images of any value range.

    `classifier(x)`: logits [B, K]; `classifier.features(x)`: [B, F]; `classifier.low`,
    `classifier.high`: its range.
    """

    def __init__(self, classifier: Any):
        self.classifier = classifier.eval()
        self.name = tensors_hash(classifier)

    def features(self, images_NCHW: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 [N, F] of images in low..high."""
        return self._apply(self.classifier.features, images_NCHW, low, high)

    def probabilities(self, images_NCHW: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 [N, K]"""
        return self._apply(self.classifier, images_NCHW, low, high).softmax(1)

    @torch.no_grad()
    def _apply(
        self, function: Callable[[Tensor], Tensor], images: Tensor, low: float, high: float
    ) -> Tensor:
        model = self.classifier
        shape, wanted = tuple(images.shape[1:]), tuple(model.shape)
        require(
            shape == wanted,
            f"--extractor: it judges images of shape {wanted}, and these have {shape}",
        )
        scale = (model.high - model.low) / (high - low)
        return torch.cat(
            [function((x - low) * scale + model.low).float() for x in images.split(500)]
        )

    def distance(self, real: Tensor, fake: Tensor, low: float = 0.0, high: float = 1.0) -> FCD:
        """The Fréchet classifier distance between two sets of images in low..high."""
        value = frechet_distance(self.features(real, low, high), self.features(fake, low, high))
        return FCD(value, self.name, len(real), len(fake))

    def modes(self, images: Tensor, low: float = 0.0, high: float = 1.0) -> int:
        """How many of the K classes hold at least 1/(10 K) of the images that the classifier is
        sure of (p ≥ 0.9).

        A class's fair share is 1/K: a tenth of it counts as there. K images at least should be
        asked for, times 50.
        """
        probability_NK = self.probabilities(images, low, high)
        sure, label_N = probability_NK.max(1)
        counts_K = torch.bincount(label_N[sure >= 0.9], minlength=probability_NK.shape[1])
        least = len(images) / (10 * probability_NK.shape[1])
        return int((counts_K >= least).sum())


def tensors_hash(module: nn.Module) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a module's tensors as safetensors keeps
    them.
    """
    from safetensors.torch import save

    tensors = {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in sorted(module.state_dict().items())
    }
    return hashlib.sha256(save(tensors)).hexdigest()[:16]


def generator_report(
    extractor: Extractor, real: Tensor, fake: Tensor, low: float = 0.0, high: float = 1.0
) -> dict[str, float]:
    """FCD with its counts, kernel distance, precision, recall and modes of `fake` against
    `real`, in low..high.

    Two rows of each are needed. Precision and recall, which need four, are left out for fewer.
    """
    fcd = extractor.distance(real, fake, low, high)
    features = extractor.features(real, low, high), extractor.features(fake, low, high)
    report = {
        "fcd": fcd.value,
        "fcd_real": fcd.num_real,
        "fcd_generated": fcd.num_generated,
        "kernel_distance": kernel_distance(*features),
    }
    if min(len(real), len(fake)) >= 4:
        report["precision"], report["recall"] = precision_recall(*features)
    return {**report, "modes": extractor.modes(fake, low, high)}


# -- judges without labels -------------------------------------------------------------------------


class PCAFrechet:
    """A Fréchet distance between images projected on the training images' principal components;
    needs no classifier.

    Cheap enough for every look at the validation split; it sees means and covariances of pixels,
    and nothing finer.
    """

    def __init__(self, train: Split, components: int = 32):
        images = train.all()
        self._pca = PCA(min(components, len(images), images[0].numel()), random_state=0).fit(
            _flat(images)
        )

    def __call__(self, real: Tensor, fake: Tensor) -> float:
        real_NF, fake_MF = (torch.from_numpy(self._pca.transform(_flat(x))) for x in (real, fake))
        return frechet_distance(real_NF, fake_MF)


def pca_gaussian_samples(
    train: Tensor, num: int, low: float, high: float, components: int = 32, seed: int = 0
):
    """`num` images of a Gaussian fitted in PCA space: the generator that any other should beat;
    cut off at low..high.
    """
    model = PCA(min(components, len(train), train[0].numel()), svd_solver="full").fit(_flat(train))
    noise = np.random.default_rng(seed).standard_normal((num, model.n_components_))
    images = model.inverse_transform(noise * np.sqrt(model.explained_variance_))
    return torch.from_numpy(images).float().clamp(low, high).reshape(num, *train.shape[1:])


# -- codes -----------------------------------------------------------------------------------------


def linear_probe(
    train_NF: Tensor, train_label_N: Tensor, test_MF: Tensor, test_label_M: Tensor
) -> float:
    """Test accuracy of logistic regression on codes, each standardised on the training rows
    (scikit-learn's, C = 1).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    probe.fit(_flat(train_NF), train_label_N.cpu().numpy())
    return float(probe.score(_flat(test_MF), test_label_M.cpu().numpy()))
