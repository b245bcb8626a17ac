"""The DCGAN of `dcgan_atari` on frames that our own collectors play, beside a VAE. `python -m
tests.bench.bench_frames_gan`

Both make as many steps on the same frames of four games (the VAE's batch is twice as large). FCD
(never FID) of 1,000 samples to the held-out frames, by a classifier of games that is trained on
the spot; beside it the FCD of 1,000 training frames, which no generator can be expected to pass.
About three minutes of one core.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from genray.distributed.frames import FramesConfig, collect_frames
from genray.gen import presets
from genray.gen.data.load import load_data
from genray.gen.gan.task import GANTask
from genray.gen.generative import GenerativeModel, image_grid
from genray.gen.images.classifier import train_extractor
from genray.gen.training.fit import Fit
from genray.gen.vae import VAETask
from genray.machine import keep_freed_memory
from genray.media import write_png
from tests.bench.common import describe_machine, last_json_line, print_table

SAMPLES = 1000
STEPS = 1000
GAMES = ("breakout", "seaquest", "road_runner", "ms_pacman")


class Figures(NamedTuple):
    """FCDs, and how many of the four games the GAN makes."""

    extractor: str
    num_real: int
    of_training_frames: float
    before: float
    """The GAN's without training."""
    gan: float
    vae: float
    games: int
    grids: dict[str, np.ndarray]
    """64 samples of each model, uint8 RGB."""


def play(file: Path, frames: int = 4_000, seed: int = 0) -> Path:
    """Frames of the four games by random play, 32x32 in colours; a fifth are from episodes of
    their own, for the test.
    """
    collect_frames(FramesConfig(games=GAMES, frames=frames, size=32, seed=seed, out=file))
    return file


def measure(file: Path, steps: int = STEPS, seed: int = 0) -> Figures:
    """Train both presets on the frames in `file`, and evaluate them on the held-out ones."""

    def prepared(config: Any) -> Any:
        fit = replace(
            config.fit, epochs=1, steps=steps, validate_every=10**9, seed=seed, device="cpu"
        )
        return replace(config, data=replace(config.data, data=f"atari:{file}"), fit=fit)

    gan, vae = prepared(presets.dcgan_atari()), prepared(presets.vae_conv_atari())
    pictures, unit = load_data(gan.data, low=-1.0, high=1.0), load_data(vae.data)
    judge, real = train_extractor(unit), unit.test.all()

    def samples(model: GenerativeModel) -> torch.Tensor:
        return (model.sample(SAMPLES) - model.low) / (model.high - model.low)

    def fcd(images: torch.Tensor) -> float:
        return judge.distance(real, images).value

    task, other = GANTask(gan), VAETask(vae)
    fit = Fit(task, pictures, gan.fit)
    before = fcd(samples(task.generator))
    for _ in fit:
        pass
    for _ in Fit(other, unit, vae.fit):
        pass
    of_gan, of_vae = samples(task.generator), samples(other.vae)
    grids = {
        name: image_grid(images[:64], 0.0, 1.0, least_side=64)
        for name, images in (("gan", of_gan), ("vae", of_vae))
    }
    return Figures(
        judge.name,
        len(real),
        fcd(unit.train.first(SAMPLES).all()),
        before,
        fcd(of_gan),
        fcd(of_vae),
        judge.modes(of_gan),
        grids,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--frames", type=int, default=4_000)
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0], help="of the frames and of the training"
    )
    parser.add_argument("--grids", type=Path, help="folder for a grid of samples of each model")
    parser.add_argument("--quick", action="store_true", help="20 steps: shows that it runs")
    arguments = parser.parse_args()
    steps = 20 if arguments.quick else arguments.steps
    torch.set_num_threads(1)
    keep_freed_memory()
    found: dict[int, Figures] = {}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            found[seed] = measure(
                play(Path(folder) / "frames.safetensors", arguments.frames, seed), steps, seed
            )
        if arguments.grids:
            for name, grid in found[seed].grids.items():
                print(write_png(arguments.grids / f"{name}-{seed}.png", grid))
    print_table(
        f"FCD of {SAMPLES} samples to the held-out frames, {steps} steps; {describe_machine()}",
        (
            "seed",
            "extractor",
            "held out",
            "training frames",
            "GAN at the start",
            "GAN",
            "VAE",
            "games made",
        ),
        [
            (
                str(seed),
                f.extractor,
                str(f.num_real),
                f"{f.of_training_frames:.0f}",
                f"{f.before:.0f}",
                f"{f.gan:.0f}",
                f"{f.vae:.0f}",
                f"{f.games} of {len(GAMES)}",
            )
            for seed, f in found.items()
        ],
    )
    first = found[arguments.seeds[0]]
    last_json_line(
        {
            "fcd_start": first.before,
            "fcd_gan": first.gan,
            "fcd_vae": first.vae,
            "games": first.games,
        }
    )


if __name__ == "__main__":
    main()
