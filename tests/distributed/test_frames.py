"""Tests playing frames: the file, its reproducibility, and that several workers write what one
writes.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from genray.distributed import frames as module
from genray.distributed.frames import FramesConfig, collect_frames, merge, play_frames
from genray.distributed.played import Job
from genray.errors import ConfigError, ResourceError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.writing import write_tensors
from genray.rl.env import EnvConfig

CONFIG = FramesConfig(games=("pong,breakout",), frames=100, size=32, seed=3)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("frames")
    out, _ = collect_frames(
        FramesConfig(
            games=CONFIG.games, frames=100, seed=3, out=folder / "atari-32-rgb.safetensors"
        )
    )
    return out


def test_frames_are_labelled_by_game_and_none_repeats(written):
    with safe_open(written, framework="numpy") as opened:
        recipe = json.loads(opened.metadata()["recipe"])
        frames, label, held_out = (
            opened.get_tensor(name) for name in ("frames", "label", "held_out")
        )
    assert frames.dtype == np.uint8 and frames.shape[1:] == (3, 32, 32)
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    assert recipe["games"] == ["pong", "breakout"] and recipe["policy"].startswith("random")
    for number, game in enumerate(recipe["games"]):
        counts = [int(((label == number) & (held_out == part)).sum()) for part in (False, True)]
        assert counts == [recipe["frames"][game]["train"], recipe["frames"][game]["test"]]
        assert counts[0] == 40 and 1 <= counts[1] <= 10
    # Pong is brown (144, 72, 17), Breakout mostly black: the labels are of the right game, the
    # channels in order.
    pong, breakout = frames[label == 0].mean((0, 2, 3)), frames[label == 1].mean((0, 2, 3))
    assert pong[0] > pong[1] + 30 > pong[2] + 60 and breakout.max() < 80


def test_load_data_reads_them(written):
    data = load_data(DataConfig(data="atari", data_folder=str(written.parent)), low=-1.0)
    assert data.classes == ("pong", "breakout") and data.shape == (3, 32, 32)
    assert len(data.train) + len(data.validation) == 80
    assert data.train.label is not None and set(data.train.label.tolist()) == {0, 1}
    assert -1 <= float(data.train.all().min()) < -0.9
    assert data.about["every"] == module.EVERY
    small = load_data(DataConfig(data=f"atari:{written}", size=16, grey=True))
    assert small.shape == (1, 16, 16)


def test_play_frames_depends_on_the_jobs_seed():
    job = Job(EnvConfig(game="pong"), 12, False, 16, True, seed=5)
    first = play_frames(job)
    assert first.shape == (12, 1, 16, 16)
    assert np.array_equal(play_frames(job), first)
    other = play_frames(Job(EnvConfig(game="pong"), 12, True, 16, True, seed=5))
    assert not np.array_equal(other, first)


def test_merging_drops_what_training_has_and_what_two_games_share():
    blank, one, two, three = (np.full((1, 2, 2), value, np.uint8) for value in range(4))
    frames, label, held_out = merge(
        [
            (0, False, np.stack([blank, one, one])),
            (0, True, np.stack([one, two])),
            (1, False, np.stack([blank, three])),
        ]
    )
    found = list(zip(frames[:, 0, 0, 0].tolist(), label.tolist(), held_out.tolist()))
    assert found == [(0, 0, False), (1, 0, False), (3, 1, False), (2, 0, True)]


def test_progress_ends_at_the_whole():
    seen: list[tuple[int, int]] = []
    jobs = [Job(EnvConfig(game="pong"), 6, part, 16, True, seed=0) for part in (False, True)]
    list(module._play_here(jobs, lambda done, wanted: seen.append((done, wanted))))
    assert seen[-1] == (12, 12) and seen == sorted(seen)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"games": ("brekout",)}, "--games brekout: no such Atari game; did you mean breakout"),
        ({"games": ("pong", "joust")}, "--games joust: a two-player game"),
        ({"games": ()}, "--games: name one"),
        ({"frames": 5}, "--frames 5"),
        ({"size": 4}, "--size 4"),
        ({"workers": 0}, "--workers 0"),
    ],
)
def test_bad_options_write_nothing(options, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        collect_frames(FramesConfig(out=tmp_path / "new" / "frames.safetensors", **options))
    assert list(tmp_path.iterdir()) == []


def test_collect_frames_checks_the_file_before_playing(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match="--out"):
        collect_frames(
            FramesConfig(games=("pong",), frames=20, out=tmp_path / "file" / "frames.safetensors")
        )


def test_write_frames_on_a_full_disk_keeps_the_old_file(tmp_path):
    out = tmp_path / "frames.safetensors"
    out.write_bytes(b"old")
    import resource

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        # a write beyond the limit raises OSError
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
        with pytest.raises(ResourceError, match="cannot be written"):
            write_tensors(out, {"frames": np.zeros((10, 3, 32, 32), np.uint8)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert out.read_bytes() == b"old" and list(tmp_path.iterdir()) == [out]


def test_collect_frames_with_a_policy_plays_in_colour(tmp_path):
    from dataclasses import asdict

    import torch

    from genray.rl.networks import NetworkConfig, QNetwork
    from genray.runs.modelstore import save_model

    torch.manual_seed(0)
    env = EnvConfig(game="breakout")
    network = QNetwork(NetworkConfig(channels=(4, 4, 4), hidden=8), 4, 4, (84, 84))
    card = {
        "channels": [4, 4, 4], "hidden": 8, "dueling": network.config.dueling, "past_actions": 0,
        "frame_shape": [84, 84], "num_actions": 4, "stack": 4, "env": asdict(env),
    }  # fmt: skip
    save_model(tmp_path / "model", "dqn", card, network.state_dict(), "")
    config = FramesConfig(frames=20, model=tmp_path, epsilon=0.5, out=tmp_path / "own.safetensors")
    _, recipe = collect_frames(config)
    assert recipe["games"] == ["breakout"] and "ε 0.5" in recipe["policy"]
    data = load_data(DataConfig(data=f"atari:{tmp_path / 'own.safetensors'}", validation=0))
    assert data.shape == (3, 32, 32) and len(data.train) == 16


@pytest.mark.ray
def test_collect_frames_with_two_workers_equals_one(ray_here, written, tmp_path):
    seen: list[tuple[int, int]] = []
    config = FramesConfig(
        games=CONFIG.games, frames=100, seed=3, workers=2, out=tmp_path / "atari-32-rgb.safetensors"
    )
    out, _ = collect_frames(config, lambda done, wanted: seen.append((done, wanted)))
    assert out.read_bytes() == written.read_bytes()
    assert seen[-1] == (100, 100)
