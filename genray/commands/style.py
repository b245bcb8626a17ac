"""`genray stylize CONTENT STYLE … --out out.png`: applies the style of pictures to a picture or
clip.

The methods, optimization and a trained model, are in stylers.py.
"""

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import field, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genray import __version__
from genray.commands.stylers import LOSSES, StyleLaunch, Styler, open_styler, spoken
from genray.errors import ConfigError, require
from genray.gen.images.clips import Clip, copy_sound, has_sound, is_clip, read_clip
from genray.gen.images.pictures import (
    Picture,
    check_picture_path,
    read_picture,
    to_rgb,
    write_picture,
)
from genray.gen.images.style.clip import FlickerMeter, style_clip
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.optimise import StyleStep
from genray.media import check_clip_path, check_writable, write_clip
from genray.options import option_value, parse
from genray.paths import free_path
from genray.runs.live import Column, Live
from genray.threads import choose_threads, own_threads

COLUMNS: tuple[Column, ...] = tuple((name, name, "{:.4f}") for name in LOSSES)
FOR_CLIPS = ("--frames", "--frame-steps", "--blend", "--max-minutes")
GIF_FPS = 50
"""Largest number of frames per second at which browsers play a GIF."""


def stylize(argv: list[str], prog: str) -> int:
    """Run `genray stylize`; returns the exit status."""
    content, styles, argv = _pictures(argv, prog)
    both: Any = make_dataclass(
        "Stylize",
        [("launch", StyleLaunch), ("config", StyleConfig, field(default_factory=StyleConfig))],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = "Give a picture or a clip the style of one or several pictures."
    options = parse(both, argv, prog)
    launch: StyleLaunch = options.launch
    config: StyleConfig = options.config
    launch.validate()
    if launch.out is None:
        suffix = content.suffix.lower() if is_clip(content) else ".png"
        out = free_path(Path(f"{content.stem}-styled{suffix}").absolute())
        launch = replace(launch, out=out)
    if launch.model is None:
        require(
            len(styles) >= 1,
            f"{prog}: name a style picture after the content, or a trained --model",
        )
    config.validate(len(styles) or None)
    size = config.size if option_value(argv, "--size") else None
    if is_clip(content):
        require(
            launch.preview == 0,
            f"--preview {launch.preview}: for pictures; leave it out with a clip",
        )
        with own_threads(choose_threads()):
            return _clip(content, styles, launch, config, size)
    for name in FOR_CLIPS:
        require(
            option_value(argv, name) is None,
            f"{name}: for clips; {content.name} is not a clip (.gif or .mp4)",
        )
    with own_threads(choose_threads()):
        return _picture(content, styles, launch, config, size)


def _pictures(argv: list[str], prog: str) -> tuple[Path, list[Path], list[str]]:
    """Split the arguments into (the content, the styles, the other words)."""
    count = next((number for number, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, rest = [Path(word) for word in argv[:count]], argv[count:]
    if names:
        return names[0], names[1:], rest
    if "-h" in argv or "--help" in argv:
        print(
            f"{prog} CONTENT STYLE [STYLE …] [--out out.png] [options]   JPEG, PNG or WebP; "
            "CONTENT also GIF or MP4\n"
        )
        return Path(), [], argv
    raise ConfigError(
        f"{prog}: name the content and a style first, e.g. {prog} photo.jpg painting.jpg --out "
        "out.png"
    )


def _picture(
    content: Path,
    styles: Sequence[Path],
    launch: StyleLaunch,
    config: StyleConfig,
    size: int | None,
) -> int:
    """Style a picture and write it; returns the exit status."""
    check_picture_path(launch.target)
    check_writable(launch.target)
    picture, style_pictures = read_picture(content), [read_picture(path) for path in styles]
    check_picture_path(launch.target, alpha=picture.alpha is not None)
    styler = open_styler(picture.rgb, style_pictures, launch, config, size)
    rgb = styler.sized(picture.rgb)
    alpha = None if picture.alpha is None else styler.sized(picture.alpha)
    _say_reduction(content, picture.rgb, styler, launch, size)
    result = _optimised(styler, rgb, launch) if styler.steps else styler.style(rgb)
    print(write_picture(launch.target, result, alpha, _note(picture, style_pictures, styler)))
    return 0


def _optimised(styler: Styler, rgb: np.ndarray, launch: StyleLaunch) -> np.ndarray:
    """Style by optimization, with a progress bar and previews."""
    print(f"{styler}: about {spoken(styler.seconds())}")
    before = 0
    with Live("styling", styler.steps, COLUMNS) as live:

        def progress(step: StyleStep) -> None:
            nonlocal before
            live.update(step.values, step.step)
            if launch.preview and step.step // launch.preview > before // launch.preview:
                write_picture(
                    launch.target.with_stem(f"{launch.target.stem}-preview"), to_rgb(step.image())
                )
            before = step.step

        styler.progress = progress
        return styler.style(rgb)


def _note(picture: Picture, styles: Sequence[Picture], styler: Styler) -> dict[str, Any]:
    """Return the metadata that is saved in the result."""
    names = {"content": picture.name, "styles": [style.name for style in styles]}
    return {"command": "genray stylize", "version": __version__, **names, **styler.about()}


def _clip(
    content: Path,
    styles: Sequence[Path],
    launch: StyleLaunch,
    config: StyleConfig,
    size: int | None,
) -> int:
    """Style a clip and write it; returns the exit status."""
    # Check the output path, and read the styles and the clip.
    require(
        is_clip(launch.target),
        f"--out {launch.target}: {content.name} is a clip, so its name must end in .gif or .mp4",
    )
    check_clip_path(launch.target)
    style_pictures = [read_picture(path) for path in styles]
    clip = read_clip(content, max_frames=launch.frames)
    require(
        launch.target.suffix.lower() != ".gif" or clip.fps <= GIF_FPS,
        f"--out {launch.target}: {content.name} has {clip.fps:g} frames/s, a GIF plays at most "
        f"{GIF_FPS}; choose an .mp4",
    )
    # The first frame sets the result's size; optimization also calibrates its features on it.
    first = next(iter(clip), None)
    if first is None:
        raise ConfigError(f"{content}: has no frames; give a clip with at least one")
    styler = open_styler(first, style_pictures, launch, config, size)
    count, seconds = _work(clip, styler, launch)
    counted = f"{count} frames" if count else "frames of an unknown number"
    print(f"{styler}: {counted}{f', about {spoken(seconds)}' if seconds else ''}")
    _say_reduction(content, first, styler, launch, size)
    # A GIF cannot contain the sound of the content.
    sound = has_sound(content)
    if sound and launch.target.suffix.lower() == ".gif":
        print(
            f"{launch.target}: a GIF has no sound; the sound of {content.name} is left out (an "
            ".mp4 keeps it)"
        )
        sound = False
    start, meter, frames = time.monotonic(), FlickerMeter(), 0
    with Live("styling", count, (("pace", "s/frame", "{:.2f}"),), unit="frames") as live:

        def progress(done: int, frame: np.ndarray) -> None:
            nonlocal frames
            frames = done
            live.update({"pace": (time.monotonic() - start) / done}, done)

        # Style the frames one by one while the clip is written.
        sized = map(styler.sized, clip)
        styled = style_clip(sized, styler.style, blend=launch.blend, meter=meter, progress=progress)
        if sound:
            write_with_sound(launch.target, styled, clip, lambda: frames / clip.fps)
        else:
            write_clip(launch.target, styled, fps=clip.fps, scale=1)
    print(meter.flicker)
    print(launch.target)
    return 0


def _work(clip: Clip, styler: Styler, launch: StyleLaunch) -> tuple[int, float]:
    """Estimate the work. Returns (the number of frames, the seconds to style them).

    For optimization, which is slow, the clip is read once to count the frames, and ConfigError is
    raised if styling would take longer than --max-minutes. For a model, the number of frames comes
    from the clip's header (0 if unknown), and the seconds are 0.
    """
    if not styler.steps:
        return clip.count, 0.0
    count, work, before = 0, 0, None
    for frame in map(styler.sized, clip):
        count += 1
        # A frame that equals the previous frame is not styled again.
        work += before is None or not np.array_equal(frame, before)
        before = frame
    seconds = styler.seconds(work)
    require(
        seconds <= 60 * launch.max_minutes,
        f"{clip.path}: {work} frames by optimisation would take about {spoken(seconds)}; raise "
        f"--max-minutes {launch.max_minutes:g}, choose fewer --frames or --frame-steps or a "
        "smaller --size, or style with a trained --model",
    )
    return count, seconds


def write_with_sound(
    out: Path, styled: Iterator[np.ndarray], clip: Clip, seconds: Callable[[], float]
) -> None:
    """Write the clip with the content's sound, or without if the sound cannot be copied.

    The file is replaced atomically. `clip`: the content. `seconds`: returns the duration of the
    written frames.
    """
    # Write to a temporary file, because `out` may be the content, whose sound is read at the end.
    temporary = out.with_name(f".{out.stem}.{os.getpid()}.mp4")
    try:
        write_clip(temporary, styled, fps=clip.fps, scale=1)
        try:
            copy_sound(clip.path, temporary, seconds())
        except ConfigError as error:
            print(f"{out}: without sound, which could not be copied ({error})")
        temporary.replace(out)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _say_reduction(
    content: Path, rgb: np.ndarray, styler: Styler, launch: StyleLaunch, size: int | None
) -> None:
    """Report that the result is smaller than the content, if no size was given."""
    (height, width), (new_height, new_width) = rgb.shape[:2], styler.sized(rgb).shape[:2]
    if size is not None or (height, width) == (new_height, new_width):
        return
    why = (
        "--size N chooses another size"
        if launch.model is None
        else f"a model takes at most {styler.longest} a side"
    )
    print(f"{content.name}: {width}x{height} pixels are reduced to {new_width}x{new_height}; {why}")
