"""A small task with two stages for the tests of `Fit`, its data, and comparisons of weights."""

import numpy as np
import torch
from torch import Tensor, nn

from genray.gen.data.types import Data, Split
from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.task import Batch, Task
from genray.gen.training.updater import Updater

CONFIG = FitConfig(steps=7, batch_size=8, validate_every=3, log_every=2, patience=2)


def lines(rows: int = 40, seed: int = 0) -> Data:
    """Return labelled rows [N, 3], whose label is 1 where the first value is positive."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows + 20, 3, generator=generator)
    split = Split(x[:rows], (x[:rows, 0] > 0).long(), low=-3, high=3)
    return Data(
        "lines",
        split,
        Split(x[rows:], (x[rows:, 0] > 0).long(), low=-3, high=3),
        Split(x[:0], x[:0, 0].long()),
    )


class SmallTask(Task):
    """A task with two stages: a hidden layer with dropout and batch norm, then its head alone.

    Every kind of state takes part: dropout, batch norm, a moving average and random noise.
    """

    stages = ("whole", "head")

    def __init__(
        self, optimizer: OptimizerConfig | None = None, accumulate: int = 1, noisy: bool = True
    ):
        super().__init__()
        # Seed the weights, so that all tasks start alike, and restore the global generator.
        with torch.random.fork_rng():
            torch.manual_seed(0)
            hidden = [nn.BatchNorm1d(8), nn.Dropout(0.3)] if noisy else []
            self.body, self.head = (
                nn.Sequential(nn.Linear(3, 8), *hidden, nn.Tanh()),
                nn.Linear(8, 2),
            )
        self.average = nn.Linear(8, 2)
        self.average.load_state_dict(self.head.state_dict())
        self.networks.update({"body": self.body, "head": self.head, "average": self.average})
        self.optimizer = optimizer or OptimizerConfig(
            learning_rate=0.02, schedule="cosine", grad_clip=1.0
        )
        self.accumulate, self.noisy = accumulate, noisy
        self.evaluated: list[float] = []

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        parts = [self.body, self.head][stage:]
        parameters = [parameter for part in parts for parameter in part.parameters()]
        self.updaters = {
            "main": Updater(
                parameters, self.optimizer, total_updates=total_updates, accumulate=self.accumulate
            )
        }
        return data

    def step(self, batch: Batch) -> dict[str, Tensor]:
        assert batch.label is not None
        x = (
            batch.x + 0.1 * self.world.normal(len(batch.x), 3, device=batch.x.device)
            if self.noisy
            else batch.x
        )
        loss = nn.functional.cross_entropy(self.head(self.body(x)), batch.label)
        self.updaters["main"].step(loss)
        with torch.no_grad():
            for slow, fast in zip(self.average.parameters(), self.head.parameters()):
                slow.lerp_(fast, 0.1)
        return {"loss": loss.detach()}

    def evaluate(self, split: Split) -> dict[str, float]:
        assert not self.networks.training and not torch.is_grad_enabled()
        torch.randn(7)  # evaluation draws random numbers
        with torch.no_grad():
            loss = nn.functional.cross_entropy(
                self.head(self.body(split.all())), split.label
            ).item()
        self.evaluated.append(loss)
        return {"loss": loss}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        return {"noise": torch.randint(0, 256, (4, 4, 3), dtype=torch.uint8).numpy()}


def weights(fit: Fit) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in fit.task.networks.state_dict().items()}


def same_weights(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)
