"""Sprite models of seven games: the tokenizer, characters, near-copies and speed. `python -m
tests.bench.bench_sprites [--games road_runner,seaquest] [--seeds 0,1,2] [--frames 12000]
[--folder DIR] [--quick]`

Records 4,000 screens of each game, or `--frames`, trains the preset `sprites` on four fifths of
them on one core, and compares 1,024 samples with 2,000 real screens of other seeds, by detectors
that know nothing of the tokenizer (sprite_detectors.py). Near-copies are compared with those of the
held-out screens. Settings were chosen on Road Runner and Seaquest. About two minutes of one core
for a game and a seed; `--quick` trains 60 steps. With `--folder`, recorded screens, models and
figures are kept there, and an interrupted run goes on; `--refit` fits the corrections of the kept
models again, and draws again. All seeds of a game share its screens. All games are trained with the
first seed, then with the next one.
"""

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.distributed.screens import ScreensConfig, collect_screens
from genray.gen.data.config import DataConfig
from genray.gen.data.screens import Screens, read_screens
from genray.gen.families import BUILDERS, open_fit
from genray.gen.sprites.calibration import calibrate
from genray.gen.sprites.config import sprites
from genray.gen.sprites.copies import COPY, TrainingScreens
from genray.gen.sprites.model import SpriteModel, pad_tokens
from genray.gen.sprites.tokens import learn_language
from genray.gen.training.run import save_export
from genray.runs.files import write_whole
from genray.runs.modelstore import load_model
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.sprite_detectors import DETECTORS, rates

FREQUENT = 0.05
"""Characters on at least this share of the real screens are compared."""
REAL_SEED = 1000
"""Seed of the real screens. Neighbouring ones are twice as far apart as those of the training, so
that 2,000 screens show as much play as 4,000."""


def tokenizer(game: str, screens: Screens) -> dict[str, Any]:
    """Learn the language of the training screens, and decode the held-out ones."""
    train = screens.indices_NHW[~screens.held_out_N]
    test = screens.indices_NHW[screens.held_out_N]
    start = time.process_time()
    language = learn_language(
        train, screens.palette_P3, rare=8, most_shapes=100_000, name=game, most_backgrounds=8
    )
    learned = time.process_time()
    tokens = [language.encode(screen) for screen in test]
    encoded = time.process_time()
    decoded = np.stack([language.decode(each) for each in tokens])
    moving = language.moving(test)
    return {
        "exact": float((decoded == test).all((1, 2)).mean()),
        "lost": float((decoded != test).sum() / moving.sum()),
        "shapes": len(language.vocabulary),
        "tokens": float(np.mean([len(each) for each in tokens])),
        "setup_s": learned - start,
        "encode_per_s": len(test) / (encoded - learned),
    }


def real_rates(game: str, screens: Screens, real: Screens) -> dict[str, dict[str, float]]:
    """Return each character's share of the real screens, and of those that were recorded."""
    return {
        name: shares(game, rows, palette_P3)
        for name, rows, palette_P3 in (
            ("real", real.indices_NHW, real.palette_P3),
            ("train", screens.indices_NHW[~screens.held_out_N], screens.palette_P3),
            ("held_out", screens.indices_NHW[screens.held_out_N], screens.palette_P3),
        )
    }


def shares(game: str, screens_NHW: np.ndarray, palette_P3: np.ndarray) -> dict[str, float]:
    """Return the share of the screens that show each character."""
    return {name: share for name, (share, _) in rates(game, screens_NHW, palette_P3).items()}


def trained(file: Path, steps: int, seed: int, folder: Path) -> dict[str, Any]:
    """Train a model, save it in `folder`, and return figures of the training."""
    preset = sprites()
    config = replace(
        preset,
        data=DataConfig(data=f"screens:{file}"),
        fit=replace(preset.fit, steps=steps, seed=seed),
    )
    start = time.process_time()
    fit = open_fit("sprites", config)
    for _ in fit:
        pass
    found = fit.test()  # also fits the corrections
    seconds = time.process_time() - start
    save_export(folder, fit, found)
    return {"train_s": seconds, "steps": fit.step, "nats": found["loss"]}


def refit(model: SpriteModel, screens: Screens) -> None:
    """Fit the corrections again, on the screens that the model was trained on."""
    train = np.flatnonzero(~screens.held_out_N)
    kept = train[: len(train) - round(len(train) * DataConfig().validation)]
    rgb = torch.from_numpy(screens.palette_P3[screens.indices_NHW[kept]]).permute(0, 3, 1, 2)
    tokens = [each for part in rgb.split(256) for each in model.screen_tokens(part.float() / 255)]
    calibrate(model, pad_tokens(tokens, model.network.end))


def generator(game: str, model: SpriteModel, screens: Screens, seed: int) -> dict[str, Any]:
    """Find the characters on a model's samples, and count near-copies."""
    start = time.process_time()
    samples = np.concatenate(list(model.draw_screens(1024, seed)))
    drawn = time.process_time()
    for number in range(16):
        list(model.draw_screens(1, number))
    single = time.process_time()
    # The model numbers colours in the order in which it met them.
    palette_P3 = model.palette.numpy()
    rgb = torch.from_numpy(screens.palette_P3[screens.indices_NHW]).permute(0, 3, 1, 2)
    own = np.concatenate([model.indices(part.float() / 255) for part in rgb.split(256)])
    train, test = own[~screens.held_out_N], own[screens.held_out_N]
    copies = TrainingScreens(model.language, train)
    return {
        "samples_per_s": 1024 / (drawn - start),
        "single_per_s": 16 / (single - drawn),
        "copies": float((copies.nearest(samples)[1] >= COPY).mean()),
        "copies_held_out": float((copies.nearest(test)[1] >= COPY).mean()),
        "made": shares(game, samples, palette_P3),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--games", default=",".join(DETECTORS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--frames", type=int, default=4000, help="screens recorded of each game")
    parser.add_argument("--folder", type=Path, help="directory of screens and figures to keep")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument(
        "--refit", action="store_true", help="fit the corrections of the models in --folder again"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / ("quick.json" if options.quick else "figures.json")
        figures: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        games = options.games.split(",")
        for seed in options.seeds.split(","):
            for game in games:
                file = folder / f"screens-{game}.safetensors"
                screens = recorded(file, game, options.frames, 0, 4)
                found = figures.setdefault(game, {"seeds": {}})
                if "tokenizer" not in found:
                    real = recorded(folder / f"real-{game}.safetensors", game, 2000, REAL_SEED, 8)
                    found |= {"tokenizer": tokenizer(game, screens)}
                    found |= real_rates(game, screens, real)
                saved = folder / f"{'quick' if options.quick else 'model'}-{game}-{seed}"
                known = found["seeds"].get(seed)
                if known is None:
                    steps = 60 if options.quick else 450
                    known = trained(file, steps, int(seed), saved)
                elif not options.refit:
                    continue
                model = load_model(saved, BUILDERS)[0]
                assert isinstance(model, SpriteModel)
                if options.refit:
                    refit(model, screens)
                found["seeds"][seed] = known | generator(game, model, screens, int(seed))
                write_whole(kept, json.dumps(figures, indent=1).encode())
        for game in games:
            compare(game, figures[game])
    print(describe_machine())
    last_json_line(figures)


def recorded(file: Path, game: str, frames: int, seed: int, every: int) -> Screens:
    """Read the screens of a file, or record them."""
    if not file.exists():
        collect_screens(ScreensConfig(game=game, frames=frames, seed=seed, every=every, out=file))
    return read_screens(file)


def compare(game: str, figures: dict[str, Any]) -> None:
    """Print a character's share of real screens, and of the screens that each seed drew."""
    seeds = list(figures["seeds"].values())
    rows = []
    for name, share in figures["real"].items():
        if share >= FREQUENT:
            made = [found["made"][name] for found in seeds]
            train = figures["train"][name]
            rows.append(
                [name, f"{share:.3f}", f"{train:.3f}", f"{figures['held_out'][name]:.3f}",
                 " ".join(f"{each:.3f}" for each in made), f"{np.mean(made) / share:.2f}",
                 f"{np.mean(made) / train:.2f}"]
            )  # fmt: skip
    head = ["character", "real", "training", "held out", "drawn", "ratio", "to training"]
    print_table(game, head, rows)
    copies = " ".join(f"{found['copies']:.3f}" for found in seeds)
    seconds = " ".join(f"{found['train_s']:.0f}" for found in seeds)
    print(f"near-copies {copies}, held out {seeds[0]['copies_held_out']:.3f}; CPU-s {seconds}\n")


if __name__ == "__main__":
    main()
