"""Counts what happened to every transition of a run, by the ledger
(genray/distributed/ledger.py).
"""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Counts of transitions, except `zombie_chunks`."""

    made: int
    acknowledged: int
    """Transitions that the shard acknowledged."""
    lost_acknowledged: int
    """Transitions that were acknowledged, but stored by no shard. Must be 0."""
    lost_with_shard: int
    """Transitions stored only by an earlier incarnation of a shard: lost with a replay host."""
    lost_on_the_way: int
    """Transitions that were made and never stored, because their shard could not be reached or
    their collector died first.
    """
    doubled: int
    """Transitions stored a second time by one incarnation of a shard. Must be 0. A chunk that is
    sent again to the next incarnation does not count.
    """
    zombie_chunks: int
    """Chunks of a collector's older incarnation that were stored after one of a newer incarnation.
    Must be 0.
    """
    refused_chunks: int


def read_ledger(folder: Path) -> list[Line]:
    """Return all lines in order of time. The last line of a process that died may be incomplete."""
    lines: list[Line] = []
    for file in sorted(folder.glob("*.jsonl")):
        for text in file.read_text().splitlines():
            try:
                lines.append(json.loads(text) | {"file": file.name})
            except ValueError:
                continue
    return sorted(lines, key=lambda line: line["time"])


def chunk_id(line: Line) -> tuple[int, int, int]:
    return line["collector"], line["incarnation"], line["first_row"]


def account(lines: list[Line]) -> Accounts:
    size = {chunk_id(line): line["transitions"] for line in lines}
    with_event = {
        event: Counter(chunk_id(line) for line in lines if line["event"] == event)
        for event in ("made", "acknowledged", "stored", "refused")
    }
    made, acknowledged, stored = (with_event[event] for event in ("made", "acknowledged", "stored"))

    # A file is one process: one life of a shard. The newest of each shard is the one that lives.
    lives: dict[str, str] = {}
    for line in lines:
        if line["event"] == "stored":
            lives["-".join(line["file"].split("-")[:2])] = line["file"]
    kept = {
        chunk_id(line)
        for line in lines
        if line["event"] == "stored" and line["file"] in lives.values()
    }

    zombies = 0
    newest: dict[int, int] = {}
    for line in lines:
        if line["event"] == "stored":
            zombies += line["epoch"] < newest.get(line["collector"], 0)
            newest[line["collector"]] = max(line["epoch"], newest.get(line["collector"], 0))

    copies = Counter((chunk_id(line), line["file"]) for line in lines if line["event"] == "stored")

    def total(ids: Any) -> int:
        return sum(size[one] for one in ids)

    return Accounts(
        made=total(made),
        acknowledged=total(acknowledged),
        lost_acknowledged=total(acknowledged.keys() - stored.keys()),
        lost_with_shard=total(stored.keys() - kept),
        lost_on_the_way=total(made.keys() - stored.keys()),
        doubled=sum(size[one] * (count - 1) for (one, _), count in copies.items()),
        zombie_chunks=zombies,
        refused_chunks=sum(with_event["refused"].values()),
    )


def first_stored(
    lines: list[Line], collector: int, after: float, incarnation_not: int
) -> float | None:
    """Return the seconds until a new incarnation of a collector first had a chunk stored."""
    times = (
        line["time"]
        for line in lines
        if line["event"] == "stored"
        and line["collector"] == collector
        and line["time"] > after
        and line["incarnation"] != incarnation_not
    )
    return next(times, None)
