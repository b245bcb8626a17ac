"""Records what happens to every chunk in files, so that tests of lost hosts can count the chunks.

Nothing is recorded unless the environment variable `GENRAY_LEDGER` of the coordinator names a
directory; the coordinator passes the name to the actors. Each process appends to its own file, one
line per event, so a process that dies loses its last line at most.
"""

import json
import os
import time
from pathlib import Path
from typing import Any

from genray.rl.chunk import Chunk

VARIABLE = "GENRAY_LEDGER"


class Ledger:
    """Writes one JSON object per line: {"event", "time", …}.

    A collector writes `made` before it sends a chunk. Then it writes `acknowledged` (the shard
    answered that it has stored the chunk), `refused` (the shard answered that it has not), or
    `lost` (the shard did not answer, and the collector gave up). A shard writes `stored`,
    `duplicate` or `refused` for every chunk that it receives. (collector, incarnation, first_row)
    identifies a chunk.

    Args:
        folder: the directory of the files; None: nothing is written.
        writer: the start of the file's name; the host's name and the process id follow.
    """

    def __init__(self, folder: str | None, writer: str):
        self._file: Any = None
        if folder:
            Path(folder).mkdir(parents=True, exist_ok=True)
            name = f"{writer}-{os.uname().nodename}-{os.getpid()}.jsonl"
            self._file = open(Path(folder) / name, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - open as long as its actor lives

    def chunk(self, event: str, chunk: Chunk, epoch: int, **values: Any) -> None:
        """Write a line about a chunk; `values` are added to the line."""
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
