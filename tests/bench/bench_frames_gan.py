"""The DCGAN of `dcgan_atari` on frames that our own collectors play, beside a VAE. `python -m tests.bench.bench_frames_gan`

Both make as many steps on the same frames of four games; FCD (never FID) of 1,000 samples to the held-out frames, by a
classifier of games that is trained on the spot. Not a test: the GAN falls short of its goal (RESULTS.md).
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from genray.dist.frames import FramesConfig, collect_frames
from genray.gen import presets
from genray.gen.data import load_data
from genray.gen.fit import Fit
from genray.gen.gan import GANTask
from genray.gen.images.classifier import train_extractor
from genray.gen.vae import VAETask
from tests.bench.common import describe_machine, last_json_line, print_table

SAMPLES = 1000
GAMES = ("breakout", "seaquest", "road_runner", "ms_pacman")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--frames", type=int, default=4_000)
    parser.add_argument("--quick", action="store_true", help="20 steps: shows that it runs")
    arguments = parser.parse_args()
    steps = 20 if arguments.quick else arguments.steps
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frames.safetensors"
        collect_frames(FramesConfig(games=GAMES, frames=arguments.frames, size=32, out=file))

        def prepared(config: Any) -> Any:
            fit = replace(config.fit, epochs=1, steps=steps, validate_every=10**9)
            return replace(config, data=replace(config.data, data=f"atari:{file}"), fit=fit)

        gan, vae = prepared(presets.dcgan_atari()), prepared(presets.vae_conv_atari())
        pictures, unit = load_data(gan.data, low=-1.0, high=1.0), load_data(vae.data)
    judge = train_extractor(unit)

    def fcd(model: Any) -> float:
        samples = (model.sample(SAMPLES) - model.low) / (model.high - model.low)
        return judge.distance(unit.test.all(), samples).value

    task, other = GANTask(gan), VAETask(vae)
    fit = Fit(task, pictures, gan.fit)
    before = fcd(task.generator)
    for _ in fit:
        pass
    after, modes = fcd(task.generator), judge.modes(task.generator.sample(SAMPLES), -1.0, 1.0)
    for _ in Fit(other, unit, vae.fit):
        pass
    of_vae = fcd(other.vae)
    print_table(
        f"FCD ({judge.name}, {SAMPLES} samples to {len(unit.test)}), {steps} steps; {describe_machine()}",
        ("GAN at the start", "GAN", "VAE", "games made"),
        [(f"{before:.0f}", f"{after:.0f}", f"{of_vae:.0f}", f"{modes} of {len(GAMES)}")],
    )
    last_json_line({"fcd_start": before, "fcd_gan": after, "fcd_vae": of_vae, "games": modes})


if __name__ == "__main__":
    main()
