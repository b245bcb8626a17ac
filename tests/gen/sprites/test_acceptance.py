"""Tests that rejected screens leave the statistics of the training screens."""

import numpy as np
import pytest
import torch

from genray.gen.sprites.acceptance import (
    CANDIDATES,
    LEAST_ACCEPTED,
    SIZES,
    TOUCHING,
    Statistics,
    fit_acceptance,
    num_statistics,
)
from genray.gen.sprites.config import SpriteModelConfig
from genray.gen.sprites.model import SpriteModel, pad_tokens
from genray.gen.sprites.runs import SINGLE, Run
from genray.gen.sprites.tokens import Token, learn_language
from genray.gen.sprites.vocabulary import Shape
from tests.helpers.sprites import PALETTE, toy_screens


def shown(statistics_NF: np.ndarray, weight_F: np.ndarray, limit: float, seed: int) -> np.ndarray:
    """Reject rows one by one, with fresh rows for each screen; returns the rows that are shown."""
    rng = np.random.default_rng(seed)
    rows = iter(statistics_NF)
    found = []
    while True:
        for candidate in range(CANDIDATES):
            row = next(rows, None)
            if row is None:
                return np.array(found)
            chance = np.exp(min(0, row @ weight_F - limit))
            if rng.random() < chance or candidate == CANDIDATES - 1:
                found.append(row)
                break


def test_fit_acceptance_gives_shown_screens_the_real_means():
    """The second statistic depends on the first, the fourth is a large number, and the last one is
    never drawn."""
    rng = np.random.default_rng(0)

    def screens(count: int, bird: float, truck: float, aliens: float) -> np.ndarray:
        has_bird = rng.random(count) < bird
        return np.stack(
            [
                has_bird,
                has_bird & (rng.random(count) < 0.9),
                rng.random(count) < truck,
                rng.normal(aliens, 10, count),
                np.zeros(count),
            ],
            1,
        )

    real, drawn = screens(4000, 0.80, 0.16, 33), screens(4000, 0.70, 0.10, 30)
    real[:2, 4] = 1
    weight_F, limit = fit_acceptance(real, drawn)
    fresh = screens(60_000, 0.70, 0.10, 30)
    accepted = np.exp(np.minimum(0, fresh @ weight_F - limit)).mean()
    assert LEAST_ACCEPTED - 0.02 <= accepted < 1 and weight_F[4] == 0
    difference = np.abs(shown(fresh, weight_F, limit, 1).mean(0) - real.mean(0))
    assert (difference < [0.02, 0.02, 0.02, 0.5, 0.001]).all()
    # Nothing is rejected if there is nothing to correct.
    weight_F, limit = fit_acceptance(real, real)
    assert np.abs(weight_F).max() < 1e-9 and limit == pytest.approx(0, abs=1e-9)


def test_statistics_count_classes_runs_and_touching_shapes():
    shapes = [
        Shape(0, 1, 2, bytes([1, 1])),
        Shape(0, 2, 3, bytes([1] * 5 + [255])),
        Shape(1, 4, 4, bytes([2] * 16)),
    ]
    runs = [SINGLE, Run(4, 0, 6)]
    screens = [
        # A row of four that ends at x = 25; the second shape is one pixel to the right of it.
        [Token(0, 10, 5, 0, 1), Token(0, 10, 26, 1, 0), Token(1, 10, 5, 2, 0)],
        [Token(0, 10, 5, 0, 1), Token(0, 10, 27, 1, 0)],
        [],
    ]
    found = Statistics(shapes, runs, 2).of(pad_tokens(screens, 2).numpy())
    assert found.shape == (3, num_statistics(2))
    count = np.zeros((3, 2 * SIZES))
    count[0, [0, 2, 3, SIZES, SIZES + 5]] = 5, 4, 1, 1, 1
    count[1, [0, 2, 3]] = 5, 4, 1
    assert np.array_equal(found[:, : 2 * SIZES], count > 0)
    assert np.array_equal(found[:, 2 * SIZES : 4 * SIZES], count)
    assert TOUCHING == 2 and found[:, 4 * SIZES :].tolist() == [[1, 0], [0, 0], [0, 0]]
    # If the shapes of group 0 are backgrounds, each of them is a class.
    of_levels = Statistics(shapes, runs, 2, backgrounds=2)
    found = of_levels.of(pad_tokens([[Token(0, 0, 0, 1, 0), Token(1, 10, 5, 2, 0)]], 2).numpy())
    assert found[0, : 2 * SIZES].nonzero()[0].tolist() == [0, 2, SIZES, SIZES + 5]


@pytest.fixture(scope="module")
def model() -> SpriteModel:
    """An untrained model that wants the ball, which it draws on some screens only."""
    torch.manual_seed(0)
    screens = toy_screens(100)
    language = learn_language(screens, PALETTE, rare=8, most_shapes=99, name="toy")
    tokens = [language.encode(screen) for screen in screens]
    config = SpriteModelConfig(width=32, layers=1, heads=2)
    made = SpriteModel.of_language(config, language, tokens).eval()
    ball = int(language.group_P[5]) * SIZES + 3
    made.accept_weight[ball], made.accept_limit[0] = 3.0, 3.0
    return made


def test_rejection_draws_the_wanted_class_more_often(model: SpriteModel):
    """P(shown) follows from P(drawn): with weight 3, a screen without a ball is accepted with
    probability exp(−3), or as the last of the candidates."""
    chance = torch.rand(600, model.longest, 5, generator=torch.Generator().manual_seed(1))
    ball = model.statistics.of(model.pad(model.drawn_tokens(chance)).numpy())
    with_ball = (ball @ model.accept_weight.numpy() > 0).mean()
    assert 0.1 < with_ball < 0.9
    shown_ball = model.statistics.of(model.tokens_of(chance).numpy())
    share = (shown_ball @ model.accept_weight.numpy() > 0).mean()
    without = np.exp(-3) * (1 - with_ball)
    rejected = 1 - with_ball - without
    expected = with_ball * (1 - rejected**CANDIDATES) / (1 - rejected)
    assert share == pytest.approx(expected, abs=0.06)


def test_rejected_rows_do_not_depend_on_other_rows(model: SpriteModel):
    chance = torch.rand(12, model.longest, 5, generator=torch.Generator().manual_seed(2))
    together = model.paint(model.tokens_of(chance))
    alone = [model.paint(model.tokens_of(row[None]))[0] for row in chance]
    assert np.array_equal(together, np.stack(alone))
    assert not np.array_equal(together, model.paint(model.pad(model.drawn_tokens(chance))))
