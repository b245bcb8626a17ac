"""Tests sequences of a recurrent network: what a shard gives is what the environment returned, with
the states that the collector had.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.frame_store import unpack
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.recurrent_learner import observations
from genray.rl.replay import ReplayConfig, ReplayShard, plan_shards
from genray.rl.sequences import (
    ACTION,
    AGE,
    DISCOUNT,
    HORIZON,
    LAST_ACTION,
    LAST_REWARD,
    RETURN,
    SequenceConfig,
    sequence_priority,
)
from tests.oracles import RecordedAtari, slow_n_step, slow_stack

LANES, ROWS, CHUNK, N_STEP, GAMMA = 2, 100, 10, 3, 0.99
SEQUENCES = SequenceConfig(sequence_length=9, sequence_overlap=4, burn_in=4)
NETWORK = NetworkConfig(channels=(4, 4, 4), hidden=16, lstm_units=8)
REPLAY = ReplayConfig(capacity=LANES * ROWS, min_size=1)


class Play:
    """A collector in a recorded environment, and all that a slow pass over its rows gives."""

    def __init__(self, env_config: EnvConfig, store: str):
        torch.manual_seed(2)
        self.config, self.env = env_config, RecordedAtari(env_config, LANES)
        self.network = QNetwork(NETWORK, self.env.num_actions, env_config.stack).eval()
        collect = CollectConfig(
            collectors=1, envs_per_collector=LANES, chunk_rows=CHUNK, n_step=N_STEP, gamma=GAMMA
        )
        explore = ExploreConfig(epsilon=0.5, epsilon_power=1.0)
        self.collector = Collector(
            self.env, self.network, env_config, collect, explore, state_period=SEQUENCES.period
        )
        rule = env_config.stack_start
        self.layout = SEQUENCES.layout(N_STEP, self.network.state_size, rule == "repeat")
        [layout] = plan_shards(
            REPLAY, collectors=1, lanes=LANES, frame_shape=(84, 84), stack=env_config.stack,
            stack_start=rule, past_actions=0, n_step=N_STEP, chunk_rows=CHUNK,
            sequence=self.layout,
        )  # fmt: skip
        # Of each lane, row by row; `last`: the states after the newest rows.
        self.stacks, self.states, self.q = ([[] for _ in range(LANES)] for _ in range(3))
        self.last = [torch.zeros(0)] * LANES
        self.shard = ReplayShard(replace(REPLAY, replay_store=store), layout)

    def recompute(self) -> None:
        """Compute observations, states and Q-values of all rows, one row of one lane at a time."""
        for lane, life in enumerate(self.env.lives):
            stacks, states, q = (each[lane] for each in (self.stacks, self.states, self.q))
            for row in range(len(stacks), len(life)):
                before = life[row - 1] if life[row].age else None
                state = self.last[lane] if before else torch.zeros(1, self.network.state_size)
                stacks.append(slow_stack(life, row, self.config.stack, self.config.stack_start))
                states.append(state[0].numpy())
                with torch.inference_mode():
                    q_1A, self.last[lane] = self.network.step(
                        torch.from_numpy(stacks[-1])[None],
                        torch.tensor([before.action if before else -1]),
                        torch.tensor([before.reward if before else 0.0]),
                        state,
                    )
                q.append(q_1A[0].numpy())

    def expected_steps(self, lane: int, start: int) -> np.ndarray:
        life, steps = self.env.lives[lane], np.zeros((self.layout.rows, 7))
        learned = range(SEQUENCES.burn_in, SEQUENCES.burn_in + SEQUENCES.sequence_length)
        for t, row in enumerate(range(start, start + self.layout.rows)):
            now, before = life[row], life[row - 1]
            steps[t, ACTION], steps[t, AGE] = now.action, min(now.age, 255)
            steps[t, LAST_ACTION] = before.action if now.age else -1
            steps[t, LAST_REWARD] = before.reward if now.age else 0
            if t in learned and not now.over:
                steps[t, [RETURN, DISCOUNT, HORIZON]] = slow_n_step(
                    life, row, N_STEP, GAMMA, self.config.life_loss
                )
        return steps

    def check(self, draws: int) -> dict[str, int]:
        self.recompute()
        batch = self.shard.sample(draws)
        obs_BTSHW = observations(
            torch.from_numpy(batch.obs_BSHW),
            torch.from_numpy(batch.steps_BTF[..., AGE]),
            self.config.stack,
            self.layout,
        ).numpy()
        met = {"begins": 0, "truncated": 0, "lives": 0, "rewards": 0}
        for i, key in enumerate(batch.key_B.tolist()):
            start, lane = divmod(key, LANES)
            rows = slice(start, start + self.layout.rows)
            assert start % SEQUENCES.period == 0
            assert all(map(np.array_equal, obs_BTSHW[i], self.stacks[lane][rows]))
            np.testing.assert_allclose(batch.state_BS[i], self.states[lane][start], atol=1e-6)
            steps, expected = batch.steps_BTF[i], self.expected_steps(lane, start)
            known = steps[:, HORIZON] > 0
            # Returns of rows that are not learned from are not used.
            steps[~known, RETURN], steps[~known, DISCOUNT] = 0, 0
            np.testing.assert_allclose(steps, expected, rtol=1e-6, atol=1e-7)
            life = self.env.lives[lane][rows]
            met["begins"] += any(row.age == 0 for row in life[1:])
            met["truncated"] += any(row.truncated for row in life)
            met["lives"] += any(row.life_lost for row in life)
            met["rewards"] += bool(expected[:, LAST_REWARD].any())
        return met

    def check_priorities(self) -> int:
        """Compare the first priorities with the collector's own errors, by hand."""
        batch = self.shard.sample(64)
        for key, found in zip(batch.key_B.tolist(), batch.probability_B * self.shard.total):
            start, lane = divmod(key, LANES)
            life, q, deltas = self.env.lives[lane], self.q[lane], []
            for row in range(start + 4, start + 4 + 9):
                total, discount, k = slow_n_step(life, row, N_STEP, GAMMA, self.config.life_loss)
                if not life[row].over:
                    error = total + discount * q[row + k].max() - q[row][life[row].action]
                    deltas.append(abs(error))
            by_hand = 0.9 * max(deltas) + 0.1 * sum(deltas) / len(deltas)
            assert found == pytest.approx((by_hand + REPLAY.priority_epsilon) ** 0.6, rel=1e-4)
        return len(batch.key_B)

    def check_slices(self, draws: int) -> None:
        """Assert that sequences sent over a network are those drawn in the shard's memory."""
        state = self.shard._rng.bit_generator.state
        here = self.shard.sample(draws)
        self.shard._rng.bit_generator.state = state
        sent, there = self.shard.sample_slices(draws), self.shard.sample(draws)
        there.obs_BSHW[:], there.steps_BTF[:] = 1, 1
        unpack(sent, self.shard.layout, there)
        for name in ("obs_BSHW", "steps_BTF", "state_BS", "key_B"):
            np.testing.assert_array_equal(getattr(here, name), getattr(there, name))


@pytest.mark.parametrize(
    ("env_config", "store", "ending"),
    [
        (EnvConfig(game="breakout", life_loss="terminal", max_episode_frames=220), "raw", "lives"),
        (EnvConfig(game="pong", stack=1, max_episode_frames=440), "lz4", "truncated"),
        (
            EnvConfig(game="ms_pacman", stack=3, stack_start="repeat", max_episode_frames=600),
            "raw",
            "begins",
        ),
    ],
    ids=["breakout", "pong", "ms_pacman"],
)
def test_sequences_are_what_the_environment_returned(env_config, store, ending):
    play = Play(env_config, store)
    met = {"begins": 0, "truncated": 0, "lives": 0, "rewards": 0}
    for number in range(24):  # 240 rows in rings of 100
        chunk, _ = play.collector.collect()
        play.shard.add(chunk)
        if number in (5, 11, 17, 23):
            met = {name: met[name] + count for name, count in play.check(420).items()}
            play.check_priorities()
            play.check_slices(8)
    assert play.shard.size % SEQUENCES.period == 0 and play.shard.size > 100
    assert met[ending] > 0 and met["begins"] > 0
    assert met["rewards"] > 0 or env_config.game == "breakout"
    per_row = play.shard.nbytes / (LANES * ROWS) if store == "raw" else 0
    assert per_row <= 1.1 * (84 * 84 + 21), "a row takes at most 1.1 times the bytes"


def test_sequences_do_not_reach_across_a_gap_and_keep_later_priorities():
    play = Play(EnvConfig(game="pong", stack=1), "raw")
    for _ in range(3):
        play.shard.add(play.collector.collect()[0])
    play.collector.collect()  # lost
    for _ in range(3):
        play.shard.add(play.collector.collect()[0])
    # Rows 0 … 29 come before the gap, rows 30 … 59 after it.
    starts = set((play.shard.sample(400).key_B // LANES).tolist())
    # A sequence has 4 + 9 + 3 = 16 rows; one from row 30 on would need the action before it.
    assert starts == {0, 5, 10, 35, 40}
    keys = play.shard.sample(50).key_B
    play.shard.update(keys, np.full(50, 3.0))
    batch = play.shard.sample(50)
    changed = np.isin(batch.key_B, keys)
    expected = (3.0 + REPLAY.priority_epsilon) ** 0.6
    found = batch.probability_B[changed] * play.shard.total
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_sequence_priority_by_hand():
    delta = np.array([[1.0, -4.0, 9.0], [2.0, 2.0, 2.0], [5.0, 5.0, 5.0]])
    learned = np.array([[True, True, False], [True, True, True], [False, False, False]])
    found = sequence_priority(delta, learned, 0.9)
    np.testing.assert_allclose(found, [0.9 * 4 + 0.1 * 2.5, 2.0, 0.0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"burn_in": 81}, "--burn-in 81: longer than --sequence-length 80"),
        ({"sequence_overlap": 80}, "--sequence-overlap 80: must be less than --sequence-length 80"),
    ],
)
def test_sequence_config_refuses(change, message):
    with pytest.raises(ConfigError, match=message):
        SequenceConfig(**change).validate()
