"""Explores codes: clustering, detection of anomalies, and a map, which is a two-dimensional plot.

All functions are pure functions of arrays.

Shapes: N rows, K numbers of a code, C classes or clusters.
"""

import warnings
from collections.abc import Sequence

import numpy as np

from genray.errors import require


def cluster(codes_NK: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """Cluster codes by k-means, and keep the best of ten runs with k-means++ starts.

    Returns the cluster of each row, int64 [N] in 0..clusters−1. Raises ConfigError for an invalid
    number of clusters, or for NaN or infinite codes.
    """
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    require(
        2 <= clusters <= len(codes_NK),
        f"--clusters {clusters}: must lie in 2..{len(codes_NK)}, e.g. 10",
    )
    _check_finite(codes_NK)
    with warnings.catch_warnings():
        # Equal rows can leave clusters empty.
        warnings.simplefilter("ignore", ConvergenceWarning)
        found_N = KMeans(clusters, n_init=10, random_state=seed).fit_predict(
            codes_NK.astype(np.float64)
        )
    return found_N.astype(np.int64)


def evaluate_clusters(cluster_N: np.ndarray, label_N: np.ndarray) -> dict[str, float]:
    """Compare clusters with labels; returns "nmi", "ari" and "accuracy".

    "nmi" is the normalised mutual information (normalised by the arithmetic mean of the entropies),
    "ari" the adjusted Rand index. The accuracy uses the best one-to-one matching of clusters to
    classes. All three are 1 for equal partitions. Random clusters give an NMI and an ARI of about
    0; one cluster of all rows has the largest class's share as accuracy. Raises ConfigError if all
    rows are of one class.
    """
    from sklearn import metrics

    require(
        len(np.unique(label_N)) >= 2,
        "all rows are of one class; to evaluate clusters, use rows of two classes or more",
    )
    return {
        "nmi": float(metrics.normalized_mutual_info_score(label_N, cluster_N)),
        "ari": float(metrics.adjusted_rand_score(label_N, cluster_N)),
        "accuracy": matched_accuracy(cluster_N, label_N),
    }


def matched_accuracy(cluster_N: np.ndarray, label_N: np.ndarray) -> float:
    """Return the accuracy of clusters as classes, under the best one-to-one matching."""
    from scipy.optimize import linear_sum_assignment

    size = int(max(cluster_N.max(), label_N.max())) + 1
    count_CC = np.zeros((size, size), np.int64)
    np.add.at(count_CC, (cluster_N, label_N), 1)
    return float(count_CC[linear_sum_assignment(count_CC, maximize=True)].sum() / len(label_N))


def auroc(normal_score_N: np.ndarray, anomalous_score_N: np.ndarray) -> float:
    """Return the area under the ROC curve of an anomaly score: 0.5 is chance, 1 is perfect.

    The area is the probability that an anomalous row scores above a normal row; ties count half.
    Raises ConfigError for missing rows, or NaN or infinite scores.
    """
    from sklearn.metrics import roc_auc_score

    require(
        len(normal_score_N) > 0 and len(anomalous_score_N) > 0,
        "anomalies need normal rows and rows of the class that --without names; one of the two "
        "has no rows",
    )
    score = np.concatenate([normal_score_N, anomalous_score_N])
    _check_finite(score)
    return float(
        roc_auc_score(np.repeat([0, 1], [len(normal_score_N), len(anomalous_score_N)]), score)
    )


def reconstruction_errors(values_N: np.ndarray, reconstructed_N: np.ndarray) -> np.ndarray:
    """Return each row's mean squared error, float64 [N], the anomaly score of an autoencoder."""
    return (
        ((values_N.astype(np.float64) - reconstructed_N) ** 2)
        .reshape(len(values_N), -1)
        .mean(axis=1)
    )


def map_picture(
    codes_NK: np.ndarray,
    label_N: np.ndarray | None,
    classes: Sequence[str] = (),
    title: str = "",
    pixels: int = 800,
) -> np.ndarray:
    """Draw codes as points in the plane, coloured by class; uint8 RGB [pixels, pixels, 3].

    Codes of more than two numbers are projected on their first two principal components, and the
    labels of the axes say so. Raises ConfigError for fewer than two rows or two numbers, or NaN or
    infinite codes.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    require(
        codes_NK.ndim == 2 and codes_NK.shape[1] >= 2,
        "a map needs codes of two numbers or more: train an ae with --code 2, or a vae with "
        "--latent 2",
    )
    require(
        len(codes_NK) >= 2,
        f"a map needs two rows or more, and there are {len(codes_NK)}; give more with --data",
    )
    _check_finite(codes_NK)
    # Project long codes on the plane of their largest variance.
    axes_names = ("code 1", "code 2")
    points_N2 = codes_NK
    if codes_NK.shape[1] > 2:
        from sklearn.decomposition import PCA

        points_N2 = PCA(2, svd_solver="full").fit_transform(codes_NK.astype(np.float64))
        axes_names = (
            f"principal component 1 of {codes_NK.shape[1]} numbers",
            "principal component 2",
        )
    # Draw one point for each row, in the colour of its class. Points are smaller if there are many.
    figure = Figure(figsize=(8, 8), dpi=pixels / 8, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    dot = float(np.clip(40_000 / len(points_N2), 2, 30))
    if label_N is None:
        axes.scatter(points_N2[:, 0], points_N2[:, 1], s=dot, linewidths=0, alpha=0.7)
    else:
        numbers = np.unique(label_N)
        # tab10 and tab20 have clearly different colours; the colours of more than 20 classes are
        # spaced along a spectrum.
        colours = colormaps[
            "tab10" if numbers.max() < 10 else "tab20" if numbers.max() < 20 else "hsv"
        ]
        for number in numbers:
            name = classes[number] if number < len(classes) else str(number)
            colour = (
                colours(int(number))
                if numbers.max() < 20
                else colours(number / (numbers.max() + 1))
            )
            own_2N = points_N2[label_N == number].T
            axes.scatter(
                own_2N[0], own_2N[1], s=dot, linewidths=0, alpha=0.7, color=colour, label=name
            )
        if len(numbers) <= 40:  # a longer legend would cover the map
            figure.legend(ncols=min(len(numbers), 5), loc="outside lower center", frameon=False)
    axes.set(xlabel=axes_names[0], ylabel=axes_names[1], title=title)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:, :, :3].copy()


def _check_finite(values: np.ndarray) -> None:
    require(
        bool(np.isfinite(values).all()),
        "codes have NaN or infinite values: train again with a lower --learning-rate",
    )
