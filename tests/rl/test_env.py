"""Tests ALE's lanes, Catch as the example of an environment, and the refusals of `--env`."""

import sys
from typing import Any

import numpy as np
import pytest

from genray.errors import ConfigError, RunFault
from genray.rl.catch import BOARD, Catch
from genray.rl.env import (
    OWN_MODULES,
    AtariLanes,
    CheckedEnv,
    EnvConfig,
    FrameVectorEnv,
    SavesState,
    Step,
    check_env,
    load_factory,
    make_env,
)


def test_atari_lanes_restart_one_step_late_and_show_every_frame_once():
    """Episodes are truncated after 25 steps. That step shows the final frame, and the next step
    shows the first frame of a new episode.
    """
    env = AtariLanes(
        EnvConfig(game="breakout", max_episode_frames=100, noop_max=0), 2, num_threads=1
    )
    first = env.reset(3)
    assert first.shape == (2, 84, 84) and first.dtype == np.uint8
    for age in range(1, 26):
        step = env.step(np.array([1, 1]))
        assert step.truncated_E.tolist() == [age == 25] * 2
        assert not step.terminated_E.any()
    last = step.frame_EHW
    after = env.step(np.array([3, 3]))
    assert not after.truncated_E.any() and not after.reward_E.any()
    assert not np.array_equal(after.frame_EHW, last)
    np.testing.assert_array_equal(after.frame_EHW, first)  # no no-ops: the same first frame
    env.close()


def test_atari_lanes_own_their_arrays():
    """ALE reuses its buffers, so returned arrays must not change later."""
    env = AtariLanes(EnvConfig(game="pong", noop_max=5), 1, num_threads=1)
    env.reset(0)
    kept = [env.step(np.array([i % 6])) for i in range(40)]
    copies = [[np.array(field) for field in step] for step in kept]
    for i in range(40):
        env.step(np.array([i % 6]))
    assert all(np.array_equal(a, b) for step, copy in zip(kept, copies) for a, b in zip(step, copy))
    assert all(array.base is None for step in kept for array in step)
    env.close()


def test_atari_rewards_are_not_clipped_and_lives_are_reported():
    env = AtariLanes(EnvConfig(game="ms_pacman"), 1, num_threads=1)
    env.reset(0)
    rng = np.random.default_rng(0)
    rewards, lost, ended = [], 0, 0
    while not ended:
        step = env.step(rng.integers(9, size=1))
        rewards.append(float(step.reward_E[0]))
        lost += int(step.life_lost_E[0])
        ended += int(step.terminated_E[0])
    # 3 lives: two losses continue the episode, the third ends it
    assert max(rewards) >= 10 and lost == 2
    env.close()


def test_atari_seeds():
    frames = []
    for seed in (1, 1, 2):
        env = AtariLanes(EnvConfig(game="pong", sticky_actions=0.25), 1, num_threads=1)
        env.reset(seed)
        frames.append(np.array([env.step(np.array([t % 6])).frame_EHW for t in range(80)]))
        env.close()
    assert np.array_equal(frames[0], frames[1])
    assert not np.array_equal(frames[0], frames[2])


def test_atari_lanes_full_action_space_is_optional():
    for full, expected in ((False, 4), (True, 18)):
        env = AtariLanes(EnvConfig(game="breakout", full_action_space=full), 1, num_threads=1)
        assert env.num_actions == expected
        env.close()


# --- Catch ----------------------------------------------------------------------------------------


def follow(frame_EHW: np.ndarray) -> np.ndarray:
    """Return the best action by the picture alone: move the paddle (128) under the ball (255)."""
    cells = frame_EHW[:, ::7, ::7]
    ball_E = (cells == 255).any(axis=1).argmax(axis=1)
    paddle_E = (cells[:, -1] == 128).argmax(axis=1)
    return np.sign(ball_E - paddle_E) + 1


def score(policy, steps: int = 1200, lanes: int = 8) -> float:
    env = Catch(num_lanes=lanes)
    frame = env.reset(0)
    rewards, ends = 0.0, 0
    for _ in range(steps):
        step = env.step(policy(frame))
        frame = step.frame_EHW
        rewards += float(step.reward_E.sum())
        ends += int(step.terminated_E.sum())
    assert ends == lanes * (steps // BOARD)  # 11 steps of play and one of reset
    return rewards / ends


def test_catch_has_the_optimum_and_the_random_score_that_it_claims():
    rng = np.random.default_rng(0)
    assert score(follow) == 1.0
    assert score(lambda frame: rng.integers(3, size=len(frame))) == pytest.approx(-0.75, abs=0.1)


def test_catch_goes_on_from_its_state_bit_for_bit():
    env, again = Catch(num_lanes=3), Catch(num_lanes=3)
    assert isinstance(env, SavesState) and not isinstance(AtariLanes, SavesState)
    env.reset(4)
    actions = np.random.default_rng(0).integers(3, size=(60, 3))
    for action in actions[:31]:
        last = env.step(action)
    np.testing.assert_array_equal(again.restore(env.state()), last.frame_EHW)
    for action in actions[31:]:
        for mine, theirs in zip(env.step(action), again.step(action)):
            np.testing.assert_array_equal(mine, theirs)


# --- --env ----------------------------------------------------------------------------------------


class NoShape:
    num_lanes, num_actions = 1, 2

    def __init__(self, num_lanes: int):
        pass

    def reset(self, seed): ...
    def step(self, action_E): ...
    def close(self): ...


not_callable = 3


def test_own_environments_are_made_by_name():
    env: FrameVectorEnv = make_env(EnvConfig(env="genray.rl.catch:Catch", game="no such game"), 5)
    assert isinstance(env, CheckedEnv) and isinstance(env.own, Catch) and env.num_lanes == 5
    assert EnvConfig(env="genray.rl.catch:Catch").title == "genray.rl.catch:Catch"
    assert EnvConfig(game="ALE/Pong-v5").title == "pong"


def test_load_factory_finds_modules_where_the_command_was_started(tmp_path, monkeypatch):
    """In Ray's workers; files of other names there replace nothing."""
    (tmp_path / "game_of_this_test.py").write_text("Game = dict")
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match="No module named 'game_of_this_test'"):
        load_factory("game_of_this_test:Game")
    monkeypatch.setenv(OWN_MODULES, str(tmp_path))
    assert load_factory("game_of_this_test:Game") is dict
    assert sys.path[-1] == str(tmp_path)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("genray.rl.catch", "write module:factory, e.g. genray.rl.catch:Catch"),
        (":Catch", "write module:factory"),
        ("genray.rl.catsh:Catch", "No module named 'genray.rl.catsh'.*e.g. genray.rl.catch:Catch"),
        ("genray.rl.catch:Chat", "has no attribute 'Chat'.*e.g. genray.rl.catch:Catch"),
        (f"{__name__}:not_callable", "not_callable cannot be called"),
    ],
)
def test_names_that_lead_nowhere(name: str, reason: str):
    with (
        pytest.raises(ConfigError, match=f"--env {name}: .*{reason}")
        if name[0] != "g" or ":" in name
        else pytest.raises(ConfigError, match=reason)
    ):
        load_factory(name)
    with pytest.raises(ConfigError):
        EnvConfig(env=name).validate()


def test_make_env_refuses_an_incomplete_environment():
    with pytest.raises(ConfigError, match="lacks `frame_shape`.*FrameVectorEnv"):
        make_env(EnvConfig(env=f"{__name__}:NoShape"), 1)


def test_make_env_refuses_an_environment_that_raises():
    with pytest.raises(
        ConfigError,
        match=r"--env math:sin: making it with num_lanes=1 failed: TypeError: .*catch\.py",
    ):
        make_env(EnvConfig(env="math:sin"), 1)


class Changed(Catch):
    """Catch with one part of its results replaced."""

    def __init__(self, **changes: Any):
        super().__init__(num_lanes=1)
        self.frame_shape = changes.get("frame_shape", self.frame_shape)
        self.num_actions = changes.get("num_actions", self.num_actions)
        self._changes = changes

    def reset(self, seed: int) -> np.ndarray:
        frames = super().reset(seed)
        return self._changes["reset"](frames) if "reset" in self._changes else frames

    def step(self, action_E: np.ndarray) -> Step:
        step = super().step(action_E)
        return step._replace(
            **{
                name: self._changes[name](getattr(step, name))
                for name in self._changes.keys() & step._fields
            }
        )


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"frame_shape": (84, 84, 1)}, r"frame_shape is \(84, 84, 1\), not \(height, width\)"),
        ({"num_actions": 0}, "num_actions is 0, not a number in 1..256"),
        ({"frame_shape": (42, 42)}, r"reset is uint8 \[1, 84, 84\], not uint8 \[1, 42, 42\]"),
        ({"reset": lambda frames: frames / 255}, r"reset is float64 \[1, 84, 84\], not uint8"),
        ({"reset": lambda frames: frames.tolist()}, "reset is list, not uint8"),
        (
            {"frame_EHW": lambda frames: frames[0]},
            r"step's frame_EHW is uint8 \[84, 84\], not uint8 \[1, 84, 84\]",
        ),
        ({"reward_E": lambda rewards: float(rewards[0])}, "step's reward_E is float, not float32"),
        (
            {"terminated_E": lambda ends: ends.astype(int)},
            r"step's terminated_E is int64 \[1\], not bool \[1\]",
        ),
        ({"truncated_E": lambda ends: 1 / 0}, "its first step failed: ZeroDivisionError"),
    ],
)
def test_check_env_refuses_a_broken_protocol(changes: dict[str, Any], complaint: str):
    with pytest.raises(ConfigError, match=f"--env mine: {complaint}.*catch.py is an example"):
        check_env(Changed(**changes), "mine")


def test_sound_environments_pass_the_check():
    check_env(Catch(num_lanes=3), "catch")
    check_env(Changed(reward_E=lambda rewards: rewards.astype(int)), "whole rewards")


class WrongLate(Catch):
    """Catch that returns one field in another form from its third step on."""

    change: tuple[str, Any] = ("", None)

    def __init__(self, num_lanes: int):
        super().__init__(num_lanes)
        self._steps = 0

    def step(self, action_E: np.ndarray) -> Step:
        self._steps += 1
        step, (field, change) = super().step(action_E), self.change
        return step._replace(**{field: change(getattr(step, field))}) if self._steps > 2 else step


@pytest.mark.parametrize(
    ("field", "change", "complaint"),
    [
        (
            "terminated_E",
            lambda ends: ends.astype(int),
            r"terminated_E is int64 \[2\], not bool \[2\]",
        ),
        (
            "frame_EHW",
            lambda frames: frames / 255,
            r"frame_EHW is float64 \[2, 84, 84\], not uint8",
        ),
        (
            "life_lost_E",
            lambda lost: lost[:, None],
            r"life_lost_E is bool \[2, 1\], not bool \[2\]",
        ),
        (
            "reward_E",
            lambda rewards: rewards * np.nan + np.nan,
            "a reward of nan, not a finite number",
        ),
        (
            "reward_E",
            lambda rewards: rewards.astype(float) + 1e39,
            "a reward of inf, not a finite number",
        ),
        (
            "frame_EHW",
            lambda frames: 1 / 0,
            r"its step failed: ZeroDivisionError.*\(\S+test_env.py:\d+\)",
        ),
    ],
)
def test_checked_env_refuses_a_late_breach_of_the_protocol(field, change, complaint, monkeypatch):
    monkeypatch.setattr(WrongLate, "change", (field, staticmethod(change).__func__))
    env = make_env(EnvConfig(env=f"{__name__}:WrongLate"), 2)
    env.reset(0)
    actions = np.zeros(2, np.int64)
    assert env.step(actions).reward_E.dtype == np.float32
    env.step(actions)
    with pytest.raises(RunFault, match=complaint):
        env.step(actions)


class BreaksAround(Catch):
    def reset(self, seed: int) -> np.ndarray:
        if self.num_lanes > 1:
            raise OSError(f"no display for {self.num_lanes} lanes")
        return super().reset(seed)

    def close(self) -> None:
        raise RuntimeError("already gone")


def test_checked_env_words_an_error_of_reset_and_survives_one_of_close(capsys):
    env = make_env(EnvConfig(env=f"{__name__}:BreaksAround"), 2)
    with pytest.raises(RunFault, match="its reset failed: OSError: no display for 2 lanes"):
        env.reset(0)
    env.close()
    assert "BreaksAround: its close failed: RuntimeError: already gone" in capsys.readouterr().err


def test_checked_env_passes_on_what_saves_its_state():
    env = make_env(EnvConfig(env="genray.rl.catch:Catch"), 2)
    assert isinstance(env, SavesState)
    assert "restore" in dir(type(env)), "Python 3.12 looks for it in the class"
    frames = env.reset(1)
    assert np.array_equal(env.restore(env.state()), frames)
