"""`genray data atari|screens`: plays games and saves their frames as data sets."""

from genray.options import parse


def data_atari(argv: list[str], prog: str) -> int:
    """Run `genray data atari`; returns the exit status."""
    from rich.progress import Progress

    from genray.distributed.frames import FramesConfig, collect_frames

    options = parse(FramesConfig, argv, prog)
    options.validate()  # report errors before the progress bar appears
    with Progress() as bar:
        task = bar.add_task("playing", total=options.frames)
        path, recipe = collect_frames(
            options, lambda done, wanted: bar.update(task, completed=done, total=wanted)
        )
    for name, value in recipe.items():
        print(f"{name}: {value}")
    print(path)
    return 0


def data_screens(argv: list[str], prog: str) -> int:
    """Run `genray data screens`; returns the exit status."""
    from rich.progress import Progress

    from genray.distributed.screens import ScreensConfig, collect_screens

    options = parse(ScreensConfig, argv, prog)
    options.validate()  # report errors before the progress bar appears
    with Progress() as bar:
        task = bar.add_task("playing", total=options.frames)
        path, screens = collect_screens(
            options, lambda done, wanted: bar.update(task, completed=done, total=wanted)
        )
    for name, value in screens.recipe.items():
        print(f"{name}: {value}")
    print(f"colours: {len(screens.palette_P3)}")
    print(path)
    return 0
