"""Finds the files of a data set below a folder: hidden names are skipped, links are followed
once.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_Identity = tuple[int, int]
"""(device, inode): what tells one real folder from another."""


@dataclass
class FoundFiles:
    """Files below `folder`, and what was passed over on the way."""

    folder: Path
    paths: list[Path] = field(default_factory=list)
    """Sorted. A path goes through the links that led to the file."""
    hidden: list[str] = field(default_factory=list)
    """Names that begin with a dot, relative to the folder: of folders, and of files with a suffix
    that was asked for."""
    followed: list[str] = field(default_factory=list)
    """Links to folders whose files are among `paths`."""
    skipped_links: list[str] = field(default_factory=list)
    """Links to folders that had been read already or contain the folder, and links to nothing."""

    def about(self) -> dict[str, int]:
        """Counts for the record of a data set."""
        return {"hidden_names_skipped": len(self.hidden), "links_followed": len(self.followed)}

    def __str__(self) -> str:
        """What a person should know, e.g. "1 hidden name skipped (.ipynb_checkpoints)"; "" for
        nothing.
        """
        kinds = (
            (self.hidden, "hidden name", "skipped"),
            (self.followed, "link to a folder", "followed"),
            (
                self.skipped_links,
                "link",
                "skipped: it leads nowhere, or to a folder that is read anyway",
            ),
        )
        return "; ".join(_counted(names, what, done) for names, what, done in kinds if names)


def _counted(names: list[str], what: str, done: str) -> str:
    first, _, rest = what.partition(" to ")
    noun = first if len(names) == 1 else f"{first}s"
    if rest:
        noun += f" to {rest if len(names) == 1 else 'folders'}"
    if len(names) > 1:
        done = done.replace("it leads", "they lead").replace("a folder that is", "folders that are")
    more = f", and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{len(names)} {noun} {done} ({', '.join(names[:3])}{more})"


def find_files(folder: Path, suffixes: Sequence[str]) -> FoundFiles:
    """Files below `folder` whose suffix, in lower case, is one of `suffixes`.

    Names that begin with a dot (.ipynb_checkpoints, ._photo.jpg) are skipped. Links to files and to
    folders are followed. Each real folder is read once, so that links cannot make a loop: folders
    come before links to them, and a link to a folder that contains `folder` is skipped.
    """
    found = FoundFiles(folder)
    seen = {_identity(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    waiting: list[Path] = [folder]
    links: list[Path] = []
    while waiting or links:
        if not waiting:  # every folder that can be reached without a link has been read
            link = links.pop(0)
            name = str(link.relative_to(folder))
            if not _exists(link) or _identity(link) in seen:
                found.skipped_links.append(name)
                continue
            seen.add(_identity(link))
            found.followed.append(name)
            waiting.append(link)
        for entry in _entries(waiting.pop(0)):
            path = Path(entry.path)
            wanted = path.suffix.lower() in suffixes
            if entry.name.startswith("."):
                if wanted or _is_dir(entry):
                    found.hidden.append(str(path.relative_to(folder)))
            elif entry.is_symlink() and (_is_dir(entry) or not _exists(path)):
                links.append(path)
            elif _is_dir(entry):
                if _identity(path) in seen:  # a link has led into the middle of this tree before
                    continue
                seen.add(_identity(path))
                waiting.append(path)
            elif wanted and entry.is_file():
                found.paths.append(path)
    found.paths.sort()
    return found


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or leads to one; False for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    """Whether a path leads to something; False for a link that leads to itself."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Sorted; none of a folder that may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return []


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino
