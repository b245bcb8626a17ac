"""Keeps the models of one directory loaded, and deletes models or rolls them back on request.

New models are loaded, and changed models are replaced without an interruption. The directory:

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
from serve.settings import check_folder
from serve.versions import Versions, is_version

log = logging.getLogger("genray.serve")

RETRY_S = 30.0
"""Seconds after which a folder that failed is tried again. A folder that changes is tried at
once.
"""

Signature = tuple[tuple[int, int, int], ...]


class UnknownModel(GenrayError):
    """No model has this name."""


@dataclass(frozen=True)
class _Seen:
    """The state of a folder at the last scan."""

    signature: Signature
    at: float


class Registry:
    """Loads the models of a directory and returns them by name.

    `get` is a dictionary lookup and never waits. `refresh` may run in another thread.

    Args:
        folder: the directory of the models. Raises ConfigError if there is none.
        load: loads the model in a folder under a name; a function that tests may replace.
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
        """Number of models loaded since the registry was created."""
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
            raise UnknownModel(f"no model {name[:80]!r}; the models are: {known}") from None

    # -- scanning ----------------------------------------------------------------------------------

    def refresh(self) -> None:
        """Scan the directory once: load new and changed models, and forget removed ones."""
        with self._lock:
            found, unreadable = self._find_models()
            for name, model_folder in found.items():
                self._load_if_changed(name, model_folder)
            for name, reason in unreadable.items():
                self._fail(name, reason)
                # The first scan after the folder becomes readable loads the model at once.
                self._seen.pop(name, None)
            for name in [*self.models, *self.failed]:
                if name not in found and name not in unreadable:
                    self._mark_missing(name)
            self._missing &= set(self.models) | set(self.failed)

    def watch(self, period_s: float = 2.0) -> None:
        """Call `refresh` repeatedly in a thread of its own, until `close`."""

        def run() -> None:
            while not self._stop.wait(period_s):
                try:
                    self.refresh()
                except Exception:
                    # The next scan may succeed, e.g. after a network drive was unavailable.
                    log.exception("the models directory %s could not be scanned", self.folder)

        threading.Thread(target=run, name="genray-registry", daemon=True).start()

    def close(self) -> None:
        """End the thread of `watch`."""
        self._stop.set()

    def _find_models(self) -> tuple[dict[str, Path], dict[str, str]]:
        """Return (name → folder of every entry that resembles a model, name → the reason why an
        entry cannot be read).
        """
        folders, unreadable = {}, {}
        for child in sorted(self.folder.iterdir()):
            if child.name.startswith("."):
                continue
            try:
                if child.is_dir() and (model_folder := model_in(child)):
                    folders[child.name] = model_folder
            except OSError as error:
                # Skip entries that cannot be models, e.g. lost+found of a file system.
                if NAME.fullmatch(child.name):
                    unreadable[child.name] = f"the folder cannot be read ({error.strerror})"
        return folders, unreadable

    def _load_if_changed(self, name: str, model_folder: Path) -> None:
        # Skip a folder that has not changed, unless a failed one is due for a retry.
        self._missing.discard(name)
        signature, now = _signature(model_folder), time.monotonic()
        seen = self._seen.get(name)
        fresh = seen is not None and seen.signature == signature
        if fresh and (name not in self.failed or now - (seen.at if seen else 0) < RETRY_S):
            return
        self._seen[name] = _Seen(signature, now)
        # Load the new version.
        try:
            if not NAME.fullmatch(name):
                raise ConfigError(
                    f"{name[:80]!r}: a model's name may have letters, digits, dots, dashes and "
                    "underscores, e.g. digits-vae"
                )
            if name in self.models and self.models[name].version == version_of(model_folder):
                self._forget_failure(name)  # the files were touched, not changed
                return
            predictor = self._load(model_folder, name)
        # Damaged files can raise any exception. Other models are not affected.
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0].replace(str(self.folder), "")
            known = isinstance(error, GenrayError | OSError) and reason
            self._fail(
                name, reason if known else f"damaged model ({type(error).__name__}: {reason})"
            )
            return
        # Replace the model in one assignment, and save a copy for rollbacks.
        self.models = {**self.models, name: predictor}
        self._forget_failure(name)
        self.loads += 1
        log.info("model %s: version %s (%s)", name, predictor.version, predictor.kind)
        try:
            self._versions.keep(name, model_folder, predictor.version)
        except (OSError, CheckpointError) as error:
            log.warning("model %s: no copy was saved for a rollback (%s)", name, error)

    def _fail(self, name: str, reason: str) -> None:
        if self.failed.get(name) != reason:
            log.error("model %s cannot be loaded: %s", name, reason)
        self.failed = {**self.failed, name: reason}

    def _forget_failure(self, name: str) -> None:
        self.failed = {key: value for key, value in self.failed.items() if key != name}

    def _mark_missing(self, name: str) -> None:
        # A folder is replaced by two renames and is missing between them. Only a model that is
        # missing in two scans is removed.
        if name not in self._missing:
            self._missing.add(name)
            return
        self.models = {key: value for key, value in self.models.items() if key != name}
        self._forget_failure(name)
        self._seen.pop(name, None)
        log.info("model %s was removed", name)

    # -- versions ----------------------------------------------------------------------------------

    def versions(self, name: str) -> list[str]:
        """List the versions on disk, newest first."""
        return self._versions.of(name)

    def delete(self, name: str) -> None:
        """Remove a model from the directory. Its last versions remain for `roll_back`.

        The version on disk is removed, even if that version is newer than the loaded version.
        Raises UnknownModel. Raises OSError or CheckpointError if the version cannot be saved; the
        model then remains.
        """
        self.get(name)
        with self._lock:
            model_folder = model_in(self.folder / name)
            if model_folder is not None:
                place = self._place(name, model_folder)
                aside = self._versions.move_aside(name, place, model_folder)
                self._versions.add_version(name, aside, place)
            self._missing.add(name)
            self._mark_missing(name)

    def roll_back(self, name: str, version: str = "") -> str:
        """Restore a saved version of a model, and return that version.

        `version`: empty for the newest loadable version except the current version. The current
        version is the version on disk, loaded or not, so a rollback also repairs a damaged
        replacement. Raises UnknownModel if there is no other version, CheckpointError if no other
        version can be loaded, and OSError if the directory cannot be written.
        """
        with self._lock:
            # List the other versions. An invalid name has none and never becomes a path.
            kept = self.versions(name)
            entry = self.folder / name
            model_folder = model_in(entry) if kept else None
            choices = [
                each for each in kept if model_folder is None or not is_version(model_folder, each)
            ]
            if version:
                choices = [each for each in choices if each == version]
            if not choices:
                raise UnknownModel(
                    f"model {name[:80]!r} has no other "
                    f"version{f' {version[:20]}' if version else ''} to go back to"
                )
            # Choose the newest version that loads, and move it to the model's folder.
            chosen = next((each for each in choices if self._loads(name, each)), None)
            if chosen is None:
                raise CheckpointError(f"version {choices[0]} of {name} is damaged")
            if model_folder is None:
                # Of a run directory, only the subfolder model/ is ever replaced or deleted.
                model_folder = entry / "model" if entry.is_dir() else entry
            self._install(name, chosen, self._place(name, model_folder), model_folder)
        self.refresh()
        return chosen

    def _place(self, name: str, model_folder: Path) -> Path:
        """Return what a change of the model replaces: its folder, or the link to it.

        A link in the directory may lead to a folder elsewhere. Only the link is changed.
        """
        entry = self.folder / name
        return entry if entry.is_symlink() else model_folder

    def _loads(self, name: str, version: str) -> bool:
        source = self._versions.path(name, version)
        try:
            return is_version(source, version) and bool(self._load(source, name))
        except Exception:
            return False

    def _install(self, name: str, version: str, place: Path, model_folder: Path) -> None:
        """Move a saved version to `place`, and save the version that is there.

        `model_folder`: the folder with the files of that version, `place` itself or what a link at
        `place` leads to.
        """
        source = self._versions.path(name, version)
        fresh = self._versions.copied(name, source, version)
        aside = None
        try:
            # Mark `source` as the newest version. Otherwise saving the current version could delete
            # `source` as the oldest.
            os.utime(source)
            if os.path.lexists(place):
                aside = self._versions.move_aside(name, place, model_folder)
            fresh.rename(place)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            if aside is not None:
                aside.rename(place)
            raise
        if aside is not None:
            self._versions.add_version(name, aside, place)


def model_in(entry: Path) -> Path | None:
    """Return the folder of the model in an entry of the models directory, or None.

    The folder is the subfolder model/ of a run directory, or the entry itself. Raises OSError if
    the entry cannot be read.
    """
    model_folder = entry / "model" if (entry / "model").is_dir() else entry
    return (
        model_folder
        if (model_folder / "config.json").exists() or (model_folder / "model.safetensors").exists()
        else None
    )


def _signature(model_folder: Path) -> Signature:
    """Return a value that changes when the files of a model change."""
    marks = []
    for file in ("config.json", "model.safetensors"):
        try:
            status = (model_folder / file).stat()
            marks.append((status.st_mtime_ns, status.st_size, status.st_ino))
        except OSError:
            marks.append((0, 0, 0))
    return tuple(marks)
