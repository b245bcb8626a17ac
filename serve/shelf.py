"""The models of one directory: loaded when they appear, replaced without a gap, deleted and rolled back by name.

    MODELS_DIR/NAME/              a model folder, or a run directory with model/ inside
    MODELS_DIR/.versions/NAME/    what NAME has been, newest last, for `roll_back`

A folder that cannot be loaded is reported in `failed` and takes nothing else down; a version of it that was loaded
before goes on serving.
"""

import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genray.errors import CheckpointError, ConfigError, GenrayError
from serve.models import Predictor, load_predictor, version_of

log = logging.getLogger("genray.serve")

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
VERSIONS = ".versions"
KEPT_VERSIONS = 3
RETRY_S = 30.0
"""A folder that failed is tried again when it changes, and after this time."""

Signature = tuple[tuple[int, int, int], ...]


def check_folder(folder: Path) -> None:
    """Raises ConfigError unless it is a directory."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such directory; give one that holds model folders (or runs), e.g. runs")


class UnknownModel(GenrayError):
    """No model has this name."""


@dataclass(frozen=True)
class _Seen:
    """What a folder looked like when it was last looked into."""

    signature: Signature
    at: float


class Shelf:
    """The models of `folder`, by name. Reading is a dictionary's lookup; `refresh` may run in another thread."""

    def __init__(self, folder: Path, load: Callable[[Path, str], Predictor] = load_predictor):
        check_folder(folder)
        self.folder, self._load = folder, load
        self.models: dict[str, Predictor] = {}
        """Replaced as a whole, never changed: who holds a predictor may go on using it."""
        self.failed: dict[str, str] = {}
        """Name → why its newest files could not be loaded."""
        self.loads = 0
        self._seen: dict[str, _Seen] = {}
        self._missing: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def get(self, name: str) -> Predictor:
        """Raises UnknownModel, naming those there are."""
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)[:20]) or "none yet"
            raise UnknownModel(f"no model {name[:80]!r}; there are: {known}") from None

    # -- looking ---------------------------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Look at the directory once: load what is new or changed, forget what is gone."""
        with self._lock:
            found = self._places()
            for name, place in found.items():
                self._look_at(name, place)
            for name in [*self.models, *self.failed]:
                if name not in found:
                    self._miss(name)
            self._missing &= set(self.models) | set(self.failed)

    def watch(self, period_s: float = 2.0) -> None:
        """`refresh` for ever in a thread of its own, until `close`."""

        def run() -> None:
            while not self._stop.wait(period_s):
                try:
                    self.refresh()
                except Exception:  # a network drive that is away for a moment, …: the next look may go well
                    log.exception("the models directory could not be looked at")

        threading.Thread(target=run, name="genray-shelf", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _places(self) -> dict[str, Path]:
        """Name → model folder of everything that looks like a model."""
        places = {}
        for child in sorted(self.folder.iterdir()):
            if child.name.startswith(".") or not child.is_dir():
                continue
            place = child / "model" if (child / "model").is_dir() else child
            if (place / "config.json").exists() or (place / "model.safetensors").exists():
                places[child.name] = place
        return places

    def _look_at(self, name: str, place: Path) -> None:
        self._missing.discard(name)
        signature, now = _signature(place), time.monotonic()
        seen = self._seen.get(name)
        fresh = seen is not None and seen.signature == signature
        if fresh and (name not in self.failed or now - (seen.at if seen else 0) < RETRY_S):
            return
        self._seen[name] = _Seen(signature, now)
        try:
            if not NAME.fullmatch(name):
                raise ConfigError(f"{name[:80]!r}: a model's name is made of letters, digits, dot, dash and underscore")
            if name in self.models and self.models[name].version == version_of(place):
                self._forget_failure(name)  # touched, not changed
                return
            predictor = self._load(place, name)
        except (GenrayError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            self.failed = {**self.failed, name: str(error).splitlines()[0].replace(str(self.folder), "")}
            log.error("model %s cannot be loaded: %s", name, self.failed[name])
            return
        self.models = {**self.models, name: predictor}
        self._forget_failure(name)
        self.loads += 1
        log.info("model %s: version %s (%s)", name, predictor.version, predictor.kind)
        self._keep(name, place, predictor.version)

    def _forget_failure(self, name: str) -> None:
        self.failed = {key: value for key, value in self.failed.items() if key != name}

    def _miss(self, name: str) -> None:
        # A folder is replaced by two renames; between them it is away. Only a second look makes it gone.
        if name not in self._missing:
            self._missing.add(name)
            return
        self.models = {key: value for key, value in self.models.items() if key != name}
        self._forget_failure(name)
        self._seen.pop(name, None)
        log.info("model %s is gone", name)

    # -- versions --------------------------------------------------------------------------------------------------

    def versions(self, name: str) -> list[str]:
        """Versions on disk, newest first."""
        folder = self.folder / VERSIONS / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            return []
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return [path.name for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)]

    def delete(self, name: str) -> None:
        """Take a model out of the directory; its last versions stay for `roll_back`. Raises UnknownModel."""
        predictor = self.get(name)
        with self._lock:
            place = self._places().get(name)
            if place is not None:
                self._keep(name, place, predictor.version)
                trash = self.folder / VERSIONS / f".{name}.{os.getpid()}.gone"
                trash.parent.mkdir(exist_ok=True)
                place.rename(trash)
                shutil.rmtree(trash, ignore_errors=True)
            self._missing.add(name)
            self._miss(name)

    def roll_back(self, name: str, version: str = "") -> str:
        """Put an earlier version in place (the newest but the present one); returns it.

        Raises UnknownModel where there is none.
        """
        present = self.models[name].version if name in self.models else ""
        choices = [each for each in self.versions(name) if each != present]
        if version:
            choices = [each for each in choices if each == version]
        if not choices:
            raise UnknownModel(
                f"model {name[:80]!r} has no other version{f' {version[:20]}' if version else ''} to go back to"
            )
        source = self.folder / VERSIONS / name / choices[0]
        if version_of(source) != choices[0]:
            raise CheckpointError(f"version {choices[0]} of {name} is damaged")
        with self._lock:
            place = self._places().get(name, self.folder / name)
            temporary = self.folder / VERSIONS / f".{name}.{os.getpid()}.tmp"
            old = temporary.with_suffix(".old")
            for path in (temporary, old):
                shutil.rmtree(path, ignore_errors=True)
            shutil.copytree(source, temporary)
            if place.exists():
                place.rename(old)
            temporary.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        self.refresh()
        return choices[0]

    def _keep(self, name: str, place: Path, version: str) -> None:
        """A copy of a version, for `roll_back`; where the directory cannot be written to there are none."""
        try:
            target = self.folder / VERSIONS / name / version
            if target.exists():
                os.utime(target)
            else:
                temporary = target.with_name(f".{version}.{os.getpid()}.tmp")
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                for file in ("config.json", "model.safetensors", "README.md"):
                    if (place / file).exists():
                        shutil.copy2(place / file, temporary / file)
                if version_of(temporary) != version:
                    raise OSError("it changed while it was copied")
                temporary.rename(target)
                os.utime(target)
            for stale in self.versions(name)[KEPT_VERSIONS:]:
                shutil.rmtree(self.folder / VERSIONS / name / stale, ignore_errors=True)
        except (OSError, CheckpointError) as error:
            log.warning("model %s: no copy kept for a roll-back (%s)", name, error)


def _signature(place: Path) -> Signature:
    """Changes when a model's files do."""
    marks = []
    for file in ("config.json", "model.safetensors"):
        try:
            status = (place / file).stat()
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)
