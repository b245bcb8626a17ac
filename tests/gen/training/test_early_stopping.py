"""Early stopping in a `Fit` whose validation losses follow a script."""

import math

import pytest
from torch import Tensor, nn

from genray.errors import RunFault
from genray.gen.data.types import Data, Split
from genray.gen.training.fit import Batch, Fit, FitConfig
from tests.helpers.fit import SmallTask, lines


class ScriptedLosses(SmallTask):
    """A task whose validation losses are given, and which counts its steps in a weight."""

    stages = ("only",)

    def __init__(self, script: list[float]):
        super().__init__()
        self.script = list(script)
        self.networks["counter"] = nn.BatchNorm1d(1)

    def step(self, batch: Batch) -> dict[str, Tensor]:
        self.networks["counter"].bias.data += 1  # type: ignore[union-attr, operator]
        return super().step(batch)

    def evaluate(self, split: Split) -> dict[str, float]:
        return {"loss": self.script.pop(0)}

    @property
    def counted(self) -> float:
        return self.networks["counter"].bias.item()  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    "script, patience, steps, best",
    [
        ([5, 4, 3, 3, 3, 0], 2, 5, 3),  # an equal loss is not better
        ([5, 4, 6, 3, 7, 8, 0], 2, 6, 4),  # a better loss resets the count
        ([1, 2], 1, 2, 1),
        ([6, 5, 4, 3, 2, 1, 9, 0], 3, 8, 8),  # not stopped early; the last is the best
        ([6, 5, 4, 3, 2, 1, 9, 9], 3, 8, 6),  # not stopped early; the best is restored
        ([1, 2, 3, 4, 5, 6, 7, 8], 0, 8, 8),  # no early stopping
    ],
)
def test_early_stopping_ends_the_stage_and_restores_the_best_weights(
    script: list[float], patience: int, steps: int, best: int
):
    task = ScriptedLosses(script)
    fit = Fit(task, lines(), FitConfig(steps=8, batch_size=8, validate_every=1, patience=patience))
    assert len(list(fit)) == steps
    assert task.counted == best


def test_early_stopping_passes_the_best_weights_to_the_next_stage():
    at_start: list[float] = []

    class Two(ScriptedLosses):
        stages = ("first", "second")

        def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
            at_start.append(self.counted)
            return super().begin_stage(0, data, total_updates)

    task = Two([2, 1, 3, 4, 9, 8, 7, 6])
    fit = Fit(task, lines(), FitConfig(steps=4, batch_size=8, validate_every=1, patience=2))
    assert [step.stage for step in fit] == ["first"] * 4 + ["second"] * 4
    assert at_start == [0, 2] and task.counted == 6


def test_fit_stops_at_a_nan_validation_loss():
    with pytest.raises(RunFault, match="validation loss is nan at step 2"):
        list(
            Fit(
                ScriptedLosses([1, math.nan]),
                lines(),
                FitConfig(steps=4, batch_size=8, validate_every=1),
            )
        )
