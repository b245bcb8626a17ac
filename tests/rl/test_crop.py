"""Cropping Atari's screen: against means of areas by loops, ALE's own resizing, and its options."""

import math

import numpy as np
import pytest

from genray.config import from_dict, to_dict
from genray.errors import ConfigError
from genray.rl.config import DQNConfig
from genray.rl.crop import Crop, area_weights
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.games import resolve_game

ACTIONS = [1, 2, 3, 0, 2] * 4


def slow_area(screen_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Each pixel is the mean of the area of the screen that it covers, float64 [rows, columns]."""
    height, width = screen_HW.shape[0] / rows, screen_HW.shape[1] / columns
    frame = np.zeros((rows, columns))
    for r, c in np.ndindex(rows, columns):
        for y in range(math.floor(r * height), math.ceil((r + 1) * height)):
            for x in range(math.floor(c * width), math.ceil((c + 1) * width)):
                tall = min(y + 1, (r + 1) * height) - max(y, r * height)
                wide = min(x + 1, (c + 1) * width) - max(x, c * width)
                if y < len(screen_HW) and x < screen_HW.shape[1]:
                    frame[r, c] += tall * wide * screen_HW[y, x]
    return frame / (height * width)


def test_area_weights_by_hand():
    first, share = area_weights(5, 2)  # cells of 2.5 pixels
    assert first.tolist() == [0, 2]
    np.testing.assert_allclose(share[0], [0.4, 0.4, 0.2, 0], atol=1e-7)
    np.testing.assert_allclose(share[1], [0.2, 0.4, 0.4, 0], atol=1e-7)
    first, share = area_weights(160, 84)
    np.testing.assert_allclose(share.sum(1), 1, rtol=1e-6)
    assert (first[:, None] + (share > 0) * np.arange(share.shape[1])).max() == 159


@pytest.mark.parametrize("top, bottom", [(0, 0), (4, 3), (9, 0)])
def test_crop_is_the_mean_of_the_area_without_the_cut_rows(top: int, bottom: int):
    screens = np.random.default_rng(0).integers(0, 256, (2, 26, 20), np.uint8)
    found = Crop(26, 20, top, bottom, (9, 9))(screens)
    assert found.shape == (2, 9, 9) and found.dtype == np.uint8
    for screen, frame in zip(screens, found):
        expected = slow_area(screen[top : 26 - bottom], 9, 9)
        assert np.abs(frame - expected).max() <= 0.5 + 1e-3


@pytest.fixture(scope="module")
def screens() -> np.ndarray:
    """Grey screens of Breakout in full size, uint8 [T, 210, 160]."""
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv(
        resolve_game("breakout"), 1, num_threads=1, max_num_frames_per_episode=10_000,
        noop_max=0, stack_num=1, reward_clipping=False, img_height=210, img_width=160,
    )  # fmt: skip
    found = [env.reset(seed=0)[0][0, 0].copy()]
    found += [env.step(np.array([action]))[0][0, 0].copy() for action in ACTIONS]
    env.close()
    return np.array(found)


def played(**options: int) -> np.ndarray:
    """Frames of the same game by AtariLanes, uint8 [T, 84, 84]."""
    config = EnvConfig(game="breakout", max_episode_frames=10_000, noop_max=0, **options)
    env = AtariLanes(config, 1, num_threads=1)
    found = [env.reset(0)[0]]
    found += [env.step(np.array([action])).frame_EHW[0] for action in ACTIONS]
    env.close()
    return np.array(found)


def test_crop_of_nothing_resizes_as_ale_does(screens: np.ndarray):
    ours = Crop(210, 160, 0, 0, (84, 84))(screens).astype(int)
    assert np.abs(ours - played()).max() <= 1


def test_atari_lanes_crop_the_score_line_before_resizing(screens: np.ndarray):
    """In Breakout the score is in the first 17 rows, and a wall begins below."""
    found = played(crop_top=17, crop_bottom=14)
    assert np.array_equal(found, Crop(179, 160, 0, 0, (84, 84))(screens[:, 17:196]))
    changed = screens.copy()
    changed[:, :17], changed[:, 196:] = 255, 255
    assert np.array_equal(found, Crop(210, 160, 17, 14, (84, 84))(changed))
    assert not np.array_equal(found, played())


def test_env_config_checks_the_cropped_rows():
    EnvConfig(crop_top=100, crop_bottom=26).validate()
    with pytest.raises(ConfigError, match="--crop-top 100 --crop-bottom 27: leave fewer than 84"):
        EnvConfig(crop_top=100, crop_bottom=27).validate()
    with pytest.raises(ConfigError, match="--crop-bottom 3: only for Atari games"):
        EnvConfig(env="genray.rl.catch:Catch", crop_bottom=3).validate()


def test_crop_is_fixed_in_a_resumed_run_and_off_in_configurations_without_it():
    values = to_dict(DQNConfig())
    del values["env"]["crop_top"], values["env"]["crop_bottom"]
    old = from_dict(DQNConfig, values)
    assert (old.env.crop_top, old.env.crop_bottom) == (0, 0)
    with pytest.raises(ConfigError, match="crop"):
        DQNConfig(env=EnvConfig(crop_top=17)).check_resumes(old)
