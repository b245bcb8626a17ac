"""VGG-19's ImageNet weights: torchvision's file in its cache, or a download that gives up
instead of hanging.
"""

import hashlib
import shutil
import socket
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import Tensor

from genray.errors import CheckpointError, ResourceError
from genray.runs.files import writing_file

COUNTS, WIDTHS = (2, 2, 4, 4, 1), (64, 128, 256, 512, 512)
"""Convolutions and channels of each block, up to conv5_1: nothing after it is used by any
published style loss.
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pictures in 0..1, by which torchvision's weights expect theirs normalised."""
INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
"""Of those convolutions in torchvision's `features`."""
FILE = "vgg19-dcbb9e9d.pth"
"""As torchvision calls it; the digits are the first of its SHA-256."""
PATIENCE_S = 10.0
"""For the name, for the connection, and between two pieces of the download, each."""


def cached_file() -> Path:
    """Where torchvision keeps the weights, whether they are there or not:
    $TORCH_HOME/hub/checkpoints/…
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def weights_url() -> str:
    """Where torchvision has them from. Not asked for before it is needed: torchvision takes
    seconds to import.
    """
    from torchvision.models import VGG19_Weights

    return VGG19_Weights.IMAGENET1K_V1.url


def open_weights(say: Callable[[str], None]) -> tuple[Path, list[tuple[Tensor, Tensor]]]:
    """(the file, weight and bias of each convolution up to conv5_1), downloading the file (548
    MB) if need be.

    Raises ResourceError without network or disk, CheckpointError for a file that is not VGG-19's.
    """
    path = cached_file()
    if path.exists():
        say(f"vgg19: using {path}")
    else:
        say(f"vgg19: not in {path.parent}; downloading it (548 MB)")
        download(weights_url(), path)
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        pairs = [
            (state[f"features.{index}.weight"], state[f"features.{index}.bias"])
            for index in INDICES
        ]
        shapes = [tuple(weight.shape) for weight, _ in pairs]
    except (
        Exception
    ) as error:  # a damaged zip, a foreign pickle, missing keys: torch has no common error for them
        raise CheckpointError(
            f"{path}: not VGG-19's weights, or damaged; delete it, or use --features untrained"
        ) from error
    outputs = [width for count, width in zip(COUNTS, WIDTHS) for _ in range(count)]
    if shapes != [(wide, before, 3, 3) for before, wide in zip([3, *outputs], outputs)]:
        raise CheckpointError(
            f"{path}: not VGG-19's weights; delete it, or use --features untrained"
        )
    return path, pairs


def download(url: str, path: Path) -> None:
    """Fetch `url` whole or not at all; the hash in torchvision's file names is checked.

    Raises ResourceError after PATIENCE_S without an answer: a name server that never answers
    would otherwise hold the command for minutes, beyond the reach of any socket timeout, so the
    name is looked up in a thread of its own.
    """
    try:
        _look_up(urlsplit(url).hostname or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_file(path) as temporary:
            _fetch(url, temporary)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not digest.startswith(path.stem.rpartition("-")[2]):
                raise OSError("the file that came is not the one asked for")
    except OSError as error:  # URLError and timeouts are among them
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ResourceError(
            f"--features vgg19: its weights are not at {path} and cannot be downloaded ({reason}); "
            "put the file there, "
            "or use --features untrained"
        ) from error


def _fetch(url: str, path: Path) -> None:
    with (
        urllib.request.urlopen(url, timeout=PATIENCE_S) as answer,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file, 1 << 20)


def _look_up(host: str) -> None:
    """Raises OSError when `host` has no address, or none within PATIENCE_S. A proxy, where one
    is set, does it itself.
    """
    if urllib.request.getproxies().get("https"):
        return
    failure: list[OSError] = [TimeoutError(f"no answer about {host} in {PATIENCE_S:g} s")]

    def work() -> None:
        try:
            socket.getaddrinfo(host, 443)
            failure.clear()
        except OSError as error:
            failure[:] = [error]

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    if failure:
        raise failure[0]
