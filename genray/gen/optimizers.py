"""Optimizers by name, learning-rate schedules, and the one place where a gradient step is taken."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from genray.errors import require
from genray.gen.world import ALONE, World


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """How gradients become steps."""

    optimizer: str = "adam"
    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    l2: float = 0.0
    grad_clip: float = 0.0
    schedule: Literal["constant", "inverse-sqrt", "cosine", "linear", "step", "exponential"] = "constant"

    def validate(self) -> None:
        require(self.learning_rate > 0, f"--learning-rate {self.learning_rate}: must be > 0, e.g. 1e-3")


class Updater:
    """Takes gradient steps on some parameters: accumulation, averaging over workers, penalties, clipping, schedule.

    `step(loss)` runs backward; every `accumulate`-th call also updates.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        config: OptimizerConfig,
        *,
        total_updates: int = 0,
        accumulate: int = 1,
        amp: str = "off",
        world: World = ALONE,
    ):
        self.parameters = list(parameters)
        self.config, self._world = config, world
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=config.learning_rate, betas=(config.beta1, config.beta2), fused=True
        )
        self.updates = 0

    def step(self, loss: Tensor) -> None:
        """Backward, and an update when it is due."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward(inputs=self.parameters)
        self._world.average(p.grad for p in self.parameters if p.grad is not None)
        self.optimizer.step()
        self.updates += 1

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.updates = state["updates"]
