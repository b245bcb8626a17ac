"""`genray stylize CONTENT STYLE … --out out.png`: a picture or a clip in the manner of others, by optimisation or by a
trained model."""

import time
from collections.abc import Sequence
from dataclasses import field, make_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from genray import __version__
from genray.commands.stylers import LOSSES, ByOptimisation, StyleLaunch, Styler, open_styler, spoken
from genray.errors import ConfigError, require
from genray.gen.images.pictures import Picture, check_picture_path, read_picture, to_rgb, write_picture
from genray.gen.images.style import StyleConfig, StyleStep
from genray.gen.images.style_clip import is_clip, read_clip, style_clip
from genray.live import Column, Live
from genray.media import check_clip_path, check_writable, write_clip
from genray.options import option_value, parse

COLUMNS: tuple[Column, ...] = tuple((name, name, "{:.4f}") for name in LOSSES)
FOR_CLIPS = ("--frames", "--frame-steps", "--blend", "--max-minutes")
GIF_FPS = 50
"""No browser plays a GIF faster."""


def stylize(argv: list[str], prog: str) -> int:
    """`genray stylize`."""
    content, styles, argv = _pictures(argv, prog)
    both: Any = make_dataclass(
        "Stylize",
        [("launch", StyleLaunch), ("config", StyleConfig, field(default_factory=StyleConfig))],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = "A picture or a clip in the manner of one or several pictures."
    options = parse(both, argv, prog)
    launch: StyleLaunch = options.launch
    config: StyleConfig = options.config
    launch.validate()
    if launch.model is None:
        require(len(styles) >= 1, f"{prog}: name a style picture behind the content, or a trained --model")
    config.validate(len(styles) or None)
    size = config.size if option_value(argv, "--size") else None
    if is_clip(content):
        require(launch.preview == 0, f"--preview {launch.preview}: for pictures; leave it out with a clip")
        return _clip(content, styles, launch, config, size)
    for name in FOR_CLIPS:
        require(option_value(argv, name) is None, f"{name}: for clips; {content.name} is none (.gif or .mp4)")
    return _picture(content, styles, launch, config, size)


def _pictures(argv: list[str], prog: str) -> tuple[Path, list[Path], list[str]]:
    """(the content, the styles, the other words)."""
    count = next((number for number, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, rest = [Path(word) for word in argv[:count]], argv[count:]
    if names:
        return names[0], names[1:], rest
    if "-h" in argv or "--help" in argv:
        print(f"{prog} CONTENT STYLE [STYLE …] --out out.png [options]   JPEG, PNG or WebP; CONTENT also GIF or MP4\n")
        return Path(), [], argv
    raise ConfigError(f"{prog}: name the content and a style first, e.g. {prog} photo.jpg painting.jpg --out out.png")


def _picture(content: Path, styles: Sequence[Path], launch: StyleLaunch, config: StyleConfig, size: int | None) -> int:
    check_picture_path(launch.out)
    check_writable(launch.out)
    picture, manners = read_picture(content), [read_picture(path) for path in styles]
    check_picture_path(launch.out, alpha=picture.alpha is not None)
    styler = open_styler(picture.rgb, manners, launch, config, size)
    rgb = styler.sized(picture.rgb)
    alpha = None if picture.alpha is None else styler.sized(picture.alpha)
    result = _optimised(styler, rgb, launch) if isinstance(styler, ByOptimisation) else styler.style(rgb)
    print(write_picture(launch.out, result, alpha, _note(picture, manners, styler)))
    return 0


def _optimised(styler: ByOptimisation, rgb: np.ndarray, launch: StyleLaunch) -> np.ndarray:
    """Watched while it is made."""
    print(f"{styler}: about {spoken(styler.seconds())}")
    before = 0
    with Live("styling", styler.steps, COLUMNS) as live:

        def progress(step: StyleStep) -> None:
            nonlocal before
            live.update(step.values, step.step)
            if launch.preview and step.step // launch.preview > before // launch.preview:
                write_picture(launch.out.with_stem(f"{launch.out.stem}-preview"), to_rgb(step.image()))
            before = step.step

        styler.progress = progress
        return styler.style(rgb)


def _note(picture: Picture, styles: Sequence[Picture], styler: Styler) -> dict[str, Any]:
    names = {"content": picture.name, "styles": [style.name for style in styles]}
    return {"command": "genray stylize", "version": __version__, **names, **styler.about()}


def _clip(content: Path, styles: Sequence[Path], launch: StyleLaunch, config: StyleConfig, size: int | None) -> int:
    require(is_clip(launch.out), f"--out {launch.out}: {content.name} is a clip, so its name must end in .gif or .mp4")
    check_clip_path(launch.out)
    manners = [read_picture(path) for path in styles]
    frames, fps = read_clip(content)
    require(
        launch.out.suffix.lower() != ".gif" or fps <= GIF_FPS,
        f"--out {launch.out}: {content.name} has {fps:g} frames/s, a GIF plays at most {GIF_FPS}; choose an .mp4",
    )
    frames = frames[: launch.frames or None]
    styler = open_styler(frames[0], manners, launch, config, size)
    frames = [styler.sized(frame) for frame in frames]
    # A frame equal to the one before keeps its result.
    work = 1 + sum(not np.array_equal(frame, before) for before, frame in pairwise(frames))
    seconds = styler.seconds(work)
    require(
        seconds <= 60 * launch.max_minutes,
        f"{content}: {work} frames by optimisation would take about {spoken(seconds)}; raise --max-minutes "
        f"{launch.max_minutes:g}, choose fewer --frames or --frame-steps or a smaller --size, or style with a trained --model",
    )
    print(f"{styler}: {len(frames)} frames{f', about {spoken(seconds)}' if seconds else ''}")
    start = time.monotonic()
    with Live("styling", len(frames), (("pace", "s/frame", "{:.2f}"),), unit="frames") as live:

        def progress(done: int, frame: np.ndarray) -> None:
            live.update({"pace": (time.monotonic() - start) / done}, done)

        results, flicker = style_clip(frames, styler.style, blend=launch.blend, progress=progress)
    print(flicker)
    print(write_clip(launch.out, results, fps=fps, scale=1))
    return 0
