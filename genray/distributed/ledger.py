"""An account of every chunk, kept outside the processes that may die: what tests of lost hosts
count by.

Off unless `GENRAY_LEDGER` names a folder (where the coordinator runs; the actors get it from
there). Each process appends to a file of its own, a line an event, so that a process that dies
leaves all lines but perhaps its last.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from genray.rl.chunk import Chunk

VARIABLE = "GENRAY_LEDGER"


class Ledger:
    """Lines of {"event", "time", …}.

    A collector writes `made` before it ships a chunk, then `acknowledged` (the shard's answer
    came: it holds the chunk), `refused` (the shard's answer came: it does not), or `lost` (no
    answer, and the collector gave up). A shard writes `stored`, `duplicate` or `refused` for
    every chunk that reaches it. A chunk's id is (collector, incarnation, first_row).
    """

    def __init__(self, folder: str | None, writer: str):
        """`folder`: None: nothing is written. `writer`: names the file, with the process's
        number.
        """
        self._file: Any = None
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = f"{writer}-{os.uname().nodename}-{os.getpid()}.jsonl"
            self._file = open(Path(folder) / name, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open as long as its actor lives

    def chunk(self, event: str, chunk: Chunk, epoch: int, **values: Any) -> None:
        """A line about a chunk; `values` beside its id and size."""
        if self._file is None:
            return
        line = {
            "event": event,
            "time": round(time.time(), 3),
            "collector": chunk.source,
            "incarnation": chunk.incarnation,
            "epoch": epoch,
            "first_row": chunk.first_row,
            "rows": chunk.num_rows,
            "transitions": chunk.num_transitions,
            **values,
        }
        self._file.write(json.dumps(line) + "\n")


def folder_from_environment() -> str | None:
    return os.environ.get(VARIABLE) or None
