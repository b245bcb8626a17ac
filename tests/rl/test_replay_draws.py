"""Tests a shard's priorities, and draws by these priorities."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from genray.rl import targets
from genray.rl.agent import split_by_mass
from genray.rl.replay import ReplayShard
from tests.helpers.shards import CONFIG, drawable_keys, filled, layout, leaf_of


def test_new_priorities_arrive_at_their_transitions():
    shard, _ = filled()
    key_B = np.array(sorted(drawable_keys(shard)))
    delta_B = np.linspace(0.0, 3.0, len(key_B)).astype(np.float32)
    shard.update(key_B, -delta_B)  # the sign does not matter
    expected = (delta_B.astype(float) + CONFIG.priority_epsilon) ** CONFIG.alpha
    np.testing.assert_allclose(shard._tree.get(leaf_of(shard, key_B)), expected, rtol=1e-6)
    assert shard.total == pytest.approx(expected.sum())
    assert shard.dropped_updates == 0


def test_late_priorities_for_overwritten_rows_are_dropped_and_counted():
    """Keys were drawn before the ring wrapped, so the rows that are now in their slots must not
    change.
    """
    shard, source = filled(chunks=2)
    old_B = np.unique(shard.sample(400).key_B)
    for _ in range(6):
        shard.add(source.chunk(20))
        before = shard._tree.state()
        alive = set(old_B.tolist()) & drawable_keys(shard)
        dropped = shard.dropped_updates
        shard.update(old_B, np.full(len(old_B), 123.0, np.float32))
        changed = np.flatnonzero(shard._tree.state() != before)
        assert set(changed.tolist()) <= set(
            leaf_of(shard, np.array(sorted(alive), np.int64)).tolist()
        )
        assert shard.dropped_updates - dropped == len(old_B) - len(alive)
        old_B = np.unique(np.concatenate([old_B, shard.sample(50).key_B]))
    assert shard.dropped_updates > 100


def test_keys_from_the_future_are_dropped():
    """A shard that restarted empty gets a priority for a row that it never held. The row in the
    same slot does not change.
    """
    shard, _ = filled()
    before = shard._tree.state()
    key_B = shard.sample(10).key_B + 5 * shard.layout.rows * shard.layout.lanes
    shard.update(key_B, np.full(10, 50.0, np.float32))
    np.testing.assert_array_equal(shard._tree.state(), before)
    assert shard.dropped_updates == 10


# --- sampling -------------------------------------------------------------------------------------


def spread(shard: ReplayShard, seed: int) -> dict[int, float]:
    """Give every transition another priority. Returns key → p_i^α."""
    rng = np.random.default_rng(seed)
    key_B = np.array(sorted(drawable_keys(shard)))
    delta_B = rng.exponential(size=len(key_B)).astype(np.float32)
    shard.update(key_B, delta_B)
    powered = (delta_B.astype(float) + shard.config.priority_epsilon) ** shard.config.alpha
    return dict(zip(key_B.tolist(), powered.tolist()))


def frequencies(shard: ReplayShard, draws: int) -> dict[int, int]:
    """Return the frequencies of single draws, which are independent (batches are stratified)."""
    counts: dict[int, int] = {}
    for _ in range(draws):
        key = int(shard.sample(1).key_B[0])
        counts[key] = counts.get(key, 0) + 1
    return counts


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_draws_follow_the_powers_of_the_priorities(alpha: float):
    shard, _ = filled(config=replace(CONFIG, alpha=alpha, priority_epsilon=0.1))
    p = spread(shard, 5)
    if alpha == 0:
        assert set(p.values()) == {1.0}  # uniform
    counts = frequencies(shard, 4000)
    total = sum(p.values())
    observed = np.array([counts.get(key, 0) for key in p])
    expected = np.array([4000 * value / total for value in p.values()])
    assert observed.sum() == 4000
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    if alpha:
        assert stats.chisquare(observed, np.full(len(p), 4000 / len(p))).pvalue < 1e-6


def test_sample_without_prioritization_is_uniform():
    shard, _ = filled(config=replace(CONFIG, prioritized=False))
    p = spread(shard, 6)
    batch = shard.sample(500)
    np.testing.assert_allclose(batch.probability_B, 1 / len(p), rtol=1e-12)
    counts = frequencies(shard, 4000)
    assert (
        stats.chisquare([counts.get(key, 0) for key in p], np.full(len(p), 4000 / len(p))).pvalue
        > 1e-3
    )


def test_draws_over_several_shards_follow_the_priorities_of_all():
    """For three shards of very different mass, P(i) = p_i^α / Σ over *all* shards, in frequency and
    as reported.
    """
    config = replace(CONFIG, priority_epsilon=0.1)
    shards = [
        filled(seed, config, chunks=chunks, rows=60)[0] for seed, chunks in ((1, 1), (2, 2), (3, 1))
    ]
    p = {
        (m, key): value for m, shard in enumerate(shards) for key, value in spread(shard, m).items()
    }
    third = {key for m, key in p if m == 2}
    # a very large error
    shards[2].update(np.array(sorted(third)), np.full(len(third), 30.0, np.float32))
    p |= {(2, key): (30.0 + 0.1) ** 0.6 for key in third}
    total = sum(p.values())
    rng, counts, batches, size = np.random.default_rng(8), dict.fromkeys(p, 0), 500, 32
    for _ in range(batches):
        split, shares = split_by_mass(size, [shard.total for shard in shards], rng)
        assert sum(split) == size
        parts = [(shard.sample(n), share) for shard, n, share in zip(shards, split, shares) if n]
        key_B = np.concatenate([part.key_B for part, _ in parts])
        probability_B = np.concatenate([part.probability_B * share for part, share in parts])
        places = [m for m, n in enumerate(split) for _ in range(n)]
        for m, key, probability in zip(places, key_B.tolist(), probability_B):
            counts[m, key] += 1
            assert probability == pytest.approx(p[m, key] / total, rel=1e-6)
        # The learner's weights, over the joined batch, against the formula (1/N · 1/P(i))^β / max.
        everything = sum(shard.size for shard in shards)
        raw = [
            (1 / everything * total / p[m, key]) ** 0.7 for m, key in zip(places, key_B.tolist())
        ]
        weight_B = targets.importance_weights(
            torch.from_numpy(probability_B), everything, 0.7
        ).numpy()
        np.testing.assert_allclose(weight_B, np.array(raw) / max(raw), rtol=1e-6)
    draws = batches * size
    observed = np.array(list(counts.values()))
    expected = np.array([p[place] * draws / total for place in counts])
    # stratified: fits even better than chance
    assert stats.chisquare(observed, expected).pvalue > 1e-3
    mass_M = np.array([shard.total for shard in shards]) / total
    by_shard = [sum(n for (m, _), n in counts.items() if m == place) for place in range(3)]
    assert stats.chisquare(by_shard, mass_M * draws).pvalue > 1e-3
    assert stats.chisquare(by_shard, np.full(3, draws / 3)).pvalue < 1e-6


def test_sample_of_an_empty_shard_raises():
    shard = ReplayShard(CONFIG, layout())
    assert (shard.size, shard.total) == (0, 0.0)
    with pytest.raises(ValueError, match="nothing to sample"):
        shard.sample(1)
