"""Sprite models beside a GAN and a VAE on screens of four games, with equal CPU time. `python -m
tests.bench.bench_sprites_fcd [--seconds 360] [--seeds 0,1,2] [--sheet FILE.png] [--quick]`

All learn from the same screens, played at random: a sprite model for each game from the screens at
full size, with a fourth of the time each; the presets `dcgan_atari` and `vae_conv_atari` from the
screens of all games at 32x32. FCD (never FID) of 1,000 samples at 32x32 to the held-out screens, by
a classifier of the games that is trained on the spot. Near 20 minutes of one core for a seed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.distributed.frames import merge
from genray.distributed.screens import ScreensConfig, collect_screens
from genray.gen import presets
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.screens import Screens, read_screens
from genray.gen.data.sources import resize
from genray.gen.data.writing import write_tensors
from genray.gen.families import open_fit
from genray.gen.gan.task import GANTask
from genray.gen.generative import image_grid
from genray.gen.images.classifier import train_extractor
from genray.gen.sprites.config import sprites
from genray.gen.sprites.model import SpriteModel
from genray.gen.training.fit import Fit
from genray.gen.vae import VAETask
from genray.machine import keep_freed_memory
from genray.media import write_png
from tests.bench.common import describe_machine, last_json_line, print_table

GAMES = ("breakout", "seaquest", "road_runner", "ms_pacman")
SCREENS = 2000
"""Of each game, of which a fifth is held out."""
SAMPLES = 1000
SIZE = 32


def record(folder: Path, seed: int, screens: int) -> list[Path]:
    """Record the screens of each game."""
    files = [folder / f"screens-{game}.safetensors" for game in GAMES]
    for game, file in zip(GAMES, files):
        collect_screens(ScreensConfig(game=game, frames=screens, seed=seed, out=file))
    return files


def small(indices_NHW: np.ndarray, palette_P3: np.ndarray) -> np.ndarray:
    """Return screens in colours at 32x32, uint8 [N, 3, 32, 32]."""
    parts = [
        resize(palette_P3[part_NHW].transpose(0, 3, 1, 2), SIZE)
        for part_NHW in np.array_split(indices_NHW, max(1, len(indices_NHW) // 200))
    ]
    return np.concatenate(parts)


def write_small(files: list[Path], out: Path) -> Path:
    """Write the screens of all games as frames, each different frame once."""
    parts = []
    for number, file in enumerate(files):
        screens: Screens = read_screens(file)
        frames_NCHW = small(screens.indices_NHW, screens.palette_P3)
        held_out_N = screens.held_out_N
        parts += [(number, test, frames_NCHW[held_out_N == test]) for test in (False, True)]
    frames, label, held_out = merge(parts)
    write_tensors(
        out,
        {"frames": np.ascontiguousarray(frames), "label": label, "held_out": held_out},
        {"games": list(GAMES), "size": SIZE, "colours": "RGB"},
    )
    return out


def spend(open_loop: Callable[[int], Fit], seconds: float) -> tuple[Fit, float]:
    """Train for about `seconds` of CPU time, with as many steps as ten steps predict; return the
    loop and the CPU time that it took.
    """
    begin = time.process_time()
    trial = open_loop(10)
    ready = time.process_time()
    for _ in trial:
        pass
    step_s = (time.process_time() - ready) / 10
    steps = max(10, int((seconds - (ready - begin)) / step_s))
    begin = time.process_time()
    loop = open_loop(steps)
    for _ in loop:
        pass
    return loop, time.process_time() - begin


def measure(folder: Path, seed: int, seconds: float, screens: int) -> tuple[dict[str, Any], Any]:
    """Train all models of a seed; return figures, and samples of each kind."""
    files = record(folder, seed, screens)
    frames = write_small(files, folder / "frames.safetensors")

    def prepared(config: Any, steps: int) -> Any:
        fit = replace(
            config.fit, epochs=1, steps=steps, validate_every=10**9, seed=seed, device="cpu"
        )
        return replace(config, data=replace(config.data, data=f"atari:{frames}"), fit=fit)

    gan, vae = presets.dcgan_atari(), presets.vae_conv_atari()
    pictures = load_data(prepared(gan, 1).data, low=-1.0, high=1.0)
    unit = load_data(prepared(vae, 1).data)
    judge, real = train_extractor(unit), unit.test.all()

    def fcd(images: torch.Tensor) -> float:
        return float(judge.distance(real, images).value)

    found: dict[str, Any] = {
        "extractor": judge.name,
        "held_out": len(real),
        "training screens": {"fcd": fcd(unit.train.first(SAMPLES).all())},
    }
    drawn: dict[str, torch.Tensor] = {}
    # The GAN and the VAE of all games.
    for name, preset, task_of, data in (
        ("gan", gan, GANTask, pictures),
        ("vae", vae, VAETask, unit),
    ):

        def open_loop(steps: int, preset=preset, task_of=task_of, data=data) -> Fit:
            config = prepared(preset, steps)
            return Fit(task_of(config), data, config.fit)

        loop, cpu_s = spend(open_loop, seconds)
        task: Any = loop.task
        model = task.generator if name == "gan" else task.vae
        drawn[name] = (model.sample(SAMPLES) - model.low) / (model.high - model.low)
        found[name] = {"steps": loop.step, "cpu_s": cpu_s}
    # A sprite model for each game.
    parts, cpu_s, all_steps = [], 0.0, []
    for file in files:
        model, steps, spent_s = sprite_model(file, seed, seconds / len(files))
        screens_NHW = np.concatenate(list(model.draw_screens(SAMPLES // len(files), seed)))
        parts.append(small(screens_NHW, model.palette.numpy()))
        cpu_s, all_steps = cpu_s + spent_s, [*all_steps, steps]
    drawn["sprites"] = torch.from_numpy(np.concatenate(parts)).float() / 255
    found["sprites"] = {"steps": all_steps, "cpu_s": cpu_s}
    for name, images in drawn.items():
        found[name] |= {"fcd": fcd(images), "games": judge.modes(images)}
    return found, drawn | {"real": real}


def sprite_model(file: Path, seed: int, seconds: float) -> tuple[SpriteModel, int, float]:
    """Train the preset `sprites` for `seconds` of CPU time, with its corrections."""
    preset = sprites()

    def open_loop(steps: int) -> Fit:
        config = replace(
            preset,
            data=DataConfig(data=f"screens:{file}"),
            fit=replace(preset.fit, steps=steps, validate_every=10**9, seed=seed, device="cpu"),
        )
        return open_fit("sprites", config)

    loop, cpu_s = spend(open_loop, seconds)
    begin = time.process_time()
    loop.test()  # also fits the corrections
    model = loop.task.exported() if hasattr(loop.task, "exported") else loop.task.model
    assert isinstance(model, SpriteModel)
    return model, loop.step, cpu_s + time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=360, help="CPU seconds of each kind")
    parser.add_argument("--seeds", default="0", help="of the screens and of the training")
    parser.add_argument("--sheet", type=Path, help="a picture of samples of the first seed")
    parser.add_argument("--quick", action="store_true", help="seconds: shows that it runs")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    seconds, screens = (12.0, 100) if arguments.quick else (arguments.seconds, SCREENS)
    found = {}
    for seed in map(int, arguments.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            found[seed], drawn = measure(Path(folder), seed, seconds, screens)
        if arguments.sheet and len(found) == 1:
            rows = [images[:: max(1, len(images) // 16)][:16] for images in drawn.values()]
            write_png(arguments.sheet, image_grid(torch.cat(rows), 0.0, 1.0, least_side=64))
    kinds = ("training screens", "sprites", "gan", "vae")
    print_table(
        f"FCD of {SAMPLES} samples to held-out screens, {seconds:g} CPU seconds of each kind; "
        f"{describe_machine()}",
        ["seed", "extractor", "held out", *kinds],
        [
            [str(seed), each["extractor"], str(each["held_out"])]
            + [f"{each[kind]['fcd']:.1f}" for kind in kinds]
            for seed, each in found.items()
        ],
    )
    last_json_line(found)


if __name__ == "__main__":
    main()
