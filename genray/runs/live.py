"""Shows the progress of a run: a live panel in a terminal, or occasional lines in other outputs."""

import contextlib
import errno
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live as RichLive
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from genray.runs.stop import leave_stdout

LINE_EVERY_S = 10.0
"""Seconds between lines of progress in an output that is not a terminal."""

Column = tuple[str, str, str]
"""Name of a value, title of its column, and format."""


class _Console(Console):
    """A console that raises BrokenPipeError. Rich would end the process instead."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


class Live:
    """Shows a run's newest values; `say` prints a permanent line above them.

    `closed` is True when the output cannot be written any more, because its reader has ended or
    the terminal is closed. No exception is raised; the run stops at its next consistent state.

    Args:
        title: name of the run.
        total_steps: number of steps at which the bar is full.
        columns: the values to show.
        unit: name of a step, in the plural.
        console: the output; default: standard output.
    """

    def __init__(
        self,
        title: str,
        total_steps: int,
        columns: Sequence[Column],
        unit: str = "steps",
        console: Console | None = None,
    ):
        self._console = console or _Console(highlight=False)
        self.closed = False
        self._columns, self._one = tuple(columns), unit.removesuffix("s")
        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(None),
            MofNCompleteColumn(),
            TextColumn(unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task(title, total=total_steps)
        self._shown: dict[str, str] = {}
        self._panel = RichLive(
            get_renderable=self._render, console=self._console, refresh_per_second=2
        )
        self._last_line = 0.0

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._panel.start()
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            # OSError: the terminal may be closed.
            with contextlib.suppress(OSError):
                self._panel.stop()

    def say(self, text: str) -> None:
        """Print a line above the values. If the output is closed, sets `closed`.

        Raises OSError if the output cannot be written for another reason.
        """
        try:
            self._console.print(text, markup=False, soft_wrap=True)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.EIO):
                raise
            self.closed = True
            leave_stdout(
                "the output was closed; the run stops, and later messages are printed here\n"
            )

    def update(self, values: dict[str, Any], step: int) -> None:
        """Show the newest values. Values that are missing or None keep the previous text.

        If the output is not a terminal, prints them at most every `LINE_EVERY_S` seconds.
        """
        self._shown |= {
            name: form.format(values[name])
            for name, _, form in self._columns
            if values.get(name) is not None
        }
        self._bar.update(self._task, completed=step)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._last_line >= LINE_EVERY_S:
            self._last_line = now
            self.say(
                f"{self._one} {step:,} · "
                + " · ".join(
                    f"{title} {self._shown.get(name, '–')}" for name, title, _ in self._columns
                )
            )

    def _render(self) -> Group:
        table = Table(expand=True, box=None, padding=(0, 1))
        for _, title, _ in self._columns:
            table.add_column(title, justify="right", style="cyan", header_style="dim", no_wrap=True)
        table.add_row(*(self._shown.get(name, "–") for name, _, _ in self._columns))
        return Group(self._bar, table)
