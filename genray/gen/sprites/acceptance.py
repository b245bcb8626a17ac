"""Rejects some of the drawn screens, so that the others have the statistics of training screens.

A transformer that draws a screen makes a small error at every token, and most errors lose
something: after a token that is too far down the screen, no token above it can follow. Characters
are therefore drawn too rarely. The correction accepts a drawn screen x with probability

    a(x) = min(1, exp(w·f(x) − b)),

and otherwise another screen is drawn, at most CANDIDATES in all. The statistics f(x) say which
classes of shapes the screen shows, and how many of each class. Without the minimum, accepted
screens have the distribution that is nearest to the model's, in KL divergence, among those with
given mean statistics (maximum entropy, Berger et al. 1996). The weights w are fitted so that the
accepted screens have the mean statistics of the training screens. The likelihood of the model is
unchanged. A limit on b keeps the number of rejected screens small (quasi-rejection sampling,
Eikema et al. 2022, https://arxiv.org/abs/2112.05702).

Shapes: N screens, T tokens, V shapes, C classes of shapes, G groups, F statistics.
"""

from collections.abc import Sequence

import numpy as np

from genray.gen.sprites.network import GROUP, RUN, SHAPE, X, Y
from genray.gen.sprites.runs import Run
from genray.gen.sprites.vocabulary import Shape

CANDIDATES = 6
"""Largest number of screens that are drawn until one is accepted; the last one always is."""
LEAST_ACCEPTED = 0.5
"""Smallest share of the drawn screens that is accepted: on average, at most 2 are drawn for one."""
PRIOR = 0.01
"""Precision of the Gaussian prior on w. The difference in a statistic of variance v is corrected by
the share v / (v + PRIOR): by 94% if 20% of the screens have a class, by half if 1% have it."""
ROUNDS = 60
"""Steps of the fit."""
STEP = 0.5
"""Share of a Newton step that is taken."""
SIZES = 17
"""Classes of sizes: shapes of 2^(k−1) to 2^k − 1 pixels are class k, and all shapes of a group are
in its class 0, too."""
TOUCHING = 2
"""Boxes that are at most this many pixels apart touch."""


def class_of(shape: Shape) -> int:
    """Return the class of a shape, its group and size by powers of 2, as one number below C."""
    return shape.group * SIZES + min(shape.size.bit_length(), SIZES - 1)


def num_statistics(groups: int) -> int:
    """Return F, for G groups."""
    return groups * (2 * SIZES + 1)


class Statistics:
    """Computes the statistics f(x) of screens from their tokens.

    For each class, they say whether the screen has a shape of the class (0 or 1), and how many. If
    there are several backgrounds, each of the first 16 is a class. For each group, the statistics
    count the pairs of shapes that touch. Real screens have few such pairs, because shapes of one
    group that touch are one shape.

    Args:
        shapes, runs: what the numbers in tokens refer to.
        groups: G.
        backgrounds: number of the shapes that are backgrounds, which come first.
    """

    def __init__(
        self, shapes: Sequence[Shape], runs: Sequence[Run], groups: int, backgrounds: int = 0
    ):
        self._groups = groups
        self._class_V = np.array([class_of(shape) for shape in shapes], np.int64)
        self._class_V[:backgrounds] = np.minimum(np.arange(backgrounds) + 1, SIZES - 1)
        self._side_V2 = np.array([(shape.height, shape.width) for shape in shapes], np.int64)
        self._run_R3 = np.array(runs, np.int64)

    def of(self, tokens_NT5: np.ndarray) -> np.ndarray:
        """Return the statistics of padded tokens, float32 [N, F]; padding has the group G."""
        valid_NT = tokens_NT5[:, :, GROUP] < self._groups
        run_NT3 = self._run_R3[np.where(valid_NT, tokens_NT5[:, :, RUN], 0)]
        shape_NT = np.where(valid_NT, tokens_NT5[:, :, SHAPE], 0)
        count_NC = np.zeros((len(tokens_NT5), self._groups * SIZES), np.float32)
        row_K, number_K = valid_NT.nonzero()[0], run_NT3[valid_NT][:, 0]
        class_K = self._class_V[shape_NT[valid_NT]]
        np.add.at(count_NC, (row_K, class_K), number_K)
        np.add.at(count_NC, (row_K, class_K - class_K % SIZES), number_K)
        # The box of a run contains all of its shapes.
        top_NT2 = tokens_NT5[:, :, [Y, X]]
        bottom_NT2 = top_NT2 + self._side_V2[shape_NT] + (run_NT3[..., :1] - 1) * run_NT3[..., 1:]
        apart_NTT2 = top_NT2[:, :, None] - bottom_NT2[:, None]
        near_NTT = (np.maximum(apart_NTT2, apart_NTT2.swapaxes(1, 2)) < TOUCHING).all(3)
        group_NT = tokens_NT5[:, :, GROUP]
        near_NTT &= (group_NT[:, :, None] == group_NT[:, None]) & valid_NT[:, :, None]
        near_NTT &= np.tri(valid_NT.shape[1], k=-1, dtype=bool)
        pairs_NG = np.zeros((len(tokens_NT5), self._groups), np.float32)
        row_K, first_K, _ = near_NTT.nonzero()
        np.add.at(pairs_NG, (row_K, group_NT[row_K, first_K]), 1)
        return np.concatenate([count_NC > 0, count_NC, pairs_NG], 1, dtype=np.float32)


def fit_acceptance(real_NF: np.ndarray, drawn_NF: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the weights w, float64 [F], and b, for which accepted screens have the mean statistics
    of the real ones.

    Args:
        real_NF, drawn_NF: statistics of training screens and of screens that were drawn and not
            rejected; their numbers of screens may differ.
    """
    weight_F = np.zeros(real_NF.shape[1])
    used = np.flatnonzero((real_NF.std(0) > 0) & (drawn_NF.std(0) > 0))
    # Large numbers of shapes are scaled, so that the prior is as strong as for a share.
    scale_U = np.maximum(1, real_NF[:, used].std(0, dtype=np.float64))
    away_NU = (drawn_NF[:, used] - real_NF[:, used].mean(0, dtype=np.float64)) / scale_U
    weight_U, limit = np.zeros(len(used)), 0.0
    for _ in range(ROUNDS):
        score_N = away_NU @ weight_U
        limit = _limit(score_N)
        accepted_N = np.exp(np.minimum(0, score_N - limit))
        # A screen is shown if one of the candidates is accepted, or if it is the last one.
        rejected = 1 - accepted_N.mean()
        last = rejected ** (CANDIDATES - 1)
        share_N = accepted_N * (1 - last) / (1 - rejected) + last
        share_N /= share_N.sum()
        mean_U = share_N @ away_NU
        centred_NU = away_NU - mean_U
        variance_UU = (centred_NU * share_N[:, None]).T @ centred_NU + PRIOR * np.eye(len(used))
        weight_U -= STEP * np.linalg.solve(variance_UU, mean_U + PRIOR * weight_U)
    weight_F[used] = weight_U / scale_U
    # w·f(x) is measured from the real mean in the loop, and from 0 outside.
    return weight_F, limit + float(weight_F @ real_NF.mean(0, dtype=np.float64))


def _limit(score_N: np.ndarray) -> float:
    """Return b: the largest score, or a smaller number with which LEAST_ACCEPTED is reached."""
    low, high = float(score_N.min()), float(score_N.max())
    if np.exp(score_N - high).mean() >= LEAST_ACCEPTED:
        return high
    for _ in range(30):
        middle = (low + high) / 2
        if np.exp(np.minimum(0, score_N - middle)).mean() < LEAST_ACCEPTED:
            high = middle
        else:
            low = middle
    return low
