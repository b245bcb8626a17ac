"""The page of `genray demo`: one HTML file with all pictures inside, without scripts.

The file loads nothing from elsewhere, so it can be sent by mail or put on any web server.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from genray.runs.files import write_whole
from tuning.report.page import STYLE

TYPES = {".png": "image/png", ".gif": "image/gif", ".jpg": "image/jpeg"}
OWN_STYLE = """
.row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start; }
.row figure { margin: 0; flex: 1 1 var(--side); min-width: 0;
  max-width: min(100%, calc(var(--side) * 1.6)); }
.row img { width: 100%; display: block; border-radius: .35rem; }
.row img.pixels { image-rendering: pixelated; }
.row figcaption { font-weight: 400; margin: .3rem 0 0; font-size: .88rem; color: var(--faint); }
.row figure.scrolled { flex: 1 1 100%; max-width: 100%; }
.scrolled > div { overflow: auto; max-height: 44rem; border-radius: .35rem; }
.row .scrolled img { width: auto; border-radius: 0; }
.row > div { flex: 2 1 20rem; min-width: 0; }
pre { margin: .7rem 0 0; padding: .6rem .8rem; background: var(--paper); border-radius: .35rem;
  overflow-x: auto; font-size: .85rem; }
dl.scores { margin: 0 0 1rem; display: grid; grid-template-columns: 1fr auto; gap: 0 1rem;
  max-width: 32rem; }
dl.scores dd { margin: 0; text-align: right; font-variant-numeric: tabular-nums; }
dl.scores .bar { grid-column: 1 / 3; width: 100%; height: .5rem; margin: .1rem 0 .5rem;
  background: none; }
dl.scores .bar i { background: var(--faint); }
dl.scores .ours { font-weight: 650; } dl.scores .bar.ours i { background: var(--tuned); }
"""


@dataclass(frozen=True)
class Figure:
    """A picture of the page."""

    path: Path
    """A PNG, JPEG or GIF file."""
    caption: str
    side: int = 14
    """Least width in the page, in rem (about 16 pixels); narrow screens make it smaller."""
    pixels: bool = False
    """Whether enlarged pixels stay sharp squares, as in small images and games."""
    scrolled: bool = False
    """Whether the picture has its full size, in a box in which it can be scrolled."""


@dataclass(frozen=True)
class Part:
    """What one part of the demo made: a line for the terminal, and a section of the page."""

    heading: str
    said: tuple[str, ...]
    """Lines for the terminal."""
    text: str = ""
    """Plain text below the heading."""
    figures: tuple[Figure, ...] = ()
    scores: tuple[tuple[str, float], ...] = ()
    """Names and scores, each with a bar; the first is highlighted."""
    chart: str = ""
    """An `<svg>` element."""
    commands: tuple[str, ...] = ()
    """Shell commands that go on from here."""
    links: tuple[tuple[str, str], ...] = ()
    """Words, and the file beside the page that they open."""


def write_page(path: Path, title: str, under: str, parts: Sequence[Part]) -> Path:
    """Write the page with one section for each part, and return its path."""
    sections = "\n".join(_section(part) for part in parts)
    style = STYLE.read_text(encoding="utf-8") + OWN_STYLE
    page = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        f'<header><h1>{escape(title)}</h1><p class="under">{escape(under)}</p></header>\n'
        f"<main>\n{sections}\n</main>\n</body>\n</html>\n"
    )
    return write_whole(path, page.encode())


def _section(part: Part) -> str:
    how = f'<p class="how">{escape(part.text)}</p>' if part.text else ""
    beside = _scores(part.scores) + (f"<figure>{part.chart}</figure>" if part.chart else "")
    figures = "".join(_figure(figure) for figure in part.figures)
    row = figures + (f"<div>{beside}</div>" if beside else "")
    commands = f"<pre>{escape(chr(10).join(part.commands))}</pre>" if part.commands else ""
    links = "".join(
        f'<p><a href="{escape(name)}">{escape(words)}</a></p>' for words, name in part.links
    )
    return (
        f"<section><h2>{escape(part.heading)}</h2>\n{how}{links}"
        + (f'<div class="row">{row}</div>' if row else "")
        + f"{commands}</section>"
    )


def _figure(figure: Figure) -> str:
    content = base64.b64encode(figure.path.read_bytes()).decode()
    pixels = ' class="pixels"' if figure.pixels else ""
    picture = (
        f'<img{pixels} alt="{escape(figure.caption)}" '
        f'src="data:{TYPES[figure.path.suffix]};base64,{content}">'
    )
    start = f'<figure style="--side: {figure.side}rem">'
    if figure.scrolled:
        # The box can be scrolled by keyboard, too.
        start, picture = '<figure class="scrolled">', f'<div tabindex="0">{picture}</div>'
    return f"{start}{picture}<figcaption>{escape(figure.caption)}</figcaption></figure>"


def _scores(scores: Sequence[tuple[str, float]]) -> str:
    if not scores:
        return ""
    most = max(1.0, *(value for _, value in scores))
    rows = []
    for number, (name, value) in enumerate(scores):
        ours = " ours" if number == 0 else ""
        rows.append(
            f'<dt class="{ours}">{escape(name)}</dt><dd class="{ours}">{value:,.0f}</dd>'
            f'<span class="bar{ours}"><i style="width: {max(0.0, value) / most:.1%}"></i></span>'
        )
    return f'<dl class="scores">{"".join(rows)}</dl>'
