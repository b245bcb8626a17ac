"""Writes files and directories so that a killed process leaves the old content or the new one.

A writer fills `.NAME.HOST.PID-N.tmp` beside NAME and then renames it. HOST, PID and N identify the
writer, so that leftovers of a dead writer can be distinguished from files that are still being
written. On file systems that cannot exchange two directories in one step, the old directory is
first renamed to `.NAME.HOST.PID-N.old`; `find_directory` returns the renamed directory if the
writer died before the end.
"""

import contextlib
import ctypes
import errno
import itertools
import os
import re
import shutil
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from genray.errors import ResourceError

LEFTOVER = re.compile(
    r"\.(?P<name>.+?)(?:\.(?P<host>[0-9a-f]{8}))?\.(?P<pid>\d+)(?:-(?P<count>\d+))?"
    r"(?:\.(?P<old>old))?(?:\.tmp)?"
)
"""Matches the names of unfinished writes, including names of earlier versions (without HOST and
N).
"""
OLD_AFTER_S = 86_400.0
"""Age in seconds of a leftover after which its writer counts as dead.

A younger leftover of another host counts as still being written, because the processes of that host
are not visible.
"""
LONGEST_NAME = 150
"""Most bytes of NAME in a temporary name. A name has at most 255 bytes, and the other parts need up
to 40.
"""
RENAME_EXCHANGE, AT_FDCWD = 2, -100
CANNOT_EXCHANGE = (errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.ENOTSUP, errno.EPERM)

_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"
_COUNT = itertools.count()
_cleared: set[str] = set()
"""Files whose leftovers this process has cleared, so that the directory is scanned only once for
each file.
"""
_open: set[str] = set()
"""Names of the temporary files that this process is writing now."""


# -- files -----------------------------------------------------------------------------------------


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file and its parent directories. The file is replaced atomically.

    Raises ResourceError if the file cannot be written.
    """
    with whole_file(path) as file:
        file.write(content)
    return path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a new file for writing, which gets the name `path` if the block succeeds.

    Makes the parent directories. Raises ResourceError if the file cannot be written, or if the
    block raises an OSError.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_file(path) as temporary, temporary.open("wb") as file:
            yield file
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(
            f"{path}: cannot be written ({reason}); choose another place"
        ) from error


@contextlib.contextmanager
def writing_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, which replaces `path` if the block succeeds.

    An exception in the block leaves `path` unchanged. Raises OSError.
    """
    if str(path) not in _cleared:
        _cleared.add(str(path))
        clear_leftovers(path.parent, only=path.name)
    with _temporary(path) as temporary:
        yield temporary
        temporary.replace(path)


# -- directories -----------------------------------------------------------------------------------


@contextlib.contextmanager
def replacing_directory(folder: Path) -> Iterator[Path]:
    """Yield a new directory beside `folder`, which replaces `folder` if the block succeeds.

    At every instant, `find_directory(folder)` returns the complete old or new directory. An
    exception in the block leaves `folder` unchanged. Raises OSError.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(folder.parent, only=folder.name)
    with _temporary(folder) as fresh:
        fresh.mkdir()
        yield fresh
        for path in (*fresh.rglob("*"), fresh):
            # Pipes and devices cannot be flushed.
            if path.is_file() or path.is_dir():
                sync(path)
        _swap(fresh, folder)
        sync(folder.parent)


def _swap(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`. The old directory is renamed to `fresh`, or removed."""
    try:
        # This works if `folder` does not exist or is empty.
        fresh.rename(folder)
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
    if exchange(fresh, folder):
        return
    # Without an exchange, the old directory is renamed first.
    with _temporary(folder, "old") as old:
        folder.rename(old)
        try:
            fresh.rename(folder)
        except BaseException:
            old.rename(folder)
            raise


def exchange(first: Path, second: Path) -> bool:
    """Exchange the names of two paths in one step. Returns False if the system does not support it.

    Raises OSError for any other failure.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in CANNOT_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(second))


def find_directory(folder: Path) -> Path:
    """Return `folder`, or the renamed old directory if a writer died before the end."""
    if not folder.exists():
        found = _leftovers(folder.parent)
        stem = _stem(folder.name)
        old = [path for path, match in found if match["old"] and match["name"] == stem]
        return max(old, key=_changed, default=folder)
    return folder


def remove_directory(folder: Path) -> None:
    """Remove a directory. Raises OSError.

    A killed process leaves the complete directory or nothing under the directory's name.
    """
    with _temporary(folder) as going:
        folder.rename(going)


# -- leftovers -------------------------------------------------------------------------------------


def clear_leftovers(parent: Path, *, only: str | None = None, exclusive: bool = False) -> None:
    """Remove the files and directories that dead writers left in the directory `parent`.

    A directory that was renamed and not replaced gets its name back. Errors are ignored.

    Args:
        parent: the directory.
        only: a name; leftovers of other names are not removed.
        exclusive: whether the caller has a lock that excludes every other writer. If so, all
            leftovers come from dead writers.
    """
    found = _leftovers(parent)
    if only is not None:
        found = [(path, match) for path, match in found if match["name"] == _stem(only)]
    for path, match in sorted(found, key=lambda each: _changed(each[0]), reverse=True):
        if path.name in _open or (not exclusive and _may_be_alive(path, match)):
            continue
        place = parent / match["name"]
        # Another process may have removed the leftover, or this process may lack permission.
        with contextlib.suppress(OSError):
            if match["old"] and not place.exists():
                path.rename(place)
            else:
                remove(path)


def _leftovers(parent: Path) -> list[tuple[Path, re.Match[str]]]:
    """Return the unfinished writes in `parent`, each with the parts of its name."""
    with contextlib.suppress(OSError):
        entries = [(path, LEFTOVER.fullmatch(path.name)) for path in parent.iterdir()]
        return [
            (path, match)
            for path, match in entries
            if match and (match["old"] or path.name.endswith(".tmp"))
        ]
    return []


def _may_be_alive(path: Path, match: re.Match[str]) -> bool:
    """Return whether the writer of a leftover may still be running."""
    if time.time() - _changed(path) > OLD_AFTER_S:
        return False
    if match["host"] not in (None, _HOST):
        return True  # Processes of another host are not visible.
    pid = int(match["pid"])
    if pid == os.getpid():
        return False  # The name is not in `_open`, so an earlier process had the same process id.
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _changed(path: Path) -> float:
    """Return when the path was last changed, in seconds since 1970; 0 if it does not exist."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


# -- parts -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _temporary(path: Path, kind: str = "tmp") -> Iterator[Path]:
    """Yield a name beside `path` that no other writer uses.

    When the block ends, a file or directory that still has this name is removed.
    """
    writer = f"{_HOST}.{os.getpid()}-{next(_COUNT)}"
    temporary = path.with_name(f".{_stem(path.name)}.{writer}.{kind}")
    _open.add(temporary.name)
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            remove(temporary)
        _open.discard(temporary.name)


def _stem(name: str) -> str:
    """Return NAME for use in temporary names: a very long name is cut and gets a checksum."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST_NAME:
        return name
    return os.fsdecode(whole[:LONGEST_NAME]) + f"{zlib.crc32(whole):08x}"


def remove(path: Path) -> None:
    """Remove a file, a link, or a directory with its content. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
