"""The DCGAN at a quarter of its width learns four games from frames that our own collectors played in this test."""

from pathlib import Path

import pytest

from tests.bench.bench_frames_gan import GAMES, SAMPLES, measure, play

pytestmark = [pytest.mark.learn, pytest.mark.timeout(900)]


def test_dcgan_on_frames_of_games_beats_the_vae_and_makes_every_game(tmp_path: Path):
    found = measure(play(tmp_path / "frames.safetensors"))
    print(
        f"FCD ({found.extractor}, {SAMPLES} samples to {found.num_real} held-out frames): GAN {found.before:.0f} → "
        f"{found.gan:.0f}, VAE {found.vae:.0f}, training frames {found.of_training_frames:.0f}; "
        f"{found.games} of {len(GAMES)} games"
    )
    assert found.gan < found.before / 5
    assert found.gan < found.vae
    assert found.games == len(GAMES)
