"""What a run is refused for before it begins, and what its model says of itself."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genray import machine
from genray.errors import ResourceError
from genray.rl import DQNConfig, presets
from genray.rl.agent import LocalAgent
from genray.rl.catch import CELL, Catch
from genray.rl.env import EnvConfig, make_env
from genray.rl.evaluate import Evaluation
from genray.rl.policy import load_policy
from genray.rl.replay import ReplayShard
from genray.rl.train import check_disk, check_memory, memory_bytes, save_policy, transition_bytes


class TallCatch(Catch):
    """Catch with every pixel drawn as three by two: frames of 252x168."""

    frame_shape = (3 * 12 * CELL, 2 * 12 * CELL)

    def _draw(self) -> np.ndarray:
        return super()._draw().repeat(3, axis=1).repeat(2, axis=2)


CATCH = presets.catch()
TALL = replace(CATCH, env=replace(CATCH.env, env=f"{__name__}:TallCatch"))


def with_capacity(config: DQNConfig, capacity: int) -> DQNConfig:
    return replace(config, replay=replace(config.replay, capacity=capacity), run=replace(config.run, steps=10**12))


@pytest.mark.parametrize(("config", "frame"), [(CATCH, 84 * 84), (TALL, 252 * 168)], ids=["84x84", "252x168"])
def test_bytes_of_a_transition_are_those_of_the_replay(config: DQNConfig, frame: int):
    agent = LocalAgent(config)
    try:
        stored = sum(shard.nbytes for shard in agent.shards) / config.replay.capacity
    finally:
        agent.close()
    assert frame < stored <= transition_bytes(config) <= stored + 32


def test_memory_is_that_of_the_environments_own_frames(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "available_memory", lambda root: 10**9)
    check_memory(with_capacity(CATCH, 100_000))  # 0.7 GB
    with pytest.raises(ResourceError, match=r"--capacity 100000: needs 4.2 GB, 1.0 GB are.*at most --capacity 18876$"):
        check_memory(with_capacity(TALL, 100_000))
    check_memory(with_capacity(TALL, 18_876))


def test_a_compressed_store_is_counted_as_one(monkeypatch: pytest.MonkeyPatch):
    """What it really takes on real play, counted with room to spare, and far from the raw store's."""
    config = replace(CATCH, env=EnvConfig(game="road_runner"), replay=replace(CATCH.replay, replay_store="lz4"))
    config = with_capacity(config, 1_000)
    [layout] = replace(config, collect=replace(config.collect, collectors=1, envs_per_collector=2)).plan_shards(
        (84, 84)
    )
    shard, env = ReplayShard(config.replay, layout), make_env(config.env, 2, num_threads=1)
    frames, rng = [env.reset(0)], np.random.default_rng(0)
    for _ in range(499):
        frames.append(env.step(rng.integers(env.num_actions, size=2)).frame_EHW.copy())
    env.close()
    shard._frames.write(slice(0, 2), 0, np.stack(frames, axis=1).reshape(2, 500, -1))
    assert shard.nbytes / 1_000 < memory_bytes(config) < transition_bytes(config) / 5
    monkeypatch.setattr(machine, "available_memory", lambda root: 10**9)
    check_memory(with_capacity(config, 700_000))
    with pytest.raises(ResourceError, match=r"--capacity 900000: needs 1.1 GB, 1.0 GB are.*at most --capacity \d+$"):
        check_memory(with_capacity(config, 900_000))


def test_disk_is_that_of_the_environments_own_frames(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free
    copies = CATCH.run.keep + 2
    capacity = free // (copies * 20_000)  # with 84x84 a third of what is free, with 252x168 twice as much
    check_disk(with_capacity(CATCH, capacity), tmp_path / "run")
    with pytest.raises(ResourceError, match="free some, choose another --out, or take a smaller --capacity"):
        check_disk(with_capacity(TALL, capacity), tmp_path / "run")
    without = with_capacity(TALL, capacity)
    check_disk(replace(without, run=replace(without.run, checkpoint_replay=False)), tmp_path / "run")


def test_a_model_tells_its_own_shapes(tmp_path: Path):
    small = replace(TALL, network=replace(TALL.network, channels=(4, 4, 4), hidden=8))
    agent = LocalAgent(small)
    network = agent.network()
    agent.close()
    result = Evaluation("catch", [1.0], [11], 0.0, None, None, 108_000)
    save_policy(tmp_path, small, network, 7, result)
    assert "[B, 4, 252, 168], oldest first; output: Q-values [B, 3]" in (tmp_path / "README.md").read_text()
    assert load_policy(tmp_path)[0].frame_shape == (252, 168)
