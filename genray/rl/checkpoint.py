"""Writes and reads what a DQN checkpoint holds: the learner and the replay shards."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from genray.errors import CheckpointError
from genray.rl.learner import Learner
from genray.runs.storage import Place


def save_learner(learner: Learner, folder: Path) -> None:
    """Write `learner.pt`. Serialised in memory first, so that a full disk is an OSError and
    nothing stranger.
    """
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    (folder / "learner.pt").write_bytes(buffer.getbuffer())


def load_learner(learner: Learner, folder: Path) -> None:
    """Restore a learner from `learner.pt`; tensors and plain values only, nothing in the file is
    executed.

    Raises CheckpointError when the weights or the optimizer do not fit.
    """
    try:
        learner.load_state_dict(
            torch.load(folder / "learner.pt", map_location="cpu", weights_only=True)
        )
    except (RuntimeError, KeyError, ValueError) as error:
        # PyTorch's first line is only a heading
        what = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise CheckpointError(
            f"{folder}: does not fit this network ({what}); resume with the same --dueling, "
            "--hidden, --channels, "
            "--layer-norm, --past-actions and --optimizer"
        ) from error


def shards_of(
    state: dict[str, Any], shards: int, folder: Place
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The shards that a checkpoint holds, each with its index; one that was down then is not
    among them: it is empty.

    Raises CheckpointError unless the checkpoint's replay has as many shards as the run.
    """
    if len(state["shards"]) != shards:
        saved = len(state["shards"])
        raise CheckpointError(
            f"{folder}: a replay of {saved} shards; resume with --shards {saved}, not {shards}"
        )
    return (
        (index, saved) for index, saved in enumerate(state["shards"]) if not saved.get("absent")
    )
