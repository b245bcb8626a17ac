"""Options that select a data set, and the names of the available data sets."""

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.paths import DataName, PathOrUrl


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The data set, its preprocessing, splits and augmentation."""

    data: DataName = "digits"
    """Data set: digits, mnist5k, atari, atari:FILE, photos, paintings, paintings:PATH, mnist,
    fashion-mnist, svhn, cifar10, screens:GAME, screens:FILE, folder:PATH, docs, folder-text:PATH;
    for pix2pix also pairs:PATH; for a world model episodes:GAME, episodes:FILE
    """
    size: int = 0
    """Side in pixels to which images are scaled and cropped (square). 0: the original size (atari:
    32; photos and paintings: 96).
    """
    grey: bool = False
    """Whether to convert images to one channel (luma)."""
    words: int = bounded(2000, min=2, example=2000)
    """Size of the vocabulary of texts, which consists of the most frequent words of the training
    rows.
    """
    weighting: Literal["tf-idf", "counts"] = "tf-idf"
    """What a text's row contains. counts: how often each word occurs in the text; tf-idf: words
    that few texts contain count more. Rows have length 1.
    """
    validation: float = bounded(0.1, min=0, below=1, example=0.1)
    """Share of the training rows that becomes the validation split (early stopping, sweeps)."""
    without: str = ""
    """A class to remove from every split; `genray anomalies` then tries to detect its rows."""
    augment: tuple[Literal["flip", "shift", "crop", "colour"], ...] = ()
    """Augmentation of training batches. flip: mirrors an image with probability 1/2; shift: by up
    to a tenth of the side; crop: a square of 80 to 100% of the side, scaled back; colour: permutes
    the channels, and inverts some of them.
    """
    data_folder: PathOrUrl = ""
    """Directory of data sets. Default: $GENRAY_DATA, else ~/.cache/genray."""

    def validate(self) -> None:
        """Raise ConfigError for an unknown data set, a value outside its bounds, or options that do
        not suit the data set.
        """
        check_name(self.data)
        check_bounds(self)
        require(
            self.size == 0 or 4 <= self.size <= 1024,
            f"--size {self.size}: must lie in 4..1024, or 0 for the original size",
        )
        text = self.is_text
        require(
            not (text and self.augment),
            f"--augment {self._augment}: not for text ({self.data}); leave it out",
        )
        require(
            not (text and self.size), f"--size {self.size}: not for text ({self.data}); use --words"
        )
        require(not (text and self.grey), f"--grey: not for text ({self.data}); leave it out")
        require(
            not ("flip" in self.augment and self.data in ("digits", "mnist5k", "mnist", "svhn")),
            f"--augment {self._augment}: a mirrored digit is not a digit; for {self.data} use "
            "--augment shift",
        )

    @property
    def is_text(self) -> bool:
        """Whether the rows are texts."""
        return self.data.partition(":")[0] in ("docs", "folder-text")

    @property
    def is_episodes(self) -> bool:
        """Whether the rows are steps of episodes, for world models."""
        return self.data.partition(":")[0] == "episodes"

    @property
    def _augment(self) -> str:
        return " ".join(self.augment)


NAMES = (
    "digits", "mnist5k", "atari", "photos", "paintings", "mnist", "fashion-mnist", "svhn",
    "cifar10", "docs",
)  # fmt: skip
"""Names of data sets that need no path."""
WITH_PATH = ("folder", "folder-text", "atari", "paintings", "screens", "pairs", "episodes")
"""Kinds of data sets that can have a path, as in folder:PATH."""
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
"""Suffixes of the files that folder:PATH reads."""


def check_name(data: str) -> None:
    """Raise ConfigError, suggesting the most similar names, unless `data` names a data set."""
    kind, colon, path = data.partition(":")
    if kind in WITH_PATH and colon and path:
        return
    if not colon and kind in NAMES:
        return
    if kind in ("screens", "episodes"):
        raise ConfigError(f"--data {data}: write {kind}:GAME, e.g. {kind}:road_runner")
    if kind in WITH_PATH:
        raise ConfigError(f"--data {data}: write {kind}:PATH, e.g. {kind}:pictures")
    near = difflib.get_close_matches(kind, (*NAMES, *WITH_PATH), n=3, cutoff=0.4)
    hint = (
        f"did you mean {' or '.join(near)}?"
        if near
        else f"choose {', '.join(NAMES)} or folder:PATH"
    )
    raise ConfigError(f"--data {data}: no such data set; {hint}")


def data_folder(given: str = "") -> Path:
    """Return the directory of data sets: `given`, else $GENRAY_DATA, else ~/.cache/genray."""
    return Path(given or os.environ.get("GENRAY_DATA") or "~/.cache/genray").expanduser()
