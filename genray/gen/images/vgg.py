"""Loads VGG-19's ImageNet weights from torchvision's cache, or downloads them with timeouts."""

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
"""Convolutions and channels of each block, up to conv5_1, the deepest layer that published style
losses use.
"""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of ImageNet's colours in 0..1, for normalising the network's inputs."""
INDICES = (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28)
"""Indices of the convolutions in torchvision's `features`."""
FILE = "vgg19-dcbb9e9d.pth"
"""torchvision's file name; it contains the first digits of the file's SHA-256."""
PATIENCE_S = 10.0
"""Timeout in seconds of each stage of a download: resolving the host name, connecting, and
receiving the next part.
"""


def cached_file() -> Path:
    """Return torchvision's path of the weights, $TORCH_HOME/hub/checkpoints/…, which may not
    exist.
    """
    return Path(torch.hub.get_dir()) / "checkpoints" / FILE


def weights_url() -> str:
    """Return the URL of the weights. The first call imports torchvision, which takes seconds."""
    from torchvision.models import VGG19_Weights

    return VGG19_Weights.IMAGENET1K_V1.url


def open_weights(say: Callable[[str], None]) -> tuple[Path, list[tuple[Tensor, Tensor]]]:
    """Return the file, and the weight and bias of each convolution up to conv5_1.

    The file (548 MB) is downloaded if it is not cached. `say` is called with a message about the
    cached file or the download. Raises ResourceError if the download fails, CheckpointError for a
    file that is not VGG-19's.
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
    ) as error:  # torch has no common class for a damaged zip, an invalid pickle, a missing key
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
    """Download `url` to `path`, and check the file's hash against its name. The write is atomic.

    Raises ResourceError if the download fails, or after PATIENCE_S seconds without an answer. The
    host name is resolved in a thread, because a name server that does not answer would block for
    minutes, and socket timeouts do not apply.
    """
    try:
        _look_up(urlsplit(url).hostname or "")
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing_file(path) as temporary:
            _fetch(url, temporary)
            with temporary.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if not digest.startswith(path.stem.rpartition("-")[2]):
                raise OSError("the downloaded file has another hash than its name says")
    except OSError as error:  # URLError and timeouts are among them
        reason = getattr(error, "reason", None) or error.strerror or error
        raise ResourceError(
            f"--features vgg19: its weights are not at {path} and cannot be downloaded ({reason}); "
            "put the file there, or use --features untrained"
        ) from error


def _fetch(url: str, path: Path) -> None:
    """Write the content of `url` to `path`, part by part."""
    with (
        urllib.request.urlopen(url, timeout=PATIENCE_S) as answer,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(answer, file, 1 << 20)


def _look_up(host: str) -> None:
    """Raise OSError unless `host` is resolved within PATIENCE_S seconds.

    With a proxy, nothing is checked, because the proxy resolves names.
    """
    if urllib.request.getproxies().get("https"):
        return
    failure: list[OSError] = [TimeoutError(f"{host} was not resolved in {PATIENCE_S:g} s")]

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
