"""Tests of flickering Atari."""

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.rl.env import EnvConfig, make_env

LANES, STEPS = 4, 20


def played(blank_frames: float, seed: int = 3, steps: int = STEPS) -> tuple[np.ndarray, np.ndarray]:
    """Return the frames uint8 [T, E, H, W] and rewards [T, E] of some fixed actions."""
    env = make_env(EnvConfig(game="breakout", blank_frames=blank_frames), LANES, 1)
    frames, rewards = [env.reset(seed)], []
    for step in range(steps):
        made = env.step((np.arange(LANES) + step) % env.num_actions)
        frames.append(made.frame_EHW)
        rewards.append(made.reward_E)
    env.close()
    return np.stack(frames), np.array(rewards)


def test_blank_frames_have_their_probability_and_change_nothing_else():
    clear, rewards = played(0.0)
    flickering, same_rewards = played(0.5)
    blank = ~flickering.any((2, 3))
    assert clear.any((2, 3)).all()
    assert blank.mean() == pytest.approx(0.5, abs=0.22), "four standard deviations of 84 frames"
    assert not np.all(blank == blank[:, :1]), "the lanes flicker together"
    np.testing.assert_array_equal(flickering[~blank], clear[~blank])
    np.testing.assert_array_equal(rewards, same_rewards)


def test_a_seed_repeats_the_blank_frames():
    first, again, other = (~played(0.5, seed, 5)[0].any((2, 3)) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_blank_frames_are_for_atari():
    with pytest.raises(ConfigError, match="--blank-frames 0.5: only for Atari games"):
        EnvConfig(env="CartPole-v1", blank_frames=0.5).validate()
    with pytest.raises(ConfigError, match="--blank-frames 1"):
        EnvConfig(blank_frames=1.0).validate()
