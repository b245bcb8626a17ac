"""Records every chunk outside the processes that may die; tests of lost hosts count with it.

The ledger is off unless `GENRAY_LEDGER` names a directory (on the coordinator, which passes the
name to the actors). Each process appends to its own file, one line per event, so that a process
that dies loses at most its last line.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from genray.rl.chunk import Chunk

VARIABLE = "GENRAY_LEDGER"


class Ledger:
    """Writes lines of {"event", "time", …}.

    A collector writes `made` before it sends a chunk. Then it writes `acknowledged` (the shard
    answered that it holds the chunk), `refused` (the shard answered that it does not), or `lost`
    (no answer, and the collector gave up). A shard writes `stored`, `duplicate` or `refused` for
    every chunk that it receives. A chunk's id is (collector, incarnation, first_row).

    Args:
        folder: the ledger's directory; None: nothing is written.
        writer: the start of the file's name, before the host and the process id.
    """

    def __init__(self, folder: str | None, writer: str):
        self._file: Any = None
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = f"{writer}-{os.uname().nodename}-{os.getpid()}.jsonl"
            self._file = open(Path(folder) / name, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open as long as its actor lives

    def chunk(self, event: str, chunk: Chunk, epoch: int, **values: Any) -> None:
        """Write a line about a chunk; `values` are added to its id and size."""
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
    """Return the directory that `GENRAY_LEDGER` names, or None."""
    return os.environ.get(VARIABLE) or None
