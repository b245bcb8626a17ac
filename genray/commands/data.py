"""`genray data atari|screens|episodes|paintings`: makes data sets of play, and of paintings."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genray.options import parse

if TYPE_CHECKING:
    from genray.distributed.episodes import EpisodesConfig


def data_atari(argv: list[str], prog: str) -> int:
    """Run `genray data atari`; returns the exit status."""
    from genray.distributed.frames import FramesConfig, collect_frames

    path, recipe = _played(collect_frames, parse(FramesConfig, argv, prog))
    _say(recipe, path)
    return 0


def data_screens(argv: list[str], prog: str) -> int:
    """Run `genray data screens`; returns the exit status."""
    from genray.distributed.screens import ScreensConfig, collect_screens

    path, screens = _played(collect_screens, parse(ScreensConfig, argv, prog))
    _say({**screens.recipe, "colours": len(screens.palette_P3)}, path)
    return 0


def data_episodes(argv: list[str], prog: str) -> int:
    """Run `genray data episodes`; returns the exit status."""
    from genray.distributed.episodes import EpisodesConfig

    record_episodes(parse(EpisodesConfig, argv, prog))
    return 0


def record_episodes(options: "EpisodesConfig") -> None:
    """Record episodes, with a progress bar, and print facts about them."""
    from genray.distributed.episodes import collect_episodes

    path, recipe = _played(collect_episodes, options)
    _say(recipe, path)


def _played(collect: Callable[..., Any], options: Any) -> Any:
    """Call `collect(options, progress)` with a progress bar, and return its result."""
    from rich.progress import Progress

    options.validate()  # report errors before the progress bar appears
    with Progress() as bar:
        task = bar.add_task("playing", total=options.frames)
        return collect(options, lambda done, wanted: bar.update(task, completed=done, total=wanted))


def _say(facts: dict[str, Any], path: Path) -> None:
    for name, value in facts.items():
        print(f"{name}: {value}")
    print(path)


@dataclass(frozen=True, kw_only=True)
class PaintingsOptions:
    """Where the paintings and photographs of GCompris come from, and where they go."""

    out: Path | None = None
    """Directory for `paintings`, `photographs` and CREDITS.md. Default: the directory `gcompris` in
    $GENRAY_DATA or ~/.cache/genray, which `--data paintings` reads.
    """
    package: Path | None = None
    """A downloaded gcompris-qt-data_….deb, or a directory of its .rcc files. Default: the installed
    package, else `apt-get download` fetches it (44 MB) without installing it.
    """


def data_paintings(argv: list[str], prog: str) -> int:
    """Run `genray data paintings`; returns the exit status."""
    from genray.gen.data.config import data_folder
    from genray.gen.data.gcompris.unpack import FOLDER, unpack

    options = parse(PaintingsOptions, argv, prog)
    out = options.out or data_folder() / FOLDER
    for name, count in unpack(out, options.package).items():
        print(f"{name}: {count}")
    print(out)
    return 0
