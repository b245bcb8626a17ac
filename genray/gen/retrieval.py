"""Nearest neighbours by code, and how good they are: precision at k and mean average precision.

The protocol: each test row is a query, the training rows (validation included) are the database, and what has the
query's label is relevant. On digits that gives raw pixels mAP .669 and PCA to 10 numbers .685.

Shapes: N rows of the database, Q queries, K numbers or bits of a code, M neighbours.
"""

from collections.abc import Iterator
from typing import Literal

import numpy as np

from genray.errors import require
from genray.gen.data import Data, Split

Metric = Literal["euclidean", "cosine", "hamming"]
_CHUNK = 256
"""Queries at a time: 256 against 100,000 rows are 100 MB of distances."""


class CodeIndex:
    """An exact index: every query is compared with every row.

    `codes_NK`: floats for "euclidean" and "cosine" (a row of zeros has cosine 0 with everything), bool for "hamming",
    which keeps 64 bits in each word.
    """

    def __init__(self, codes_NK: np.ndarray, metric: Metric = "euclidean"):
        self.metric: Metric = metric
        self.width = codes_NK.shape[1]
        self._rows = self._prepare(codes_NK)
        self._square_N = (self._rows**2).sum(1) if metric == "euclidean" else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def nbytes(self) -> int:
        """Of the codes as they are kept."""
        return self._rows.nbytes

    def search(self, queries_QK: np.ndarray, count: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """(rows int64 [Q, M], distances float64 [Q, M]), nearest first; equal distances in the order of the rows.

        The distance is Euclidean, 1 − cosine, or the number of unlike bits.
        """
        require(1 <= count <= len(self), f"--neighbours {count}: must lie in 1..{len(self)}, the rows of the index")
        rows, distances = [], []
        for distance_QN in self.distances(queries_QK):
            row_QM = np.argsort(distance_QN, axis=1, kind="stable")[:, :count]
            rows.append(row_QM)
            distances.append(np.take_along_axis(distance_QN, row_QM, axis=1))
        return np.concatenate(rows), np.concatenate(distances)

    def distances(self, queries_QK: np.ndarray) -> Iterator[np.ndarray]:
        """Distances of all queries to all rows, float64 [≤ 256, N] at a time, in order."""
        require(
            queries_QK.ndim == 2 and queries_QK.shape[1] == self.width,
            f"queries of {queries_QK.shape[-1]} numbers for an index of {self.width}: encode both with the same model",
        )
        prepared = self._prepare(queries_QK)
        for start in range(0, len(prepared), _CHUNK):
            yield self._distance(prepared[start : start + _CHUNK])

    def _prepare(self, codes: np.ndarray) -> np.ndarray:
        if self.metric == "hamming":
            require(codes.dtype == bool, "Hamming distance needs bits: binarize the codes first")
            bytes_NB = np.packbits(codes, axis=1)
            padding = -bytes_NB.shape[1] % 8
            return np.ascontiguousarray(np.pad(bytes_NB, ((0, 0), (0, padding)))).view(np.uint64)
        codes = codes.astype(np.float64)
        require(
            bool(np.isfinite(codes).all()),
            "codes have NaN or infinite values: train again with a lower --learning-rate",
        )
        if self.metric == "cosine":
            length = np.linalg.norm(codes, axis=1, keepdims=True)
            codes = codes / np.where(length > 0, length, 1)
        return codes

    def _distance(self, queries: np.ndarray) -> np.ndarray:
        if self.metric == "hamming":
            unlike = np.zeros((len(queries), len(self)), np.float64)
            for word in range(self._rows.shape[1]):
                unlike += np.bitwise_count(queries[:, word, None] ^ self._rows[None, :, word])
            return unlike
        product = queries @ self._rows.T
        if self.metric == "cosine":
            return 1 - product
        square = (queries**2).sum(1)[:, None] + self._square_N - 2 * product
        return np.sqrt(np.maximum(square, 0))


def bit_thresholds(codes_NK: np.ndarray) -> np.ndarray:
    """Where each number of a code is cut into a bit: its median over the training rows, so that both are as frequent."""
    return np.median(codes_NK, axis=0)


def binarize(codes_NK: np.ndarray, threshold_K: np.ndarray | float = 0.0) -> np.ndarray:
    """Bits, bool [N, K]: above the threshold or not.

    [Salakhutdinov & Hinton 2009, Semantic hashing, https://doi.org/10.1016/j.ijar.2008.11.006; there the codes are trained
    towards 0 and 1 by noise, here any code may be cut]
    """
    return np.asarray(codes_NK > threshold_K)


def precision_at(index: CodeIndex, index_label_N: np.ndarray, codes_QK: np.ndarray, label_Q: np.ndarray, k: int = 10):
    """The mean share of relevant rows among the `k` nearest; a float in 0..1."""
    rows_QM, _ = index.search(codes_QK, k)
    return float((index_label_N[rows_QM] == label_Q[:, None]).mean())


def mean_average_precision(
    index: CodeIndex, index_label_N: np.ndarray, codes_QK: np.ndarray, label_Q: np.ndarray
) -> float:
    """The mean over queries of the mean, over relevant rows, of the precision at that row's rank; in 0..1.

    The whole database is ranked. Equal distances (bits have many) rank in the order of the rows, which says nothing about
    labels as long as the database is shuffled. Queries without a relevant row do not count.
    """
    rank_N = np.arange(1, len(index) + 1)
    total, counted, start = 0.0, 0, 0
    for distance_QN in index.distances(codes_QK):
        label = label_Q[start : start + len(distance_QN)]
        start += len(distance_QN)
        order_QN = np.argsort(distance_QN, axis=1, kind="stable")
        relevant_QN = index_label_N[order_QN] == label[:, None]
        precision_QN = relevant_QN.cumsum(axis=1) / rank_N
        relevant_Q = relevant_QN.sum(axis=1)
        average_Q = (precision_QN * relevant_QN).sum(axis=1) / np.maximum(relevant_Q, 1)
        total += float(average_Q.sum())
        counted += int((relevant_Q > 0).sum())
    require(counted > 0, "no query has a relevant row in the database: nothing to measure")
    return total / counted


def judge_retrieval(
    codes_NK: np.ndarray,
    label_N: np.ndarray,
    query_codes_QK: np.ndarray,
    query_label_Q: np.ndarray,
    metric: Metric = "euclidean",
    k: int = 10,
) -> dict[str, float]:
    """{"precision_at_K": …, "map": …} of codes of the database and of the queries."""
    index = CodeIndex(codes_NK, metric)
    return {
        f"precision_at_{k}": precision_at(index, label_N, query_codes_QK, query_label_Q, k),
        "map": mean_average_precision(index, label_N, query_codes_QK, query_label_Q),
    }


def database(data: Data) -> Split:
    """What queries are compared with: the training rows and, behind them, the validation rows."""
    import torch

    train, validation = data.train, data.validation
    label = None
    if train.label is not None and validation.label is not None:
        label = torch.cat([train.label, validation.label])
    values = torch.cat([train.values, validation.values])
    return Split(values, label, train.low, train.high, train.names + validation.names)


def baselines(
    values_N: np.ndarray,
    label_N: np.ndarray,
    query_values_Q: np.ndarray,
    query_label_Q: np.ndarray,
    *,
    numbers: int,
    text: bool = False,
    k: int = 10,
) -> dict[str, dict[str, float]]:
    """What codes of `numbers` numbers must beat, each judged as `judge_retrieval` does. Nothing is fitted on queries.

    Images: raw pixels and PCA (Euclidean). Text: TF-IDF and LSA (cosine), and LSA cut into `numbers` bits (Hamming).
    Chance is what a random order of the database would give.
    """
    raw, query_raw = (values.reshape(len(values), -1).astype(np.float64) for values in (values_N, query_values_Q))
    most = min(raw.shape) - 1
    numbers = min(numbers, most)
    share = np.array([(label_N == label).mean() for label in query_label_Q])
    found = {"chance": {f"precision_at_{k}": float(share.mean())}}

    def judge(name: str, codes: np.ndarray, query_codes: np.ndarray, metric: Metric) -> None:
        found[name] = judge_retrieval(codes, label_N, query_codes, query_label_Q, metric, k)

    if text:
        from sklearn.decomposition import TruncatedSVD

        judge("tf-idf", raw, query_raw, "cosine")
        lsa = TruncatedSVD(numbers, random_state=0).fit(raw)
        codes, query_codes = lsa.transform(raw), lsa.transform(query_raw)
        judge(f"lsa-{numbers}", codes, query_codes, "cosine")
        threshold = bit_thresholds(codes)
        judge(f"lsa-{numbers}-bits", binarize(codes, threshold), binarize(query_codes, threshold), "hamming")
    else:
        from sklearn.decomposition import PCA

        judge("raw", raw, query_raw, "euclidean")
        pca = PCA(numbers, svd_solver="full").fit(raw)
        judge(f"pca-{numbers}", pca.transform(raw), pca.transform(query_raw), "euclidean")
    return found
