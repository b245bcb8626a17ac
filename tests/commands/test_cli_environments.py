"""Tests `evaluate`, `play` and `export` with policies of Gymnasium's environments."""

import json
from pathlib import Path
from typing import Any, ClassVar

import av
import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from genray import cli
from genray.rl.agent import LocalAgent
from genray.rl.catch import Catch
from genray.rl.collect import CollectConfig
from genray.rl.config import DQNConfig
from genray.rl.env import EnvConfig
from genray.rl.evaluate import play
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig
from genray.rl.train import save_policy

HERE = __name__


class Undrawn(gymnasium.Env):
    """Four steps, each with the reward 1. Action 0 is illegal, and ends the episode."""

    observation_space: gymnasium.Space = spaces.Box(-1, 1, (3,), np.float32)
    action_space: gymnasium.Space = spaces.Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": 15}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return self._result()

    def step(self, action):
        self._step += 1
        obs, info = self._result()
        return obs, 1.0, self._step == 4 or action == 0, False, info

    def _result(self) -> tuple[np.ndarray, dict[str, Any]]:
        return np.full(3, self._step / 4, np.float32), {"action_mask": np.array([0, 1], np.int8)}


class Drawn(Undrawn):
    """Draws a picture that is as bright as steps were made."""

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode

    def render(self) -> Any:
        assert self.render_mode == "rgb_array"
        return np.full((300, 200, 3), 60 * self._step, np.uint8)


class DrawnBadly(Drawn):
    def render(self) -> Any:
        raise ImportError("no module named pencil;\ninstall it")


class Lines(Drawn):
    def render(self) -> Any:
        return "a line of text"


def model(folder: Path, env: str) -> Path:
    """Save an untrained policy."""
    config = DQNConfig(
        env=EnvConfig(env=env),
        network=NetworkConfig(hidden=8),
        replay=ReplayConfig(capacity=200, min_size=32),
        collect=CollectConfig(collectors=1, envs_per_collector=1),
    )
    agent = LocalAgent(config)
    try:
        return save_policy(folder, config, agent.network(), 0, None)
    finally:
        agent.close()


def test_evaluate_and_play_an_environment_that_draws_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder, clip = model(tmp_path / "model", f"{HERE}:Drawn"), tmp_path / "clip.mp4"
    assert cli.main(["evaluate", str(folder), "--episodes", "3", "--epsilon", "1"]) == 0
    # Four steps only if the illegal action is never taken, though all actions are random.
    assert json.loads((folder / "evaluations.jsonl").read_text())["scores"] == [4.0] * 3
    assert cli.main(["play", str(folder), "--out", str(clip)]) == 0
    assert "score 4 in 4 steps" in capsys.readouterr().out
    with av.open(str(clip)) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert [frame.shape for frame in frames] == [(300, 200, 3)] * 5  # large ones keep their size
    assert [round(frame.mean() / 60) for frame in frames] == [0, 1, 2, 3, 4]


class Painted(Catch):
    """An environment of genray's own protocol that draws itself."""

    def render(self) -> np.ndarray:
        return np.full((20, 30, 3), 100, np.uint8)


def test_play_films_what_an_own_environment_renders():
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=8), Painted.num_actions)
    frames, _ = play(network, EnvConfig(env=f"{HERE}:Painted"), max_steps=2)
    assert [frame.shape for frame in frames] == [(20, 30, 3)] * 3


@pytest.mark.parametrize(
    ("env", "why"),
    [
        (f"{HERE}:Undrawn", "its render"),
        (f"{HERE}:DrawnBadly", "its render failed: ImportError: no module named pencil;"),
        (f"{HERE}:Lines", "its render returned <U14 [], not uint8 [height, width, 3]"),
    ],
)
def test_play_without_pictures_says_so_in_one_line(
    env: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = model(tmp_path / "model", env)
    assert cli.main(["play", str(folder), "--out", str(tmp_path / "clip.gif")]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and f"{env}: cannot be filmed: {why}" in err
    assert "`genray evaluate` plays without pictures" in err
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    # An export goes on without a film.
    out = tmp_path / "hub"
    assert cli.main(["export", str(folder), "--format", "huggingface", "--out", str(out)]) == 0
    assert f"note: {env}: cannot be filmed" in capsys.readouterr().out
    assert not (out / "replay.mp4").exists()
    assert "`observation`, float32 [3]; `action_mask`, uint8 [2]" in (out / "README.md").read_text()
