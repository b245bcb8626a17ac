"""Commands that use a model's codes: map, retrieve, cluster.

Each command takes a MODEL: a run directory, a model directory, or the word `lite0` for the
embedding of pictures that needs no training (photographs.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from genray.commands.models import (
    codes_of,
    encoder,
    model_argument,
    own_data,
    say_conversion,
)
from genray.commands.photographs import (
    check_save,
    cluster_pictures,
    names_pictures,
    open_index,
    retrieve_pictures,
    show_neighbours,
    write_neighbours,
)
from genray.config import whole_number
from genray.errors import ConfigError, require
from genray.gen.data.types import Data, Split, need_labels
from genray.gen.generative import to_uint8
from genray.gen.sheets import Tile, draw_sheet
from genray.media import check_png_path, check_writable, write_png
from genray.options import parse
from genray.paths import DataName

if TYPE_CHECKING:
    from genray.gen.evaluation.retrieval import Metric


@dataclass(frozen=True, kw_only=True)
class MapConfig:
    """Plot held-out codes as points in the plane, coloured by class."""

    out: Path
    """map.png"""
    data: DataName = ""
    """Use other data than the model's training data. With lite0: the pictures, e.g. folder:PATH."""


def map_codes(argv: list[str], prog: str) -> int:
    """Run `genray map`; returns the exit status."""
    from genray.gen.evaluation.explore import map_picture

    folder, argv = model_argument(argv, prog)
    options = parse(MapConfig, argv, prog)
    check_png_path(options.out)
    if names_pictures(folder):
        index = open_index(folder, options.data)
        title = f"{len(index):,} pictures, by the codes of lite0"
        picture = map_picture(index.codes, index.label_N, index.classes, title)
        print(write_png(options.out, picture))
        return 0
    model, config = encoder(folder)
    data = own_data(config, options.data)
    codes = codes_of(model, data.test)
    label = None if data.test.label is None else data.test.label.numpy()
    print(
        write_png(
            options.out,
            map_picture(codes, label, data.classes, f"{len(codes)} held-out rows of {data.name}"),
        )
    )
    return 0


@dataclass(frozen=True, kw_only=True)
class RetrieveConfig:
    """Find the nearest neighbours of queries by their codes. Writes a contact sheet for images, and
    prints titles and distances for texts. With lite0 in place of a model, nothing needs to be
    trained: genray retrieve lite0 a.jpg --data folder:PICTURES --out sheet.png
    """

    out: Path | None = None
    """sheet.png, for images. Each row shows a query, which is marked, and its neighbours."""
    neighbours: int = 10
    """Number of neighbours of each query."""
    data: DataName = ""
    """Use other data than the model's training data. With lite0: the pictures to search, e.g.
    folder:PATH.
    """
    binary: bool = False
    """Convert the codes to bits and search by Hamming distance (semantic hashing)."""
    pixels: bool = False
    """For images: below the neighbours by code, show the neighbours by raw pixels."""
    json: Path | None = None
    """neighbours.json, with lite0: the neighbours of each query, with names and distances."""
    save: Path | None = None
    """With lite0: save the codes and small copies of the pictures to this directory, as a model for
    later searches and for `genray serve`.
    """


def retrieve(argv: list[str], prog: str) -> int:
    """Run `genray retrieve`; returns the exit status."""
    from genray.gen.evaluation.retrieval import CodeIndex, binarize, bit_thresholds, database

    # Read the queries and options.
    folder, argv = model_argument(argv, prog)
    queries = []
    while argv and not argv[0].startswith("-"):
        queries.append(argv.pop(0))
    options = parse(RetrieveConfig, argv, prog)
    if options.out is not None:
        check_png_path(options.out)
    if names_pictures(folder):
        return _retrieve_pictures(folder, queries, options)
    for name in ("json", "save"):
        require(
            getattr(options, name) is None,
            f"--{name} {getattr(options, name)}: only with lite0, e.g. genray retrieve lite0 "
            "--data folder:PICTURES",
        )
    # Load the model and its data, and encode the database, the test rows and the queries.
    model, config = encoder(folder)
    refuse_positions(folder, config)
    data = own_data(config, options.data)
    base = database(data)
    is_image = len(data.shape) == 3
    require(
        not is_image or options.out is not None,
        "--out: name a picture for the neighbours, e.g. --out sheet.png",
    )
    query = _queries(queries, data, config)
    codes, test_codes, query_codes = (codes_of(model, split) for split in (base, data.test, query))
    metric: Metric = "euclidean" if is_image else "cosine"
    if options.binary:
        # Codes that were trained as bits are −1 or 1, with threshold 0; the thresholds of other
        # codes are their medians.
        threshold = 0.0 if config.get("model", {}).get("binary") else bit_thresholds(codes)
        codes, test_codes, query_codes = (
            binarize(each, threshold) for each in (codes, test_codes, query_codes)
        )
        metric = "hamming"
    # Find the neighbours, and write a sheet of images or print titles.
    rows, distances = CodeIndex(codes, metric).search(
        query_codes, min(options.neighbours, len(base))
    )
    if is_image:
        assert options.out is not None
        labels: list[str] = []
        if options.pixels:
            # Each query has two rows on the sheet.
            by_pixels = CodeIndex(base.all().flatten(1).numpy(), "euclidean").search(
                query.all().flatten(1).numpy(), rows.shape[1]
            )
            rows, distances = (
                np.stack(pair, axis=1).reshape(-1, rows.shape[1])
                for pair in zip((rows, distances), by_pixels)
            )
            labels = ["by code", "by pixels"] * len(query)
            query = _rows(query, np.arange(len(query)).repeat(2).tolist())
        sheet = _neighbours_sheet(query, base, data.classes, rows, distances, metric, labels)
        write_png(options.out, sheet)
    else:
        for name, near, away in zip(query.names, rows, distances):
            print(f"\n{name}")
            for row, distance in zip(near, away):
                print(f"  {distance:8.3f}  {base.names[row]}")
    # With labels, compare the codes with baselines.
    if base.label is not None and data.test.label is not None:
        counts = data.about.get("weighting") == "counts"
        text_name = "counts" if counts else "tf-idf"
        _print_retrieval(base, data.test, codes, test_codes, metric, text_name)
    if options.out is not None and is_image:
        print(options.out)
    return 0


def _retrieve_pictures(folder: Path, queries: list[str], options: RetrieveConfig) -> int:
    """Run `genray retrieve` for embedded pictures; returns the exit status."""
    # Check all options before the pictures are embedded, which may take minutes.
    if options.json is not None:
        check_writable(options.json, "--json")
    if options.save is not None:
        check_save(options.save)
    require(
        options.out is not None or options.json is not None or options.save is not None,
        "--out: name a picture for the neighbours, e.g. --out sheet.png",
    )
    require(options.neighbours >= 1, f"--neighbours {options.neighbours}: must be ≥ 1, e.g. 10")
    index = open_index(folder, options.data)
    records, tiles = retrieve_pictures(index, queries, options.neighbours, options.binary)
    sheet = show_neighbours(index, records, tiles, "hamming" if options.binary else "cosine")
    if options.save is not None:
        print(index.save(options.save))
    if options.json is not None:
        print(write_neighbours(options.json, records))
    if options.out is not None:
        print(write_png(options.out, sheet))
    return 0


def _print_retrieval(
    base: Split,
    test: Split,
    codes: np.ndarray,
    test_codes: np.ndarray,
    metric: "Metric",
    text_name: str,
) -> None:
    """Print the precision and mAP of codes and of baselines; the test rows are the queries.

    `text_name`: what the rows of texts are, tf-idf or counts.
    """
    from genray.gen.evaluation.retrieval import baselines, evaluate_retrieval

    assert base.label is not None and test.label is not None
    label, test_label, k = base.label.numpy(), test.label.numpy(), min(10, len(base))
    table = {
        "these codes": evaluate_retrieval(codes, label, test_codes, test_label, metric, k)
    } | baselines(
        base.all().numpy(),
        label,
        test.all().numpy(),
        test_label,
        numbers=codes.shape[1],
        text=base.values.ndim == 2,
        k=k,
    )
    unit = "bits" if metric == "hamming" else "numbers"
    print(
        f"\nheld-out rows as queries, {len(base):,} rows in the index, {codes.shape[1]} {unit} "
        "a code"
    )
    for name, figures in table.items():
        name = text_name if name == "tf-idf" else name
        print(f"  {name:<14}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))


def _neighbours_sheet(
    query: Split,
    base: Split,
    classes: Sequence[str],
    rows: np.ndarray,
    distances: np.ndarray,
    metric: str,
    labels: Sequence[str] = (),
) -> np.ndarray:
    """Draw one row for each query: the marked query, then its neighbours with class and
    distance. `labels`: how the neighbours of each row were found, if not all by code.
    """

    def named(split: Split, row: int) -> str:
        return "" if split.label is None or not classes else f"{classes[int(split.label[row])]}"

    # Only the rows that are drawn are converted to pictures.
    values, shown = base.all(), np.unique(rows)
    pictures = dict(zip(shown.tolist(), to_uint8(values[shown], base.low, base.high)))
    tiles = [
        [
            Tile(image, f"query {named(query, number)}".rstrip(), marked=True),
            *(
                Tile(pictures[int(row)], f"{named(base, row)}: {away:.3g}".removeprefix(": "))
                for row, away in zip(near, far)
            ),
        ]
        for number, (image, near, far) in enumerate(
            zip(to_uint8(query.all(), query.low, query.high), rows, distances)
        )
    ]
    about = "class and " if classes and base.label is not None else ""
    how = "by code and by pixels" if labels else "by code"
    title = (
        f"Queries (bordered), each with its {rows.shape[1]} nearest {how}; below: "
        f"{about}{metric} distance"
    )
    if labels and metric != "euclidean":
        title += " (by pixels: euclidean)"
    return draw_sheet(tiles, labels, title)


def refuse_positions(folder: Path, config: dict[str, Any]) -> None:
    """Raise ConfigError for a model whose decoder needs pool positions.

    A pool position is the place of a maximum in max pooling. Such a model decodes an image from the
    codes and the positions; the codes alone do not suffice.
    """
    if config.get("model", {}).get("upsampling") == "unpool":
        raise ConfigError(
            f"{folder}: its decoder needs pool positions besides the codes; train with "
            "--upsampling nearest for codes"
        )


def _queries(words: list[str], data: Data, config: dict[str, Any]) -> Split:
    """Return the queries that `words` name: held-out rows by number, image files by path, or
    held-out texts by words of their titles.

    At most eight texts are returned; without words, the first eight held-out rows. Raises
    ConfigError for a row or title that does not exist, PictureError for a file that is not an
    image.
    """
    if not words:
        return data.test.first(8)
    numbers = [whole_number(word) for word in words]
    rows = [number for number in numbers if number is not None]
    if len(rows) == len(words):
        require(
            max(rows) < len(data.test),
            f"row {max(rows)}: there are {len(data.test)} held-out rows, from 0",
        )
        return _rows(data.test, rows)
    if len(data.shape) == 3:
        from genray.gen.data.sources import read_image

        channels, height, width = data.shape
        low, high = data.train.low, data.train.high
        say_conversion(", ".join(words), config)
        images = np.stack(
            [read_image(Path(word), (width, height), channels == 1) for word in words]
        )
        return Split(torch.from_numpy(images), None, low, high, tuple(words))
    rows = [
        row
        for word in words
        for row, name in enumerate(data.test.names)
        if word.lower() in name.lower()
    ][:8]
    require(
        bool(rows),
        f"{' '.join(words)}: no held-out title contains these words; give a row number, 0 to "
        f"{len(data.test) - 1}",
    )
    return _rows(data.test, rows)


def _rows(split: Split, rows: list[int]) -> Split:
    """Return the given rows as a split."""
    label = None if split.label is None else split.label[rows]
    names = tuple(split.names[row] for row in rows) if split.names else ()
    return Split(split.values[rows], label, split.low, split.high, names)


@dataclass(frozen=True, kw_only=True)
class ClusterConfig:
    """Run k-means on held-out codes and on raw values, and compare the clusters with the labels.
    With lite0 in place of a model: sort pictures without labels, too.
    """

    clusters: int = 0
    """Number of clusters; 0: the number of classes, or √(N/2) for N pictures without classes."""
    data: DataName = ""
    """Use other data than the model's training data. With lite0: the pictures, e.g. folder:PATH."""
    seed: int = 0
    out: Path | None = None
    """sheet.png, with lite0: one row of pictures for each cluster."""


def cluster(argv: list[str], prog: str) -> int:
    """Run `genray cluster`; returns the exit status."""
    from genray.gen.evaluation import explore

    folder, argv = model_argument(argv, prog)
    options = parse(ClusterConfig, argv, prog)
    if options.out is not None:
        check_png_path(options.out)
    if names_pictures(folder):
        index = open_index(folder, options.data)
        sheet = cluster_pictures(index, options.clusters, options.seed)
        if options.out is not None:
            print(write_png(options.out, sheet))
        return 0
    require(
        options.out is None,
        f"--out {options.out}: only with lite0, e.g. genray cluster lite0 --data folder:PICTURES",
    )
    model, config = encoder(folder)
    data = own_data(config, options.data)
    need_labels(data, "the evaluation of clusters")
    assert data.test.label is not None
    label = data.test.label.numpy()
    clusters = options.clusters or len(np.unique(label))
    for name, values in (
        ("codes", codes_of(model, data.test)),
        ("raw values", data.test.all().flatten(1).numpy()),
    ):
        found = explore.evaluate_clusters(explore.cluster(values, clusters, options.seed), label)
        print(f"{name:<12}" + "  ".join(f"{key} {value:.3f}" for key, value in found.items()))
    return 0
