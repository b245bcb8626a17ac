"""Draws the report's charts as SVG in the page and as PNG files in the page's directory.

Each panel has one drawing function for both formats, and is narrow enough for a phone. In the page,
the colours of lines and text are CSS variables, so that they follow light and dark mode. Data have
the colours of Okabe and Ito, which colour-blind readers can distinguish. No two elements differ by
colour alone.
"""

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from genray.media import write_png

INK, FAINT, GRID, PAPER = "#222222", "#757575", "#dedede", "#ffffff"
UNTUNED, TUNED, BAD = "#e69f00", "#0072b2", "#d55e00"
CSS_COLOURS = {
    INK: "var(--ink)",
    FAINT: "var(--faint)",
    GRID: "var(--line)",
    PAPER: "var(--card)",
    UNTUNED: "var(--untuned)",
    TUNED: "var(--tuned)",
    BAD: "var(--bad)",
}
FONT = "Helvetica, Arial, sans-serif"
SMALL, WIDE = (2.1, 1.7), (4.6, 3.4)
"""Sizes in inches: a panel that is one of several, and a panel that is alone."""
POINTS = {SMALL: 7.5, WIDE: 9.0}
"""Font sizes in points. A phone shows a single panel at about this width, and small panels two in a
row.
"""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes."""

    title: str
    draw: Callable[[Axes], None]


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One panel, or several small panels with common axes."""

    name: str
    """Name of the chart's files, and prefix of its identifiers in a page."""
    about: str
    """Description of the chart for readers who cannot see it."""
    x: str
    y: str
    panels: Sequence[Panel]
    size: tuple[float, float] = SMALL

    @property
    def alone(self) -> bool:
        """Whether the chart has only one panel."""
        return len(self.panels) == 1

    def svgs(self) -> list[str]:
        """Return an `<svg>` element for each panel, without scripts, styles and external
        references.
        """
        elements = []
        for number, panel in enumerate(self.panels):
            with _style(self.size):
                figure = Figure(figsize=self.size, layout="constrained")
                figure.patch.set_alpha(0)
                axis = figure.subplots()
                self._draw(axis, panel, labels=self.alone)
                text = io.StringIO()
                FigureCanvasSVG(figure).print_svg(
                    text, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
                )
            about = f"{self.about} {panel.title}" if panel.title else self.about
            elements.append(_for_a_page(text.getvalue(), f"{self.name}-{number}", about))
        return elements

    def write_png(self, path: Path, columns: int = 4) -> Path:
        """Draw all panels on one white sheet. Raises ResourceError if the file cannot be
        written.
        """
        columns = min(columns, len(self.panels))
        lines = math.ceil(len(self.panels) / columns)
        with _style(self.size):
            size = (self.size[0] * columns, self.size[1] * lines + (0 if self.alone else 0.3))
            figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor=PAPER)
            axes = np.atleast_1d(figure.subplots(lines, columns)).ravel()
            for axis, panel in zip(axes, self.panels):
                self._draw(axis, panel, labels=self.alone)
            for axis in axes[len(self.panels) :]:
                axis.set_axis_off()
            if not self.alone:
                figure.supxlabel(self.x, fontsize=POINTS[SMALL] + 1, color=INK)
                figure.supylabel(self.y, fontsize=POINTS[SMALL] + 1, color=INK)
            canvas = FigureCanvasAgg(figure)
            canvas.draw()
        return write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])

    def _draw(self, axis: Axes, panel: Panel, labels: bool) -> None:
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
        axis.set_axisbelow(True)
        panel.draw(axis)
        axis.set_title(panel.title, loc="left", fontweight="bold", color=INK)
        if labels:
            axis.set_xlabel(self.x)
            axis.set_ylabel(self.y)


def _style(size: tuple[float, float]):
    points = POINTS.get(size, POINTS[WIDE])
    return matplotlib.rc_context(
        {
            # included in matplotlib; a page replaces it by FONT, which is narrower
            "font.family": ["DejaVu Sans"],
            "font.size": points,
            "axes.titlesize": points + 0.5,
            "axes.labelsize": points,
            "xtick.labelsize": points - 0.5,
            "ytick.labelsize": points - 0.5,
            "text.color": INK,
            "axes.labelcolor": INK,
            "axes.edgecolor": FAINT,
            "axes.facecolor": "none",
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "axes.linewidth": 0.6,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            # Text is not converted to paths, so that screen readers and searches can read the text.
            "svg.fonttype": "none",
            "svg.hashsalt": "genray",  # makes the file reproducible
        }
    )


def _for_a_page(svg: str, prefix: str, about: str) -> str:
    """Convert a matplotlib SVG file to an element of a page: unique identifiers, and colours and
    size from the page's style.
    """
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r' id="', f' id="{prefix}-', svg)
    svg = svg.replace('href="#', f'href="#{prefix}-').replace("url(#", f"url(#{prefix}-")
    svg = re.sub(r'(font: (?:\w+ )*?[\d.]+px) [^;"]*', rf"\1 {FONT}", svg)
    for colour, variable in CSS_COLOURS.items():
        svg = svg.replace(colour, variable)
    opening, rest = svg.split(">", 1)
    opening = re.sub(r' (?:width|height|version)="[^"]*"', "", opening)
    rest = re.sub(r">\s+<", "><", rest).strip()
    return f'{opening} role="img" aria-label="{escape(about)}">{rest}'


# -- scales ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Window:
    """The displayed range of the metric. Values outside the range, and missing values, are drawn at
    its bad edge.
    """

    low: float
    high: float
    mode: str
    log: bool = False

    @classmethod
    def of(cls, values: Sequence[float], mode: str, share: float = 0.75) -> "Window":
        """Choose the range: from the best value to two and a half times the range of the best
        `share` of the values. A few bad values would otherwise compress all others into a line.
        The range is logarithmic if the best `share` spans a factor of 20.
        """
        finite = np.sort([value for value in values if math.isfinite(value)])
        if len(finite) == 0:
            return cls(low=0.0, high=1.0, mode=mode)
        if mode == "max":
            finite = -finite[::-1]
        quarter = finite[min(len(finite) - 1, math.ceil(share * len(finite)))]
        best, worst = finite[0], min(finite[-1], finite[0] + 2.5 * (quarter - finite[0]) + 1e-12)
        log = bool(mode == "min" and best > 0 and quarter / best >= 20)
        if log:
            return cls(low=best / 1.2, high=max(finite[-1], quarter) * 1.3, mode=mode, log=True)
        margin = (worst - best or abs(best) or 1.0) * 0.08
        low, high = best - margin, worst + margin
        return (
            cls(low=low, high=high, mode=mode)
            if mode == "min"
            else cls(low=-high, high=-low, mode=mode)
        )

    @property
    def bad_edge(self) -> float:
        """The edge of the range where values are worst."""
        return self.high if self.mode == "min" else self.low

    def holds(self, value: float) -> bool:
        """Whether the value lies in the range."""
        return bool(self.low <= value <= self.high)

    def clip(self, value: float) -> float:
        """Return the value, or the nearest edge of the range. A missing value (None, NaN, ∞) gives
        the bad edge.
        """
        if not math.isfinite(value):
            return self.bad_edge
        return min(max(value, self.low), self.high)

    def apply(self, axis: Axes, which: str) -> None:
        """Set the limits of axis `which` (x or y) to this range."""
        along = axis.xaxis if which == "x" else axis.yaxis
        if self.log:
            axis.set(**{f"{which}scale": "log"})
        axis.set(**{f"{which}lim": (self.low, self.high)})
        if not self.log:
            along.set_major_locator(MaxNLocator(4 if which == "y" else 5, min_n_ticks=2))
        along.grid(True)


def log_axis(axis: Axes, low: float, high: float) -> None:
    """Make x logarithmic from low to high, with few ticks."""
    axis.set_xscale("log")
    axis.set_xlim(low, high)
    decades = math.log10(high / low)
    axis.xaxis.set_major_locator(LogLocator(numticks=5 if decades > 2 else 4))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axis.xaxis.grid(True)


def short(value: float) -> str:
    """Format a number for a tick: 0.001, 0.1, 20, 1e-05."""
    return (
        f"{value:g}"
        if 1e-3 <= abs(value) < 1e5 or value == 0
        else f"{value:.0e}".replace("e-0", "e-")
    )
