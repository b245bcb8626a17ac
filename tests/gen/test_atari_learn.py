"""The DCGAN on frames that our own collectors played: no download, real images, judged beside a VAE."""

from dataclasses import replace
from pathlib import Path

import pytest

from genray.dist.frames import FramesConfig, collect_frames
from genray.gen import presets
from genray.gen.data import load_data
from genray.gen.fit import Fit
from genray.gen.gan import GANTask
from genray.gen.images.classifier import train_extractor
from genray.gen.vae import VAETask

pytestmark = [pytest.mark.learn, pytest.mark.timeout(900)]

SAMPLES = 1000


@pytest.fixture(scope="module")
def frames(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("atari") / "frames.safetensors"
    games = ("breakout", "seaquest", "road_runner", "ms_pacman")
    return collect_frames(FramesConfig(games=games, frames=4_000, size=32, out=file))[0]


def test_dcgan_learns_the_look_of_games(frames: Path):
    gan, vae = presets.dcgan_atari(), presets.vae_conv_atari()
    where = replace(gan.data, data=f"atari:{frames}")
    gan = replace(gan, data=where, fit=replace(gan.fit, epochs=1, steps=600, validate_every=10**9))
    vae = replace(vae, data=where, fit=replace(vae.fit, epochs=1, steps=600, validate_every=10**9))
    pictures = load_data(gan.data, low=-1.0, high=1.0)
    judge = train_extractor(pictures)
    real = pictures.test.all()

    def fcd(model) -> float:
        return judge.distance((real - -1.0) / 2.0, (model.sample(SAMPLES) - model.low) / (model.high - model.low)).value

    task = GANTask(gan)
    fit = Fit(task, pictures, gan.fit)
    before = fcd(task.generator)
    for _ in fit:
        pass
    after = fcd(task.generator)
    other = VAETask(vae)
    for _ in Fit(other, load_data(vae.data), vae.fit):
        pass
    of_vae = fcd(other.vae)
    modes = judge.modes(task.generator.sample(SAMPLES), -1.0, 1.0)
    print(
        f"FCD ({judge.name}, {SAMPLES} samples to {len(real)}): {before:.1f} → {after:.1f}, VAE {of_vae:.1f}; {modes} games"
    )
    assert after < before / 5
    assert after < of_vae
    assert modes >= 3
