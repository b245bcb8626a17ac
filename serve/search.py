"""Finds the nearest neighbours of a picture among the data of a model, by the model's codes.

The database consists of the training and validation data; a model of kind `photographs` contains
its database. The first request for a model builds its index. The indexes of the most recently used
models stay in memory.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from genray.config import from_dict
from genray.console import escaped
from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.retrieval import CodeIndex, Metric, database
from genray.gen.images.photo_index import PhotoIndex
from serve.models import Predictor, from_model

KEPT = 4
"""Number of indexes in memory. An index of 60,000 images of 28x28 takes 50 MB with its images."""
CHUNK = 512


@dataclass(frozen=True)
class Neighbours:
    """The neighbours of one query, nearest first."""

    rows: list[int]
    distances: list[float]
    labels: list[str]
    names: list[str]
    images: Sequence[np.ndarray] | None
    """uint8 [H, W, C] of each neighbour; None for text."""


@dataclass(frozen=True)
class _Index:
    codes: CodeIndex
    codes_NK: np.ndarray
    base: Split
    data: Data


class Search:
    """Builds and searches one index for each model version. Only one thread may use the object."""

    def __init__(self) -> None:
        self._indexes: OrderedDict[str, _Index] = OrderedDict()
        self._photographs: OrderedDict[str, CodeIndex] = OrderedDict()

    def neighbours(
        self,
        predictor: Predictor,
        codes_QK: np.ndarray,
        count: int,
        check: Callable[[], None] = lambda: None,
    ) -> list[Neighbours]:
        """Find `count` neighbours for each code of `codes_QK`, float32 [Q, K].

        `check` is called between the steps that build an index. Raises ConfigError if the model's
        data are not on this machine, and any exception of `check`.
        """
        if isinstance(predictor.model, PhotoIndex):
            codes = self._photograph_codes(predictor, predictor.model)
            return _photographs(predictor.model, codes, codes_QK, count)
        index = self._index(predictor, check)
        count = min(count, len(index.codes))
        rows_QM, distances_QM = index.codes.search(codes_QK, count)
        found = []
        for rows_M, distances_M in zip(rows_QM, distances_QM):
            rows = [int(row) for row in rows_M]
            label = index.base.label
            labels = (
                [] if label is None else [class_name(index.data, int(label[row])) for row in rows]
            )
            names = [index.base.names[row] for row in rows] if index.base.names else []
            images = None
            if len(index.data.shape) == 3:
                images = list(from_model(predictor.model, index.base.take(torch.tensor(rows))[0]))
            found.append(
                Neighbours(rows, [float(value) for value in distances_M], labels, names, images)
            )
        return found

    def codes_of(
        self, predictor: Predictor, check: Callable[[], None] = lambda: None
    ) -> tuple[np.ndarray, Split, Data]:
        """Return (the codes of the database, float32 [N, K]; its rows; the data).

        The database has the training and validation rows. Raises ConfigError if the model's data
        are not on this machine, and any exception of `check`.
        """
        index = self._index(predictor, check)
        return index.codes_NK, index.base, index.data

    def _index(self, predictor: Predictor, check: Callable[[], None]) -> _Index:
        key = f"{predictor.name} {predictor.version}"
        if key in self._indexes:
            self._indexes.move_to_end(key)
            return self._indexes[key]
        data = training_data(predictor)
        base = database(data)
        with torch.inference_mode():
            model = predictor.model
            codes = []
            for x in base.all().split(CHUNK):
                check()
                codes.append(model.encode(x).flatten(1).float())  # type: ignore[operator]
        metric: Metric = "euclidean" if len(data.shape) == 3 else "cosine"
        codes_NK = torch.cat(codes).numpy()
        self._indexes[key] = _Index(CodeIndex(codes_NK, metric), codes_NK, base, data)
        while len(self._indexes) > KEPT:
            self._indexes.popitem(last=False)
        return self._indexes[key]

    def _photograph_codes(self, predictor: Predictor, index: PhotoIndex) -> CodeIndex:
        # Preparing 10,000 codes takes 0.34 s of CPU time, and a search of them 0.01 s.
        key = f"{predictor.name} {predictor.version}"
        if key not in self._photographs:
            self._photographs[key] = CodeIndex(index.codes, "cosine")
        self._photographs.move_to_end(key)
        while len(self._photographs) > KEPT:
            self._photographs.popitem(last=False)
        return self._photographs[key]


def _photographs(
    index: PhotoIndex, codes: CodeIndex, codes_QK: np.ndarray, count: int
) -> list[Neighbours]:
    """Search the codes of an index of photographs, which contains small copies."""
    rows_QM, distances_QM = codes.search(codes_QK, min(count, len(index)))
    return [
        Neighbours(
            rows,
            distances,
            [index.classes[index.labels[row]] for row in rows] if index.labels else [],
            [escaped(index.names[row]) for row in rows],
            [index.copy_of(row) for row in rows],
        )
        for rows, distances in zip(rows_QM.tolist(), distances_QM.tolist())
    ]


def training_data(predictor: Predictor) -> Data:
    """Load the data that a model was trained on, with the same split. Raises ConfigError if the
    data are not on this machine.
    """
    about = predictor.config.get("data")
    if not isinstance(about, dict) or "options" not in about:
        raise ConfigError(
            f"model {predictor.name!r}: config.json does not name the training data, so nothing "
            "can be searched; choose a model that genray has trained"
        )
    options = replace(from_dict(DataConfig, about["options"], "data."), augment=())
    # A text model needs the words of its training: changed texts would give the columns other
    # meanings.
    idf = about.get("recipe", {}).get("idf")
    try:
        # A client must not start a download.
        data = load_data(options, low=about["low"], high=about["high"], download=False, idf=idf)
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f"the data of model {predictor.name!r} ({options.data.partition(':')[0]}) are not on "
            "this machine; copy them here, or choose another model"
        ) from error
    if list(data.shape) != list(predictor.config["shape"]):
        raise ConfigError(
            f"the data of model {predictor.name!r} have another shape than in training, so nothing "
            "can be searched; restore the data, or train the model again"
        )
    return data


def class_name(data: Data, label: int) -> str:
    """Return the name of a class, or its number if the classes have no names."""
    return data.classes[label] if data.classes else str(label)
