"""`Fit`: the order of the rows, reports, evaluation, accumulation and diverging losses."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from genray.errors import ConfigError, RunFault
from genray.gen.data.types import Data, Split
from genray.gen.training.fit import Batch, Fit, FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from tests.helpers.fit import SmallTask, lines, same_weights, weights


def test_fit_evaluate_does_not_change_training():
    rare = Fit(SmallTask(), lines(), FitConfig(steps=7, batch_size=8, validate_every=100))
    list(rare)
    often = Fit(SmallTask(), lines(), FitConfig(steps=7, batch_size=8, validate_every=1))
    for _ in often:
        first, second = often.pictures()["noise"], often.pictures()["noise"]
        assert np.array_equal(first, second)  # fixed noise
        often.evaluate(often.data.validation)
        assert often.task.networks.training
    assert same_weights(weights(rare), weights(often))


PARTS = ("train", "validation", "test")


def test_fit_copies_the_data_to_the_device_once():
    class Looking(SmallTask):
        stages = ("whole",)

        def evaluate(self, split: Split) -> dict[str, float]:
            seen.append(split.values)
            return super().evaluate(split)

        def pictures(self, data: Data) -> dict[str, np.ndarray]:
            seen.append(data.validation.values)
            return super().pictures(data)

        def test(self, data: Data) -> dict[str, float]:
            seen.append(data.validation.values)
            return {}

    class Elsewhere(Data):
        def to(self, device: torch.device) -> Data:
            moves.append(device)
            parts = {
                name: replace(getattr(self, name), values=getattr(self, name).values.clone())
                for name in PARTS
            }
            return replace(lines(), **parts)

    seen: list[Tensor] = []
    moves: list[torch.device] = []
    fit = Fit(
        Looking(), Elsewhere(**vars(lines())), FitConfig(steps=4, batch_size=8, validate_every=2)
    )
    for _ in fit:
        fit.pictures()
    fit.test()
    assert len(moves) == 1 and len(seen) == 7
    assert len({values.data_ptr() for values in seen}) == 1
    assert fit.train.values.data_ptr() == fit.whole_data.train.values.data_ptr()


def test_fit_repeats_the_curve_of_a_seed():
    def curve(seed: int) -> list[float]:
        fit = Fit(SmallTask(), lines(), FitConfig(steps=5, batch_size=8, log_every=1, seed=seed))
        return [step.values["loss"] for step in fit]

    assert curve(1) == curve(1)
    assert curve(1) != curve(2)


def test_batches_take_every_row_once_an_epoch_in_a_new_order():
    seen: list[list[int]] = []

    class Watch(SmallTask):
        stages = ("whole",)

        def step(self, batch: Batch) -> dict[str, Tensor]:
            assert torch.equal(batch.x, lines().train.values[batch.rows])
            seen.append(batch.rows.tolist())
            return super().step(batch)

    fit = Fit(Watch(), lines(), FitConfig(epochs=2, batch_size=10))
    epochs = [step.epoch for step in fit]
    assert epochs == [0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
    first, second = np.concatenate(seen[:4]).tolist(), np.concatenate(seen[4:]).tolist()
    assert sorted(first) == sorted(second) == list(range(40)) and first != second


def test_fit_reports_means_since_the_last_report():
    every = [
        step.values["loss"]
        for step in Fit(SmallTask(), lines(), FitConfig(steps=4, batch_size=10, log_every=1))
    ]
    pairs = [
        step.values
        for step in Fit(SmallTask(), lines(), FitConfig(steps=4, batch_size=10, log_every=2))
    ]
    assert [bool(values) for values in pairs] == [False, True] * 4
    assert [values["loss"] for values in pairs if values] == pytest.approx(
        [(a + b) / 2 for a, b in zip(every[::2], every[1::2])]
    )


def test_fit_makes_a_failed_evaluation_again():
    class FailsOnce(SmallTask):
        failed = False

        def evaluate(self, split: Split) -> dict[str, float]:
            if not self.failed:
                self.failed = True
                raise ValueError("no metric today")
            return super().evaluate(split)

    config = FitConfig(steps=4, batch_size=8, validate_every=2)
    fit = Fit(FailsOnce(), lines(), config)
    with pytest.raises(ValueError, match="no metric today"):
        list(fit)
    assert fit.evaluation_unfinished and fit.step == 2
    list(fit)
    sound = Fit(SmallTask(), lines(), config)
    list(sound)
    assert same_weights(weights(fit), weights(sound))


# -- diverging losses ------------------------------------------------------------------------------


def test_fit_stops_at_a_nan_loss_and_saves_no_checkpoint_of_it(tmp_path: Path):
    class Bad(SmallTask):
        stages = ("only",)
        steps_made = 0

        def step(self, batch: Batch) -> dict[str, Tensor]:
            values = super().step(batch)
            self.steps_made += 1
            return {"loss": values["loss"] * (math.nan if self.steps_made == 7 else 1)}

    fit = Fit(Bad(), lines(), FitConfig(steps=20, batch_size=8, validate_every=10))
    (tmp_path / "6").mkdir()
    (tmp_path / "7").mkdir()
    with pytest.raises(RunFault, match=r"loss is nan at step 10: try a lower --learning-rate"):
        for step in fit:
            if step.step == 6:
                fit.save(tmp_path / "6")
                good = weights(fit)
            if step.step == 7:  # the loss was not reported yet, but must not be saved
                with pytest.raises(RunFault, match="loss is nan at step 7"):
                    fit.save(tmp_path / "7")
    assert not list((tmp_path / "7").iterdir())
    again = Fit(SmallTask(), lines(), FitConfig(steps=20, batch_size=8, validate_every=10))
    again.load(tmp_path / "6")
    assert same_weights(weights(again), good)


def test_fit_stops_when_a_large_learning_rate_diverges():
    class Square(SmallTask):
        """A task whose loss has an unbounded gradient."""

        def step(self, batch: Batch) -> dict[str, Tensor]:
            loss = self.head(self.body(batch.x)).square().sum()
            self.updaters["main"].step(loss)
            return {"loss": loss.detach()}

    task = Square(OptimizerConfig(optimizer="sgd", learning_rate=1e6))
    with pytest.raises(RunFault, match="try a lower --learning-rate"):
        list(Fit(task, lines(), FitConfig(steps=200, batch_size=8, log_every=10)))


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_fit_with_accumulation_equals_a_larger_batch(schedule: str):
    optimizer = OptimizerConfig(optimizer="momentum", learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    large = Fit(SmallTask(optimizer, noisy=False), lines(), FitConfig(steps=6, batch_size=20))
    small = Fit(
        SmallTask(optimizer, accumulate=2, noisy=False),
        lines(),
        FitConfig(steps=12, batch_size=10, accumulate=2),
    )
    list(large)
    list(small)
    # The average changes after every step, so the two averages differ.
    for name in ("body", "head"):
        for one, other in zip(
            large.task.networks[name].parameters(), small.task.networks[name].parameters()
        ):
            torch.testing.assert_close(one, other)


def test_fit_refuses_a_batch_larger_than_the_data():
    with pytest.raises(
        ConfigError, match="--batch-size 41: whole has 40 rows; use at most that many"
    ):
        Fit(SmallTask(), lines(), FitConfig(batch_size=41))


@pytest.mark.parametrize(
    "bad",
    [
        "epochs",
        "batch_size",
        "keep",
        "log_every",
        "accumulate",
        "steps",
        "validate_every",
        "patience",
        "seed",
    ],
)
def test_fit_config_names_the_option_of_a_bad_value(bad: str):
    with pytest.raises(ConfigError, match=f"^--{bad.replace('_', '-')} -1: must"):
        FitConfig(**{bad: -1}).validate()
