"""Stores earlier versions of models in MODELS_DIR/.versions/NAME/VERSION, for rollbacks.

A replaced or deleted model is saved before its folder is removed. The folder is first renamed,
which needs no disk space. Then the model becomes the newest version, and all other files return to
the original folder.
"""

import logging
import os
import shutil
import time
from pathlib import Path

from genray.errors import CheckpointError
from genray.runs.modelstore import NAME
from serve.models import version_of

log = logging.getLogger("genray.serve")

KEPT_VERSIONS = 3
VERSIONS = ".versions"
FILES = ("config.json", "model.safetensors", "README.md")
"""The files of a model. All other files in its folder stay where they are."""


class Versions:
    """Reads and writes the saved versions of all models of a directory.

    Several replicas may use the directory at the same time.

    Args:
        models_dir: the directory of the models.
    """

    def __init__(self, models_dir: Path):
        self.folder = models_dir / VERSIONS

    def of(self, name: str) -> list[str]:
        """List the versions of `name` on disk, newest first."""
        folder = self.folder / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            return []
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return [
            path.name
            for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        ]

    def path(self, name: str, version: str) -> Path:
        """Return the folder of a version, which may not exist."""
        return self.folder / name / version

    def keep(self, name: str, model_folder: Path, version: str) -> None:
        """Save a copy of a model as its newest version. Raises OSError or CheckpointError if the
        copy fails.
        """
        target = self.path(name, version)
        if not is_version(target, version):
            copy = self.copied(name, model_folder, version)
            try:
                self._put(copy, target, version)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        os.utime(target)
        self._remove_old(name)

    def copied(self, name: str, source: Path, version: str) -> Path:
        """Copy `version` to a folder that is never scanned, and return that folder.

        Raises OSError or CheckpointError if the copy fails; no partial copy remains.
        """
        folder = self._unseen(name, "tmp")
        folder.mkdir(parents=True)
        try:
            for file in FILES:
                if (source / file).exists():
                    shutil.copy2(source / file, folder / file)
            if not is_version(folder, version):
                raise CheckpointError(
                    f"version {version} of {name} is damaged, or changed while it was copied"
                )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return folder

    def move_aside(self, name: str, place: Path, model_folder: Path) -> Path:
        """Rename a model's folder in one step, and return its new path for `add_version`.

        `place` is what is renamed: `model_folder`, or a link to a folder that contains it. Raises
        OSError if `place` cannot be renamed, and CheckpointError if a linked model cannot be
        copied; nothing is changed then.
        """
        # Of a symbolic link, only the link is renamed, so its target is copied first. Nothing
        # behind a link is changed.
        links = [file for file in FILES if (model_folder / file).is_symlink()]
        if (place.is_symlink() and model_folder.exists()) or links:
            self.keep(name, model_folder, version_of(model_folder))
        aside = self._unseen(name, "aside")
        aside.parent.mkdir(exist_ok=True)
        place.rename(aside)
        if links and not aside.is_symlink():
            for file in FILES:
                (aside / file).unlink(missing_ok=True)
        return aside

    def add_version(self, name: str, aside: Path, model_folder: Path) -> None:
        """Add the folder that `move_aside` returned to the versions, as the newest version.

        Files that do not belong to the model return to `model_folder`. A failure is logged, and the
        rest stays in `aside`.
        """
        try:
            # A link has already been copied by `move_aside`.
            if aside.is_symlink():
                aside.unlink()
                return
            # Return the files that do not belong to the model.
            for other in [path for path in aside.iterdir() if path.name not in FILES]:
                model_folder.mkdir(exist_ok=True)
                other.rename(model_folder / other.name)
            # Nothing remains if the folder held no model.
            if not any(aside.iterdir()):
                aside.rmdir()
                return
            # Add the model to the versions, unless that version exists there already.
            version = version_of(aside)
            target = self.path(name, version)
            if is_version(target, version):
                shutil.rmtree(aside, ignore_errors=True)
            else:
                self._put(aside, target, version)
            os.utime(target)
            self._remove_old(name)
        except (OSError, CheckpointError) as error:  # an incomplete model, or a full disk
            log.warning("model %s: the previous version remains in %s (%s)", name, aside, error)

    def _put(self, folder: Path, target: Path, version: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # an existing target is damaged
        try:
            folder.rename(target)
        except OSError:
            if not is_version(target, version):  # another replica may have finished first
                raise

    def _unseen(self, name: str, why: str) -> Path:
        """Return a new path whose name begins with a dot, so that `of` ignores it."""
        return self.folder / f".{name}.{os.getpid()}.{time.monotonic_ns()}.{why}"

    def _remove_old(self, name: str) -> None:
        for stale in self.of(name)[KEPT_VERSIONS:]:
            shutil.rmtree(self.path(name, stale), ignore_errors=True)


def is_version(folder: Path, version: str) -> bool:
    """Whether the files in `folder` are complete and have this version."""
    try:
        return version_of(folder) == version
    except CheckpointError:
        return False
