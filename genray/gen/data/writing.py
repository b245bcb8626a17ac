"""Writes data sets that genray makes from play, as safetensors files with a recipe."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import ResourceError
from genray.runs.files import writing_file


def make_room(out: Path) -> None:
    """Create the directory of `out`. Raises ResourceError for a file that cannot be written, before
    minutes of play.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(
            f"--out {out}: {error.strerror}; choose a folder that can be written"
        ) from error
    if not os.access(out.parent, os.W_OK) or out.is_dir():
        raise ResourceError(f"--out {out}: cannot be written; name a file in a folder of yours")


def write_tensors(out: Path, tensors: dict[str, np.ndarray], recipe: Mapping[str, Any]) -> None:
    """Write the file completely or not at all. Raises ResourceError when it cannot be written."""
    from safetensors.numpy import save

    try:
        # Serialise in memory first, so that a full disk raises OSError.
        with writing_file(out) as temporary:
            temporary.write_bytes(save(tensors, metadata={"recipe": json.dumps(recipe)}))
    except OSError as error:
        raise ResourceError(
            f"--out {out}: cannot be written ({error.strerror}); choose another place"
        ) from error
