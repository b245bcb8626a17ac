"""What `genray sample`, `encode`, `reconstruct` and `anomalies` do with a sprite model."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from genray.errors import require
from genray.gen.data.types import Split
from genray.gen.sheets import Tile, draw_sheet
from genray.gen.sprites.copies import COPY, TrainingScreens
from genray.gen.sprites.model import SpriteModel
from genray.gen.sprites.sampling import top_p_of
from genray.media import contact_sheet, write_png
from genray.runs import modelstore
from genray.runs.files import write_whole

if TYPE_CHECKING:
    from genray.commands.models import SampleConfig

CHUNK = 128
"""Number of screens that are read at a time."""
MOST_MOVING = 0.6
"""Largest share of pixels that may differ from the background; another game has more."""
FORMAT = 2
"""Version of the format of `encode`'s JSON. Version 1 lacks `backgrounds`."""


def is_sprites(folder: Path) -> bool:
    """Return whether the model directory contains a sprite model."""
    named = (folder / "config.json").exists()
    return named and bool(modelstore.read_config(folder)["kind"] == "sprites")


def screens_of(model: SpriteModel, split: Split) -> np.ndarray:
    """Return the screens of a split as palette indices, uint8 [N, H, W]."""
    return np.concatenate(
        [model.indices(split.take(rows)[0]) for rows in torch.arange(len(split)).split(CHUNK)]
    )


def sample(folder: Path, model: SpriteModel, options: "SampleConfig") -> int:
    """Run `genray sample` with a sprite model; returns the exit status."""
    model.temperature, model.top_p = options.temperature, top_p_of(options.top_p)
    screens_NHW = np.concatenate(list(model.draw_screens(options.num, options.seed)))
    rgb_NHW3 = model.palette.cpu().numpy()[screens_NHW]
    scale = options.scale or 1
    picture = contact_sheet(
        [screen.repeat(scale, axis=0).repeat(scale, axis=1) for screen in rgb_NHW3],
        int(np.ceil(np.sqrt(options.num))),
    )
    if options.nearest is not None:
        from genray.commands.models import own_data

        data = own_data(modelstore.read_config(folder), "")
        sheet = nearest_sheet(model, screens_NHW, data.train, data.test, scale)
        print(write_png(options.nearest, sheet))
    if options.fld:
        from genray.commands.samples import compare

        compare(folder, model.images(screens_NHW), None, options.fld)
    print(write_png(options.out, picture))
    return 0


def nearest_sheet(
    model: SpriteModel,
    screens_NHW: np.ndarray,
    train: Split,
    test: Split,
    scale: int,
    real_NHW: np.ndarray | None = None,
) -> np.ndarray:
    """Draw each sample beside its nearest training screen, and print the share of near-copies of
    the samples and of the held-out screens.

    `real_NHW`: held-out screens, one of which is drawn beside each pair.
    """
    training_MHW = screens_of(model, train)
    search = TrainingScreens(model.language, training_MHW)
    row_N, similarity_N = search.nearest(screens_NHW)
    held_out = search.nearest(screens_of(model, test))[1]
    print(
        f"near-copies of training screens (similarity ≥ {COPY:g}): "
        f"{(similarity_N >= COPY).mean():.1%} of {len(screens_NHW)} samples, "
        f"{(held_out >= COPY).mean():.1%} of {len(held_out)} held-out screens"
    )
    palette_P3 = model.palette.cpu().numpy()
    tiles = []
    for number, (screen, row, similarity) in enumerate(zip(screens_NHW, row_N, similarity_N)):
        for picture, words in (
            (screen, "sample"),
            (training_MHW[row], f"nearest {similarity:.2f}"),
        ):
            rgb = palette_P3[picture].repeat(scale, axis=0).repeat(scale, axis=1)
            tiles.append(Tile(rgb, words))
        if real_NHW is not None:
            rgb = palette_P3[real_NHW[number]].repeat(scale, axis=0).repeat(scale, axis=1)
            tiles.append(Tile(rgb, "real, held out"))
    rows = [tiles[at : at + 6] for at in range(0, len(tiles), 6)]
    return draw_sheet(rows, title="Samples, each with its nearest training screen and similarity")


def encode(folder: Path, out: Path, data: str, split: str) -> int:
    """Write the tokens of a split as JSON; returns the exit status.

    The document has `format`, `data`, `screen` [height, width], `fields` (the names of a token's
    numbers), `palette` (RGB of each index), `backgrounds` (the numbers of the shapes that are
    backgrounds; empty for a game with one background, which no token names), `shapes` (group,
    height and width of each shape), `runs` (length, dy and dx of each run) and `screens`, a list of
    lists of tokens.
    """
    from genray.commands.models import load, own_data

    model, config = load(folder)
    rows = own_data(config, data)
    language = model.language
    screens_NHW = screens_of(model, getattr(rows, split))
    moving = float(language.moving(screens_NHW).mean())
    require(
        moving <= MOST_MOVING,
        f"--data {data or rows.name}: {moving:.0%} of its pixels differ from the background that "
        f"the model learned from {config['data']['options']['data']}; train a model of this game",
    )
    screens = [
        [list(map(int, token)) for token in language.encode(screen)] for screen in screens_NHW
    ]
    document = {
        "format": FORMAT,
        "data": rows.name,
        "screen": list(language.screen_shape),
        "fields": ["group", "y", "x", "shape", "run"],
        "palette": language.palette_P3.tolist(),
        "backgrounds": list(range(len(language.backgrounds_KHW) * language.has_backgrounds)),
        "shapes": [[each.group, each.height, each.width] for each in language.vocabulary.shapes],
        "runs": [list(run) for run in language.runs],
        "screens": screens,
    }
    write_whole(out, json.dumps(document, separators=(",", ":")).encode())
    print(f"{sum(map(len, screens)):,} tokens of {len(screens):,} screens")
    print(out)
    return 0


def surprise(model: SpriteModel, split: Split) -> np.ndarray:
    """Return −ln p of each screen's tokens, nats, float64 [N]."""
    with torch.no_grad():
        return np.concatenate(
            [
                -model.log_likelihood(split.take(rows)[0]).double().numpy()
                for rows in torch.arange(len(split)).split(CHUNK)
            ]
        )
