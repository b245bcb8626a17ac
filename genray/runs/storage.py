"""Reads and writes the files of a run in a local folder, or at a URL with pyarrow.

URLs are s3://bucket/run, gs://bucket/run, file:///mnt/run and others.

An object store cannot rename folders, and it writes each object completely or not at all. A folder
is therefore complete when the file that lists its content (a manifest, written last) exists. Each
file of a checkpoint gets a small file `NAME.crc32` with its size and checksum, so that the writer
of the manifest need not read gigabytes that other machines wrote.
"""

import contextlib
import os
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from genray.errors import CheckpointError, ConfigError

Place = Path | str
"""A local folder or file, or the URL of one."""

SUM = ".crc32"
"""Suffix of the file with the size and the checksum of a file."""
BLOCK = 1 << 24
"""Bytes that are copied at a time."""


def is_url(place: Place) -> bool:
    """Return whether a place is a URL."""
    return "://" in str(place)


def as_place(text: str) -> Place:
    """Convert the text of an option to a place.

    A URL stays text, because a Path would change s3:// to s3:/.
    """
    return text.rstrip("/") if is_url(text) else Path(text)


def absolute(place: Place) -> Place:
    """Make a path absolute, for a process with another working directory. URLs stay unchanged."""
    return place.resolve() if isinstance(place, Path) else place


def child(place: Place, *names: str) -> Place:
    """Return the path or URL of `names` below `place`.

    The options of a URL (?region=…) stay at its end.
    """
    if isinstance(place, Path):
        return place.joinpath(*names)
    path, mark, options = place.partition("?")
    return "/".join([path.rstrip("/"), *names]) + mark + options


def name_of(place: Place) -> str:
    """Return the last part of a path or of a URL's path."""
    return place.name if isinstance(place, Path) else PurePosixPath(urlsplit(place).path).name


def connect(url: str) -> tuple[Any, str]:
    """Open a URL. Returns (pyarrow's file system, the path in it).

    Raises ConfigError if pyarrow cannot open the URL.
    """
    import pyarrow
    from pyarrow.fs import FileSystem

    try:
        return FileSystem.from_uri(url)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ConfigError(
            f"{url}: {_reason(error)}; choose a folder, s3://BUCKET/NAME, gs://… or file:///…"
        ) from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def list_files(url: str) -> dict[str, int]:
    """Return the size in bytes of every file below `url`, by its name relative to `url`.

    The result is empty if `url` does not exist. Raises OSError, or ConfigError as `connect` does.
    """
    from pyarrow.fs import FileSelector, FileType

    system, path = connect(url)
    found = system.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
    root = PurePosixPath(path)
    return {
        str(PurePosixPath(one.path).relative_to(root)): one.size
        for one in found
        if one.type == FileType.File
    }


def read_file(place: Place) -> tuple[bytes, float]:
    """Read a file. Returns (its content, the time of its last change in seconds since 1970).

    Raises OSError; FileNotFoundError if the file does not exist.
    """
    if isinstance(place, Path):
        return place.read_bytes(), place.stat().st_mtime
    system, path = connect(place)
    with system.open_input_stream(path) as stream:
        return stream.read(), (system.get_file_info(path).mtime_ns or 0) / 1e9


def write_bytes(url: str, content: bytes) -> None:
    """Write an object completely or not at all. Raises OSError."""
    system, path = connect(url)
    _make_parent(system, path)
    partial = f"{path}.{os.getpid()}.part"
    with system.open_output_stream(partial) as stream:
        stream.write(content)
    system.move(partial, path)


def _make_parent(system: Any, path: str) -> None:
    """Make the parent folder of a file, on file systems that have folders."""
    parent = str(PurePosixPath(path).parent)
    # An object store has no folders, and checking for one needs rights on the whole bucket.
    if system.type_name in ("local", "hdfs", "abfs"):
        system.create_dir(parent, recursive=True)


def upload(file: Path, url: str, with_sum: bool = False) -> None:
    """Copy a file to `url`. Raises OSError.

    `with_sum`: whether to write a second file with the size and the checksum of this file.
    """
    system, path = connect(url)
    _make_parent(system, path)
    checksum = 0
    with file.open("rb") as source, system.open_output_stream(path) as target:
        while block := source.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
            target.write(block)
    if with_sum:
        name, mark, options = url.partition("?")
        write_bytes(f"{name}{SUM}{mark}{options}", f"{file.stat().st_size} {checksum}".encode())


def download(url: str, file: Path) -> int:
    """Copy `url` to a file, and make its parent folders; returns the CRC-32. Raises OSError."""
    system, path = connect(url)
    file.parent.mkdir(parents=True, exist_ok=True)
    checksum = 0
    with system.open_input_stream(path) as source, file.open("wb") as target:
        while block := source.read(BLOCK):
            checksum = zlib.crc32(block, checksum)
            target.write(block)
    return checksum


def remove_file(place: Place) -> None:
    """Remove one file. Raises OSError."""
    if isinstance(place, Path):
        place.unlink()
    else:
        system, path = connect(place)
        system.delete_file(path)


def delete(url: str) -> None:
    """Remove the folder `url` with its content. Raises OSError."""
    system, path = connect(url)
    system.delete_dir(path)


@contextlib.contextmanager
def writing(place: Place) -> Iterator[Path]:
    """Yield a folder to write into: `place` itself, or a temporary folder for a URL.

    The files of a temporary folder are uploaded if the block succeeds.
    """
    if isinstance(place, Path):
        place.mkdir(parents=True, exist_ok=True)
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="genray-") as name:
        folder = Path(name)
        yield folder
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            upload(file, str(child(place, *file.relative_to(folder).parts)), with_sum=True)


@contextlib.contextmanager
def reading(place: Place, deep: bool = True) -> Iterator[Path]:
    """Yield a folder to read from: `place` itself, or a local copy of a URL.

    `deep`: whether to copy subfolders. Raises CheckpointError if the checksum of a copied file is
    wrong, and OSError if a file cannot be read.
    """
    if isinstance(place, Path):
        yield place
        return
    with tempfile.TemporaryDirectory(prefix="genray-") as name:
        there = list_files(place)
        for file in there:
            if file.endswith(SUM) or ("/" in file and not deep):
                continue
            checksum = download(str(child(place, file)), Path(name) / file)
            if (
                file + SUM in there
                and int(read_file(child(place, file + SUM))[0].split()[1]) != checksum
            ):
                raise CheckpointError(
                    f"{place}: {file} is damaged (its checksum differs); remove this folder to "
                    "resume from an older checkpoint"
                )
        yield Path(name)
