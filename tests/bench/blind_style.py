"""Sheets for a blind comparison of `genray stylize` before trained features and now.
`python -m tests.bench.blind_style --contents DIR --styles DIR --out DIR --key key.json`

Each row of a sheet shows a content, a style, and two results, A and B. One is by the earlier
defaults (untrained features, 160 pixels), one by today's; chance decides which is A, and only the
key records the choice. The n-th content, by name, gets the n-th style. Then, with the choices of
somebody who has not seen the key, such as "ABBA…" (one letter for each row):
`python -m tests.bench.blind_style --key key.json --count ABBA…`
"""

import argparse
import json
import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from genray.commands.stylers import StyleLaunch, open_styler
from genray.gen.images.pictures import read_picture
from genray.gen.images.style.config import StyleConfig
from genray.threads import own_threads

CONFIGS = {"old": StyleConfig(size=160, features="untrained"), "new": StyleConfig()}
TILE, ROWS = 448, 2
"""Width of a picture on a sheet in pixels, and rows of a sheet."""


def styled(name: str, content: Path, style: Path) -> np.ndarray:
    """Return the result of `genray stylize CONTENT STYLE`, uint8 [H, W, 3]."""
    config, first = CONFIGS[name], read_picture(content).rgb
    styler = open_styler(
        first, [read_picture(style)], StyleLaunch(out=Path("out.png")), config, config.size
    )
    return styler.style(styler.sized(first))


def row(number: int, pictures: list[np.ndarray]) -> Image.Image:
    """Return one row of a sheet: content, style, A, B, each TILE pixels wide or TILE high."""
    sheet = Image.new("RGB", (4 * (TILE + 8), TILE + 20), "white")
    names = (f"{number}: content", "style", f"{number} A", f"{number} B")
    for place, (name, picture) in enumerate(zip(names, pictures)):
        image = Image.fromarray(picture)
        factor = TILE / max(image.size)
        image = image.resize(
            (round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC
        )
        sheet.paste(image, (place * (TILE + 8), 16))
        ImageDraw.Draw(sheet).text((place * (TILE + 8), 2), name, fill="black")
    return sheet


def make(contents: list[Path], styles: list[Path], out: Path, seed: int) -> list[dict[str, str]]:
    """Write the sheets and return the key: for each row, the files, and what A is."""
    chance, key, rows = random.Random(seed), [], []
    out.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(contents, 1):
        style = styles[(number - 1) % len(styles)]
        order = chance.sample(["old", "new"], 2)
        shown = [read_picture(content).rgb, read_picture(style).rgb]
        rows.append(row(number, shown + [styled(name, content, style) for name in order]))
        key.append({"content": content.name, "style": style.name, "A": order[0], "B": order[1]})
        if len(rows) == ROWS or number == len(contents):
            sheet = Image.new("RGB", (rows[0].width, sum(each.height for each in rows)), "white")
            for place, each in enumerate(rows):
                sheet.paste(each, (0, place * each.height))
            sheet.save(out / f"sheet{number:02d}.png")
            print(out / f"sheet{number:02d}.png", flush=True)
            rows = []
    return key


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--contents", type=Path)
    parser.add_argument("--styles", type=Path)
    parser.add_argument("--out", type=Path, help="directory of the sheets")
    parser.add_argument("--key", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", help="the choices, a letter A or B for each row")
    arguments = parser.parse_args()
    if arguments.count:
        key = json.loads(arguments.key.read_text())
        chosen = [each[letter] for each, letter in zip(key, arguments.count, strict=True)]
        print(f"today's defaults preferred in {chosen.count('new')} of {len(chosen)}")
        return
    contents, styles = (
        sorted(folder.iterdir()) for folder in (arguments.contents, arguments.styles)
    )
    with own_threads(1):
        key = make(contents, styles, arguments.out, arguments.seed)
    arguments.key.write_text(json.dumps(key, indent=1) + "\n")


if __name__ == "__main__":
    main()
