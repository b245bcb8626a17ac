"""Sprite models of seven games: the tokenizer, characters, near-copies and speed. `python -m
tests.bench.bench_sprites [--games road_runner,seaquest] [--seeds 0,1,2] [--folder DIR] [--quick]`

Records 4,000 screens of each game (held-out screens are from episodes of their own), trains the
preset `sprites` on one core, and compares 1,024 samples with the held-out screens, by detectors
that know nothing of the tokenizer (sprite_detectors.py). Settings were chosen on Road Runner and
Seaquest. About two minutes of one core for a game and a seed; `--quick` trains 60 steps. With
`--folder`, recorded screens and figures are kept there, and an interrupted run goes on.
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
from genray.gen.families import open_fit
from genray.gen.sprites.config import sprites
from genray.gen.sprites.copies import COPY, TrainingScreens
from genray.gen.sprites.model import SpriteModel
from genray.gen.sprites.task import SpriteTask
from genray.gen.sprites.tokens import learn_language
from genray.runs.files import write_whole
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.bench.sprite_detectors import DETECTORS, rates

FREQUENT = 0.05
"""Characters on at least this share of the held-out screens are compared."""


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


def generator(game: str, file: Path, screens: Screens, steps: int, seed: int) -> dict[str, Any]:
    """Train a model, and compare its samples with the held-out screens."""
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
    found = fit.test()  # also corrects the shares of the groups
    trained = time.process_time()
    assert isinstance(fit.task, SpriteTask)
    model: SpriteModel = fit.task.model.eval()
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
    shares = {
        name: {each: share for each, (share, _) in rates(game, rows, palette_P3).items()}
        for name, rows in (("real", test), ("train", train), ("made", samples))
    }
    copies = TrainingScreens(model.language, train)
    return {
        "train_s": trained - start,
        "samples_per_s": 1024 / (drawn - trained),
        "single_per_s": 16 / (single - drawn),
        "copies": float((copies.nearest(samples)[1] >= COPY).mean()),
        "copies_held_out": float((copies.nearest(test)[1] >= COPY).mean()),
        "steps": fit.step,
        "nats": found["loss"],
        **shares,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--games", default=",".join(DETECTORS))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--folder", type=Path, help="directory of screens and figures to keep")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kept = folder / ("quick.json" if options.quick else "figures.json")
        figures: dict[str, Any] = json.loads(kept.read_text("utf-8")) if kept.exists() else {}
        for game in options.games.split(","):
            file = folder / f"screens-{game}.safetensors"
            if file.exists():
                screens = read_screens(file)
            else:
                _, screens = collect_screens(ScreensConfig(game=game, frames=4000, out=file))
            found = figures.setdefault(game, {"seeds": {}})
            if "tokenizer" not in found:
                found["tokenizer"] = tokenizer(game, screens)
            for seed in options.seeds.split(","):
                if seed not in found["seeds"]:
                    steps = 60 if options.quick else 450
                    found["seeds"][seed] = generator(game, file, screens, steps, int(seed))
                    write_whole(kept, json.dumps(figures, indent=1).encode())
            compare(game, list(found["seeds"].values()))
    print(describe_machine())
    last_json_line(figures)


def compare(game: str, seeds: list[dict[str, Any]]) -> None:
    """Print a character's share of held-out screens, and of the screens that each seed drew."""
    real = seeds[0]["real"]
    rows = []
    for name, share in real.items():
        if share >= FREQUENT:
            made = [found["made"][name] for found in seeds]
            train = seeds[0]["train"][name]
            rows.append(
                [name, f"{share:.3f}", f"{train:.3f}", " ".join(f"{each:.3f}" for each in made),
                 f"{np.mean(made) / share:.2f}", f"{np.mean(made) / train:.2f}"]
            )  # fmt: skip
    print_table(game, ["character", "held out", "training", "drawn", "ratio", "to training"], rows)
    copies = " ".join(f"{found['copies']:.3f}" for found in seeds)
    seconds = " ".join(f"{found['train_s']:.0f}" for found in seeds)
    print(f"near-copies {copies}, held out {seeds[0]['copies_held_out']:.3f}; CPU-s {seconds}\n")


if __name__ == "__main__":
    main()
