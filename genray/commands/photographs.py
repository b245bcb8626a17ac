"""Retrieval and clusters of pictures with the built-in embedding `lite0`, without any training.

`genray retrieve`, `cluster`, `map` and `encode` take the word `lite0`, or a saved index of
pictures, where a model is expected.
"""

import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genray.config import whole_number
from genray.console import escaped
from genray.errors import CheckpointError, ConfigError, require
from genray.gen.sheets import Tile, draw_sheet
from genray.media import check_writable
from genray.runs import modelstore
from genray.runs.files import write_whole

if TYPE_CHECKING:
    from genray.gen.evaluation.retrieval import Metric
    from genray.gen.images.photo_index import PhotoIndex

BUILT_IN = "lite0"
"""The word that stands for the built-in embedding."""
KIND = "photographs"
"""Kind of a saved index."""


def names_pictures(folder: Path) -> bool:
    """Return whether a command's MODEL is the word `lite0` or a saved index of pictures.

    A directory `lite0` with a model is a model. Raises CheckpointError for a directory without a
    model.
    """
    if str(folder) == BUILT_IN and not (folder / "config.json").exists():
        return True
    return modelstore.read_config(folder)["kind"] == KIND


def open_index(folder: Path, data: str) -> "PhotoIndex":
    """Return the embedded pictures that a command's MODEL and --data name.

    Raises ConfigError if `lite0` has no --data, or a saved index has one.
    """
    from genray.gen.images.photo_index import PhotoIndex, build_photo_index, index_data

    if str(folder) == BUILT_IN and not (folder / "config.json").exists():
        require(
            bool(data), f"--data: name the pictures that {BUILT_IN} embeds, e.g. folder:PICTURES"
        )
        return index_data(data, lambda text: print(text, file=sys.stderr, flush=True))
    require(
        not data,
        f"--data {data}: {folder} contains its pictures; leave --data out, or use {BUILT_IN} in "
        f"place of {folder}",
    )
    index, _ = modelstore.load_model(folder, {KIND: build_photo_index})
    assert isinstance(index, PhotoIndex)
    return index


def check_save(folder: Path) -> None:
    """Raise ConfigError unless `folder` is new or a saved index, which would be replaced."""
    if not folder.exists():
        check_writable(folder, "--save")
        return
    index = False
    with contextlib.suppress(CheckpointError):
        index = modelstore.read_config(folder)["kind"] == KIND
    require(index, f"--save {folder}: exists, and is no saved index; name a new directory")


# -- retrieve --------------------------------------------------------------------------------------


def retrieve_pictures(
    index: "PhotoIndex", words: Sequence[str], neighbours: int, binary: bool
) -> tuple[list[dict[str, Any]], list[list[Tile]]]:
    """Find the neighbours of queries among the embedded pictures.

    `words`: rows by number, pictures by name, or files; without words, up to eight rows. A query
    that is a row of the index is no neighbour of itself. Returns, for each query, a
    JSON-serialisable record and the tiles of a sheet. Raises ConfigError for an unknown row or
    name, PictureError for a file that cannot be read.
    """
    from genray.gen.evaluation.retrieval import CodeIndex, binarize, bit_thresholds
    from genray.gen.images.photo_index import read_photo, tile

    # Each query is a row of the index, or a file whose code is computed now.
    queries: list[tuple[str, int | None, np.ndarray, np.ndarray]] = []
    for word in words or [str(row) for row in _spread(len(index), 8)]:
        row = _row_of(index, word)
        if row is not None:
            queries.append((index.names[row], row, index.codes[row], index.copy_of(row)))
            continue
        picture = read_photo(Path(word).expanduser())
        queries.append((word, None, index.encode_query(picture), picture))
    codes, query_codes = index.codes, np.stack([code for _, _, code, _ in queries])
    if binary:
        threshold = bit_thresholds(codes)
        codes, query_codes = binarize(codes, threshold), binarize(query_codes, threshold)
    search = CodeIndex(codes, "hamming" if binary else "cosine")
    # One more neighbour than asked for, because a row's nearest neighbour is itself.
    rows, distances = search.search(query_codes, min(neighbours + 1, len(index)))
    records, tiles = [], []
    for (name, own, _, picture), near, away in zip(queries, rows.tolist(), distances.tolist()):
        found = [(row, far) for row, far in zip(near, away) if row != own][:neighbours]
        records.append({
            "query": escaped(name),
            "neighbours": [
                {"row": row, "name": escaped(index.names[row]), "distance": round(far, 6)}
                | ({"label": escaped(index.classes[index.labels[row]])} if index.labels else {})
                for row, far in found
            ],
        })  # fmt: skip
        tiles.append([
            Tile(tile(picture), _short(name), marked=True),
            *(Tile(tile(index.copy_of(row)), f"{far:.3g}: {_short(index.names[row])}")
              for row, far in found),
        ])  # fmt: skip
    return records, tiles


def show_neighbours(
    index: "PhotoIndex", records: Sequence[dict[str, Any]], tiles: list[list[Tile]], metric: str
) -> np.ndarray:
    """Print the neighbours and, with labels, the precision; return the sheet."""
    for record in records:
        print(f"\n{record['query']}")
        for near in record["neighbours"]:
            label = f"  ({near['label']})" if "label" in near else ""
            print(f"  {near['distance']:8.3f}  {near['name']}{label}")
    _print_precision(index)
    title = (
        f"Queries (bordered), each with its nearest of {len(index):,} pictures by the codes of "
        f"lite0; below: {metric} distance and name"
    )
    return draw_sheet(tiles, title=title)


MOST_QUERIES = 1000
"""Most pictures that are queries when the precision is computed."""


def _print_precision(index: "PhotoIndex") -> None:
    """Print how often neighbours have the query's class, for lite0's codes and for raw pixels."""
    from genray.gen.evaluation.retrieval import leave_one_out

    label, k = index.label_N, min(10, len(index) - 1)
    if label is None or len(np.unique(label)) < 2 or k < 1:
        return
    # A fixed sample of many pictures, because the time for N queries grows with N².
    rows = np.sort(np.random.RandomState(0).permutation(len(index))[:MOST_QUERIES])
    if np.bincount(label)[label[rows]].max() < 2:
        return  # every query is the only picture of its class
    which = "each" if len(rows) == len(index) else f"{len(rows):,} random ones"
    print(f"\n{which} of {len(index):,} pictures as a query among the others")
    for name, codes in (("lite0", index.codes), ("raw 32x32", index.pixels())):
        metric: Metric = "cosine" if name == "lite0" else "euclidean"
        figures = leave_one_out(codes, label, metric, k, rows)
        print(f"  {name:<10}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))


def write_neighbours(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    """Write the neighbours of each query as JSON."""
    return write_whole(path, (json.dumps(records, indent=2) + "\n").encode())


def _row_of(index: "PhotoIndex", word: str) -> int | None:
    """Return the row that a word names by its number, its name or its file; None for other files.

    Raises ConfigError for a number or a word that is neither a row nor a file.
    """
    number = whole_number(word)
    if number is not None:
        require(number < len(index), f"row {number}: there are {len(index)} pictures, from 0")
        return number
    if word in index.names:
        return index.names.index(word)
    path, (kind, _, folder) = Path(word).expanduser(), index.data.partition(":")
    if not path.exists():
        raise ConfigError(
            f"{word}: neither a file nor the name of one of the {len(index)} pictures, e.g. "
            f"{escaped(index.names[0])}"
        )
    if kind == "folder":
        inside, top = path.resolve(), Path(folder).expanduser().resolve()
        if inside.is_relative_to(top) and str(inside.relative_to(top)) in index.names:
            return index.names.index(str(inside.relative_to(top)))
    return None


def _spread(count: int, most: int) -> list[int]:
    """Return up to `most` evenly spaced rows."""
    return [at * count // min(count, most) for at in range(min(count, most))]


def _short(name: str) -> str:
    return escaped(Path(name).stem or name)


# -- cluster ---------------------------------------------------------------------------------------

SHOWN = 8
"""Pictures of a cluster that are printed and drawn."""


def cluster_pictures(index: "PhotoIndex", clusters: int, seed: int) -> np.ndarray:
    """Cluster the pictures, print the clusters, and return a sheet with one row for each cluster.

    `clusters`: number of clusters; 0: the number of classes, or √(N/2) without classes. The largest
    cluster is first, and the pictures nearest to a cluster's centre are first. With labels, also
    prints how well the clusters of codes, and of raw pixels, agree with the labels.
    """
    from genray.gen.evaluation import explore

    label, codes = index.label_N, index.codes
    require(len(index) >= 2, "clusters need two pictures or more, and there is 1")
    count = 0 if label is None else len(np.unique(label))
    clusters = clusters or (count if count >= 2 else max(2, round((len(index) / 2) ** 0.5)))
    found = explore.cluster(codes, clusters, seed)
    if label is not None and count >= 2:
        raw = explore.cluster(index.pixels(), clusters, seed)
        for name, each in (("codes", found), ("raw 32x32", raw)):
            figures = explore.evaluate_clusters(each, label)
            print(f"{name:<12}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    tiles, labels = [], []
    for number in np.argsort(-np.bincount(found, minlength=clusters), kind="stable"):
        rows = np.flatnonzero(found == number)
        if not len(rows):  # there are fewer different pictures than clusters
            continue
        away = np.linalg.norm(codes[rows] - codes[rows].mean(0), axis=1)
        first = rows[np.argsort(away, kind="stable")][:SHOWN].tolist()
        more = f", and {len(rows) - len(first)} more" if len(rows) > len(first) else ""
        print(f"{len(rows):>6}  {', '.join(_short(index.names[row]) for row in first)}{more}")
        tiles.append([Tile(_tile_of(index, row), _short(index.names[row])) for row in first])
        labels.append(f"{len(rows)} pictures" if len(rows) > 1 else "1 picture")
    title = (
        f"{len(index):,} pictures in {len(tiles)} clusters by the codes of lite0; the pictures "
        "nearest to each cluster's centre"
    )
    return draw_sheet(tiles, labels, title)


def _tile_of(index: "PhotoIndex", row: int) -> np.ndarray:
    from genray.gen.images.photo_index import tile

    return tile(index.copy_of(row))
