"""Checkpoints of `Fit`: a resume is bit-exact, and a damaged or diverged state is refused."""

import math
from pathlib import Path

import pytest
import torch

from genray.errors import CheckpointError, RunFault
from genray.gen.training.fit import Fit, FitConfig, Task
from genray.gen.training.optimizers import OptimizerConfig
from tests.helpers.fit import CONFIG, SmallTask, lines, same_weights, weights


@pytest.mark.parametrize("accumulate", [1, 3])
def test_fit_resumes_bit_exactly_at_every_step(tmp_path: Path, accumulate: int):
    """The run has 14 steps in two stages, early stopping, dropout, batch norm, a moving average and
    a schedule.
    """
    config = FitConfig(**{**vars(CONFIG), "accumulate": accumulate})
    whole = Fit(SmallTask(accumulate=accumulate), lines(), config)
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
        torch.manual_seed(number)  # other code may draw numbers in between
        again = Fit(SmallTask(accumulate=accumulate), lines(), config)
        again.load(folder)
        assert list(again) == steps[number:], number  # the losses and held-out figures are equal
        assert same_weights(weights(again), final), number


def test_fit_continues_a_finished_run_that_is_given_more_steps(tmp_path: Path):
    class OneStage(SmallTask):
        stages = ("whole",)

    def task() -> Task:
        return OneStage(OptimizerConfig(learning_rate=0.02))

    short, long = (
        FitConfig(steps=6, batch_size=8, log_every=1),
        FitConfig(steps=15, batch_size=8, log_every=1),
    )
    whole = Fit(task(), lines(), long)
    expected = list(whole)
    first = Fit(task(), lines(), short)
    assert len(list(first)) == 6
    first.save(tmp_path)
    same, more = Fit(task(), lines(), short), Fit(task(), lines(), long)
    same.load(tmp_path)
    assert not list(same) and same_weights(weights(same), weights(first))
    more.load(tmp_path)
    assert [step.step for step in list(more)] == list(range(7, 16))
    assert same_weights(weights(more), weights(whole)) and expected[-1].step == 15


def test_fit_save_does_not_change_training(tmp_path: Path):
    plain = Fit(SmallTask(), lines(), CONFIG)
    expected = list(plain)
    saved = Fit(
        SmallTask(), lines(), CONFIG
    )  # created here, because a Fit seeds the global generator
    found = []
    for step in saved:
        saved.save(tmp_path)
        found.append(step)
    assert found == expected and same_weights(weights(saved), weights(plain))


def test_fit_save_refuses_infinite_weights(tmp_path: Path):
    """The last update can make weights infinite after a loss that was finite."""
    fit = Fit(SmallTask(), lines(), FitConfig(steps=4, batch_size=8))
    next(iter(fit))
    with torch.no_grad():
        fit.task.networks["head"].weight[0, 0] = math.inf  # type: ignore[union-attr, index, operator]
    with pytest.raises(RunFault, match="try a lower --learning-rate"):
        fit.save(tmp_path)
    assert not list(tmp_path.iterdir())


def test_fit_load_refuses_a_foreign_checkpoint_in_one_line(tmp_path: Path):
    fit = Fit(SmallTask(), lines(), CONFIG)
    (tmp_path / "fit.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError) as damaged:
        fit.load(tmp_path)
    assert "\n" not in str(damaged.value) and str(tmp_path) in str(damaged.value)
    plain = Fit(SmallTask(noisy=False), lines(), CONFIG)
    plain.save(tmp_path)
    with pytest.raises(CheckpointError, match="does not fit this model"):
        fit.load(tmp_path)
