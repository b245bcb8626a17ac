"""Sheets for a blind sort of real screens and screens that a sprite model drew.
`python -m tests.bench.blind_sprites --model RUN --screens FILE --out DIR --key key.json`

20 drawn screens and 20 real ones, held out from the training, are shuffled and numbered. The sheets
show ten of them each, and `--out` has every screen alone, enlarged. Only the key says which are
real. Then, with the choices of somebody who has not seen the key, a letter for each screen, R
(real) or D (drawn): `python -m tests.bench.blind_sprites --key key.json --count RDDR…`
"""

import argparse
import random
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw

from genray.gen.builders import BUILDERS
from genray.gen.data.screens import read_screens
from genray.gen.sprites.model import SpriteModel
from genray.runs import modelstore

EACH, COLUMNS, SCALE = 20, 5, 3
"""Real screens, and as many drawn ones; columns of a sheet of two rows; enlargement."""
LABEL, GAP = 16, 8
"""Height of a number above a screen, and distance of two screens, in pixels."""


def make(model: Path, screens: Path, out: Path, seed: int) -> str:
    """Write the screens and the sheets; return the key, a letter R or D for each screen."""
    loaded, _ = modelstore.load_model(modelstore.model_folder(model), BUILDERS)
    sprites, real = cast(SpriteModel, loaded.eval()), read_screens(screens)
    held_out = real.indices_NHW[real.held_out_N]
    chosen = np.random.default_rng(seed).choice(len(held_out), EACH, replace=False)
    pictures = [("R", real.palette_P3[held_out[number]]) for number in chosen]
    palette_P3 = sprites.language.palette_P3
    for drawn_BHW in sprites.draw_screens(EACH, seed):
        pictures += [("D", palette_P3[drawn_HW]) for drawn_HW in drawn_BHW]
    random.Random(seed).shuffle(pictures)
    out.mkdir(parents=True, exist_ok=True)
    tiles = []
    for number, (_, rgb) in enumerate(pictures, 1):
        image = Image.fromarray(rgb)
        image = image.resize((image.width * SCALE, image.height * SCALE), Image.Resampling.NEAREST)
        image.save(out / f"screen{number:02d}.png")
        tile = Image.new("RGB", (image.width + GAP, image.height + LABEL), "white")
        tile.paste(image, (0, LABEL))
        ImageDraw.Draw(tile).text((2, 2), str(number), fill="black")
        tiles.append(tile)
    width, height = tiles[0].size
    for first in range(0, len(tiles), 2 * COLUMNS):
        sheet = Image.new("RGB", (COLUMNS * width, 2 * height), "white")
        for place, tile in enumerate(tiles[first : first + 2 * COLUMNS]):
            sheet.paste(tile, (place % COLUMNS * width, place // COLUMNS * height))
        sheet.save(out / f"sheet{first + 1:02d}.png")
        print(out / f"sheet{first + 1:02d}.png")
    return "".join(letter for letter, _ in pictures)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a run of `genray train sprites`")
    parser.add_argument("--screens", type=Path, help="a file of `genray data screens`")
    parser.add_argument("--out", type=Path, help="directory of the sheets")
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", help="the choices, a letter R or D for each screen")
    arguments = parser.parse_args()
    if arguments.count:
        pairs = list(zip(arguments.key.read_text().strip(), arguments.count, strict=True))
        right = sum(truth == choice for truth, choice in pairs)
        taken = sum(truth == "D" and choice == "R" for truth, choice in pairs)
        print(f"{right} of {len(pairs)} right; {taken} of {EACH} drawn screens were taken for real")
        return
    key = make(arguments.model, arguments.screens, arguments.out, arguments.seed)
    arguments.key.write_text(key + "\n")


if __name__ == "__main__":
    main()
