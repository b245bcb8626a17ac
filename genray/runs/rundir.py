"""Writes and reads the files of a run directory. Every file is complete or absent, except
metrics.jsonl and tensorboard/, which grow.

RUN/
  config.yaml        the configuration, with which the run can be repeated
  metrics.jsonl      one object a line: step, seconds, values
  tensorboard/       the same values for TensorBoard
  checkpoints/       00045000/ … each with a manifest of sizes and checksums
  pictures/          pictures of the results
  model/             the model that `evaluate`, `play` and the service load
"""

import contextlib
import fcntl
import itertools
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from genray.console import shell_word
from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.runs.files import (
    clear_leftovers,
    remove_directory,
    replacing_directory,
    sync,
    writing_file,
)
from genray.runs.storage import Place, child, read_file

CHECKPOINT_FORMAT = 1
FLUSH_S = 5.0
"""Seconds between flushes of TensorBoard's events to the disk."""
RUNS = Path("runs")
"""Parent directory of a run whose user gave no --out."""


class RunDir:
    """A run's directory, which one process at a time locks while it trains.

    The lock is advisory, and ends with the process. Use the object as a context manager to lock
    the directory.

    Args:
        path: the directory; `create` and `open` check it.
    """

    def __init__(self, path: Path):
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.pictures = path / "pictures"
        self.model = path / "model"
        self._lock: Any = None

    @property
    def place(self) -> Place:
        """Location of the run as the user gave it: `path`, or a URL (see remote_run.py)."""
        return self.path

    def refresh(self) -> None:
        """Copy new data to remote storage; called every few seconds. Raises OSError.

        A local run has no remote storage, so this method does nothing.
        """

    @classmethod
    def create(cls, path: Path) -> "RunDir":
        """Create a new run in an empty or absent directory.

        Raises ConfigError if the directory is not empty or cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ConfigError(
                f"--out {path}: not empty; choose a new folder, or continue with --resume "
                f"{shell_word(path)}"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"--out {path}: {error.strerror}; choose a folder that can be written"
            ) from error
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "RunDir":
        """Open an existing run. Raises CheckpointError if `path` is not a run."""
        if not (path / "config.yaml").exists():
            raise CheckpointError(f"{path}: not a run directory (no config.yaml)")
        return cls(path)

    def __enter__(self) -> Self:
        self._lock = open(self.path / ".lock", "w", encoding="utf-8")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._lock.close()
            raise ConfigError(
                f"{self.path}: in use by another process; wait for it or choose another --out"
            ) from error
        self.pictures.mkdir(exist_ok=True)
        self._clear_leftovers()
        return self

    def _clear_leftovers(self) -> None:
        """Remove the files of processes that died while they wrote or removed files.

        The run must be locked.
        """
        for folder in (self.path, self.pictures, self.checkpoints):
            clear_leftovers(folder, exclusive=True)
        complete = self.list_checkpoints()
        for folder in self.checkpoints.glob("[0-9]*"):
            if folder.name.isdigit() and folder not in complete:
                remove_directory(folder)

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()

    @property
    def began(self) -> bool:
        """Whether the run has metrics or a checkpoint, so that it must not be removed."""
        metrics = self.path / "metrics.jsonl"
        return (metrics.exists() and metrics.stat().st_size > 0) or bool(self.list_checkpoints())

    def discard(self, *, begun: bool = False) -> None:
        """Remove a run that never began. A run that began is kept, unless `begun` is True."""
        if begun or not self.began:
            shutil.rmtree(self.path, ignore_errors=True)

    # -- checkpoints -------------------------------------------------------------------------------

    def write_checkpoint(
        self, step: int, fill: Callable[[Path], None], *, keep: int, score: float | None = None
    ) -> Path:
        """Write a checkpoint with `fill(folder)`, add its manifest, and remove all checkpoints
        except the `keep` newest and the best.

        `score` is the evaluation at this step; the highest score marks the best checkpoint. The
        folder gets its name only when every byte is on the disk. Raises OSError when the disk is
        full, and then leaves no files.
        """
        final = self.checkpoints / f"{step:08d}"
        with replacing_directory(final) as temporary:
            fill(temporary)
            files = {}
            for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
                files[str(file.relative_to(temporary))] = [file.stat().st_size, _checksum(file)]
            manifest = {"format": CHECKPOINT_FORMAT, "step": step, "score": score, "files": files}
            (temporary / "manifest.json").write_text(
                json.dumps(manifest, indent=1), encoding="utf-8"
            )
        self._prune(keep)
        return final

    def note_score(self, step: int, score: float, *, keep: int) -> None:
        """Add an evaluation's score to the newest checkpoint, if it is the one of `step`.

        The checkpoint is written before the evaluation, so that a failing evaluation loses nothing.
        Raises OSError.
        """
        folders = self.list_checkpoints()
        if folders and int(folders[-1].name) == step:
            manifest = _read_manifest(folders[-1]) | {"score": score}
            with writing_file(folders[-1] / "manifest.json") as temporary:
                temporary.write_text(json.dumps(manifest, indent=1), encoding="utf-8")
                sync(temporary)  # The rest of the checkpoint is on the disk as well.
            self._prune(keep)

    def _prune(self, keep: int) -> None:
        """Remove all checkpoints but the `keep` newest and the best."""
        folders = self.list_checkpoints()
        scored = [(score, folder) for folder in folders if (score := _score(folder)) is not None]
        best = max(scored)[1] if scored else None
        for folder in folders[:-keep]:
            if folder != best:
                remove_directory(folder)

    def list_checkpoints(self) -> list[Path]:
        """List the complete checkpoints, oldest first."""
        folders = [
            path.parent
            for path in self.checkpoints.glob("*/manifest.json")
            if path.parent.name.isdecimal()
        ]
        # Sorted by number, because a large step has more digits than the padding.
        return sorted(folders, key=lambda folder: int(folder.name))

    def latest_checkpoint(self) -> Path:
        """Return the newest checkpoint, after comparing its checksums.

        Raises CheckpointError if there is no checkpoint, or the newest is damaged.
        """
        # A writer that died may have renamed the newest checkpoint.
        clear_leftovers(self.checkpoints)
        folders = self.list_checkpoints()
        if not folders:
            raise CheckpointError(
                f"{self.path}: has no complete checkpoint yet; start a new run instead"
            )
        verify_checkpoint(folders[-1])
        return folders[-1]


def verify_checkpoint(folder: Path, only: str = "") -> None:
    """Compare every file with the manifest, or only the file called `only`.

    Raises CheckpointError, which names the first file that is missing or damaged.
    """
    for name, (size, checksum) in _read_manifest(folder)["files"].items():
        if only and name != only:
            continue
        file = folder / name
        if not file.is_file():
            problem = "is missing"
        elif file.stat().st_size != size or _checksum(file) != checksum:
            problem = "is damaged (its checksum differs)"
        else:
            continue
        raise CheckpointError(
            f"{folder}: {name} {problem}; remove this folder to resume from an older checkpoint"
        )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's manifest. Raises CheckpointError if it is damaged."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        if manifest["format"] == CHECKPOINT_FORMAT and isinstance(manifest["files"], dict):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise CheckpointError(
        f"{folder}: not a genray checkpoint of format {CHECKPOINT_FORMAT} (its manifest.json is "
        "damaged or of another program); remove this folder to resume from an older checkpoint"
    )


def _score(folder: Path) -> float | None:
    """Return the evaluation score of a checkpoint; None without a score or a valid manifest."""
    try:
        return _read_manifest(folder)["score"]
    except CheckpointError:
        return None


def _checksum(file: Path) -> int:
    """Return the CRC-32 of a file."""
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 24):
            checksum = zlib.crc32(block, checksum)
    return checksum


def new_folder(name: str) -> Path:
    """Make the directory of a run whose user gave no --out, and return it: runs/NAME-TIME.

    If the name exists, a number is added (runs/NAME-TIME-2). Two processes never get the same
    directory, even if they start at the same instant, because only one of them can create it.
    Raises ConfigError if the directory cannot be created.
    """
    wanted = RUNS / f"{name.replace(os.sep, '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    try:
        RUNS.mkdir(parents=True, exist_ok=True)
        for number in itertools.count(1):
            folder = wanted if number == 1 else wanted.with_name(f"{wanted.name}-{number}")
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
                break
    except OSError as error:
        raise ConfigError(
            f"{wanted}: {error.strerror}; choose a folder that can be written with --out"
        ) from error
    return folder


def require_disk(path: Path, needed_bytes: int, what: str) -> None:
    """Raise ResourceError unless the disk of `path` has `needed_bytes` free."""
    while not path.exists():
        path = path.parent
    free = shutil.disk_usage(path).free
    if free < needed_bytes:
        raise ResourceError(
            f"{path}: {free / 1e9:.1f} GB free, but {what} needs {needed_bytes / 1e9:.1f} GB; free "
            "some, choose another --out, or take a smaller --capacity or --keep"
        )


def _cut_log(path: Path, step: int | None) -> float:
    """Remove lines of steps after `step`, which a resumed run repeats, and an incomplete last line.

    Returns the seconds of the last remaining line; 0 if there is none.
    """
    written = path.read_bytes() if path.exists() else b""
    kept, seconds = [], 0.0
    for line in written[: written.rfind(b"\n") + 1].splitlines(True):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            values = json.loads(line)
            if step is not None and values["step"] > step:
                continue
            seconds = float(values["seconds"])
        kept.append(line)
    if len(whole := b"".join(kept)) < len(written):
        with writing_file(path) as temporary:
            temporary.write_bytes(whole)
    return seconds


def last_metrics(place: Place) -> tuple[dict[str, Any], float]:
    """Return the newest value of each metric in the last 100 lines of metrics.jsonl, and when the
    file was written, in seconds since 1970.

    Raises OSError if the file cannot be read.
    """
    content, written = read_file(child(place, "metrics.jsonl"))
    values: dict[str, Any] = {}
    for line in content.splitlines()[-100:]:
        with contextlib.suppress(ValueError):  # the last line may be incomplete
            values |= json.loads(line)
    return values, written


class MetricsLog:
    """Writes metrics.jsonl and TensorBoard events; appends to them when a run is resumed.

    Both files are written by the calling thread, so that a full disk raises OSError here and no
    thread blocks.

    Args:
        run: the run directory.
        step: the step from which the run continues, and after which all steps are repeated. Lines
            of later steps, from a killed process, are removed from metrics.jsonl, and TensorBoard
            receives a marker to drop their events. None keeps all lines.
    """

    def __init__(self, run: RunDir, step: int | None = None):
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        from tensorboardX.record_writer import RecordWriter

        self._run = run
        path = run.path / "metrics.jsonl"
        # The seconds continue from those of the interrupted run.
        before = _cut_log(path, step)
        self._file = path.open("a", buffering=1, encoding="utf-8")
        folder = run.path / "tensorboard"
        folder.mkdir(exist_ok=True)
        # TensorBoard reads files whose names contain "tfevents", in the order of their names. The
        # time in the name makes it the last one.
        self._events = RecordWriter(str(folder / f"events.out.tfevents.{time.time_ns()}"))
        self._events.write(
            Event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
        )
        if step is not None:
            start = SessionLog(status=SessionLog.START)
            event = Event(wall_time=time.time(), step=step + 1, session_log=start)
            self._events.write(event.SerializeToString())
        self._start = time.monotonic() - before
        self._flushed = time.monotonic()

    def write(self, step: int, values: dict[str, float | int | None]) -> None:
        """Write one line; values that are None (not yet measured) are omitted.

        Raises OSError when the disk is full.
        """
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        present = {name: value for name, value in values.items() if value is not None}
        now = time.monotonic()
        self._file.write(
            json.dumps({"step": step, "seconds": round(now - self._start, 3), **present}) + "\n"
        )
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in present.items()]
        event = Event(wall_time=time.time(), step=step, summary=Summary(value=scalars))
        self._events.write(event.SerializeToString())
        if now - self._flushed >= FLUSH_S:
            self._events.flush()
            self._flushed = now
            self._run.refresh()

    def close(self) -> None:
        """Close both files.

        Data that a full disk cannot store are lost without an exception here, because `write` has
        already raised one.
        """
        for stream in (self._file, self._events):
            with contextlib.suppress(OSError):
                stream.close()
