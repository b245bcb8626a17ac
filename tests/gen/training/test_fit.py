"""The training loop with a small network: resume at every step, early stopping, guards, and
looking without touching.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genray.errors import CheckpointError, ConfigError, RunFault
from genray.gen.data.types import Data, Split
from genray.gen.training.fit import Batch, Fit, FitConfig, Step, Task
from genray.gen.training.optimizers import OptimizerConfig, Updater


def lines(rows: int = 40, seed: int = 0) -> Data:
    """y is a function of x with noise, both in one row."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows + 20, 3, generator=generator)
    split = Split(x[:rows], (x[:rows, 0] > 0).long(), low=-3, high=3)
    return Data(
        "lines",
        split,
        Split(x[rows:], (x[rows:, 0] > 0).long(), low=-3, high=3),
        Split(x[:0], x[:0, 0].long()),
    )


class Classify(Task):
    """Two stages: a hidden layer with dropout and batch norm, then its head alone. Everything
    that has state takes part.
    """

    stages = ("whole", "head")

    def __init__(
        self, optimizer: OptimizerConfig | None = None, accumulate: int = 1, noisy: bool = True
    ):
        super().__init__()
        # Not the global generator, so that two tasks begin alike whatever came before.
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


def the_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


PARTS = ("train", "validation", "test")
CONFIG = FitConfig(steps=7, batch_size=8, validate_every=3, log_every=2, patience=2)


def run(fit: Fit) -> list[Step]:
    return list(fit)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_resume_at_every_step_is_bit_exact(tmp_path: Path, accumulate: int):
    """14 steps over two stages, with early stopping's memory, dropout, batch norm, an average
    and a schedule.
    """
    config = FitConfig(**{**vars(CONFIG), "accumulate": accumulate})
    whole = Fit(Classify(accumulate=accumulate), lines(), config)
    steps, cuts = [], []
    for step in whole:
        steps.append(step)
        folder = tmp_path / str(step.step)
        folder.mkdir()
        whole.save(folder)
        cuts.append(folder)
    assert [step.step for step in steps] == list(range(1, 15))
    assert [step.step for step in steps if step.last_of_stage] == [7, 14]
    final = weights(whole)

    for number, folder in enumerate(cuts, start=1):
        torch.manual_seed(number)  # whatever happened in between
        again = Fit(Classify(accumulate=accumulate), lines(), config)
        again.load(folder)
        assert run(again) == steps[number:], number  # losses and held-out figures, too
        assert the_same(weights(again), final), number


def test_a_finished_run_goes_on_when_it_is_given_more_steps(tmp_path: Path):
    class OneStage(Classify):
        stages = ("whole",)

    def task() -> Task:
        return OneStage(OptimizerConfig(learning_rate=0.02))

    short, long = (
        FitConfig(steps=6, batch_size=8, log_every=1),
        FitConfig(steps=15, batch_size=8, log_every=1),
    )
    whole = Fit(task(), lines(), long)
    expected = run(whole)
    first = Fit(task(), lines(), short)
    assert len(run(first)) == 6
    first.save(tmp_path)
    same, more = Fit(task(), lines(), short), Fit(task(), lines(), long)
    same.load(tmp_path)
    assert not run(same) and the_same(weights(same), weights(first))
    more.load(tmp_path)
    assert [step.step for step in run(more)] == list(range(7, 16))
    assert the_same(weights(more), weights(whole)) and expected[-1].step == 15


def test_saving_does_not_change_training(tmp_path: Path):
    plain = Fit(Classify(), lines(), CONFIG)
    expected = run(plain)
    saved = Fit(Classify(), lines(), CONFIG)  # not before: a Fit seeds the global generator
    found = []
    for step in saved:
        saved.save(tmp_path)
        found.append(step)
    assert found == expected and the_same(weights(saved), weights(plain))


def test_fit_evaluate_does_not_change_training():
    rare = Fit(Classify(), lines(), FitConfig(steps=7, batch_size=8, validate_every=100))
    run(rare)
    often = Fit(Classify(), lines(), FitConfig(steps=7, batch_size=8, validate_every=1))
    for _ in often:
        first, second = often.pictures()["noise"], often.pictures()["noise"]
        assert np.array_equal(first, second)  # fixed noise
        often.evaluate(often.data.validation)
        assert often.task.networks.training
    assert the_same(weights(rare), weights(often))


def test_data_goes_to_the_device_once():
    class Looking(Classify):
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


def test_the_seed_makes_the_curve():
    def curve(seed: int) -> list[float]:
        fit = Fit(Classify(), lines(), FitConfig(steps=5, batch_size=8, log_every=1, seed=seed))
        return [step.values["loss"] for step in fit]

    assert curve(1) == curve(1)
    assert curve(1) != curve(2)


def test_every_row_once_an_epoch_in_a_new_order():
    seen: list[list[int]] = []

    class Watch(Classify):
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


def test_reported_values_are_means_since_the_last_report():
    every = [
        step.values["loss"]
        for step in Fit(Classify(), lines(), FitConfig(steps=4, batch_size=10, log_every=1))
    ]
    pairs = [
        step.values
        for step in Fit(Classify(), lines(), FitConfig(steps=4, batch_size=10, log_every=2))
    ]
    assert [bool(values) for values in pairs] == [False, True] * 4
    assert [values["loss"] for values in pairs if values] == pytest.approx(
        [(a + b) / 2 for a, b in zip(every[::2], every[1::2])]
    )


# -- early stopping --------------------------------------------------------------------------------


class Scripted(Classify):
    """Judges itself by a script, and counts its steps in a weight."""

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
        ([5, 4, 3, 3, 3, 0], 2, 5, 3),  # equal is not better
        ([5, 4, 6, 3, 7, 8, 0], 2, 6, 4),  # a better look forgives
        ([1, 2], 1, 2, 1),
        ([6, 5, 4, 3, 2, 1, 9, 0], 3, 8, 8),  # never stopped: its best is its last
        ([6, 5, 4, 3, 2, 1, 9, 9], 3, 8, 6),  # never stopped, and the best restored all the same
        ([1, 2, 3, 4, 5, 6, 7, 8], 0, 8, 8),  # no patience asked: no stopping, no restoring
    ],
)
def test_patience_runs_out_and_the_best_weights_return(
    script: list[float], patience: int, steps: int, best: int
):
    task = Scripted(script)
    fit = Fit(task, lines(), FitConfig(steps=8, batch_size=8, validate_every=1, patience=patience))
    assert len(run(fit)) == steps
    assert task.counted == best


def test_a_stage_that_stops_early_hands_over_its_best_weights():
    at_start: list[float] = []

    class Two(Scripted):
        stages = ("first", "second")

        def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
            at_start.append(self.counted)
            return super().begin_stage(0, data, total_updates)

    task = Two([2, 1, 3, 4, 9, 8, 7, 6])
    fit = Fit(task, lines(), FitConfig(steps=4, batch_size=8, validate_every=1, patience=2))
    assert [step.stage for step in fit] == ["first"] * 4 + ["second"] * 4
    assert at_start == [0, 2] and task.counted == 6


# -- guards ----------------------------------------------------------------------------------------


def test_a_diverging_loss_stops_and_the_last_good_checkpoint_stays(tmp_path: Path):
    class Bad(Classify):
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
            if step.step == 7:  # not reported yet; a checkpoint of it must not be made all the same
                with pytest.raises(RunFault, match="loss is nan at step 7"):
                    fit.save(tmp_path / "7")
    assert not list((tmp_path / "7").iterdir())
    again = Fit(Classify(), lines(), FitConfig(steps=20, batch_size=8, validate_every=10))
    again.load(tmp_path / "6")
    assert the_same(weights(again), good)


def test_a_learning_rate_that_diverges_really_stops():
    class Square(Classify):
        """A loss without a bound on its gradient."""

        def step(self, batch: Batch) -> dict[str, Tensor]:
            loss = self.head(self.body(batch.x)).square().sum()
            self.updaters["main"].step(loss)
            return {"loss": loss.detach()}

    task = Square(OptimizerConfig(optimizer="sgd", learning_rate=1e6))
    with pytest.raises(RunFault, match="try a lower --learning-rate"):
        run(Fit(task, lines(), FitConfig(steps=200, batch_size=8, log_every=10)))


def test_a_validation_loss_that_is_not_a_number_stops():
    with pytest.raises(RunFault, match="validation loss is nan at step 2"):
        run(
            Fit(
                Scripted([1, math.nan]), lines(), FitConfig(steps=4, batch_size=8, validate_every=1)
            )
        )


def test_weights_that_are_no_longer_numbers_are_not_kept(tmp_path: Path):
    """The last update may ruin the weights after a loss that was still finite."""
    fit = Fit(Classify(), lines(), FitConfig(steps=4, batch_size=8))
    next(iter(fit))
    with torch.no_grad():
        fit.task.networks["head"].weight[0, 0] = math.inf  # type: ignore[union-attr, index, operator]
    with pytest.raises(RunFault, match="try a lower --learning-rate"):
        fit.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_foreign_checkpoint_is_refused_in_one_line(tmp_path: Path):
    fit = Fit(Classify(), lines(), CONFIG)
    (tmp_path / "fit.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError) as damaged:
        fit.load(tmp_path)
    assert "\n" not in str(damaged.value) and str(tmp_path) in str(damaged.value)
    plain = Fit(Classify(noisy=False), lines(), CONFIG)
    plain.save(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        fit.load(tmp_path)


# -- batches ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_accumulation_is_the_larger_batch(schedule: str):
    optimizer = OptimizerConfig(optimizer="momentum", learning_rate=0.1, schedule=schedule)  # type: ignore[arg-type]
    large = Fit(Classify(optimizer, noisy=False), lines(), FitConfig(steps=6, batch_size=20))
    small = Fit(
        Classify(optimizer, accumulate=2, noisy=False),
        lines(),
        FitConfig(steps=12, batch_size=10, accumulate=2),
    )
    run(large)
    run(small)
    # The average moves after every step, so it differs by design.
    for name in ("body", "head"):
        for one, other in zip(
            large.task.networks[name].parameters(), small.task.networks[name].parameters()
        ):
            torch.testing.assert_close(one, other)


def test_a_batch_larger_than_the_data_is_refused():
    with pytest.raises(
        ConfigError, match="--batch-size 41: whole has 40 rows; use at most that many"
    ):
        Fit(Classify(), lines(), FitConfig(batch_size=41))


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
def test_bad_values_name_their_option(bad: str):
    with pytest.raises(ConfigError, match=f"^--{bad.replace('_', '-')} -1: must"):
        FitConfig(**{bad: -1}).validate()


def test_fit_makes_a_failed_evaluation_again():
    class FailsOnce(Classify):
        failed = False

        def evaluate(self, split: Split) -> dict[str, float]:
            if not self.failed:
                self.failed = True
                raise ValueError("no metric today")
            return super().evaluate(split)

    config = FitConfig(steps=4, batch_size=8, validate_every=2)
    fit = Fit(FailsOnce(), lines(), config)
    with pytest.raises(ValueError, match="no metric today"):
        run(fit)
    assert fit.evaluation_unfinished and fit.step == 2
    run(fit)
    sound = Fit(Classify(), lines(), config)
    run(sound)
    assert the_same(weights(fit), weights(sound))
