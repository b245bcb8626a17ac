"""CPU time of the edge detectors of pix2pix, one thread. `python -m tests.bench.bench_edges`

Canny's detector, and HED if its packages are installed, on crops of a photograph: the median of the
repeats. `--sheet FILE.png` also draws two photographs beside their edges: Canny's, and HED's as
lines and as soft grey edges.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from genray.errors import ResourceError
from genray.gen.data.photos import more_photographs, photographs
from genray.gen.data.sources import resize
from genray.gen.images.pictures import write_picture
from genray.gen.translation.edges import draw_canny, draw_hed
from genray.media import contact_sheet
from tests.bench.common import Summary, describe_machine, last_json_line, print_table

Draw = Callable[[np.ndarray], np.ndarray]
DETECTORS: dict[str, Draw] = {
    "canny": lambda images: draw_canny(images, 1.0),
    "hed": lambda images: draw_hed(images, 0.1),
    "hed, soft": lambda images: draw_hed(images, 0.0),
}


def photograph(name: str, height: int, width: int) -> np.ndarray:
    """Return a photograph that is scaled to these sides, uint8 [1, 3, height, width]."""
    rgb = {**photographs(), **more_photographs()}[name]
    return resize(np.moveaxis(rgb, 2, 0)[None].copy(), (height, width))


def cpu_ms(draw: Draw, images: np.ndarray, repeats: int) -> Summary:
    """Return the CPU milliseconds of one image, without those of the first call."""
    draw(images)
    found = []
    for _ in range(repeats):
        start = time.process_time()
        draw(images)
        found.append(1000 * (time.process_time() - start) / len(images))
    return Summary(tuple(found))


def draw_sheet(path: Path) -> None:
    """Write the photographs and their edges, a photograph a row. Raises ResourceError."""
    frames = []
    for name in ("flower", "chelsea"):
        image = photograph(name, 186, 280)
        for each in (image, *(draw(image) for draw in DETECTORS.values())):
            frames.append(np.moveaxis(each[0].repeat(3 // each.shape[1], 0), 0, 2))
    write_picture(path, contact_sheet(frames, 1 + len(DETECTORS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--sheet", type=Path, help="draw photographs and their edges")
    parser.add_argument("--quick", action="store_true", help="2 repeats")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    found: dict[str, float] = {}
    rows = []
    for name, draw in DETECTORS.items():
        for side, count in ((64, 16), (256, 1)):
            images = photograph("china", side, side).repeat(count, 0)
            try:
                taken = cpu_ms(draw, images, 2 if options.quick else options.repeats)
            except ResourceError as error:
                print(f"{name}, left out: {error}")
                break
            found[f"{name}, {side}"] = taken.median
            rows.append((name, f"{side}x{side}", count, str(taken)))
    print_table(
        "CPU milliseconds of one image", ["detector", "image", "at once", "median (range)"], rows
    )
    if options.sheet:
        draw_sheet(options.sheet)
    last_json_line({"bench": "edges", **found})


if __name__ == "__main__":
    main()
