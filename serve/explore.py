"""Measures and draws what the page shows of a model: effects of latents, maps, covers, test rows.

Everything is computed from the model and its training data, and kept in memory for each version of
a model. Only the thread for slow work may call these functions.

Shapes: N rows, Z latents, K numbers of a code, H height, W width, C channels.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, TypeVar, cast

import numpy as np
import torch

from genray.errors import ConfigError
from genray.gen.images.photo_index import PhotoIndex
from genray.media import contact_sheet
from serve.models import Predictor, from_model
from serve.search import Search, class_name, training_data

Check = Callable[[], None]
T = TypeVar("T")

KEPT, KEPT_BYTES = 32, 128 * 2**20
"""Most results that are kept in memory, and most bytes of all of them; the newest is always kept. A
map of 1,000 pictures of 64x64 has 12 MB, and a client may ask for any number of pictures.
"""
EFFECT_IMAGES = 1_024
"""Largest number of images for a measurement of effects, unless there are more latents."""
TILE = 64
"""Side in pixels of a square copy of a photograph on a map, and the longest side of other pictures
on a map.
"""


class Explorer:
    """Computes results for the page, and keeps the last of them.

    Args:
        search: the indexes of codes.
    """

    def __init__(self, search: Search):
        self._search = search
        self._kept: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def kept(self, predictor: Predictor, what: Hashable, make: Callable[[], T]) -> T:
        """Return `make()`, computed once for each version of the model."""
        key = (predictor.name, predictor.version, what)
        if key not in self._kept:
            value = make()
            self._kept[key] = value, size_of(value)
        self._kept.move_to_end(key)
        sizes = [size for _, size in self._kept.values()]
        while len(sizes) > KEPT or (len(sizes) > 1 and sum(sizes) > KEPT_BYTES):
            self._kept.popitem(last=False)
            del sizes[0]
        return cast(T, self._kept[key][0])

    def effects(self, predictor: Predictor, check: Check) -> np.ndarray:
        """Measure how much each latent changes the images, float32 [Z]; see `latent_effects`."""
        return self.kept(predictor, "effects", lambda: latent_effects(predictor, check))

    def test_rows(self, predictor: Predictor, count: int) -> dict[str, Any]:
        """Return pictures or texts that the model has not been trained on, as arrays and texts.

        The keys are "images" (uint8 [H, W, C] each), "labels" and "texts", with up to `count`
        entries, and "credit". An index of photographs gives its own pictures. Raises ConfigError
        if the data are not on this machine.
        """
        return self.kept(predictor, ("test", count), lambda: _test_rows(predictor, count))

    def code_map(self, predictor: Predictor, count: int, check: Check) -> dict[str, Any]:
        """Return up to `count` rows of the training data as points in the plane.

        Codes of more than two numbers are projected on their first two principal components. The
        keys are "points" (x and y in 0..1), "labels", "names", "axes", "images" (uint8 [H, W, C]
        each, or None for text) and "explained" (share of the variance in the plane). Raises
        ConfigError if the model has codes of one number, or its data are not on this machine.
        """
        make = lambda: _code_map(self._search, predictor, count, check)  # noqa: E731
        return self.kept(predictor, ("map", count), make)


def size_of(value: Any) -> int:
    """Return the bytes of the arrays and the encoded pictures in a result."""
    if isinstance(value, dict):
        return sum(size_of(each) for each in value.values())
    if isinstance(value, list):
        return sum(size_of(each) for each in value)
    if isinstance(value, bytes):
        return len(value)
    return int(value.nbytes) if isinstance(value, np.ndarray) else 0


def latent_effects(predictor: Predictor, check: Check = lambda: None) -> np.ndarray:
    """Measure the effect of each latent: mean absolute change of a pixel (0..255), float32 [Z].

    Each latent in turn is set to −1.5 and to 1.5 (a uniform prior: −0.75 and 0.75), and the two
    images are compared; the mean is over up to four random latents. `check` is called between
    batches.
    """
    run = predictor.functions["generate"].run
    width = predictor.functions["generate"].inputs[0].shape[0]
    reach = 0.75 if predictor.config.get("prior") == "uniform" else 1.5
    bases = predictor.latents(range(max(1, min(4, EFFECT_IMAGES // (2 * width)))))
    effect_Z = np.zeros(width, np.float32)
    for first in range(0, width, 16):
        chosen = range(first, min(first + 16, width))
        for base_Z in bases:
            check()
            latents = np.repeat(base_Z[None], 2 * len(chosen), axis=0)
            for place, latent in enumerate(chosen):
                latents[2 * place : 2 * place + 2, latent] = (-reach, reach)
            images = run({"latent": latents})["image"].astype(np.int16)
            change = np.abs(images[1::2] - images[::2]).reshape(len(chosen), -1).mean(axis=1)
            effect_Z[first : first + len(chosen)] += change / len(bases)
    return effect_Z


def _test_rows(predictor: Predictor, count: int) -> dict[str, Any]:
    model: Any = predictor.model
    if isinstance(model, PhotoIndex):
        rows = np.linspace(0, len(model) - 1, min(count, len(model))).round().astype(int)
        return {
            "images": [model.copy_of(int(row)) for row in rows],
            "labels": [model.classes[model.labels[row]] for row in rows] if model.labels else [],
            "texts": [],
            "credit": "pictures of the collection itself",
        }
    data = training_data(predictor)
    test = data.test
    count = min(count, len(test))
    rows = np.arange(count)
    labels: list[str] = []
    if test.label is not None and len(data.shape) == 3:
        # Take the classes in turn, so that a few pictures show many of them.
        label_N = test.label.numpy()[:5_000]
        turn_N = np.zeros(len(label_N), int)
        for label in np.unique(label_N):
            mine = label_N == label
            turn_N[mine] = np.arange(mine.sum())
        rows = np.lexsort((label_N, turn_N))[:count]
        labels = [class_name(data, int(label_N[row])) for row in rows]
    images: list[np.ndarray] = []
    if len(data.shape) == 3:
        images = list(from_model(model, test.take(torch.from_numpy(rows))[0]))
    texts = [test.names[row] for row in rows] if test.names and not images else []
    return {"images": images, "labels": labels, "texts": texts, "credit": data.licence}


def _code_map(search: Search, predictor: Predictor, count: int, check: Check) -> dict[str, Any]:
    from sklearn.decomposition import PCA

    model: Any = predictor.model
    images: list[np.ndarray] | None = None
    if isinstance(model, PhotoIndex):
        rows = np.linspace(0, len(model) - 1, min(count, len(model))).round().astype(int)
        codes = model.codes[rows]
        images = [_square(model.copy_of(int(row)), TILE) for row in rows]
        labels = [model.classes[model.labels[row]] for row in rows] if model.labels else []
        names = [model.names[row] for row in rows]
    else:
        all_codes, base, data = search.codes_of(predictor, check)
        rows = np.linspace(0, len(all_codes) - 1, min(count, len(all_codes))).round().astype(int)
        codes = all_codes[rows]
        label = base.label
        labels = [] if label is None else [class_name(data, int(label[row])) for row in rows]
        names = [base.names[row] for row in rows] if base.names else []
        if len(data.shape) == 3:
            # One row at a time, because only the small copies need memory.
            single = (base.take(torch.from_numpy(rows[at : at + 1]))[0] for at in range(len(rows)))
            images = [_at_most(from_model(model, x_1CHW)[0], TILE) for x_1CHW in single]
    if codes.shape[1] < 2 or len(codes) < 3:
        raise ConfigError(
            f"model {predictor.name!r}: a map needs codes of two numbers or more, and three rows"
        )
    explained, axes = 1.0, ["code 1", "code 2"]
    points = codes.astype(np.float64)
    if codes.shape[1] > 2:
        pca = PCA(2, svd_solver="full")
        points = pca.fit_transform(points)
        explained = float(pca.explained_variance_ratio_.sum())
        axes = [f"main direction 1 of {codes.shape[1]}", "main direction 2"]
    low, high = points.min(0), points.max(0)
    scaled = (points - low) / np.where(high > low, high - low, 1)
    return {
        "points": scaled.round(4).tolist(),
        "labels": labels,
        "names": names,
        "axes": axes,
        "images": images,
        "explained": 0.0 if np.isnan(explained) else round(explained, 4),
    }


def _square(rgb: np.ndarray, side: int) -> np.ndarray:
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.fit(Image.fromarray(rgb), (side, side)), np.uint8)


def _at_most(image_HWC: np.ndarray, side: int) -> np.ndarray:
    """Return every k-th row and column, so that no side is longer than `side`."""
    step = -(-max(image_HWC.shape[:2]) // side)
    return image_HWC[::step, ::step].copy()


def sheet(images: list[np.ndarray], columns: int, least_side: int = 0, gap: int = 0) -> np.ndarray:
    """Arrange images of one size in rows of `columns`, uint8 [H, W, 3].

    Images with a side below `least_side` are enlarged by a whole factor.
    """
    rgb = [np.broadcast_to(each, (*each.shape[:2], 3)) for each in images]
    factor = max(1, -(-least_side // max(rgb[0].shape[:2])))
    large = [each.repeat(factor, axis=0).repeat(factor, axis=1) for each in rgb]
    return contact_sheet(large, columns, gap)


def generated(predictor: Predictor, count: int) -> list[np.ndarray]:
    """Return the images of the seeds 0..count−1, uint8 [H, W, C] each."""
    latents = predictor.latents(range(count))
    return list(predictor.functions["generate"].run({"latent": latents})["image"])


def reconstructed(predictor: Predictor, images: list[np.ndarray]) -> list[np.ndarray]:
    """Return the reconstructions of images, uint8 [H, W, C] each."""
    return list(predictor.functions["reconstruct"].run({"image": np.stack(images)})["image"])


def screen_after(predictor: Predictor, env: Any, steps: int) -> np.ndarray:
    """Return the screen after `steps` steps of a policy's game, uint8 RGB [H, W, 3]."""
    from genray.rl.evaluate import play_steps

    last: np.ndarray | None = None
    for step in play_steps(cast(Any, predictor.model), env, seed=0, max_steps=steps):
        last = step.frame
    assert last is not None
    return last
