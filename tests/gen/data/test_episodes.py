"""Tests files of episodes: the round trip, the splits, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.episodes import PER_SCREEN, EpisodesSplit, pack, read_episodes
from genray.gen.data.load import load_data
from genray.gen.data.screens import Screens, write_screens
from tests.helpers.world import ACTIONS, PALETTE, toy_episode, toy_file


def test_episodes_are_read_as_they_were_written(tmp_path: Path):
    episodes = read_episodes(toy_file(tmp_path, train=3, test=1))
    assert len(episodes.training) == 3 and len(episodes.held_out) == 1
    assert np.array_equal(episodes.palette_P3, PALETTE)
    assert episodes.recipe["actions"] == list(ACTIONS) and episodes.recipe["bytes_a_step"] < 200
    for seed, found in enumerate((*episodes.training, *episodes.held_out)):
        made = toy_episode(seed)
        assert np.array_equal(found.screens(), made.screens()) and len(found) == 61
        for name in PER_SCREEN:
            assert np.array_equal(getattr(found, f"{name}_T"), getattr(made, f"{name}_T"))
        assert found.terminated_T[-1] and found.life_lost_T.sum() == 2


def test_pack_keeps_every_value():
    screens = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    episode = toy_episode(0)
    again = type(episode)(pack(screens), screens.shape, *(np.zeros(5, bool) for _ in range(5)))
    assert np.array_equal(again.screens(), screens)


def test_load_data_makes_splits_of_whole_episodes(tmp_path: Path):
    data = load_data(DataConfig(data=f"episodes:{toy_file(tmp_path)}", validation=0.2))
    counts = []
    for split in (data.train, data.validation, data.test):
        assert isinstance(split, EpisodesSplit)
        counts.append(len(split.episodes))
        assert len(split) == 60 * len(split.episodes)
        assert torch.equal(split.values[61], torch.tensor([1, 1])) or len(split.episodes) == 1
    assert counts == [4, 2, 2] and data.name == "episodes of toy"


def damage(folder: Path, **changes) -> Path:
    """Write a file with other tensors; None removes a tensor."""
    file = toy_file(folder, train=2, test=1)
    from safetensors import safe_open

    with safe_open(file, framework="numpy") as opened:
        about = opened.metadata()
    tensors = {**load_file(file), **changes}
    save_file({name: each for name, each in tensors.items() if each is not None}, file, about)
    return file


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"action": None}, "without actions; record episodes with: genray data episodes"),
        ({"reward": np.zeros(3, np.float32)}, "is damaged"),
        ({"length": np.array([61, 0, 61])}, "is damaged"),
        ({"bytes": np.array([9, 9, 10**9])}, "is damaged"),
    ],
)
def test_damaged_files_are_refused(changes, words: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=words) as error:
        read_episodes(damage(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_screens_and_missing_files_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="--game pong"):
        read_episodes(tmp_path / "episodes-pong.safetensors")
    file = tmp_path / "screens-toy.safetensors"
    screens = toy_episode(0).screens()
    write_screens(file, Screens(screens, PALETTE, np.arange(61) > 50, {"game": "toy"}))
    with pytest.raises(ConfigError, match="has screens without actions"):
        read_episodes(file)
    with pytest.raises(ConfigError, match="write episodes:GAME"):
        DataConfig(data="episodes").validate()
    with pytest.raises(ConfigError, match="too few"):
        load_data(DataConfig(data=f"episodes:{toy_file(tmp_path, train=1, test=1)}"))
