"""Keeps the models of one directory loaded: loads new ones, replaces changed ones without
interruption, deletes models and rolls them back.

    MODELS_DIR/NAME/              a model folder, or a run directory with model/ inside
    MODELS_DIR/.versions/NAME/    earlier versions of NAME, newest last, for `roll_back`

A folder that cannot be loaded is listed in `failed` and does not affect other models. If an earlier
version of the model is loaded, the service continues to use it.
"""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from genray.errors import CheckpointError, ConfigError, GenrayError
from genray.runs.modelstore import NAME
from serve.models import Predictor, load_predictor, version_of
from serve.versions import Versions, is_version

log = logging.getLogger("genray.serve")

RETRY_S = 30.0
"""Seconds after which a folder that failed is tried again. A folder that changes is tried at
once.
"""

Signature = tuple[tuple[int, int, int], ...]


def check_folder(folder: Path) -> None:
    """Raise ConfigError unless `folder` is a directory."""
    if not folder.is_dir():
        raise ConfigError(
            f"{folder}: no such directory; give one that holds model folders (or runs), e.g. runs"
        )


class UnknownModel(GenrayError):
    """No model has this name."""


@dataclass(frozen=True)
class _Seen:
    """The state of a folder at the last scan."""

    signature: Signature
    at: float


class Shelf:
    """The models of `folder`, by name. Reading is a dictionary lookup; `refresh` may run in another
    thread.
    """

    def __init__(self, folder: Path, load: Callable[[Path, str], Predictor] = load_predictor):
        check_folder(folder)
        self.folder, self._load, self._versions = folder, load, Versions(folder)
        self.models: dict[str, Predictor] = {}
        """The dictionary is replaced as a whole and never changed, so a caller may keep using a
        predictor.
        """
        self.failed: dict[str, str] = {}
        """Maps a name to the reason why its newest files could not be loaded."""
        self.loads = 0
        self._seen: dict[str, _Seen] = {}
        self._missing: set[str] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def get(self, name: str) -> Predictor:
        """Return the model of this name. Raises UnknownModel, which lists the existing names."""
        try:
            return self.models[name]
        except KeyError:
            known = ", ".join(sorted(self.models)[:20]) or "none yet"
            raise UnknownModel(f"no model {name[:80]!r}; there are: {known}") from None

    # -- scanning ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Scan the directory once: load new and changed models, and forget removed ones."""
        with self._lock:
            found, closed = self._places()
            for name, place in found.items():
                self._look_at(name, place)
            for name, reason in closed.items():
                self._fail(name, reason)
                # once the folder is readable, the next scan loads it at once
                self._seen.pop(name, None)
            for name in [*self.models, *self.failed]:
                if name not in found and name not in closed:
                    self._miss(name)
            self._missing &= set(self.models) | set(self.failed)

    def watch(self, period_s: float = 2.0) -> None:
        """Call `refresh` repeatedly in a thread of its own, until `close`."""

        def run() -> None:
            while not self._stop.wait(period_s):
                try:
                    self.refresh()
                except (
                    Exception
                ):  # e.g. a network drive is unavailable for a moment: the next scan may succeed
                    log.exception("the models directory could not be looked at")

        threading.Thread(target=run, name="genray-shelf", daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _places(self) -> tuple[dict[str, Path], dict[str, str]]:
        """Return (name → model folder of every entry that resembles a model; name → the reason why
        the entry may not be read).
        """
        places, closed = {}, {}
        for child in sorted(self.folder.iterdir()):
            if child.name.startswith("."):
                continue
            try:
                if child.is_dir() and (place := model_in(child)):
                    places[child.name] = place
            except OSError as error:
                # skip entries that are no models, e.g. a drive's lost+found
                if NAME.fullmatch(child.name):
                    closed[child.name] = f"cannot be looked into ({error.strerror})"
        return places, closed

    def _look_at(self, name: str, place: Path) -> None:
        # Skip a folder that has not changed, unless a failed one is due for a retry.
        self._missing.discard(name)
        signature, now = _signature(place), time.monotonic()
        seen = self._seen.get(name)
        fresh = seen is not None and seen.signature == signature
        if fresh and (name not in self.failed or now - (seen.at if seen else 0) < RETRY_S):
            return
        self._seen[name] = _Seen(signature, now)
        # Load the new version.
        try:
            if not NAME.fullmatch(name):
                raise ConfigError(
                    f"{name[:80]!r}: a model's name is made of letters, digits, dot, dash and "
                    "underscore"
                )
            if name in self.models and self.models[name].version == version_of(place):
                self._forget_failure(name)  # the files were touched, not changed
                return
            predictor = self._load(place, name)
        # damaged files can raise any exception; the error concerns this model alone
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0].replace(str(self.folder), "")
            known = isinstance(error, GenrayError | OSError) and reason
            self._fail(
                name, reason if known else f"damaged model ({type(error).__name__}: {reason})"
            )
            return
        # Replace the model in one assignment, and save a copy for roll-backs.
        self.models = {**self.models, name: predictor}
        self._forget_failure(name)
        self.loads += 1
        log.info("model %s: version %s (%s)", name, predictor.version, predictor.kind)
        try:
            self._versions.keep(name, place, predictor.version)
        except (OSError, CheckpointError) as error:
            log.warning("model %s: no copy kept for a roll-back (%s)", name, error)

    def _fail(self, name: str, reason: str) -> None:
        if self.failed.get(name) != reason:
            log.error("model %s cannot be loaded: %s", name, reason)
        self.failed = {**self.failed, name: reason}

    def _forget_failure(self, name: str) -> None:
        self.failed = {key: value for key, value in self.failed.items() if key != name}

    def _miss(self, name: str) -> None:
        # A folder is replaced by two renames and is missing between them. Only a model that is
        # missing in two scans is removed.
        if name not in self._missing:
            self._missing.add(name)
            return
        self.models = {key: value for key, value in self.models.items() if key != name}
        self._forget_failure(name)
        self._seen.pop(name, None)
        log.info("model %s is gone", name)

    # -- versions ----------------------------------------------------------------------------------

    def versions(self, name: str) -> list[str]:
        """List the versions on disk, newest first."""
        return self._versions.of(name)

    def delete(self, name: str) -> None:
        """Remove a model from the directory. Its last versions remain for `roll_back`.

        The version on disk is removed, even if it is newer than the loaded one. Raises
        UnknownModel; raises OSError or CheckpointError if the version could not be saved, and the
        model then stays.
        """
        self.get(name)
        with self._lock:
            place = model_in(self.folder / name)
            if place is not None:
                self._versions.file_away(name, self._versions.move_aside(name, place), place)
            self._missing.add(name)
            self._miss(name)

    def roll_back(self, name: str, version: str = "") -> str:
        """Restore an earlier version, and return it.

        Default: the newest loadable version except the current one. The current version is the one
        on disk, loaded or not, so a rollback also repairs a damaged replacement. Raises
        UnknownModel if there is no other version, CheckpointError if none can be loaded, OSError if
        the directory cannot be written.
        """
        with self._lock:
            kept = self.versions(name)  # empty for an invalid name, which never becomes a path
            home = self.folder / name
            place = model_in(home) if kept else None
            choices = [each for each in kept if place is None or not is_version(place, each)]
            if version:
                choices = [each for each in choices if each == version]
            if not choices:
                raise UnknownModel(
                    f"model {name[:80]!r} has no other "
                    f"version{f' {version[:20]}' if version else ''} to go back to"
                )
            chosen = next((each for each in choices if self._loads(name, each)), None)
            if chosen is None:
                raise CheckpointError(f"version {choices[0]} of {name} is damaged")
            if place is None:  # of a run directory only model/ was ever replaced or deleted
                place = home / "model" if home.is_dir() else home
            self._put(name, chosen, place)
        self.refresh()
        return chosen

    def _loads(self, name: str, version: str) -> bool:
        source = self._versions.path(name, version)
        try:
            return is_version(source, version) and bool(self._load(source, name))
        except Exception:
            return False

    def _put(self, name: str, version: str, place: Path) -> None:
        """Move a saved version to `place`, and save the version that is there."""
        source = self._versions.path(name, version)
        fresh = self._versions.copied(name, source, version)
        aside = None
        try:
            # mark as newest, so that saving the current version does not delete this one
            os.utime(source)
            if place.exists():
                aside = self._versions.move_aside(name, place)
            fresh.rename(place)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            if aside is not None:
                aside.rename(place)
            raise
        if aside is not None:
            self._versions.file_away(name, aside, place)


def model_in(entry: Path) -> Path | None:
    """Return the model folder of an entry of the directory: its model/ subfolder, or the entry
    itself. Raises OSError if the entry may not be read.
    """
    place = entry / "model" if (entry / "model").is_dir() else entry
    return (
        place
        if (place / "config.json").exists() or (place / "model.safetensors").exists()
        else None
    )


def _signature(place: Path) -> Signature:
    """Return a value that changes when the files of a model change."""
    marks = []
    for file in ("config.json", "model.safetensors"):
        try:
            status = (place / file).stat()
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)
