"""`genray anomalies`: detects an unseen class by its reconstruction error, or by its likelihood."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genray.commands import sprites
from genray.commands.models import encoder, load, model_argument, own_data, reconstruction
from genray.config import from_dict
from genray.errors import ConfigError, require
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Split, select_class
from genray.gen.generative import to_uint8
from genray.gen.sheets import Tile, draw_sheet
from genray.gen.training.randomness import fixed_randomness
from genray.gen.vae import VAE, binarised
from genray.media import check_png_path, write_png
from genray.options import parse
from genray.paths import DataName


@dataclass(frozen=True, kw_only=True)
class AnomaliesConfig:
    """Detect anomalies by their reconstruction error, or by −ln p with a sprite model or a VAE. The
    anomalies are rows of a class that was left out of the training, or of other data; the usual
    rows are of the classes that were trained.
    """

    out: Path | None = None
    """sheet.png: the held-out rows with the largest scores; anomalous rows are marked."""
    data: DataName = ""
    """Take the anomalous rows from this data: all of its held-out rows."""
    score: Literal["auto", "error", "likelihood"] = "auto"
    """What makes a row anomalous. error: its reconstruction error; likelihood: −ln p, for a vae
    the importance-weighted bound of 50 samples. auto: likelihood for sprites, else error.
    """


def anomalies(argv: list[str], prog: str) -> int:
    """Run `genray anomalies`; returns the exit status."""
    from genray.gen.evaluation import explore

    folder, argv = model_argument(argv, prog)
    options = parse(AnomaliesConfig, argv, prog)
    if options.out is not None:
        check_png_path(options.out)
    is_sprites = sprites.is_sprites(folder)
    model, config = load(folder) if is_sprites else encoder(folder)
    if not hasattr(model, "decode") and not is_sprites:
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} does not reconstruct")
    require(
        options.score != "error" or not is_sprites,
        "--score error: a sprite model gives a likelihood; use --score likelihood",
    )
    require(
        options.score != "likelihood" or is_sprites or isinstance(model, VAE),
        f"--score likelihood: a model of kind {config['kind']!r} has no likelihood; use a vae or "
        "sprites",
    )
    test = own_data(config, "").test
    odd = own_data(config, options.data).test if options.data else _unseen(folder, config)
    if is_sprites or options.score == "likelihood":
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
    """Score rows by −ln p of a sprite model or of a VAE; returns the exit status."""
    from genray.gen.evaluation import explore

    is_vae = isinstance(model, VAE)
    scores = [surprise(model, each) if is_vae else sprites.surprise(model, each) for each in splits]
    what = f"bound of -ln p ({BOUND_SAMPLES} samples)" if is_vae else "-ln p"
    print(
        f"{what}: {scores[0].mean():.1f} nats of {len(scores[0])} usual rows, "
        f"{scores[1].mean():.1f} nats of {len(scores[1])} anomalous rows"
    )
    print(f"AUROC {explore.auroc(scores[0], scores[1]):.3f}")
    if out is not None:
        print(write_png(out, _worst_sheet(splits, scores, 20, "lowest likelihoods")))
    return 0


BOUND_SAMPLES = 50
"""Number of samples of the importance-weighted bound of a VAE."""


def surprise(model: VAE, split: Split) -> np.ndarray:
    """Return an upper bound of −ln p(x) of each row, nats, float64 [N].

    The bound is the negative importance-weighted bound of `BOUND_SAMPLES` samples. Pixels are
    binarised as in training. The random numbers are the same in each call.
    """
    parts = []
    with torch.no_grad(), fixed_randomness([0]):
        for rows in torch.arange(len(split)).split(500):
            x_BCHW = split.take(rows)[0]
            x_BCHW = binarised(x_BCHW, model.config.binarise, torch.rand_like(x_BCHW))
            parts.append(-model.importance_bound(x_BCHW, BOUND_SAMPLES).double().numpy())
    return np.concatenate(parts)


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
