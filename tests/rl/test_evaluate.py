"""Tests that an evaluation counts one whole episode for each lane, and that pictures show the
scored game.
"""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor

from genray.errors import ConfigError, RunFault
from genray.rl import evaluate as module
from genray.rl.catch import CELL, Catch
from genray.rl.env import AtariLanes, EnvConfig, Step
from genray.rl.evaluate import (
    Evaluation,
    action_names,
    best_constant_action,
    constant_action_scores,
    evaluate,
    play,
    random_play,
    random_score,
    student_t95,
)
from genray.rl.networks import NetworkConfig, QNetwork

CATCH = EnvConfig(env="genray.rl.catch:Catch")
Choose = Callable[[Tensor, Tensor], Tensor]


class Scripted(QNetwork):
    """Takes the actions that `choose(frames_BSHW, past_BK)` returns, and records its inputs."""

    def __init__(self, choose: Choose, num_actions: int = 3, past_actions: int = 0):
        super().__init__(
            NetworkConfig(channels=(1, 1, 1), hidden=1, past_actions=past_actions), num_actions
        )
        self.choose = choose
        self.seen: list[tuple[np.ndarray, np.ndarray]] = []

    def forward(self, frames_BSHW: Tensor, past_BK: Tensor | None = None) -> Tensor:
        assert past_BK is not None
        self.seen.append((frames_BSHW.numpy().copy(), past_BK.numpy().copy()))
        return torch.nn.functional.one_hot(
            self.choose(frames_BSHW, past_BK), self.num_actions
        ).float()


def hold(action: int, num_actions: int = 3) -> Scripted:
    return Scripted(lambda frames, past: torch.full((len(frames),), action), num_actions)


def chase(frames_BSHW: Tensor, past_BK: Tensor) -> Tensor:
    """Play Catch perfectly."""
    board = frames_BSHW[:, -1, ::CELL, ::CELL].int()
    ball, paddle = (
        (board == 255).any(dim=1).int().argmax(dim=1),
        (board[:, -1] == 128).int().argmax(dim=1),
    )
    return torch.sign(ball - paddle) + 1


class Uneven:
    """Episode k of lane i has `lengths[i]` steps of reward 1 + 100 k, so that a counted later
    episode shows at once.
    """

    num_actions, frame_shape = 3, (84, 84)

    def __init__(self, lengths: list[int]):
        self.lengths_E, self.num_lanes = np.array(lengths), len(lengths)

    def reset(self, seed: int) -> np.ndarray:
        self.age_E, self.episode_E = np.zeros(self.num_lanes, int), np.zeros(self.num_lanes, int)
        return self._frame()

    def step(self, action_E: np.ndarray) -> Step:
        begins_E = self.age_E == self.lengths_E
        self.episode_E += begins_E
        self.age_E = np.where(begins_E, 0, self.age_E + 1)
        ends_E, odd_E = self.age_E == self.lengths_E, np.arange(self.num_lanes) % 2 == 1
        reward_E = np.where(begins_E, 0, 1 + 100 * self.episode_E).astype(np.float32)
        return Step(self._frame(), reward_E, ends_E & ~odd_E, ends_E & odd_E, self.age_E == 1)

    def _frame(self) -> np.ndarray:
        return np.broadcast_to(self.age_E[:, None, None], (self.num_lanes, 84, 84)).astype(np.uint8)

    def close(self) -> None:
        self.closed = True


def test_play_out_plays_one_episode_in_each_lane(monkeypatch: pytest.MonkeyPatch):
    lengths = [1, 7, 3, 20, 2, 11]
    env = Uneven(lengths)
    monkeypatch.setattr(module, "make_env", lambda config, num_lanes: env)
    reports: list[tuple[int, int]] = []
    network = hold(0)
    result = evaluate(
        network,
        CATCH,
        episodes=6,
        epsilon=0,
        progress=lambda done, total: reports.append((done, total)),
    )
    assert result.steps == lengths
    assert result.scores == lengths
    assert env.closed
    # after every step
    assert reports == [(sum(length <= t for length in lengths), 6) for t in range(1, 21)]
    # Lanes that have ended are not passed to the network.
    assert [len(frames) for frames, _ in network.seen] == [
        sum(length > t for length in lengths) for t in range(20)
    ]


def test_many_episodes_play_in_even_batches(monkeypatch: pytest.MonkeyPatch):
    sizes: list[int] = []

    def make(config: EnvConfig, num_lanes: int) -> Uneven:
        sizes.append(num_lanes)
        return Uneven([2] * num_lanes)

    monkeypatch.setattr(module, "make_env", make)
    reports: list[int] = []
    result = evaluate(
        hold(0), CATCH, episodes=130, progress=lambda done, total: reports.append(done)
    )
    assert sizes == [43, 43, 44]
    assert len(result.scores) == 130
    assert reports == [0, 43, 43, 86, 86, 130]


def test_evaluate_cuts_an_endless_own_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "make_env", lambda config, num_lanes: Uneven([10**9] * num_lanes))
    config = EnvConfig(env=CATCH.env, max_episode_frames=200, frame_skip=4)
    assert evaluate(hold(0), config, episodes=2).steps == [50, 50]


def test_greedy_policy_gets_stacks_and_past_actions():
    network = Scripted(
        lambda frames, past: (frames[:, -1, -CELL, ::CELL] == 128).int().argmax(dim=1) % 3,
        past_actions=2,
    )
    evaluate(network, CATCH, episodes=1, epsilon=0)
    frames = [stack[0, -1] for stack, _ in network.seen]
    blank = np.zeros_like(frames[0])
    actions = [
        int(network.choose(torch.from_numpy(stack), torch.zeros(0))[0]) for stack, _ in network.seen
    ]
    for t, (stack, past) in enumerate(network.seen):
        np.testing.assert_array_equal(
            stack[0], [frames[k] if k >= 0 else blank for k in range(t - 3, t + 1)]
        )
        assert past[0].tolist() == [actions[k] if k >= 0 else -1 for k in (t - 1, t - 2)]
    assert len(frames) == 11


def test_evaluate_keeps_the_start_rule_wait():
    network = Scripted(lambda frames, past: torch.full((len(frames),), 2), past_actions=4)
    evaluate(network, EnvConfig(env=CATCH.env, stack_start="wait"), episodes=1, epsilon=0)
    assert network.seen[5][1][0].tolist() == [2, 2, 0, 0]


def test_perfect_and_random_play_of_catch():
    perfect = evaluate(Scripted(chase), CATCH, episodes=100, epsilon=0)
    assert perfect.scores == [1.0] * 100
    assert perfect.std_error == 0.0
    # ε = 1 forgets the policy; the expected score is about −0.7.
    for result in (
        evaluate(Scripted(chase), CATCH, episodes=300, epsilon=1),
        random_play(CATCH, episodes=300),
    ):
        assert result.ci95 is not None and -0.95 < result.mean < -0.45 and 0.04 < result.ci95 < 0.12
        assert result.epsilon == 1
    assert random_score(CATCH, episodes=50, seed=3) == random_play(CATCH, episodes=50, seed=3).mean


def test_evaluate_depends_on_the_seed_alone():
    network = Scripted(chase)
    first, again, other = (
        evaluate(network, CATCH, episodes=70, epsilon=0.5, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.scores != other.scores


def test_atari_is_deterministic_and_a_lost_life_ends_nothing():
    torch.manual_seed(0)
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=8), num_actions=4)
    results = [
        evaluate(
            network,
            EnvConfig(game="breakout", life_loss=life_loss, sticky_actions=0.25),
            episodes=2,
            epsilon=0.5,
        )
        for life_loss in ("ignore", "terminal")
    ]
    assert results[0] == results[1]
    # A ball is lost about every 30 steps, and there are five: one life would end far earlier.
    assert min(results[0].steps) > 60
    assert results[0].sticky_actions == 0.25 and results[0].noop_max == 30


def test_constant_actions_by_their_names():
    assert action_names(EnvConfig(game="freeway")) == ["NOOP", "UP", "DOWN"]
    scores = constant_action_scores(EnvConfig(game="freeway", max_episode_frames=1200), episodes=1)
    assert scores["NOOP"] == 0 and scores["UP"] >= 1
    # Catch: holding still catches only the balls that fall onto the paddle.
    held = constant_action_scores(CATCH, episodes=200)
    assert list(held) == ["0", "1", "2"]
    assert held["1"] == pytest.approx(2 / 12 - 1, abs=0.15)
    assert best_constant_action(CATCH, episodes=200) == max(held.items(), key=lambda item: item[1])


@pytest.mark.parametrize("sticky_actions", [0.0, 0.25])
def test_play_steps_pictures_belong_to_the_scored_game(sticky_actions: float):
    config = EnvConfig(game="breakout", sticky_actions=sticky_actions, max_episode_frames=400)
    network = Scripted(
        lambda frames, past: torch.ones(len(frames), dtype=torch.long), num_actions=4
    )
    frames, score = play(network, config, epsilon=0.7, seed=5)
    assert frames[0].shape == (210, 160, 3) and frames[0].dtype == np.uint8
    result = evaluate(network, config, episodes=1, epsilon=0.7, seed=5)
    assert result.scores == [score] and result.steps == [len(frames) - 1]
    # The red brick rows are red, so the picture is not grey in three channels.
    assert (frames[0].max(axis=2).astype(int) - frames[0].min(axis=2)).max() > 80
    # What the policy saw is the picture, in grey and small, at every step. The largest difference
    # of any pixel, because another game of Breakout differs by a ball and a paddle: about 50 for
    # the same game, 120 for another.
    for t in range(len(frames) - 1):
        small = Image.fromarray(frames[t]).convert("L").resize((84, 84), Image.Resampling.BOX)
        seen = network.seen[t][0][0, -1].astype(int)
        assert np.abs(np.asarray(small).astype(int) - seen).max() < 80


def test_emulators_that_part_are_a_fault(monkeypatch: pytest.MonkeyPatch):
    class Parting(AtariLanes):
        def step(self, action_E: np.ndarray) -> Step:
            step = super().step(action_E)
            return step._replace(reward_E=step.reward_E + 1)

    monkeypatch.setattr(module, "AtariLanes", Parting)
    with pytest.raises(RunFault, match=r"breakout: at step 1 \(--seed 0\), .* another --seed"):
        play(hold(0, 4), EnvConfig(game="breakout"))


def test_play_steps_shows_an_own_environment_in_grey():
    frames, score = play(Scripted(chase), CATCH, epsilon=0)
    assert score == 1.0 and len(frames) == 12
    assert frames[0].shape == (*Catch.frame_shape, 3)
    assert (frames[0] == frames[0][:, :, :1]).all()
    assert len(play(Scripted(chase), CATCH, max_steps=4)[0]) == 5


def test_statistics_by_hand():
    result = Evaluation("pong", [1.0, 2.0, 6.0, 3.0], [10, 20, 30, 40], 0.01, 0.0, 30, 108_000)
    assert result.mean == 3.0 and result.median == 2.5
    assert result.std_error == pytest.approx(np.sqrt(14 / 3) / 2)
    assert result.ci95 == pytest.approx(3.1824 * np.sqrt(14 / 3) / 2, rel=1e-4)
    assert result.human_normalised == pytest.approx((3 + 20.7) / (14.6 + 20.7))
    assert json.loads(json.dumps(result.to_dict()))["mean"] == 3.0
    assert result.summary() == (
        "pong: mean 3.0 ± 3.4 (95%), median 2.5; human-normalised 67.1% (random -20.7, human "
        "14.6)\n"
        "4 episodes of 25 steps, ε 0.01, sticky actions 0, up to 30 no-ops at the start, at most "
        "108,000 frames, "
        "lost lives ignored"
    )


def test_evaluation_of_one_episode_has_no_interval():
    result = Evaluation("m:f", [1.0], [10], 0.0, None, None, 108_000)
    assert result.std_error is None and result.ci95 is None and result.human_normalised is None
    # Frames and lives are Atari's.
    assert result.summary() == "m:f: mean 1.0, median 1.0\n1 episodes of 10 steps, ε 0"
    assert json.loads(json.dumps(result.to_dict()))["ci95"] is None


def test_students_t_against_scipy():
    for degrees in [*range(1, 40), 99, 999]:
        assert student_t95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)


def test_nonsense_is_refused():
    for episodes, epsilon in ((0, 0.1), (1, -0.1), (1, 1.1)):
        with pytest.raises(ConfigError):
            evaluate(hold(0), CATCH, episodes=episodes, epsilon=epsilon)
    with pytest.raises(ConfigError, match="max-steps"):
        play(hold(0), CATCH, max_steps=0)
