"""`genray figures`: draws figures about optimization."""

from dataclasses import dataclass
from pathlib import Path

from genray.media import check_writable
from genray.options import parse


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """Draw figures about optimization: paths of optimizers, schedules, gradients by depth, losses,
    depth of plain and residual networks, batch sizes; and of code sizes of an autoencoder.
    """

    out: Path = Path("figures")
    """The directory of the pictures."""
    seed: int = 0


def figures(argv: list[str], prog: str) -> int:
    """Run `genray figures`; returns the exit status."""
    from genray.gen.figures import main_figures

    names: list[str] = []
    while argv and not argv[0].startswith("-"):
        names.append(argv.pop(0))
    options = parse(FiguresConfig, argv, prog)
    check_writable(options.out / "figure.png")
    for path in main_figures(options.out, tuple(names), options.seed):
        print(path)
    return 0
