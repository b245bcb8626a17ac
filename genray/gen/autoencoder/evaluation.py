"""Evaluates autoencoders on held-out rows: denoising, recorded positions, linear baselines.

Shapes: B batch, N rows, U windows, Z dimension of the code.
"""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from genray.gen.autoencoder.corruption import median_filter
from genray.gen.autoencoder.model import Autoencoder
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.probes import flat, principal_components, softmax_regression

CHUNK = 512
"""Number of rows evaluated at a time."""


class RowMeans:
    """Computes means over all rows from the means over chunks of rows."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def add(self, name: str, mean: Tensor, rows: int) -> None:
        """Add the mean of one chunk of `rows` rows to the figure `name`."""
        self._sums[name] = self._sums.get(name, 0.0) + float(mean) * rows
        self._rows[name] = self._rows.get(name, 0) + rows

    def values(self) -> dict[str, float]:
        """Return the mean over all rows of each figure, by name."""
        return {name: total / self._rows[name] for name, total in self._sums.items()}


def chunks(split: Split) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the split's rows and labels, at most `CHUNK` rows at a time."""
    for start in range(0, len(split), CHUNK):
        rows = torch.arange(start, min(start + CHUNK, len(split)), device=split.values.device)
        yield split.take(rows)


def denoising_errors(
    model: Autoencoder, corrupted: Callable[[Tensor], Tensor], split: Split
) -> dict[str, float]:
    """Return mean squared errors to the clean rows.

    `denoised_mse` is the error of the model's reconstructions, `identity_mse` that of the corrupted
    rows themselves, and, for images, `median_filter_mse` that of a 3x3 median filter.
    """
    means = RowMeans()
    for x, _ in chunks(split):
        noisy = corrupted(x)
        means.add("denoised_mse", (model(noisy) - x).square().mean(), len(x))
        means.add("identity_mse", (noisy - x).square().mean(), len(x))
        if x.ndim == 4:
            means.add("median_filter_mse", (median_filter(noisy) - x).square().mean(), len(x))
    return means.values()


def position_entropy(model: Autoencoder, split: Split) -> float:
    """Return an upper bound of the information in an image's pooling positions, in bits.

    The bound is the sum, over windows, of the entropy of the window's position in `split`. The
    joint entropy of all windows is lower, because their positions depend on each other. The sum is
    at most `model.position_bits`.
    """
    every: list[list[Tensor]] = []
    for x, _ in chunks(split):
        every.append(
            [position.flatten(1) for position in model.encode_layers(x)[1] if position is not None]
        )
    bits = 0.0
    for position_NU in (torch.cat(level) for level in zip(*every)):
        ordered_NU = position_NU.sort(0).values
        for window_N in ordered_NU.unbind(1):
            share = window_N.unique_consecutive(return_counts=True)[1].double() / len(window_N)
            bits -= float((share * share.log2()).sum())
    return bits


def codes(model: Autoencoder, split: Split) -> np.ndarray:
    """Return the codes of all rows, float32 [N, Z]."""
    return flat(torch.cat([model.encode_layers(x)[0] for x, _ in chunks(split)]))


def linear_baselines(
    model: Autoencoder, data: Data, few: Split | None, with_codes: bool
) -> dict[str, float]:
    """Return figures of the test split that linear methods reach.

    `pca_mse` is the reconstruction error of PCA with as many components as the code has numbers.
    `accuracy_codes`, `accuracy_pixels` and `accuracy_pca` are the accuracies of softmax regressions
    on the codes, the data and the components of the labelled rows. `pca_mse` and `accuracy_pca` are
    left out if a row has fewer values, or if there are fewer rows, than the code has numbers.

    Args:
        model: the trained autoencoder.
        data: all splits; PCA is fitted to the training rows.
        few: the labelled rows; None: no accuracies.
        with_codes: whether to include `accuracy_codes`.
    """
    values: dict[str, float] = {}
    train, test = flat(data.train.all()), flat(data.test.all())
    pca = principal_components(train, model.config.code)
    if pca is not None:
        rebuilt = pca.inverse_transform(pca.transform(test))
        values["pca_mse"] = float(np.square(rebuilt - test).mean())
    if few is None:
        return values
    assert few.label is not None and data.test.label is not None
    label, test_label = few.label.cpu().numpy(), data.test.label.cpu().numpy()
    few_pixels = flat(few.all())
    features = {"pixels": (few_pixels, test)}
    if pca is not None:
        features["pca"] = (pca.transform(few_pixels), pca.transform(test))
    if with_codes:
        features["codes"] = (codes(model, few), codes(model, data.test))
    for name, (known, asked) in features.items():
        values[f"accuracy_{name}"] = softmax_regression(known, label, asked, test_label)
    return values
