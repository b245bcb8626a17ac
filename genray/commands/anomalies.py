"""`genray anomalies`: detects an unseen class by its reconstruction error, or by its likelihood."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.commands import sprites
from genray.commands.models import encoder, load, model_argument, own_data, reconstruction
from genray.config import from_dict
from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Split, select_class
from genray.gen.generative import to_uint8
from genray.gen.sheets import Tile, draw_sheet
from genray.media import check_png_path, write_png
from genray.options import parse
from genray.paths import DataName


@dataclass(frozen=True, kw_only=True)
class AnomaliesConfig:
    """Detect anomalies by their reconstruction error; with a sprite model, by −ln p. The anomalies
    are rows of a class that was left out of the training, or of other data; the usual rows are of
    the classes that were trained.
    """

    out: Path | None = None
    """sheet.png: the held-out rows with the largest scores; anomalous rows are marked."""
    data: DataName = ""
    """Take the anomalous rows from this data: all of its held-out rows."""


def anomalies(argv: list[str], prog: str) -> int:
    """Run `genray anomalies`; returns the exit status."""
    from genray.gen.evaluation import explore

    folder, argv = model_argument(argv, prog)
    options = parse(AnomaliesConfig, argv, prog)
    if options.out is not None:
        check_png_path(options.out)
    has_likelihood = sprites.is_sprites(folder)
    model, config = load(folder) if has_likelihood else encoder(folder)
    if not hasattr(model, "decode") and not has_likelihood:
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} does not reconstruct")
    test = own_data(config, "").test
    odd = own_data(config, options.data).test if options.data else _unseen(folder, config)
    if has_likelihood:
        return _unlikely(model, (test, odd), options.out)
    # The score of a row is its reconstruction error.
    errors = []
    for split in (test, odd):
        x = split.all()
        with torch.no_grad():
            errors.append(
                explore.reconstruction_errors(x.numpy(), reconstruction(model, x).numpy())
            )
    print(
        f"mean squared error: {errors[0].mean():.5f} of {len(test)} usual rows, "
        f"{errors[1].mean():.5f} of {len(odd)} anomalous rows"
    )
    print(f"AUROC {explore.auroc(errors[0], errors[1]):.3f}")
    if options.out is not None:
        print(write_png(options.out, _worst_sheet((test, odd), errors)))
    return 0


def _unlikely(model: Any, splits: tuple[Split, Split], out: Path | None) -> int:
    """Score rows by −ln p of a sprite model; returns the exit status."""
    from genray.gen.evaluation import explore

    scores = [sprites.surprise(model, split) for split in splits]
    print(
        f"-ln p: {scores[0].mean():.1f} nats of {len(scores[0])} usual rows, "
        f"{scores[1].mean():.1f} nats of {len(scores[1])} anomalous rows"
    )
    print(f"AUROC {explore.auroc(scores[0], scores[1]):.3f}")
    if out is not None:
        print(write_png(out, _worst_sheet(splits, scores, 20, "lowest likelihoods")))
    return 0


def _worst_sheet(
    splits: tuple[Split, Split],
    errors: list[np.ndarray],
    most: int = 40,
    what: str = "largest reconstruction errors",
) -> np.ndarray:
    """Draw the `most` rows with the largest errors, largest first.

    `splits`: the usual rows and the anomalous rows; the anomalous rows are marked. `errors`: the
    reconstruction errors of each split.
    """
    worst = np.argsort(-np.concatenate(errors), kind="stable")[:most]
    error, usual = np.concatenate(errors), len(splits[0])
    values = [split.all() for split in splits]
    tiles = []
    for row in worst:
        part, at = (0, row) if row < usual else (1, row - usual)
        picture = to_uint8(values[part][at : at + 1], splits[part].low, splits[part].high)[0]
        tiles.append(Tile(picture, f"{error[row]:.4f}", marked=bool(row >= usual)))
    unseen = int((worst >= usual).sum())
    title = (
        f"The {len(worst)} held-out rows with the {what}; the {unseen} anomalous rows are bordered"
    )
    return draw_sheet([tiles[at : at + 10] for at in range(0, len(tiles), 10)], title=title)


def _unseen(folder: Path, config: dict[str, Any]) -> Split:
    """Return the held-out rows of the class that training left out."""
    about = config["data"]
    stored = from_dict(DataConfig, about["options"], "data.")
    if not stored.without:
        raise ConfigError(
            f"{folder}: was trained on every class; train a model with --without CLASS, or name "
            "anomalous rows with --data"
        )
    idf = about.get("recipe", {}).get("idf")
    whole = load_data(
        replace(stored, without="", augment=()), low=about["low"], high=about["high"], idf=idf
    )
    return select_class(whole, stored.without, keep=True).test
