"""Writes, reads and checks `fit.pt`, the file of a checkpoint with the complete training state."""

import io
import math
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genray.errors import CheckpointError, RunFault, first_line
from genray.gen.data.load import changed

FILE = "fit.pt"


def write_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` to `folder`/fit.pt. Raises OSError if the file cannot be written."""
    # The state is serialised in memory first, so that a full disk raises OSError. `torch.save` to a
    # file would raise other errors.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    (folder / FILE).write_bytes(buffer.getbuffer())


def read_state(folder: Path, device: torch.device) -> dict[str, Any]:
    """Return the state that `write_state` wrote to `folder`, with its tensors on `device`.

    Code that the file may contain is not run.
    """
    state: dict[str, Any] = torch.load(folder / FILE, map_location=device, weights_only=True)
    return state


@contextmanager
def checkpoint_errors(folder: Path) -> Iterator[None]:
    """Turn an error of the context into a CheckpointError with a message of one line.

    Such an error means that the checkpoint is missing or damaged, or belongs to another model or
    other data.
    """
    try:
        yield
    except (
        OSError,
        RuntimeError,
        KeyError,
        ValueError,
        TypeError,
        EOFError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{folder}: does not fit this model ({first_line(error)})") from error


def check_same_rows(saved: dict[str, Any] | None, rows: dict[str, Any] | None) -> None:
    """Raise ValueError when the files or words of the data set changed since the run started.

    Args:
        saved: the description of the rows in the checkpoint; None in checkpoints of older versions,
            for which only the photographs of `--data photos` are checked.
        rows: the description of the rows now; None for data sets that cannot change.
    """
    if rows and changed(saved, rows):
        what = "photographs of scikit-image" if rows["data"] == "photos" else "files or words"
        raise ValueError(
            f"--data {rows['data']}: the {what} changed since the run started, and the "
            "held-out rows would be different; restore the data or start a new run"
        )


def check_finite(values: Mapping[str, float], step: int) -> None:
    """Raise RunFault for the first of `values` that is infinite or NaN after step `step`."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise RunFault(f"{name} is {value} at step {step}: try a lower --learning-rate")


def check_finite_weights(networks: nn.Module, step: int) -> None:
    """Raise RunFault when a weight or a norm's statistic is infinite or NaN after step `step`.

    The last update can make a weight infinite although the step's loss was finite.
    """
    for name, tensor in networks.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise RunFault(
                f"{name} is no longer finite at step {step}: try a lower --learning-rate"
            )
