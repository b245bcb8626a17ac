"""Tests recording episodes: their order, their endings, the policies, and reproducibility."""

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from genray.distributed.episodes import EpisodesConfig, collect_episodes, play_episodes
from genray.distributed.played import Job, Moment, random_policy, with_phases
from genray.errors import ConfigError
from genray.gen.data.episodes import read_episodes
from genray.gen.sprites.palette import PaletteBuilder
from genray.rl.collect import Lanes
from genray.rl.env import EnvConfig, Step

NO_LANES = cast(Lanes, None)


def test_recorded_episodes_are_the_same_again(tmp_path: Path):
    files = [tmp_path / f"episodes-{name}.safetensors" for name in ("a", "b")]
    for file in files:
        _, recipe = collect_episodes(EpisodesConfig(game="breakout", frames=400, out=file))
    assert files[0].read_bytes() == files[1].read_bytes()
    assert recipe["actions"] == ["NOOP", "FIRE", "RIGHT", "LEFT"] and recipe["bytes_a_step"] < 600
    episodes = read_episodes(files[0])
    assert sum(map(len, episodes.training)) == pytest.approx(320, abs=8)
    for each in (*episodes.training, *episodes.held_out):
        assert each.action_T[0] == 0 and each.reward_T[0] == 0
        assert not each.terminated_T[:-1].any() and each.shape[1:] == (210, 160)


def test_screens_follow_actions(monkeypatch: pytest.MonkeyPatch):
    """The screen, the reward and the ending that a step gave are recorded with its action, and the
    step after an ending begins an episode.
    """
    from genray.distributed import episodes as module

    no = np.zeros(1, bool)

    def moments(job, seed, rng):
        yield Moment(np.full((1, 2, 2, 3), 10, np.uint8), None, None)
        for number, over in ((1, False), (2, True), (3, False), (4, False)):
            step = Step(no, np.array([float(number)]), np.array([over]), no, no)
            shown = np.full((1, 2, 2, 3), 10 * (number + 1), np.uint8)
            yield Moment(shown, np.array([number]), step)

    monkeypatch.setattr(module, "moments_of", moments)
    palette = PaletteBuilder("toy")
    job = Job(EnvConfig(game="pong"), 5, False, 0, False, 0)
    first, second = play_episodes(job, palette)
    assert first.screens()[:, 0, 0].tolist() == [0, 1, 2] and second.screens()[0, 0, 0] == 3
    assert first.action_T.tolist() == [0, 1, 2] and second.action_T.tolist() == [0, 4]
    assert first.reward_T.tolist() == [0, 1, 2] and second.reward_T.tolist() == [0, 4]
    assert first.terminated_T.tolist() == [False, False, True] and not second.terminated_T.any()


def test_phases_take_their_share_and_hold_one_action():
    rng = np.random.default_rng(0)
    policy = with_phases(lambda lanes, on: np.full(len(on), 7), 6, 50, rng, 0.3, 0.9)
    on = np.ones(50, bool)
    action_SE = np.stack([policy(NO_LANES, on) for _ in range(400)])
    assert (action_SE != 7).mean() == pytest.approx(0.3, abs=0.03)
    held = (action_SE[1:] == action_SE[:-1])[action_SE[:-1] != 7].mean()
    assert held == pytest.approx(0.9, abs=0.03)


def test_random_play_with_a_habit_prefers_one_action_for_a_while():
    on = np.ones(200, bool)
    shares = []
    for habit in (0.0, 0.8):
        act = random_policy(10, 200, np.random.default_rng(0), hold=0.0, habit=habit)
        action_SE = np.stack([act(NO_LANES, on) for _ in range(20)])
        most = [np.bincount(each, minlength=10).max() / 20 for each in action_SE.T]
        shares.append(float(np.mean(most)))
    assert shares[0] < 0.35 and shares[1] > 0.6


def test_own_environments_are_recorded(tmp_path: Path):
    """Screens, actions and rewards of Catch obey its rules."""
    file = tmp_path / "catch.safetensors"
    options = EpisodesConfig(env="genray.rl.catch:Catch", frames=400, hold=0.6, out=file)
    _, recipe = collect_episodes(options)
    assert recipe["game"] == "Catch" and recipe["actions"] == ["0", "1", "2"]
    episodes = read_episodes(file)
    grey_P = episodes.palette_P3[:, 0]
    whole = [each for each in episodes.training if each.terminated_T[-1]]
    assert len(whole) > 15 and {len(each) for each in whole} == {12}
    rewards = set()
    for each in whole:
        board_TRC = grey_P[each.screens()][:, 3::7, 3::7]
        column = int(np.argmax(board_TRC[0, 0] == 255))
        # The paddle, which the ball covers at a catch.
        paddle_T = [int(row.argmax()) for row in board_TRC[:-1, -1]]
        moved = [min(max(paddle_T[0] + int(each.action_T[1]) - 1, 0), 11)]
        for action in each.action_T[2:]:
            moved.append(min(max(moved[-1] + int(action) - 1, 0), 11))
        assert moved[:-1] == paddle_T[1:]
        assert all(board_TRC[t, t, column] == 255 for t in range(12))
        assert not each.reward_T[:-1].any()
        rewards.add(float(each.reward_T[-1]))
        assert each.reward_T[-1] == (1 if moved[-1] == column else -1)
    assert rewards == {1.0, -1.0}


def test_bad_recordings_are_refused():
    with pytest.raises(ConfigError, match="--env CartPole-v1: its observations are not grey"):
        EpisodesConfig(env="CartPole-v1").validate()
    with pytest.raises(ConfigError, match="leave out --env and --env-config"):
        EpisodesConfig(env="genray.rl.catch:Catch", from_run=Path("run")).validate()
    with pytest.raises(ConfigError, match="--env-config .*: needs --env"):
        EpisodesConfig(env_config='{"a": 1}').validate()
    with pytest.raises(ConfigError, match="no such Atari game"):
        EpisodesConfig(game="road_walker").validate()
    with pytest.raises(ConfigError, match="--hold"):
        EpisodesConfig(hold=1.0).validate()
