"""What became of every transition of a run, by the ledger (genray/distributed/ledger.py)."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Line = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Accounts:
    """Transitions, but for `zombie_chunks`."""

    made: int
    acknowledged: int
    """The shard said that it holds them."""
    lost_acknowledged: int
    """Acknowledged, but stored by no shard. Must be 0."""
    lost_with_shard: int
    """Stored by a life of a shard that is over, and by no other: gone with a lost replay host."""
    lost_on_the_way: int
    """Made, and never stored: their shard was out of reach, or their collector died first."""
    doubled: int
    """Stored a second time by one life of a shard. Must be 0. (A chunk that is sent again to a
    shard's next life is none.)
    """
    zombie_chunks: int
    """Chunks of a collector's older life that were stored after one of a newer life. Must be 0."""
    refused_chunks: int


def read_ledger(folder: Path) -> list[Line]:
    """All lines in the order of time; the last of a process that died may be torn."""
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
    """When a new life of a collector first had a chunk stored."""
    times = (
        line["time"]
        for line in lines
        if line["event"] == "stored"
        and line["collector"] == collector
        and line["time"] > after
        and line["incarnation"] != incarnation_not
    )
    return next(times, None)
