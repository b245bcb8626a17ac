"""Early stopping: ends a stage when its validation loss no longer improves."""

import math
from typing import Any

from torch import nn


class EarlyStopping:
    """Counts evaluations without a better validation loss, and keeps the best weights.

    Args:
        patience: number of evaluations in a row without a better loss that end the stage; 0: no
            early stopping, and no copy of the weights.
    """

    def __init__(self, patience: int):
        self._patience = patience
        self._forget()

    def _forget(self) -> None:
        self._best: dict[str, Any] | None = None
        self._best_loss, self._worse = math.inf, 0

    def stops(self, loss: float, networks: nn.Module) -> bool:
        """Record a validation loss; returns whether the stage ends now.

        A loss that equals the best one is not better.
        """
        if not self._patience:
            return False
        if loss < self._best_loss:
            self._best_loss, self._worse = loss, 0
            self._best = {name: tensor.clone() for name, tensor in networks.state_dict().items()}
            return False
        self._worse += 1
        return self._worse >= self._patience

    def end_stage(self, networks: nn.Module) -> None:
        """Load the best weights into `networks`, if any were kept, and reset for the next stage."""
        if self._best is not None:
            networks.load_state_dict(self._best)
        self._forget()

    def state_dict(self) -> dict[str, Any]:
        """Return the entries of a checkpoint: the best weights, the best loss, and the number of
        evaluations since then.
        """
        return {"best": self._best, "best_loss": self._best_loss, "worse": self._worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the entries that `state_dict` returned."""
        self._best, self._best_loss, self._worse = state["best"], state["best_loss"], state["worse"]
