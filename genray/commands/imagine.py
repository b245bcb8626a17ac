"""`genray imagine CLASS …`: draws what a classifier takes for a class."""

import re
import time
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from genray import __version__
from genray.bounds import MAX_SEED
from genray.commands.dream import progress_bar
from genray.config import to_dict
from genray.console import escaped
from genray.errors import ConfigError, require
from genray.gen.images.class_network import ClassNetwork, open_lite0_classes, open_model_classes
from genray.gen.images.class_pictures import ImagineConfig, imagine
from genray.gen.images.pictures import check_picture_path, to_rgb, to_tensor, write_picture
from genray.machine import keep_freed_memory, resolve_device
from genray.media import check_clip_path, check_writable, contact_sheet, write_clip
from genray.options import parse
from genray.paths import free_path
from genray.threads import choose_threads, own_threads

MOST_CLASSES = 32
"""Largest number of classes of one call."""
FILM_FRAMES = 60
"""Most frames of a film; 4 seconds."""
LABEL = 24
"""Height of a label below a picture in a grid, with margins, pixels."""


@dataclass(frozen=True, kw_only=True)
class ImagineLaunch:
    """Options of `genray imagine`: the network and the output."""

    out: Path | None = None
    """The picture, .png, .jpg or .webp; a grid with labels for several classes. None: the class's
    name, such as goldfish.png, or classes.png; a file that exists is not replaced.
    """
    film: Path | None = None
    """A clip, .gif or .mp4, that shows the picture of one class appearing."""
    model: Path | None = None
    """The run or model directory of a classifier of your own (genray train classifier). None: lite0
    with the 1,000 classes of ImageNet.
    """
    device: Literal["auto", "cpu", "cuda"] = "auto"


def imagine_classes(argv: list[str], prog: str) -> int:
    """Run `genray imagine`; returns the exit status."""
    words: list[str] = []
    argv = list(argv)
    while argv and not argv[0].startswith("-"):
        words.append(argv.pop(0))
    # --list takes an optional text, which the parser of options does not support.
    part: str | None = None
    if "--list" in argv:
        place = argv.index("--list")
        following = argv[place + 1 : place + 2]
        part = following[0] if following and not following[0].startswith("-") else ""
        del argv[place : place + (2 if part else 1)]
    if "-h" in argv or "--help" in argv:
        print(
            f"{prog} CLASS [CLASS …] [options]   CLASS: a name or a number, e.g. goldfish\n"
            f"{prog} --list [FILTER]   lists the classes whose name contains FILTER\n"
        )
    both: Any = make_dataclass(
        "Imagine",
        [
            ("launch", ImagineLaunch),
            ("config", ImagineConfig, field(default_factory=ImagineConfig)),
        ],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = "Draw what a classifier takes for a class."
    options = parse(both, argv, prog)
    launch: ImagineLaunch = options.launch
    config: ImagineConfig = options.config
    config.validate()
    if part is None and not words:
        raise ConfigError(f"{prog}: name a class first, e.g. {prog} goldfish; {prog} --list")
    network = open_lite0_classes() if launch.model is None else open_model_classes(launch.model)
    if part is not None:
        return _list(network, part)
    require(
        len(words) <= MOST_CLASSES,
        f"{len(words)} classes: at most {MOST_CLASSES} fit in a grid; name fewer",
    )
    numbers = [network.find(word) for word in words]
    launch = _with_out(launch, network, numbers)
    keep_freed_memory()
    with own_threads(choose_threads()):
        return _imagine(network.to(resolve_device(launch.device)), numbers, launch, config)


def _list(network: ClassNetwork, part: str) -> int:
    numbers = network.listed(part)
    require(bool(numbers), f"--list {part}: no class of {network.name} has this in its name")
    for number in numbers:
        print(f"{number:>4}  {escaped(network.classes[number])}")
    return 0


def _with_out(launch: ImagineLaunch, network: ClassNetwork, numbers: list[int]) -> ImagineLaunch:
    """Return the options with a value of --out; checks the output paths before any work."""
    if launch.out is None:
        stem = network.classes[numbers[0]] if len(numbers) == 1 else "classes"
        stem = re.sub(r"[^\w-]+", "_", stem).strip("_") or "class"
        launch = replace(launch, out=free_path(Path(f"{stem}.png").absolute()))
    assert launch.out is not None
    check_picture_path(launch.out)
    check_writable(launch.out)
    if launch.film is not None:
        require(
            len(numbers) == 1,
            f"--film {launch.film}: shows one class, and {len(numbers)} are named; name one class",
        )
        check_clip_path(launch.film, "--film")
    return launch


def _imagine(
    network: ClassNetwork, numbers: list[int], launch: ImagineLaunch, config: ImagineConfig
) -> int:
    """Make the pictures and write them; returns the exit status."""
    assert launch.out is not None
    pictures: list[np.ndarray] = []
    probabilities: list[float] = []
    frames: list[np.ndarray] = []
    every = -(-config.steps // FILM_FRAMES)
    for place, number in enumerate(numbers):
        name, start = escaped(network.classes[number]), time.monotonic()
        # Each picture of a grid has a seed of its own, so that they have different compositions.
        own = replace(config, seed=(config.seed + place) % (MAX_SEED + 1))
        with progress_bar(name) as progress:

            def each(done: int, picture: Tensor) -> None:
                progress(done, own.steps)  # noqa: B023 - called inside this iteration only
                if launch.film is not None and (done % every == 0 or done == own.steps):  # noqa: B023
                    frames.append(to_rgb(picture))

            rgb = to_rgb(imagine(network, number, own, each))
        # The probability is that of the written picture, whose values are rounded to 8 bits.
        device = next(network.parameters()).device
        share_K = network.probabilities(to_tensor(rgb).to(device))[0]
        pictures.append(rgb)
        probabilities.append(float(share_K[number]))
        best = int(share_K.argmax())
        instead = "" if best == number else f"; more probable: {escaped(network.classes[best])}"
        print(
            f"{name} ({number}): probability {probabilities[-1]:.3f} by the network that made the "
            f"picture{instead}; {time.monotonic() - start:.0f} s"
        )
    if launch.film is not None:
        # The last picture stays for a second.
        print(write_clip(launch.film, [*frames, *frames[-1:] * 15], fps=15, scale=1))
    about = {
        "command": "genray imagine",
        "version": __version__,
        "network": network.name,
        "classes": [network.classes[number] for number in numbers],
        "numbers": numbers,
        "probabilities": probabilities,
        "options": to_dict(config),
    }
    labels = [network.classes[number] for number in numbers]
    rgb = pictures[0] if len(pictures) == 1 else _grid(pictures, labels)
    print(write_picture(launch.out, rgb, about=about))
    return 0


def _grid(pictures: list[np.ndarray], labels: list[str]) -> np.ndarray:
    """Return the pictures, uint8 [H, W, 3] of one size, in rows with their labels below."""
    tiles = [_labelled(picture, label) for picture, label in zip(pictures, labels)]
    rows = round(len(tiles) ** 0.5 * 0.75) or 1
    return contact_sheet(tiles, -(-len(tiles) // rows), gap=0)


def _labelled(rgb: np.ndarray, label: str) -> np.ndarray:
    height, width = rgb.shape[:2]
    tile = Image.new("RGB", (width + 4, height + LABEL), "white")
    tile.paste(Image.fromarray(rgb), (2, 2))
    font = ImageFont.load_default(size=14)
    ImageDraw.Draw(tile).text((4, height + 3), label, fill="black", font=font)
    return np.asarray(tile)
