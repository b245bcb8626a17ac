"""Finds the files of a data set in a directory tree; skips hidden names, and follows links."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_Identity = tuple[int, int]
"""(device, inode) of a directory, which identifies the directory."""


@dataclass
class FoundFiles:
    """Files found below `folder`, and the names and links that were skipped or followed.

    Names and links are paths relative to `folder`.
    """

    folder: Path
    paths: list[Path] = field(default_factory=list)
    """Paths of the files, sorted. Links in a path are not resolved."""
    hidden: list[str] = field(default_factory=list)
    """Directories, and files with a wanted suffix, whose names begin with a dot; all are
    skipped."""
    followed: list[str] = field(default_factory=list)
    """Links to directories that were followed; the files found there are among `paths`."""
    skipped_links: list[str] = field(default_factory=list)
    """Links to directories that are read anyway, links to parents of `folder`, and broken links."""

    def about(self) -> dict[str, int]:
        """Return the counts of hidden names and followed links, for a data set's description."""
        return {"hidden_names_skipped": len(self.hidden), "links_followed": len(self.followed)}

    def __str__(self) -> str:
        """Return a message about skipped names and links, e.g.
        "1 hidden name skipped (.ipynb_checkpoints)"; "" if there are none.
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
    """Find the files below `folder` whose suffix, in lower case, is one of `suffixes`.

    Skips names that begin with a dot (.ipynb_checkpoints, ._photo.jpg). Follows links to files and
    directories. Reads each directory once, so that links cannot cause a loop. Directories that can
    be reached without a link are read first, and a link to a parent of `folder` is skipped.
    """
    found = FoundFiles(folder)
    seen = {_identity(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    waiting: list[Path] = [folder]
    links: list[Path] = []
    while waiting or links:
        if not waiting:  # all directories that can be reached without a link have been read
            link = links.pop(0)
            name = str(link.relative_to(folder))
            if not _exists(link) or _identity(link) in seen:
                found.skipped_links.append(name)
                continue
            seen.add(_identity(link))
            found.followed.append(name)
            waiting.append(link)
        # Each entry is a hidden name, a link to follow later, a directory, or a file.
        for entry in _entries(waiting.pop(0)):
            path = Path(entry.path)
            wanted = path.suffix.lower() in suffixes
            if entry.name.startswith("."):
                if wanted or _is_dir(entry):
                    found.hidden.append(str(path.relative_to(folder)))
            elif entry.is_symlink() and (_is_dir(entry) or not _exists(path)):
                links.append(path)
            elif _is_dir(entry):
                if _identity(path) in seen:  # already read through a link
                    continue
                seen.add(_identity(path))
                waiting.append(path)
            elif wanted and entry.is_file():
                found.paths.append(path)
    found.paths.sort()
    return found


def report_skipped(option: str, files: FoundFiles, unreadable: list[str]) -> None:
    """Report skipped names and links, and unreadable files, on stderr.

    `option`: the value of --data. `unreadable`: the name of each file with a reason.
    """
    if str(files):
        print(f"--data {option}: {files}", file=sys.stderr)
    if unreadable:
        more = f", and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        noun = "file" if len(unreadable) == 1 else "files"
        print(
            f"--data {option}: {len(unreadable)} {noun} skipped: {', '.join(unreadable[:5])}{more}",
            file=sys.stderr,
        )


def _is_dir(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a directory or a link to one; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _exists(path: Path) -> bool:
    """Return whether a path exists, with links followed; False for a link to itself."""
    try:
        path.stat()
    except OSError:
        return False
    return True


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return the directory's entries, sorted; [] if the directory may not be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except PermissionError:
        return []


def _identity(path: Path) -> _Identity:
    status = path.stat()
    return status.st_dev, status.st_ino
