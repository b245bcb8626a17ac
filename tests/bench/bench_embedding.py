"""Photographs by the embedding of lite0, beside raw pixels. `python -m tests.bench.bench_embedding`

The photographs are GCompris' animals, buildings and musicians (`genray data paintings`); nothing in
the embedding was chosen on them. Four tasks:

- originals: the nearest photograph of a changed photograph is its original. A crop has 70 to 85% of
  each side, a new colour multiplies each channel by 0.6 to 1.4 with a gamma of 0.7 to 1.4.
- classes: the nearest other photograph is of the same class.
- copies: changed training photographs, of 96 pixels, are called near-duplicates.
- time: CPU seconds for a photograph, without reading it.
"""

import argparse
import time
from pathlib import Path
from statistics import mean

import numpy as np
import torch

from genray.gen.data.config import data_folder
from genray.gen.data.folders import find_files
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.copies import Measure, find_copies
from genray.gen.evaluation.retrieval import leave_one_out
from genray.gen.images.embedding import open_embedding
from genray.gen.images.photo_index import read_photo
from genray.gen.images.pictures import resized, scaled, to_tensor
from tests.bench.common import describe_machine, last_json_line, print_table
from tests.helpers.photographs import CHANGES, squeezed, top1

SEEDS = 3
"""Random changes of each photograph."""
SIDE = 96
"""Side of the photographs in the search for copies."""


def photographs(folder: Path) -> tuple[list[np.ndarray], list[str]]:
    """Return the photographs below a directory, at most 512 pixels long, and their classes."""
    paths = find_files(folder, (".webp", ".jpg", ".png")).paths
    return [scaled(read_photo(path), 512) for path in paths], [path.parent.name for path in paths]


def copies(
    pictures: list[np.ndarray], measure: Measure, rng: np.random.Generator
) -> dict[str, float]:
    """Return the share of near-duplicates among changed training photographs, and of others.

    Two thirds of the photographs are the training rows. Half of the rest sets the threshold, and
    the other half are the unseen photographs.
    """
    order = rng.permutation(len(pictures))
    train, held = np.split(order, [2 * len(order) // 3])

    def split(rows: list[np.ndarray]) -> Split:
        return Split(torch.cat([to_tensor(resized(each, SIDE, SIDE)) for each in rows]))

    test = split([pictures[row] for row in held])
    data = Data("photographs", split([pictures[row] for row in train]), test.part(0, 0), test)
    found = {}
    for name, change in CHANGES.items():
        changed = split([change(pictures[row], rng) for row in train])
        result = find_copies(data, changed.values, measure)
        found[name] = float((result.duplicates_N & (result.rows_N == range(len(train)))).mean())
        found["unseen"] = result.held_out_share
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = data_folder() / "gcompris" / "photographs"
    parser.add_argument("--photographs", type=Path, default=default)
    parser.add_argument("--quick", action="store_true", help="one seed, every fourth photograph")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(describe_machine())
    pictures, kinds = photographs(arguments.photographs)
    if arguments.quick:
        pictures, kinds = pictures[::4], kinds[::4]
    count, seeds = len(pictures), range(1 if arguments.quick else SEEDS)
    embedding = open_embedding()
    start = time.process_time()
    codes = embedding.encode_pictures(pictures)
    seconds = (time.process_time() - start) / count
    raw = np.stack([squeezed(each) for each in pictures])

    # Originals: a share for each kind of change and each seed.
    found: dict[str, dict[str, list[float]]] = {"lite0": {}, "raw 32x32": {}}
    for name, change in CHANGES.items():
        for seed in seeds:
            rng = np.random.default_rng(seed)
            queries = [change(each, rng) for each in pictures]
            query_codes = embedding.encode_pictures(queries)
            query_raw = np.stack([squeezed(each) for each in queries])
            found["lite0"].setdefault(name, []).append(top1(codes, query_codes))
            found["raw 32x32"].setdefault(name, []).append(top1(raw, query_raw))
    print_table(
        f"The original of a changed photograph is its nearest of {count} (share; lowest of "
        f"{len(seeds)} seeds)",
        ["", *CHANGES],
        [
            (way, *(f"{mean(each):.3f} ({min(each):.3f})" for each in shares.values()))
            for way, shares in found.items()
        ],
    )

    # Classes: animals and buildings only, because there are few musicians.
    two = [row for row in range(count) if kinds[row] in ("animals", "buildings")]
    label = np.array([kinds[row] == "animals" for row in two]).astype(np.int64)
    classes = {
        "lite0": leave_one_out(codes[two], label, "cosine", 1),
        "raw 32x32": leave_one_out(raw[two], label, "euclidean", 1),
    }
    print_table(
        f"Animal or building, {len(two)} photographs, each among the others",
        ["", "nearest is of the class", "mAP"],
        [
            (way, f"{each['precision_at_1']:.3f}", f"{each['map']:.3f}")
            for way, each in classes.items()
        ],
    )

    # Copies.
    measures: tuple[Measure, ...] = ("lite0", "pixels")
    shares = {
        measure: [copies(pictures, measure, np.random.default_rng(seed)) for seed in seeds]
        for measure in measures
    }
    print_table(
        f"Near-duplicates among changed training photographs of {SIDE} pixels (share; mean of "
        f"{len(seeds)} seeds)",
        ["", *CHANGES, "unseen"],
        [
            (measure, *(f"{mean(e[name] for e in each):.3f}" for name in (*CHANGES, "unseen")))
            for measure, each in shares.items()
        ],
    )
    print(f"lite0: {seconds:.3f} CPU s a photograph")
    last_json_line(
        {
            "photographs": count,
            "seconds": round(seconds, 4),
            **{
                f"original {way} {name}": round(mean(each), 4)
                for way, parts in found.items()
                for name, each in parts.items()
            },
            **{f"class {way}": round(each["precision_at_1"], 4) for way, each in classes.items()},
            **{
                f"copies {measure} {name}": round(mean(e[name] for e in each), 4)
                for measure, each in shares.items()
                for name in (*CHANGES, "unseen")
            },
        }
    )


if __name__ == "__main__":
    main()
