"""Tests collectors: first priorities, scores, rewards, ε, seeds and lanes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import RunFault
from genray.rl import targets
from genray.rl.collect import Collector, Lanes
from genray.rl.env import AtariLanes, EnvConfig, Step
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import QNetwork
from tests.helpers.collectors import CONFIG, LANES, PONG, SMALL, Endless, make, shard_for
from tests.oracles import RecordedAtari, slow_priority


@pytest.mark.parametrize(
    ("dueling", "past_actions", "n"), [(True, 0, 3), (False, 4, 1), (True, 2, 5)]
)
def test_collect_first_priorities_are_the_n_step_double_q_error(
    dueling: bool, past_actions: int, n: int
):
    """The priority of Ape-X is |R + γⁿ Q(s', argmax_a Q(s', a; w); w⁻) − Q(s, a; w)| with the
    collector's weights as w and as w⁻. The test computes it again from the observations that the
    shard returns.
    """
    env_config = EnvConfig(game="breakout", life_loss="terminal", max_episode_frames=200)
    config = replace(CONFIG, n_step=n)
    env = AtariLanes(env_config, LANES, num_threads=1)
    collector = make(
        env, env_config, config, network=replace(SMALL, dueling=dueling, past_actions=past_actions)
    )
    shard = shard_for(env_config, config, past_actions)
    delta_of: dict[tuple[int, int], float] = {}
    for _ in range(4):
        chunk, _ = collector.collect()
        shard.add(chunk)
        for lane, t in np.argwhere(chunk.valid_ET):
            delta_of[int(lane), chunk.first_row - n + int(t)] = float(chunk.delta_ET[lane, t])
    env.close()
    batch = shard.sample(300)
    slow_B = slow_priority(
        collector.network,
        batch.obs_BSHW,
        batch.past_BK,
        batch.action_B,
        batch.return_B,
        batch.discount_B,
        batch.next_obs_BSHW,
        batch.next_past_BK,
    )
    fast_B = np.array([delta_of[key % LANES, key // LANES] for key in batch.key_B.tolist()])
    np.testing.assert_allclose(fast_B, slow_B, rtol=1e-4, atol=1e-5)
    assert slow_B.std() > 1e-3 and (batch.discount_B == 0).any() and (batch.discount_B > 0).any()
    # The shard draws by these priorities, and a learner with the same weights computes them, too.
    powered_B = targets.priority(slow_B, shard.config.priority_epsilon, shard.config.alpha)
    np.testing.assert_allclose(batch.probability_B * shard.total, powered_B, rtol=1e-3)
    learner = Learner(LearnerConfig(), collector.network, collector.network.__class__(
        collector.network.config, env.num_actions, 4))  # fmt: skip
    np.testing.assert_allclose(
        learner.update(batch, shard.size, 0.4).delta_B, slow_B, rtol=1e-4, atol=1e-5
    )


def test_collect_priorities_use_the_weights_that_acted():
    """New weights arrive between two chunks. A transition that ends in the second chunk uses the
    Q-values that each row had when it was collected.
    """
    env = RecordedAtari(PONG, LANES)
    collector = make(env)
    old = QNetwork(SMALL, env.num_actions)
    old.load_state_dict(collector.network.state_dict())
    collector.collect()
    torch.manual_seed(99)
    new = QNetwork(SMALL, env.num_actions)
    collector.set_weights(new.state_dict(), 7)
    chunk, _ = collector.collect()
    assert chunk.weight_version == 7
    env.close()
    for lane, life in enumerate(env.lives):
        # rows 61, 62, 63 acted with the old weights, bootstrap at 64, 65, 66 with the new
        for t in range(3):
            row = 61 + t
            assert not any(life[row + k].over or life[row + k].truncated for k in range(4))
            with torch.no_grad():
                q = float(old(torch.from_numpy(env.stacks[lane][row][None]))[0, life[row].action])
                q_next = float(new(torch.from_numpy(env.stacks[lane][row + 3][None])).max())
            target = float(chunk.return_ET[lane, t]) + float(chunk.discount_ET[lane, t]) * q_next
            assert chunk.delta_ET[lane, t] == pytest.approx(abs(target - q), rel=1e-4, abs=1e-5)


def test_collect_reports_whole_scores_and_stores_clipped_rewards():
    """Ms. Pac-Man has rewards of ten and more. Episodes report them whole, and the replay stores at
    most 1 for each step.
    """
    env_config = EnvConfig(game="ms_pacman", max_episode_frames=600)
    env = RecordedAtari(env_config, LANES)
    collector = make(
        env, env_config, replace(CONFIG, n_step=1), ExploreConfig(exploration="shared", epsilon=1.0)
    )
    played = [collector.collect() for _ in range(7)]
    env.close()
    episodes = [episode for _, ended in played for episode in ended]
    slow = []
    for life in env.lives:
        score, steps = 0.0, 0
        for t, row in enumerate(life):
            score, steps = score + row.reward, steps + (not row.over)
            if row.terminated or row.truncated:
                slow.append((t, score, steps))
                score, steps = 0.0, 0
    assert sorted((e.score, e.steps) for e in episodes) == sorted(
        (score, steps) for _, score, steps in slow
    )
    assert len(episodes) >= 4 and max(e.score for e in episodes) >= 100
    return_ET = np.concatenate([chunk.return_ET for chunk, _ in played], axis=1)
    assert set(np.unique(return_ET).tolist()) <= {-1.0, 0.0, 1.0} and (return_ET == 1).any()


@pytest.mark.parametrize(
    ("rule", "expected"), [("clip", [-0.5, 1]), ("sign", [-1, 1]), ("none", [-0.5, 9])]
)
def test_collect_applies_the_reward_rule(rule, expected):
    """The two lanes have rewards −½ and 9."""

    class Paying(Endless):
        def step(self, action_E):
            return super().step(action_E)._replace(reward_E=np.array([-0.5, 9], np.float32))

    config = replace(CONFIG, reward_clip=rule, n_step=1, chunk_rows=3)
    collector = make(Paying(LANES), EnvConfig(stack=1), config)
    chunk, _ = collector.collect()
    assert chunk.return_ET[:, 1].tolist() == expected


def test_collector_lanes_have_the_epsilons_of_the_ladder():
    config = replace(CONFIG, collectors=3)
    found = []
    for index in range(3):
        env = Endless(LANES)
        net = QNetwork(SMALL, 2, 1, (36, 36))
        collector = Collector(env, net, EnvConfig(stack=1), config, ExploreConfig(), index=index)
        found += collector.epsilon_E.tolist()
    np.testing.assert_allclose(found, [0.4 ** (1 + 7 * i / 5) for i in range(6)])


def test_collector_epsilon_anneals_with_the_steps_of_the_run():
    """With two collectors of 2 lanes, a chunk of 64 rows counts as 256 steps of the run."""
    config = replace(CONFIG, collectors=2)
    net = QNetwork(SMALL, 2, 1, (36, 36))
    explore = ExploreConfig(exploration="shared", epsilon=0.2, anneal_steps=512)
    collector = Collector(Endless(LANES), net, EnvConfig(stack=1), config, explore)
    assert collector.epsilon_E.tolist() == [1.0] * LANES
    collector.collect()
    np.testing.assert_allclose(collector.epsilon_E, 0.6)
    collector.collect()
    np.testing.assert_allclose(collector.epsilon_E, 0.2)


def test_collector_holds_actions_for_shorter_when_epsilon_has_its_final_value():
    """ε stays 1. A hold takes 20 steps or more at first, and one step from step 4,000 on."""
    net = QNetwork(SMALL, 2, 1, (36, 36))
    explore = ExploreConfig(
        exploration="shared", epsilon=1.0, persistence=1.1, anneal_steps=4_000,
        max_held_steps=50, max_held_steps_end=1,
    )  # fmt: skip
    collector = Collector(Endless(LANES), net, EnvConfig(stack=1), CONFIG, explore)
    changes = []
    for collector.run_step in (0, 4_000):
        action_EN = np.concatenate([collector.collect()[0].action_ET for _ in range(12)], axis=1)
        changes.append((action_EN[:, 1:] != action_EN[:, :-1]).mean())
    # Of two actions, a new hold has the other one in half of the cases.
    assert changes[0] < 0.08 and changes[1] > 0.4


def test_collectors_of_one_run_play_different_games():
    frames = []
    for index in range(2):
        env = AtariLanes(PONG, LANES, num_threads=1)
        torch.manual_seed(0)
        net = QNetwork(SMALL, env.num_actions)
        config = replace(CONFIG, collectors=2)
        collector = Collector(env, net, PONG, config, ExploreConfig(), index=index, seed=3)
        frames.append(collector.collect()[0])
        env.close()
    assert not np.array_equal(frames[0].action_ET, frames[1].action_ET)
    assert not np.array_equal(frames[0].frame_ETHW, frames[1].frame_ETHW)
    assert frames[0].incarnation != frames[1].incarnation


def test_collect_marks_waiting_lanes_as_invalid():
    env_config = replace(PONG, stack_start="wait")
    env = RecordedAtari(env_config, LANES)
    collector = make(env, env_config, explore=ExploreConfig(exploration="shared", epsilon=1.0))
    chunks = [collector.collect()[0] for _ in range(3)]
    env.close()
    valid_ET = np.concatenate([chunk.valid_ET for chunk in chunks], axis=1)[:, 3:]
    rows = [
        (lane, t, life[t]) for lane, life in enumerate(env.lives) for t in range(valid_ET.shape[1])
    ]
    waiting = [(lane, t, row) for lane, t, row in rows if row.age < 3]
    assert len(waiting) >= 3 * 2 * LANES
    assert all(row.action == 0 and not valid_ET[lane, t] for lane, t, row in waiting)
    assert all(valid_ET[lane, t] == (not row.over) for lane, t, row in rows if row.age >= 3)


def test_lanes_of_two_known_episodes():
    """Two lanes have 1x1 frames. The second lane begins a new episode at the third frame."""
    frame = lambda *values: np.array(values, np.uint8).reshape(2, 1, 1)  # noqa: E731
    for rule, second in (("blank", [0, 0, 0, 33]), ("repeat", [33, 33, 33, 33])):
        lanes = Lanes(frame(1, 11), EnvConfig(stack=4, stack_start=rule), past_actions=3)  # type: ignore[arg-type]
        lanes.push(frame(2, 22), np.array([5, 6]), np.array([False, False]))
        lanes.push(frame(3, 33), np.array([7, 8]), np.array([False, True]))
        assert lanes.stack_ESHW[0].ravel().tolist() == ([0] if rule == "blank" else [1]) + [1, 2, 3]
        assert lanes.stack_ESHW[1].ravel().tolist() == second
        assert lanes.past_EK.tolist() == [[7, 5, -1], [-1, -1, -1]]
        assert lanes.age_E.tolist() == [2, 0]


class Rich(Endless):
    """Endless with rewards near the largest float32."""

    def step(self, action_E: np.ndarray) -> Step:
        return super().step(action_E)._replace(reward_E=np.full(self.num_lanes, 3e38, np.float32))


def test_collect_refuses_rewards_that_float32_cannot_learn_from():
    with pytest.raises(
        RunFault, match=r"a reward of 3e\+38, more than the 1e\+18.*--reward-clip clip"
    ):
        make(Rich(LANES), config=replace(CONFIG, reward_clip="none")).collect()
    make(Rich(LANES), config=replace(CONFIG, reward_clip="clip")).collect()
