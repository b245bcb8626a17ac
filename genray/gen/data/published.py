"""Loads published image data sets with torchvision, with the publishers' splits.

torchvision compares the hashes of the files of SVHN and CIFAR-10 with the publishers' hashes before
it reads them. It reads the files of MNIST, once they are unpacked, without such a comparison.

Fashion-MNIST is read from Debian's package if it is installed. Missing files are downloaded.
Without a network, an error is raised within seconds; it names the missing files and their
directory.
"""

import socket
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import ConfigError, require
from genray.gen.data.idx import read_idx
from genray.gen.data.types import Source

PROBE_S = 5.0
"""Seconds within which a publisher's server must answer before a download is tried."""


@dataclass(frozen=True, kw_only=True)
class _Published:
    """A data set that torchvision can load."""

    class_name: str
    """torchvision's class."""
    folder: str
    """Directory of the files, relative to the directory of all data sets."""
    files: tuple[str, ...]
    url: str
    """The publisher's URL, without the name of the file."""
    classes: tuple[str, ...]
    licence: str


DEBIAN = {"fashion-mnist": Path("/usr/share/datasets/fashion-mnist")}
"""Directories of the data sets that Debian packages: dataset-fashion-mnist."""

_DIGITS = tuple("0123456789")
_MNIST_FILES = tuple(
    f"{part}-{what}-ubyte.gz"
    for part in ("train", "t10k")
    for what in ("images-idx3", "labels-idx1")
)
_PUBLISHED = {
    "mnist": _Published(
        class_name="MNIST",
        folder="MNIST/raw",
        files=_MNIST_FILES,
        url="https://ossci-datasets.s3.amazonaws.com/mnist/",
        classes=_DIGITS,
        licence="CC BY-SA 3.0 (LeCun, Cortes)",
    ),
    "fashion-mnist": _Published(
        class_name="FashionMNIST",
        folder="FashionMNIST/raw",
        files=_MNIST_FILES,
        url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        classes=(
            "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag",
            "boot",
        ),
        licence="MIT (Zalando)",
    ),
    "svhn": _Published(
        class_name="SVHN",
        folder="SVHN",
        files=("train_32x32.mat", "test_32x32.mat"),
        url="http://ufldl.stanford.edu/housenumbers/",
        classes=_DIGITS,
        licence="non-commercial use (Netzer 2011)",
    ),
    "cifar10": _Published(
        class_name="CIFAR10",
        folder="CIFAR10",
        files=("cifar-10-python.tar.gz",),
        url="https://www.cs.toronto.edu/~kriz/",
        classes=(
            "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
            "truck",
        ),
        licence="none stated (Krizhevsky 2009)",
    ),
}  # fmt: skip


def load_published(name: str, folder: Path, *, download: bool = True) -> Source:
    """Load a published data set from `folder`, with the publishers' split.

    Debian's package is used unless `folder` contains all files. `download`: whether missing files
    may be downloaded. Raises ConfigError when files are missing and cannot be downloaded (without
    a network, within seconds); the message names the files and their directory. Raises ConfigError,
    too, when a file of the package is damaged.
    """
    published = _PUBLISHED[name]
    place = folder / published.folder
    if name in DEBIAN and DEBIAN[name].is_dir() and not _has_files(published, place):
        train, test = _read_debian(name, DEBIAN[name])
    else:
        train, test = _load_torchvision(name, folder, place, download)
    return Source(
        name, train[0], test[0], train[1], test[1],
        published.classes, published.licence, {"split": "as published"},
    )  # fmt: skip


def _has_files(published: _Published, place: Path) -> bool:
    """Return whether `place` contains all files, compressed or unpacked. A download that failed
    may have left an empty directory, or some of the files.
    """
    return all(
        (place / file).is_file() or (place / file.removesuffix(".gz")).is_file()
        for file in published.files
    )


_Part = tuple[np.ndarray, np.ndarray]
"""Images, uint8 [N, C, H, W], and labels, int64 [N]."""


def _read_debian(name: str, place: Path) -> tuple[_Part, _Part]:
    """Read the training and test rows from gzipped IDX files, whose checksums are compared."""
    parts = []
    for part in ("train", "t10k"):
        files = (f"{part}-images-idx3-ubyte.gz", f"{part}-labels-idx1-ubyte.gz")
        try:
            images, label = (read_idx(place / file) for file in files)
        except (OSError, ValueError) as error:
            reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
            raise ConfigError(
                f"--data {name}: {reason}; reinstall the package: apt-get install --reinstall "
                f"dataset-{name}"
            ) from error
        parts.append((images[:, None], label.astype(np.int64)))
    return parts[0], parts[1]


def _load_torchvision(name: str, folder: Path, place: Path, download: bool) -> tuple[_Part, _Part]:
    """Load the training and test rows with torchvision; raises the errors of `load_published`."""
    published = _PUBLISHED[name]
    class_name, files, url = published.class_name, published.files, published.url
    # Open the files if they exist; otherwise download the files, if the server answers.
    try:
        train, test = _open_published(class_name, folder, download=False)
    except (RuntimeError, OSError, ValueError):
        missing = [file for file in files if not (place / file).exists()]
        require(
            download,
            f"--data {name}: the files are missing or damaged; put {', '.join(missing or files)} "
            f"from {url} into {place}",
        )
        try:
            probe(url + (missing or files)[0])
            print(
                f"--data {name}: downloading {', '.join(missing or files)} from {url} to {place}",
                file=sys.stderr,
            )
            with _socket_timeout(PROBE_S):
                train, test = _open_published(class_name, folder, download=True)
        except (RuntimeError, OSError, ValueError, EOFError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            what = ", ".join(missing or files)
            raise ConfigError(
                f"--data {name}: the files are missing or damaged and cannot be downloaded "
                f"({reason}); put {what} from {url} into {place}"
            ) from error
    # Both parts become arrays [N, C, H, W] and [N].
    parts = []
    for part in (train, test):
        images = np.asarray(part.data)
        if images.ndim == 3:
            images = images[:, None]
        elif images.shape[3] == 3:  # CIFAR-10's channels are last, SVHN's come first
            images = np.moveaxis(images, 3, 1)
        label = part.labels if class_name == "SVHN" else part.targets
        parts.append((np.ascontiguousarray(images), np.asarray(label, np.int64)))
    return parts[0], parts[1]


def _open_published(class_name: str, folder: Path, download: bool) -> tuple[Any, Any]:
    """Return torchvision's training and test data sets."""
    from torchvision import datasets

    make = getattr(datasets, class_name)
    if class_name == "SVHN":
        return tuple(
            make(folder / "SVHN", split=part, download=download) for part in ("train", "test")
        )
    root = folder / "CIFAR10" if class_name == "CIFAR10" else folder
    return tuple(make(root, train=part, download=download) for part in (True, False))


def probe(url: str, seconds: float = PROBE_S) -> None:
    """Raise OSError unless a server answers at `url` without an error, within `seconds`.

    The statuses 403 and 405 also count as an answer, because some servers refuse HEAD requests. The
    request runs in a thread, because resolving a host name has no timeout.
    """
    result: list[str] = [f"no answer in {seconds:g} s"]

    def ask() -> None:
        try:
            with urllib.request.urlopen(
                urllib.request.Request(url, method="HEAD"), timeout=seconds
            ):
                result[0] = ""
        except urllib.error.HTTPError as error:
            result[0] = "" if error.code in (403, 405) else f"HTTP {error.code}"
        except (OSError, ValueError) as error:
            result[0] = str(getattr(error, "reason", error)) or type(error).__name__

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    if result[0]:
        raise OSError(result[0])


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the process's default timeout of sockets to four times `seconds` while the context is
    active.

    torchvision sets no timeout, so the default timeout ends the download from a server that stops
    answering.
    """
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds * 4)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
