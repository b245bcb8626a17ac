"""`genray translate IMAGE … --model RUN`: translates pictures, folders of pictures and clips."""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genray import __version__
from genray.bounds import bounded, check_bounds
from genray.commands.models import load
from genray.commands.style import write_with_sound
from genray.errors import ConfigError, require
from genray.gen.data.folders import find_files
from genray.gen.images.clips import has_sound, is_clip, read_clip
from genray.gen.images.pictures import (
    FORMATS,
    PictureError,
    check_picture_path,
    read_picture,
    scaled,
    write_picture,
)
from genray.gen.translation.apply import apply_translator
from genray.gen.translation.model import Translator
from genray.gen.translation.tiles import TILE
from genray.machine import keep_freed_memory, resolve_device
from genray.media import check_clip_path, check_writable, write_clip
from genray.options import parse
from genray.paths import free_path
from genray.runs import modelstore
from genray.threads import choose_threads, own_threads


@dataclass(frozen=True, kw_only=True)
class TranslateLaunch:
    """Translate pictures, folders of pictures or clips with a model of genray train pix2pix or
    cyclegan."""

    model: Path
    """The run or model directory."""
    out: Path | None = None
    """The result: a picture or a clip; a directory for several. Default: NAME-translated in the
    working directory; an existing file is kept."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """A model of cyclegan translates in both directions."""
    prepare: bool = False
    """Make the model's input from each picture, as in training: its edges, its grey values, a low
    resolution or a missing square. Otherwise, a picture is the input, such as a drawing."""
    size: int = bounded(0, min=0, note="(0: the picture's size)", example=256)
    """Longer side in pixels to which pictures are scaled before; 0: unchanged."""
    tile: int = bounded(TILE, min=16, example=TILE)
    """Side in pixels of the tiles in which large pictures are translated; less needs less memory
    and more time, with the same result."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    address: str = ""
    """Translate folders on all CPUs of the Ray cluster at this address, such as auto. All machines
    must see the same files. Empty: in this process."""


def translate(argv: list[str], prog: str) -> int:
    """Run `genray translate`; returns the exit status."""
    count = next((number for number, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, rest = [Path(word) for word in argv[:count]], argv[count:]
    if "-h" in argv or "--help" in argv:
        print(f"{prog} IMAGE … --model RUN [options]   IMAGE: a picture, a folder or a clip\n")
    elif not names:
        raise ConfigError(f"{prog}: name a picture first, e.g. {prog} photo.jpg --model runs/paint")
    launch = parse(TranslateLaunch, rest, prog)
    check_bounds(launch)
    for path in names:
        require(path.exists(), f"{path}: no such file or folder")
    require(
        not launch.address or launch.device != "cuda",
        f"--device cuda: --address {launch.address} translates on CPUs; leave one out",
    )
    require(
        not launch.address or len(names) > 1 or names[0].is_dir(),
        f"--address {launch.address}: for folders and several pictures; leave it out for one",
    )
    folder = modelstore.model_folder(launch.model)
    model, config = load(folder)
    require(
        isinstance(model, Translator),
        f"--model {launch.model}: a model of kind {config['kind']!r} does not translate; use a run "
        "of `genray train pix2pix` or `genray train cyclegan`",
    )
    model.network(launch.direction)
    model.eval().to(resolve_device(launch.device))
    keep_freed_memory()
    with own_threads(choose_threads()):
        if len(names) == 1 and is_clip(names[0]):
            return _clip(names[0], model, launch)
        if len(names) == 1 and names[0].is_file():
            out = launch.out or free_path(Path(f"{names[0].stem}-translated.png").absolute())
            check_picture_path(out)
            check_writable(out)
            print(_picture(names[0], out, model, launch))
            return 0
        return _pictures(names, model, launch)


def _pictures(names: Sequence[Path], model: Translator, launch: TranslateLaunch) -> int:
    """Translate several pictures into a directory; returns the exit status.

    The paths of a folder's pictures are kept below the directory. An unreadable file of a folder is
    reported on stderr, and the status is then 1.
    """
    out = launch.out or free_path(Path(f"{names[0].name}-translated").absolute())
    require(
        not out.is_file() and out.suffix.lower() not in FORMATS,
        f"--out {out}: must be a directory, because there are several pictures",
    )
    work: list[tuple[Path, Path, bool]] = []
    for name in names:
        if name.is_dir():
            paths = find_files(name, tuple(FORMATS)).paths
            require(bool(paths), f"{name}: has no pictures ({', '.join(FORMATS)})")
            work += [(path, path.relative_to(name).with_suffix(".png"), True) for path in paths]
        else:
            require(not is_clip(name), f"{name}: a clip is translated alone; leave the others out")
            work.append((name, Path(f"{name.stem}.png"), False))
    targets = [target for _, target, _ in work]
    twice = next((each for each in targets if targets.count(each) > 1), None)
    require(twice is None, f"--out {out}: two pictures would be {twice}; translate them separately")
    for target in targets:
        (out / target).parent.mkdir(parents=True, exist_ok=True)
    if launch.address:
        from genray.commands.translate_ray import translate_all

        pairs = [(path, out / target) for path, target, _ in work]
        here = replace(launch, model=launch.model.absolute())
        errors = translate_all(pairs, partial(_loaded, here), address=launch.address)
        for error in errors:
            print(error, file=sys.stderr)
        return _ended(len(errors), len(work), out)
    failed = 0
    for path, target, in_folder in work:
        try:
            _picture(path, out / target, model, launch)
        except PictureError as error:
            if not in_folder:
                raise
            print(error, file=sys.stderr)
            failed += 1
    return _ended(failed, len(work), out)


def _ended(failed: int, total: int, out: Path) -> int:
    if failed:
        print(f"{failed} of {total} pictures could not be read", file=sys.stderr)
    print(out)
    return 1 if failed else 0


def _loaded(launch: TranslateLaunch) -> Callable[[Path, Path], Path]:
    """Load the model in a worker on a CPU, and return the function that translates a picture."""
    keep_freed_memory()
    model, _ = load(modelstore.model_folder(launch.model))
    assert isinstance(model, Translator)
    model.eval()
    return lambda path, out: _picture(path, out, model, launch)


def _picture(path: Path, out: Path, model: Translator, launch: TranslateLaunch) -> Path:
    """Translate one picture and write it; returns its path."""
    picture = read_picture(path)
    rgb, alpha = picture.rgb, picture.alpha
    if launch.size:
        rgb = scaled(rgb, launch.size, enlarge=True)
        alpha = None if alpha is None else scaled(alpha, launch.size, enlarge=True)
    about = {
        "command": "genray translate", "version": __version__, "picture": picture.name,
        "model": _name(launch.model), "direction": launch.direction, "prepare": launch.prepare,
    }  # fmt: skip
    return write_picture(out, _translated(rgb, model, launch, alpha), None, about)


def _translated(
    rgb: np.ndarray, model: Translator, launch: TranslateLaunch, alpha: np.ndarray | None = None
) -> np.ndarray:
    options: dict[str, Any] = {"direction": launch.direction, "prepare": launch.prepare}
    return apply_translator(model, rgb, alpha=alpha, tile=launch.tile, **options)


def _clip(path: Path, model: Translator, launch: TranslateLaunch) -> int:
    """Translate a clip frame by frame; returns the exit status."""
    suffix = path.suffix.lower()
    out = launch.out or free_path(Path(f"{path.stem}-translated{suffix}").absolute())
    require(is_clip(out), f"--out {out}: {path.name} is a clip, so its name must end in {suffix}")
    check_clip_path(out)
    clip = read_clip(path)
    frames = 0

    def translated() -> Iterator[np.ndarray]:
        nonlocal frames
        for frame in clip:
            frames += 1
            sized = scaled(frame, launch.size, enlarge=True) if launch.size else frame
            yield _translated(sized, model, launch)

    if has_sound(path) and out.suffix.lower() == ".mp4":
        write_with_sound(out, translated(), clip, lambda: frames / clip.fps)
    else:
        write_clip(out, translated(), fps=clip.fps, scale=1)
    print(out)
    return 0


def _name(folder: Path) -> str:
    return folder.parent.name if folder.name == "model" else folder.name
