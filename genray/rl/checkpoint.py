"""Writes and reads the learner of a DQN checkpoint, and lists the checkpoint's replay shards."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from genray.errors import CheckpointError
from genray.rl.learner import Learner
from genray.runs.storage import Place


def save_learner(learner: Learner, folder: Path) -> None:
    """Write `learner.pt`.

    The state is serialised in memory first, because `torch.save` to a file on a full disk does not
    raise OSError.
    """
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    (folder / "learner.pt").write_bytes(buffer.getbuffer())


def load_learner(learner: Learner, folder: Path) -> None:
    """Restore a learner from `learner.pt`.

    Only tensors and plain values are accepted, so that code in the file is never executed. Raises
    CheckpointError when the weights or the optimizer state do not fit the learner.
    """
    try:
        learner.load_state_dict(
            torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
        )
    except (RuntimeError, KeyError, ValueError) as error:
        # PyTorch's first line is only a heading, so the second line is kept as well.
        what = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise CheckpointError(
            f"{folder}: does not fit this network ({what}); resume with the same --dueling, "
            "--hidden, --channels, "
            "--layer-norm, --past-actions, --lstm-units, --encoder, --head and --optimizer"
        ) from error


def shards_of(
    state: dict[str, Any], shards: int, folder: Place
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Return (index, state) of the shards in a checkpoint.

    Shards that were down when the checkpoint was written are left out; they stay empty. Raises
    CheckpointError unless the checkpoint has as many shards as the run.
    """
    if len(state["shards"]) != shards:
        saved = len(state["shards"])
        raise CheckpointError(
            f"{folder}: a replay of {saved} shards; resume with --shards {saved}, not {shards}"
        )
    return (
        (index, saved) for index, saved in enumerate(state["shards"]) if not saved.get("absent")
    )
