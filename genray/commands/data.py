"""`genray data atari`: plays games and saves their frames as a data set of images."""

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
