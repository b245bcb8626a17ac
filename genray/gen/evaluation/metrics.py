"""Metrics of generated samples.

Shapes: N real rows, M generated rows, F features, K classes, C channels, H height, W width.

scikit-learn is imported where it is used, because the import takes a second of CPU time, which
every worker of a sweep and every replica of the service would need.
"""

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.data.types import Split


def _flat(x: Tensor) -> np.ndarray:
    return x.flatten(1).cpu().double().numpy()


# -- distances between sets of features ------------------------------------------------------------


def frechet_distance(a_NF: Tensor, b_MF: Tensor) -> float:
    """Return the Fréchet distance between Gaussians fitted to two sets of features, in float64.

    The distance is ‖μ_a − μ_b‖² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), with unbiased covariances
    (N − 1). For few rows, the distance is biased upwards. Raises ConfigError for fewer than 2 rows.
    [Dowson 1982, https://doi.org/10.1016/0047-259X(82)90077-X; for images Heusel 2017,
    https://arxiv.org/abs/1706.08500]
    """
    require(
        min(len(a_NF), len(b_MF)) >= 2,
        "a Fréchet distance needs two rows or more of each set; give more images",
    )
    a, b = _flat(a_NF), _flat(b_MF)
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (Σ_a Σ_b)^½ = tr (Σ_a^½ Σ_b Σ_a^½)^½. The right-hand matrix is symmetric, so that its
    # eigenvalues are real even for singular covariances.
    values, vectors = np.linalg.eigh(covariance_a)
    root_a = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root_a @ covariance_b @ root_a).clip(0)).sum()
    difference = a.mean(0) - b.mean(0)
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2 * cross
    return float(max(distance, 0.0))  # rounding can leave −1e-15 for equal sets


def kernel_distance(
    real_NF: Tensor, fake_MF: Tensor, subsets: int = 50, subset_size: int = 200
) -> float:
    """Return the kernel distance between two sets of features, with the estimator of KID.

    KID is the kernel inception distance. The estimate is the unbiased squared maximum mean
    discrepancy (MMD²) under the kernel (x·y/F + 1)³, averaged over random subsets. The estimate may
    be slightly below 0. Raises ConfigError for fewer than 2 rows.
    [Bińkowski 2018, https://arxiv.org/abs/1801.01401; torchmetrics' implementation]
    """
    from torchmetrics.image.kid import KernelInceptionDistance

    size = min(subset_size, len(real_NF), len(fake_MF))
    require(size >= 2, "a kernel distance needs two rows or more of each set; give more images")
    with warnings.catch_warnings():
        # torchmetrics warns that the metric keeps all features in memory.
        warnings.simplefilter("ignore")
        metric = KernelInceptionDistance(feature=nn.Identity(), subsets=subsets, subset_size=size)
    # torchmetrics draws subsets with the global random generator, whose state must be restored,
    # because training uses the same generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        metric.update(real_NF.cpu().double(), real=True)
        metric.update(fake_MF.cpu().double(), real=False)
        return float(metric.compute()[0])


def precision_recall(real_NF: Tensor, fake_MF: Tensor, neighbours: int = 3) -> tuple[float, float]:
    """Return precision and recall of a generator, given features of real and generated images.

    Precision is the share of generated rows inside the manifold of the real rows; recall is the
    share of real rows inside the manifold of the generated rows. The manifold of a set is the union
    of balls around its rows. The radius of a ball is the distance from its row to the
    `neighbours`-th nearest other row of the set. Raises ConfigError unless both sets have more than
    `neighbours` rows.
    [Kynkäänniemi 2019, https://arxiv.org/abs/1904.06991]
    """
    real, fake = real_NF.flatten(1).double(), fake_MF.flatten(1).double()
    require(
        min(len(real), len(fake)) > neighbours,
        f"precision and recall need more than {neighbours} rows of each set; give more images",
    )
    return _inside(fake, real, neighbours), _inside(real, fake, neighbours)


def _inside(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    """Return the share of `points` inside the balls around the rows of `manifold`."""
    # With the faster formula, a matrix product, the distance of a row to itself could be above 0.
    exact = "donot_use_mm_for_euclid_dist"
    # `neighbours` + 1, because the nearest row of the set is the row itself.
    radius = (
        torch.cdist(manifold, manifold, compute_mode=exact).kthvalue(neighbours + 1, dim=1).values
    )
    return (
        (torch.cdist(points, manifold, compute_mode=exact) <= radius).any(1).double().mean().item()
    )


# -- metrics with a classifier ---------------------------------------------------------------------


@dataclass(frozen=True)
class FCD:
    """A Fréchet classifier distance, with the extractor and the numbers of images.

    Two distances are comparable only if the extractors and the numbers are equal. FCD is not FID,
    which uses the features of an Inception network.
    """

    value: float
    extractor: str
    """Hash of the classifier's tensors, which identifies the extractor."""
    num_real: int
    num_generated: int
    """`num_real`, `num_generated`: numbers of images; few images bias the distance upwards."""


class Extractor:
    """Extracts a classifier's features from images of any value range.

    Args:
        classifier: a module. `classifier(x)` returns logits [B, K], and `classifier.features(x)`
            returns features [B, F]. `classifier.shape` is (C, H, W) of one image;
            `classifier.low` and `classifier.high` are the range of x.

    The methods raise ConfigError for images of another shape.
    """

    def __init__(self, classifier: Any):
        self.classifier = classifier.eval()
        self.name = tensors_hash(classifier)

    def features(self, images_NCHW: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return the features, float32 [N, F], of images in low..high."""
        return self._apply(self.classifier.features, images_NCHW, low, high)

    def probabilities(self, images_NCHW: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
        """Return the class probabilities, float32 [N, K], of images in low..high."""
        return self._apply(self.classifier, images_NCHW, low, high).softmax(1)

    @torch.no_grad()
    def _apply(
        self, function: Callable[[Tensor], Tensor], images: Tensor, low: float, high: float
    ) -> Tensor:
        model = self.classifier
        shape, wanted = tuple(images.shape[1:]), tuple(model.shape)
        require(
            shape == wanted,
            f"--extractor: the classifier takes images of shape {wanted}, not {shape}; name a "
            f"classifier that was trained on images of shape {shape}",
        )
        scale = (model.high - model.low) / (high - low)
        return torch.cat(
            [function((x - low) * scale + model.low).float() for x in images.split(500)]
        )

    def distance(self, real: Tensor, fake: Tensor, low: float = 0.0, high: float = 1.0) -> FCD:
        """Return the Fréchet classifier distance between two sets of images in low..high."""
        value = frechet_distance(self.features(real, low, high), self.features(fake, low, high))
        return FCD(value, self.name, len(real), len(fake))

    def modes(self, images: Tensor, low: float = 0.0, high: float = 1.0) -> int:
        """Return how many of the K classes occur among `images`.

        A class occurs if at least 1/(10 K) of the images have the class with probability ≥ 0.9.
        The threshold is a tenth of 1/K, a class's share in balanced data. Use at least 50·K images.
        """
        probability_NK = self.probabilities(images, low, high)
        sure, label_N = probability_NK.max(1)
        counts_K = torch.bincount(label_N[sure >= 0.9], minlength=probability_NK.shape[1])
        least = len(images) / (10 * probability_NK.shape[1])
        return int((counts_K >= least).sum())


def tensors_hash(module: nn.Module) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of a module's tensors, serialised by
    safetensors.
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
    """Compare generated with real images; returns the FCD and its numbers of images, the kernel
    distance, precision, recall and the modes.

    Both sets have values in low..high and at least two images. Precision and recall are left out
    unless both sets have four images or more.
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


# -- metrics without labels ------------------------------------------------------------------------


class PCAFrechet:
    """Fréchet distance between images projected on the training images' principal components.

    The distance needs no classifier, and is cheap enough for every evaluation of the validation
    split. Only the means and covariances of the components are compared.

    Args:
        train: the training images, to which the principal components are fitted.
        components: number of principal components, reduced to the number of images or of values of
            an image if there are fewer.
    """

    def __init__(self, train: Split, components: int = 32):
        from sklearn.decomposition import PCA

        images = train.all()
        self._pca = PCA(min(components, len(images), images[0].numel()), random_state=0).fit(
            _flat(images)
        )

    def __call__(self, real: Tensor, fake: Tensor) -> float:
        """Return the distance between two sets of images, [N, C, H, W] and [M, C, H, W]."""
        real_NF, fake_MF = (torch.from_numpy(self._pca.transform(_flat(x))) for x in (real, fake))
        return frechet_distance(real_NF, fake_MF)
