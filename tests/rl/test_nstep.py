"""Tests n-step returns, discounts and horizons against a loop over single rows."""

import numpy as np
import pytest

from genray.rl.nstep import n_step
from tests.oracles import Row, slow_n_step

GAMMA = 0.97


def random_life(rng: np.random.Generator, length: int) -> list[Row]:
    """Return rows with all three kinds of endings, some of them adjacent. The row after an ending
    is the reset.
    """
    life: list[Row] = []
    for _ in range(length):
        over = bool(life) and (life[-1].terminated or life[-1].truncated)
        row = Row(np.zeros((1, 1), np.uint8), over=over)
        if not over:
            row.reward = float(rng.normal())
            kind = rng.integers(8)
            row.terminated, row.truncated, row.life_lost = kind == 0, kind == 1, kind in (1, 2)
        life.append(row)
    return life


@pytest.mark.parametrize("life_loss", ["ignore", "terminal"])
@pytest.mark.parametrize("n", [1, 2, 3, 5, 10])
def test_agrees_with_the_slow_loop(n: int, life_loss: str):
    rng = np.random.default_rng(n)
    lanes, rows = 6, 200
    lives = [random_life(rng, rows + n) for _ in range(lanes)]
    dies = [
        [row.terminated or (row.life_lost and life_loss == "terminal") for row in life]
        for life in lives
    ]
    ends = [[row.terminated or row.truncated or row.over for row in life] for life in lives]
    fast = n_step(
        np.array([[row.reward for row in life] for life in lives]),
        np.where(dies, 0.0, GAMMA),
        np.array(ends) | np.array(dies),
        n,
        rows,
    )
    checked = 0
    for lane, life in enumerate(lives):
        for t in range(rows):
            if life[t].over:
                continue
            total, discount, k = slow_n_step(life, t, n, GAMMA, life_loss, clip=False)
            assert fast.return_ET[lane, t] == pytest.approx(total, abs=1e-6)
            assert fast.discount_ET[lane, t] == pytest.approx(discount, rel=1e-6)
            assert fast.horizon_ET[lane, t] == k
            checked += 1
    assert checked > 700
    assert (fast.discount_ET == 0).any()


def one_lane(reward, discount, ends, n):
    result = n_step(
        np.array([reward]), np.array([discount]), np.array([ends]), n, len(reward) - n + 1
    )
    return [array[0].tolist() for array in result]


def test_numbers_by_hand():
    """γ = 0.5, n = 3: 1 + 2/2 + 4/4 = 3 and γ³ = 0.125."""
    assert one_lane([1.0, 2.0, 4.0], [0.5] * 3, [False] * 3, 3) == [[3.0], [0.125], [3]]


def test_n_step_discount_is_0_after_termination_not_after_truncation():
    """The second row ends the episode: both windows stop there, but only the truncated one
    bootstraps, with γ².
    """
    terminated = one_lane([1.0, 2.0, 4.0], [0.5, 0.0, 0.5], [False, True, False], 3)
    truncated = one_lane([1.0, 2.0, 4.0], [0.5, 0.5, 0.5], [False, True, False], 3)
    assert terminated == [[2.0], [0.0], [2]]
    assert truncated == [[2.0], [0.25], [2]]


def test_n_step_never_includes_the_next_episode():
    """A reward of a million after the ending changes no return before it."""
    reward = [1.0, 1.0, 1e6, 1e6, 1e6]
    result = one_lane(reward, [0.9] * 5, [False, True, False, False, False], 3)
    assert result[0][:2] == pytest.approx([1.9, 1.0])
    assert result[2][:2] == [2, 1]
