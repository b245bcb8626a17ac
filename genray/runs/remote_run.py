"""Writes a run directory on this machine, and copies it to a URL regularly.

    URL/config.yaml, metrics.jsonl, tensorboard/, pictures/, model/
        copied every SYNC_S seconds, at each checkpoint and at the end
    URL/checkpoints/00045000/…, manifest.json
        complete when manifest.json exists, which is written last
    URL/owner.json
        the owner: the process that opened the run last

The actors of a distributed run write their parts of a checkpoint directly to the URL. If a process
that was assumed dead continues, it finds another owner and writes no more checkpoints.
"""

import contextlib
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from genray.console import shell_word
from genray.errors import CheckpointError, ConfigError, RunFault
from genray.runs import storage
from genray.runs.rundir import CHECKPOINT_FORMAT, RunDir
from genray.runs.storage import Place, child, name_of

SYNC_S = 30.0
"""Seconds between copies of changed files."""
NOT_COPIED = ("checkpoints", ".lock")
"""Names in the working folder that are not copied to the URL."""


class RemoteRun(RunDir):
    """A `RunDir` whose checkpoints are at a URL. `path` is its working folder on this machine."""

    def __init__(self, url: str):
        super().__init__(Path(tempfile.mkdtemp(prefix="genray-run-")))
        self._clear = weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
        self._url = url
        self._me = secrets.token_hex(8)
        self._synced: dict[str, tuple[int, int]] = {}
        self._sync_at = 0.0

    @property
    def place(self) -> Place:
        """URL of the run."""
        return self._url

    @classmethod
    def create_at(cls, url: str) -> "RemoteRun":
        """Create a new run. Raises ConfigError if `url` is not empty, or cannot be written."""
        run = cls(url)
        try:
            there = storage.list_files(url)
            if not there:
                run._own()
        except OSError as error:
            raise ConfigError(
                f"--out {url}: {_reason(error)}; choose a URL to which this machine can write"
            ) from error
        if there:
            raise ConfigError(
                f"--out {url}: not empty; choose a new URL, or continue with --resume "
                f"{shell_word(url)}"
            )
        return run

    @classmethod
    def open_at(cls, url: str) -> "RemoteRun":
        """Open an existing run. Raises CheckpointError if there is none or it cannot be read."""
        run = cls(url)
        try:
            there = storage.list_files(url)
            for name in there:
                # The pictures of each epoch are part of the sheet that the resumed run draws.
                epoch = name.startswith("pictures/epoch-")
                if name in ("config.yaml", "metrics.jsonl") or epoch:
                    storage.download(str(child(url, name)), run.path / name)
        except OSError as error:
            raise CheckpointError(f"{url}: {_reason(error)}") from error
        if "config.yaml" not in there:
            raise CheckpointError(f"{url}: not a run directory (no config.yaml)")
        return run

    def __enter__(self) -> Self:
        # A process that resumes the run becomes its owner.
        self._own()
        return super().__enter__()

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        if self.path.exists():
            # The run has ended, possibly with an exception, which an OSError must not replace.
            with contextlib.suppress(OSError):
                self.sync()
        self._clear()

    def discard(self, *, begun: bool = False) -> None:
        """Remove a run that never began, here and at the URL.

        A run that began is kept, unless `begun` is True.
        """
        if begun or not self.began:
            with contextlib.suppress(OSError):
                storage.delete(self._url)
            shutil.rmtree(self.path, ignore_errors=True)

    # -- ownership ---------------------------------------------------------------------------------

    def _own(self) -> None:
        """Record this process as the owner of the run."""
        who = {
            "token": self._me,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "time": time.time(),
        }
        storage.write_bytes(str(child(self._url, "owner.json")), json.dumps(who).encode())

    def _check_owner(self) -> None:
        """Raise RunFault if another process has become the owner."""
        owner = json.loads(storage.read_file(child(self._url, "owner.json"))[0])
        if owner["token"] != self._me:
            raise RunFault(
                f"{self._url}: process {owner['pid']} on {owner['host']} has taken this run over"
            )

    # -- copying files -----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Copy changed files if the last copy is older than SYNC_S. Raises OSError."""
        if time.monotonic() >= self._sync_at:
            self.sync()

    def sync(self) -> None:
        """Copy the files that have changed since the last call. Raises OSError."""
        # Upload the files whose size or time has changed.
        for file in sorted(path for path in self.path.rglob("*") if path.is_file()):
            name = file.relative_to(self.path)
            stat = file.stat()
            state = (stat.st_size, stat.st_mtime_ns)
            if name.parts[0] not in NOT_COPIED and self._synced.get(str(name)) != state:
                storage.upload(file, str(child(self._url, *name.parts)))
                self._synced[str(name)] = state
        self._sync_at = time.monotonic() + SYNC_S

    # -- checkpoints -------------------------------------------------------------------------------

    def write_checkpoint(  # type: ignore[override]  # a Place where the base has a Path
        self, step: int, fill: Callable[[Any], None], *, keep: int, score: float | None = None
    ) -> Place:
        """Write a checkpoint as in `RunDir`; `fill` gets the URL to write to.

        The checkpoint is complete when its manifest exists. Raises OSError, or RunFault if another
        process has become the owner.
        """
        self._check_owner()
        taken = {
            name.split("/")[1]
            for name in storage.list_files(self._url)
            if name.startswith("checkpoints/")
        }
        # Each checkpoint gets a new folder, because an object store cannot exchange two folders.
        name = next(
            name
            for tail in range(10**6)
            if (name := f"{step:08d}" + f".{tail}" * bool(tail)) not in taken
        )
        folder = str(child(self._url, "checkpoints", name))
        fill(folder)
        # Compare the size of each file at the URL with the size that its writer recorded.
        there, files = storage.list_files(folder), {}
        for file, size in there.items():
            if not file.endswith(storage.SUM):
                noted = storage.read_file(child(folder, file + storage.SUM))[0].split()
                if int(noted[0]) != size:
                    raise OSError(
                        f"{folder}: {file} has {size} bytes at the URL, and {noted[0].decode()} "
                        "were written"
                    )
                files[file] = [size, int(noted[1])]
        # Write the manifest last, because it makes the checkpoint complete.
        manifest = {"format": CHECKPOINT_FORMAT, "step": step, "score": score, "files": files}
        self._check_owner()
        storage.write_bytes(
            str(child(folder, "manifest.json")), json.dumps(manifest, indent=1).encode()
        )
        self.sync()
        self._prune(keep)
        return folder

    def note_score(self, step: int, score: float, *, keep: int) -> None:
        """Add an evaluation's score to the newest checkpoint, if this is the checkpoint of `step`.

        Raises OSError, or RunFault if another process has become the owner.
        """
        folders = self.list_checkpoints()
        if folders and checkpoint_step(folders[-1]) == step:
            self._check_owner()
            manifest = self._manifest(folders[-1]) | {"score": score}
            content = json.dumps(manifest, indent=1).encode()
            storage.write_bytes(str(child(folders[-1], "manifest.json")), content)
            self._prune(keep)

    def _prune(self, keep: int) -> None:
        """Remove all checkpoints but the `keep` newest and the best."""
        folders = self.list_checkpoints()
        scored = [
            (score, str(folder))
            for folder in folders
            if (score := self._manifest(folder)["score"]) is not None
        ]
        best = max(scored)[1] if scored else None
        names = {name_of(folder) for folder in folders[-keep:]} | (
            {name_of(best)} if best else set()
        )
        for name in {
            file.split("/")[1]
            for file in storage.list_files(self._url)
            if file.startswith("checkpoints/")
        }:
            # A checkpoint to remove is old, or was left incomplete by a process that died.
            if name not in names:
                storage.delete(str(child(self._url, "checkpoints", name)))

    def list_checkpoints(self) -> list[Place]:  # type: ignore[override]
        """List the complete checkpoints, oldest first. Raises OSError."""
        files = storage.list_files(self._url)
        names = [
            parts[1]
            for name in files
            if (parts := name.split("/"))[0] == "checkpoints" and parts[-1] == "manifest.json"
        ]
        return [child(self._url, "checkpoints", name) for name in sorted(names, key=_order)]

    def latest_checkpoint(self) -> Place:  # type: ignore[override]
        """Return the newest complete checkpoint.

        All its files exist with the right sizes; checksums are compared on loading. Raises
        CheckpointError if there is no checkpoint, or if a file is missing or has another size.
        """
        folders = self.list_checkpoints()
        if not folders:
            raise CheckpointError(
                f"{self._url}: has no complete checkpoint yet; start a new run instead"
            )
        there = storage.list_files(str(folders[-1]))
        for name, (size, _) in self._manifest(folders[-1])["files"].items():
            if there.get(name) != size:
                raise CheckpointError(
                    f"{folders[-1]}: {name} is missing or damaged; remove this folder to resume "
                    "from an older checkpoint"
                )
        return folders[-1]

    def _manifest(self, folder: Place) -> dict[str, Any]:
        return json.loads(storage.read_file(child(folder, "manifest.json"))[0])


def _order(name: str) -> tuple[int, int]:
    """Return a sort key of a checkpoint's name.

    00012000 comes before 00012000.1, which is a later checkpoint of the same step.
    """
    step, _, tail = name.partition(".")
    return int(step), int(tail or 0)


def checkpoint_step(place: Place) -> int:
    """Return the number of agent steps in the name of a checkpoint's folder."""
    return _order(name_of(place))[0]


def create_run(place: Place) -> RunDir:
    """Create a new run in a directory or at a URL.

    Raises ConfigError if the place is not empty, or if a URL cannot be written.
    """
    return RunDir.create(place) if isinstance(place, Path) else RemoteRun.create_at(place)


def open_run(place: Place) -> RunDir:
    """Open an existing run in a directory or at a URL.

    Raises CheckpointError if there is none, or if it cannot be read.
    """
    return RunDir.open(place) if isinstance(place, Path) else RemoteRun.open_at(place)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).splitlines()[0]
