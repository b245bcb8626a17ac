"""Tests every sampled transition against ALE's own stacks, frame for frame.

A second `AtariVectorEnv`, which stacks frames itself (stack_num=4), steps in lockstep with the
environment of the test (stack_num=1) under the same seed and actions. The stacks that the replay
assembles from single frames must equal the stacks of the second environment, bit for bit.
"""

import math
import pickle
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch

from genray.rl.chunk import Sample
from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.frame_store import unpack
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig, ReplayShard, plan_shards
from tests.oracles import RecordedAtari, slow_n_step, slow_past_actions, slow_stack

# a lane costs 0.2 s to start, a step 1 ms
LANES, RING_ROWS, CHUNK_ROWS, N_STEP, GAMMA = 2, 100, 25, 3, 0.99
REPLAY = ReplayConfig(capacity=LANES * RING_ROWS, min_size=1)
EXPLORE = ExploreConfig(epsilon=0.4, epsilon_power=1.0)


class Play:
    """A collector in a recorded environment, which sends chunks to one shard."""

    def __init__(
        self,
        env_config: EnvConfig,
        past_actions: int = 0,
        seed: int = 0,
        store: Literal["raw", "lz4"] = "raw",
    ):
        torch.manual_seed(seed)
        self.env_config, self.past_actions = env_config, past_actions
        self.env = RecordedAtari(env_config, LANES)
        config = CollectConfig(
            collectors=1,
            envs_per_collector=LANES,
            chunk_rows=CHUNK_ROWS,
            n_step=N_STEP,
            gamma=GAMMA,
        )
        shape = NetworkConfig(channels=(4, 4, 4), hidden=16, past_actions=past_actions)
        network = QNetwork(shape, self.env.num_actions, env_config.stack)
        self.collector = Collector(self.env, network, env_config, config, EXPLORE, seed=seed)
        [layout] = plan_shards(
            REPLAY,
            collectors=1,
            lanes=LANES,
            frame_shape=(84, 84),
            stack=env_config.stack,
            stack_start=env_config.stack_start,
            past_actions=past_actions,
            n_step=N_STEP,
            chunk_rows=CHUNK_ROWS,
        )
        self.shard = ReplayShard(replace(REPLAY, replay_store=store), layout, seed=seed)

    def drawable(self) -> int:
        """Return the number of transitions that must exist: rows whose stack and return are in the
        ring, without resets.
        """
        head = len(self.env.lives[0]) - 1
        oldest = max(0, head - RING_ROWS + self.shard.layout.lookback)
        waits = self.env_config.stack - 1 if self.env_config.stack_start == "wait" else 0
        rows = [life[row] for life in self.env.lives for row in range(oldest, head - N_STEP)]
        return sum(not row.over and row.age >= waits for row in rows)

    def check(self, draws: int) -> dict[str, int]:
        """Compare `draws` sampled transitions, and return how many belong to each kind of
        ending.
        """
        met = {"terminated": 0, "truncated": 0, "life_lost": 0, "young": 0}
        batch = self.shard.sample(draws)
        for packed in (True, False):
            self.check_slices(draws // 2, packed)
        for i, key in enumerate(batch.key_B.tolist()):
            row, lane = divmod(key, LANES)
            life, stacks = self.env.lives[lane], self.env.stacks[lane]
            total, discount, k = slow_n_step(life, row, N_STEP, GAMMA, self.env_config.life_loss)
            if self.env_config.stack_start == "blank":  # ALE's own rule
                assert np.array_equal(batch.obs_BSHW[i], stacks[row])
                assert np.array_equal(batch.next_obs_BSHW[i], stacks[row + k])
            else:
                rule = self.env_config.stack_start
                assert np.array_equal(batch.obs_BSHW[i], slow_stack(life, row, 4, rule))
                assert np.array_equal(batch.next_obs_BSHW[i], slow_stack(life, row + k, 4, rule))
            assert batch.past_BK[i].tolist() == slow_past_actions(life, row, self.past_actions)
            assert batch.next_past_BK[i].tolist() == slow_past_actions(
                life, row + k, self.past_actions
            )
            assert batch.action_B[i] == life[row].action
            assert math.isclose(batch.return_B[i], total, rel_tol=1e-6)
            assert math.isclose(batch.discount_B[i], discount, rel_tol=1e-6)
            window = life[row : row + k]
            met["terminated"] += any(r.terminated for r in window)
            met["truncated"] += any(r.truncated for r in window)
            met["life_lost"] += any(r.life_lost for r in window)
            met["young"] += life[row].age < 3
        return met

    def check_slices(self, draws: int, packed: bool) -> None:
        """Assert that transported frames are those of the environment's own stacks."""
        layout, rule = self.shard.layout, self.env_config.stack_start
        came = Sample.empty(draws, layout.stack, layout.frame_shape, layout.past_actions)
        sliced = pickle.loads(pickle.dumps(self.shard.sample_slices(draws, packed=packed)))
        unpack(sliced, layout, came)
        for i, key in enumerate(came.key_B.tolist()):
            row, lane = divmod(key, LANES)
            for at, obs in (
                (row, came.obs_BSHW[i]),
                (row + int(sliced.horizon_B[i]), came.next_obs_BSHW[i]),
            ):
                stack = (
                    self.env.stacks[lane][at]
                    if rule == "blank"
                    else slow_stack(self.env.lives[lane], at, 4, rule)
                )
                assert np.array_equal(obs, stack)

    def run(self, chunks: int, draws: int) -> dict[str, int]:
        met: dict[str, int] = {}
        try:
            for _ in range(chunks):
                chunk, _ = self.collector.collect()
                self.shard.add(chunk)
                assert self.shard.size == self.drawable()
                for name, count in self.check(draws).items():
                    met[name] = met.get(name, 0) + count
        finally:
            self.env.close()
        return met


# 4 plays x 2 stores x 16 chunks x 160 draws = 20,480 transitions, through 16·25/100 = 4 rounds of
# the ring, which holds 200 transitions: each one is drawn 3 times on average.
# Episodes are cut early, so that many begin and end; with noop_max they begin out of step with each
# other.
CASES = {
    "breakout": (
        EnvConfig(game="breakout", life_loss="terminal"),
        ["terminated", "life_lost", "young"],
    ),
    "breakout, lives ignored, cut": (
        EnvConfig(game="breakout", life_loss="ignore", max_episode_frames=280),
        ["truncated", "life_lost", "young"],
    ),
    "pong, cut": (EnvConfig(game="pong", max_episode_frames=300), ["truncated", "young"]),
    "road runner": (
        EnvConfig(game="road_runner", life_loss="terminal", max_episode_frames=900),
        ["truncated", "life_lost", "young"],
    ),
}


@pytest.mark.parametrize("store", ["raw", "lz4"])
@pytest.mark.parametrize("name", CASES)
def test_samples_are_what_the_environment_returned(name: str, store: Literal["raw", "lz4"]):
    env_config, must_meet = CASES[name]
    met = Play(env_config, seed=len(name), store=store).run(chunks=16, draws=160)
    assert all(met[kind] >= 5 for kind in must_meet), met


@pytest.mark.parametrize("stack_start", ["blank", "repeat", "wait"])
def test_start_rules_and_past_actions(stack_start):
    env_config = EnvConfig(game="pong", max_episode_frames=160, stack_start=stack_start)
    met = Play(env_config, past_actions=6).run(chunks=8, draws=128)
    assert met["truncated"] >= 20
    assert met["young"] == 0 if stack_start == "wait" else met["young"] >= 20


def test_replay_returns_the_observations_of_the_policy():
    """The collector's stacks and past actions, recorded while it acts, are those that are sampled
    later.
    """
    play = Play(
        EnvConfig(game="breakout", max_episode_frames=200, stack_start="repeat"), past_actions=3
    )
    seen: list[tuple[np.ndarray, np.ndarray]] = []
    network = play.collector.network
    network.register_forward_hook(
        lambda _, inputs, __: seen.append((inputs[0].numpy().copy(), inputs[1].numpy().copy()))
    )
    try:
        for _ in range(3):
            play.shard.add(play.collector.collect()[0])
    finally:
        play.env.close()
    batch = play.shard.sample(300)
    for i, key in enumerate(batch.key_B.tolist()):
        row, lane = divmod(key, LANES)
        assert np.array_equal(batch.obs_BSHW[i], seen[row][0][lane])
        assert np.array_equal(batch.past_BK[i], seen[row][1][lane])


def test_comparison_notices_one_wrong_pixel():
    play = Play(replace(CASES["pong, cut"][0]))
    play.shard.add(play.collector.collect()[0])
    play.shard._frames.frame_LCP[:, 10, 3000] ^= 1
    with pytest.raises(AssertionError):
        play.check(1000)
    play.env.close()
