"""What models have been: MODELS_DIR/.versions/NAME/VERSION, newest last, for roll-backs.

What is replaced or deleted is never thrown away unread: its folder is moved aside, which needs
no room on the disk; then its model goes among the versions, and whatever lay beside it goes back
to where it was.
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
"""A model's. Nothing else in its folder is ours to move."""


class Versions:
    """The versions of all models of a directory. Several replicas may work in it at a time."""

    def __init__(self, models_dir: Path):
        self.folder = models_dir / VERSIONS

    def of(self, name: str) -> list[str]:
        """Versions on disk, newest first."""
        folder = self.folder / name
        if not NAME.fullmatch(name) or not folder.is_dir():
            return []
        paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
        return [
            path.name
            for path in sorted(paths, key=lambda path: path.stat().st_mtime_ns, reverse=True)
        ]

    def path(self, name: str, version: str) -> Path:
        return self.folder / name / version

    def keep(self, name: str, place: Path, version: str) -> None:
        """Make a copy of a version, as the newest. Raises OSError or CheckpointError where none
        can be made.
        """
        target = self.path(name, version)
        if not is_version(target, version):
            copy = self.copied(name, place, version)
            try:
                self._put(copy, target, version)
            finally:
                shutil.rmtree(copy, ignore_errors=True)
        os.utime(target)
        self._forget_old(name)

    def copied(self, name: str, source: Path, version: str) -> Path:
        """A whole copy of `version` in a folder that nobody looks at. Raises OSError or
        CheckpointError, leaving none.
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

    def move_aside(self, name: str, place: Path) -> Path:
        """Take a model's folder away, in one step; `file_away` is next. Raises OSError, having
        changed nothing.
        """
        if place.is_symlink():  # only the link is ours: a copy of what it shows makes it come back
            self.keep(name, place, version_of(place))
        aside = self._unseen(name, "aside")
        aside.parent.mkdir(exist_ok=True)
        place.rename(aside)
        return aside

    def file_away(self, name: str, aside: Path, place: Path) -> None:
        """Put what was moved aside among the versions, as the newest, and what was no model's
        back into `place`.
        """
        try:
            if aside.is_symlink():
                aside.unlink()
                return
            for other in [path for path in aside.iterdir() if path.name not in FILES]:
                place.mkdir(exist_ok=True)
                other.rename(place / other.name)
            if not any(aside.iterdir()):
                aside.rmdir()
                return
            version = version_of(aside)
            target = self.path(name, version)
            if is_version(target, version):
                shutil.rmtree(aside, ignore_errors=True)
            else:
                self._put(aside, target, version)
            os.utime(target)
            self._forget_old(name)
        except (OSError, CheckpointError) as error:  # half a model, a full disk
            log.warning("model %s: what it was before is left in %s (%s)", name, aside, error)

    def _put(self, folder: Path, target: Path, version: str) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(target, ignore_errors=True)  # what is there is damaged
        try:
            folder.rename(target)
        except OSError:
            if not is_version(target, version):  # another replica was quicker
                raise

    def _unseen(self, name: str, why: str) -> Path:
        return self.folder / f".{name}.{os.getpid()}.{time.monotonic_ns()}.{why}"

    def _forget_old(self, name: str) -> None:
        for stale in self.of(name)[KEPT_VERSIONS:]:
            shutil.rmtree(self.path(name, stale), ignore_errors=True)


def is_version(folder: Path, version: str) -> bool:
    """Whether the files in `folder` are whole, and of this version."""
    try:
        return version_of(folder) == version
    except CheckpointError:
        return False
