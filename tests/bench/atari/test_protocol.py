"""Tests the clock of a run, and that all systems are evaluated by the same rules."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genray.rl.env import EnvConfig
from genray.rl.evaluate import evaluate
from genray.rl.networks import NetworkConfig, QNetwork
from tests.bench.atari import protocol as module
from tests.bench.atari.cleanrl_dqn import Ring
from tests.bench.atari.games import SETS
from tests.bench.atari.one_game import OneGame
from tests.bench.atari.protocol import EPSILON, Protocol, Trial, player_of
from tests.bench.rivals import workload


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 100.0
        # Something else takes half of the core.
        monkeypatch.setattr(module.time, "monotonic", lambda: 2.0 * self.now)
        monkeypatch.setattr(module, "tree_cpu_s", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def run(trial: Trial, clock: Clock, ticks: list[tuple[float, int]], copy_s: float = 0.0) -> int:
    """Tell the trial (seconds since the start, steps); return how many ticks it took part in."""
    stopped = 0.0

    def copy_policy() -> Any:
        nonlocal stopped
        clock.now += copy_s
        stopped += copy_s
        return lambda env, episodes, seed: None

    for number, (seconds, steps) in enumerate(ticks):
        clock.now = 100.0 + seconds + stopped
        if not trial.tick(steps, steps // 4, copy_policy):
            return number + 1
    raise AssertionError("the trial did not end")


def test_trial_copies_the_policy_at_the_milestone_and_at_the_end(clock: Clock):
    trial = Trial(Protocol(seconds=10.0, milestone_steps=100), "breakout", 0)
    assert trial.next_steps == 100
    assert run(trial, clock, [(0, 0), (3, 96), (4, 104), (9.8, 300), (10, 310), (11, 400)]) == 5
    assert trial.next_steps > 10**6
    milestone, end = trial._moments["milestone"], trial._moments["end"]
    assert (milestone["seconds"], milestone["steps"], milestone["updates"]) == (4.0, 104, 26)
    assert (end["seconds"], end["steps"]) == (10.0, 310)
    assert end["wall_s"] == 20.0


def test_copying_the_policy_stops_the_clock(clock: Clock):
    trial = Trial(Protocol(seconds=10.0, milestone_steps=100), "breakout", 0)
    assert run(trial, clock, [(0, 0), (4, 104), (9, 290), (10, 310)], copy_s=5.0) == 4
    assert trial._moments["end"]["seconds"] == 10.0
    assert trial._moments["end"]["wall_s"] == 20.0


def test_the_clock_counts_cpu_time_but_not_waiting():
    trial = Trial(Protocol(seconds=1.0, overtime=0.0), "breakout", 0)
    trial.tick(0, 0, list)  # type: ignore[arg-type]
    time.sleep(0.5)
    assert trial.elapsed_s < 0.3
    until = time.thread_time() + 0.5
    while time.thread_time() < until:
        pass
    time.sleep(module.LOOK_S)
    assert trial.elapsed_s >= 0.4


def test_overtime_waits_for_the_milestone_but_not_for_ever(clock: Clock):
    ticks = [(0, 0), (10, 50), (12, 70), (14, 101), (16, 120)]
    rules = Protocol(seconds=10.0, milestone_steps=100, overtime=0.0)
    without = Trial(rules, "breakout", 0)
    assert run(without, clock, ticks) == 2 and "milestone" not in without._moments
    enough = Trial(module.replace(rules, overtime=0.5), "breakout", 0)
    assert run(enough, clock, ticks) == 4
    assert enough._moments["end"]["steps"] == 50  # the score of the budget is that of its end
    assert enough._moments["milestone"]["steps"] == 101
    short = Trial(module.replace(rules, overtime=0.2), "breakout", 0)
    assert run(short, clock, ticks) == 3 and "milestone" not in short._moments


def test_result_without_the_milestone_has_none_for_it(clock: Clock):
    trial = Trial(
        Protocol(seconds=10.0, milestone_steps=100, episodes=2, overtime=0.0), "breakout", 3
    )
    asked = []

    class Played:
        mean, scores, num_cut = 30.5, [30.0, 31.0], 1

    def play(env: EnvConfig, episodes: int, seed: int) -> Any:
        asked.append((env.game, env.sticky_actions, env.max_episode_frames, episodes, seed))
        return Played

    trial.tick(0, 0, lambda: play)
    clock.now += 10.0
    assert not trial.tick(50, 10, lambda: play)
    result = trial.result()
    assert result["milestone"] is None
    assert result["end"]["sticky_25"] == {
        "mean": 30.5, "normalised": 1.0, "scores": [30.0, 31.0], "cut": 1,
    }  # fmt: skip
    assert asked == [("breakout", sticky, 36_000, 2, 10_003) for sticky in (0.0, 0.25)]


def test_a_rivals_player_plays_the_same_episodes_as_genrays_evaluation():
    torch.manual_seed(0)
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=16), 4).eval()

    def q_values(stack_ESHW: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return network(torch.from_numpy(stack_ESHW)).numpy()

    env = EnvConfig(game="breakout", sticky_actions=0.25, max_episode_frames=600)
    ours = evaluate(network, env, episodes=3, epsilon=EPSILON, seed=5)
    rivals = player_of(q_values)(env, 3, 5)
    assert (rivals.scores, rivals.steps) == (ours.scores, ours.steps)
    assert (rivals.epsilon, rivals.sticky_actions) == (ours.epsilon, ours.sticky_actions)


def test_one_game_ends_returns_at_lost_lives_and_goes_on():
    game, raw = OneGame("breakout", seed=3), workload.make_atari("breakout", 1)
    rng = np.random.default_rng(0)
    obs, info = raw.reset(seed=3)
    np.testing.assert_array_equal(game.reset()[0], obs[0])
    lives, lost, games = int(info["lives"][0]), 0, 0
    for _ in range(600):
        action = int(rng.integers(4))
        seen, reward, terminated, truncated, _ = game.step(action)
        obs, raw_reward, raw_terminated, _, info = raw.step(np.array([action]))
        np.testing.assert_array_equal(seen, obs[0])
        died = bool(raw_terminated[0]) or int(info["lives"][0]) < lives
        assert (reward, terminated, truncated) == (float(raw_reward[0]), died, False)
        lives = int(info["lives"][0])
        if raw_terminated[0]:  # `raw` restarts one step late
            obs, _, _, _, info = raw.step(np.array([0]))
            lives, games = int(info["lives"][0]), games + 1
        if terminated:
            lost += 1
            np.testing.assert_array_equal(game.reset()[0], obs[0])
    assert games >= 1 and lost >= 5 * games
    game.close()
    raw.close()


def test_ring_gives_the_next_observation_of_every_transition(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.bench.atari.cleanrl_dqn.CAPACITY", 8)
    ring = Ring(np.random.default_rng(0))

    def picture(number: int) -> np.ndarray:
        return np.full((4, 84, 84), number, np.uint8)

    for number in range(20):
        ring.add(picture(number), number % 4, number, 0.5, picture(number + 1))
        obs, action, reward, _, next_obs = (array.numpy() for array in ring.sample())
        first = obs[:, 0, 0, 0].astype(int)
        assert (next_obs[:, 0, 0, 0] == first + 1).all()
        assert (reward == first).all() and (action == first % 4).all()
        assert first.max() <= number and first.min() >= number - 6
    assert set(first) == set(range(13, 20))  # the newest 7 of 8 places


def test_the_sets_of_games_are_disjoint():
    games = [game for games in SETS.values() for game in games]
    assert len(games) == len(set(games)) and len(SETS["kept-back"]) == 2


def test_quick_runs_are_shorter(tmp_path: Path):
    assert module.quick(Protocol()).seconds < 20
    with pytest.raises(ValueError, match="--episodes 0"):
        module.check(module.replace(Protocol(), episodes=0))
