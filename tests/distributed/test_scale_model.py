"""Tests the arithmetic of the model of scale with costs that are easy to add."""

from dataclasses import replace

import pytest

from tests.bench.scale_model import Costs, Plan, predict

COSTS = Costs(
    step_s=1e-3,
    ship_s=0.0,
    take_s=1e-5,
    pack_s=2e-5,
    draw_s=1e-3,
    gather_s=2e-3,
    slice_s=2e-3,
    unpack_s=4e-3,
    update_s=40e-3,
    second_s=10e-3,
    idle_s=0.0,
    step_bytes=7_000,
    slice_bytes=5_000,
    transition_bytes=700,
    weights_bytes=1e6,
)


def test_free_collectors_scale_until_their_shards_are_full():
    few, many = (predict(Plan(count, 1, 1, 8), COSTS) for count in (10, 20))
    assert (few.bottleneck, few.steps_per_s) == ("the collectors", pytest.approx(10_000))
    assert many.steps_per_s == pytest.approx(20_000)
    full = predict(Plan(1_000, 1, 1, 8), replace(COSTS, step_bytes=700))
    assert full.bottleneck == "the shards' processors"
    updates = 1 / 34e-3  # 40 - 10 beside, and 4 of unpacking
    assert full.updates_per_s == pytest.approx(updates)
    assert full.steps_per_s == pytest.approx((1 - updates * 2e-3) / 2e-5)
    assert full.memory_bytes == 2_000_000 * 700


def test_frames_fill_the_network_before_the_processors():
    one = predict(Plan(1_000, 1, 1, 8), COSTS)
    assert one.bottleneck == "the shards' processors"
    heavy = predict(Plan(1_000, 1, 1, 8), replace(COSTS, step_bytes=70_000))
    assert heavy.bottleneck == "the shards' network"
    assert heavy.shard_bytes_s == pytest.approx(10e9 / 8)


def test_tied_together_the_learner_holds_the_collectors_back():
    tied = predict(Plan(1_000, 4, 1, 8, batch_size=512, samples_per_insert=8), COSTS)
    assert tied.bottleneck == "the learner"
    assert tied.updates_per_s == pytest.approx(1 / 34e-3)
    assert tied.steps_per_s == pytest.approx(tied.updates_per_s * 512 / 8)
    two = predict(Plan(1_000, 4, 2, 8, batch_size=512, samples_per_insert=8), COSTS)
    assert two.steps_per_s == pytest.approx(2 * tied.steps_per_s)


def test_on_one_machine_all_share_its_cores():
    plan = Plan(8, 1, 1, 8, batch_size=32, samples_per_insert=2, cores=2)
    one = predict(plan, replace(COSTS, idle_s=0.1))
    a_step = 1e-3 + 1e-5 + (2 / 32) * (1e-3 + 2e-3 + 40e-3)
    assert one.limits["this machine's cores"] == pytest.approx(1.9 / a_step)
    assert one.steps_per_s == min(one.limits.values())
