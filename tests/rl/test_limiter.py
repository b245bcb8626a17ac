"""Tests samples per insert: the ratio holds, and no side waits forever."""

import math

import numpy as np
import pytest

from genray.rl.limiter import SamplesPerInsert


@pytest.mark.parametrize("ratio", [0.1, 1.0, 3.7, 8.0, 64.0])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_never_both_blocked_and_the_ratio_holds(ratio: float, chunk: int):
    """Collectors and learner continue in random order as far as the limiter allows. One side may
    always continue, and the ratio is reached.
    """
    rng = np.random.default_rng(chunk)
    batch, sources, min_size = 32, 3, 500
    limiter = SamplesPerInsert.for_run(ratio, min_size, chunk, sources, batch)
    while limiter.inserted < min_size + max(3000, 200 * batch / ratio):
        may = [limiter.inserts_allowed() > 0, limiter.samples_allowed() >= batch]
        assert any(may), limiter
        if may[0] and (not may[1] or rng.random() < 0.5):
            # all waiting collectors see the same number and exceed it together
            for _ in range(int(rng.integers(1, sources + 1))):
                limiter.inserted += chunk
        else:
            limiter.sampled += batch
        if limiter.inserted < min_size:
            assert limiter.sampled == 0
        assert limiter.sampled <= ratio * max(0, limiter.inserted - min_size)
        ahead = limiter.inserted - min_size - limiter.sampled / ratio
        assert ahead <= limiter.tolerance + sources * chunk
    while limiter.samples_allowed() >= batch:
        limiter.sampled += batch
    assert limiter.actual == pytest.approx(ratio, rel=0.02)


def test_limiter_with_a_smaller_tolerance_deadlocks():
    """This is the deadlock of the docstring: 10 inserts do not allow a batch of 32 at ratio 1."""
    stuck = SamplesPerInsert(ratio=1.0, min_size=100, tolerance=10, inserted=110)
    assert stuck.inserts_allowed() <= 0 and stuck.samples_allowed() < 32
    sound = SamplesPerInsert.for_run(1.0, 100, chunk=1, sources=1, round_samples=32)
    sound.inserted = 110
    assert sound.inserts_allowed() > 0


def test_ratio_0_lets_both_run_free_after_the_minimum():
    limiter = SamplesPerInsert.for_run(0.0, 100, chunk=10, sources=2, round_samples=32)
    assert limiter.inserts_allowed() == math.inf and limiter.samples_allowed() == 0.0
    limiter.inserted = 100
    assert limiter.inserts_allowed() == math.inf and limiter.samples_allowed() == math.inf


@pytest.mark.parametrize("ratio", [0.0, 0.3, 1.0, 8.0])
def test_inserts_needed_is_just_enough(ratio: float):
    rng = np.random.default_rng(0)
    for _ in range(200):
        limiter = SamplesPerInsert.for_run(ratio, 50, 8, 2, 32)
        limiter.inserted = int(rng.integers(0, 500))
        limiter.sampled = int(rng.integers(0, 1 + max(0, int(ratio * (limiter.inserted - 50)))))
        needed = limiter.inserts_needed(32)
        slow = 0
        while limiter.samples_allowed() < 32:
            limiter.inserted += 1
            slow += 1
        # 0.3 is no binary fraction: rounding may ask for one more
        assert slow <= needed <= slow + (ratio == 0.3)


def test_after_a_lost_shard_learning_waits_until_the_minimum_is_there_again():
    limiter = SamplesPerInsert(
        ratio=4.0, min_size=1000, tolerance=500, inserted=5000, sampled=16_000
    )
    limiter.lose(3000, remaining=2000)
    assert limiter.inserted == 5000  # enough is left: nothing to wait for
    limiter.lose(1900, remaining=100)
    assert limiter.inserted == 4100  # 900 are missing
    assert limiter.samples_allowed() < 0 < limiter.inserts_allowed()
    assert limiter.inserts_needed(1) >= 900


def test_another_ratio_counts_as_if_it_had_held_from_the_start():
    limiter = SamplesPerInsert(ratio=8.0, min_size=500, tolerance=100)
    limiter.restore({"ratio": 4.0, "inserted": 1_500, "sampled": 4_000})
    assert limiter.sampled == 8_000
    for sampled in (0, 5_000_000):  # a free-running learner may have been far behind or ahead
        limiter.restore({"ratio": 0.0, "inserted": 100_000, "sampled": sampled})
        assert limiter.samples_allowed() == 0 and 0 < limiter.inserts_allowed() <= 100
    limiter.restore({"ratio": 0.0, "inserted": 300, "sampled": 0})
    assert limiter.sampled == 0 and limiter.inserts_needed(32) == 204
