"""Training of learned optimizers: it learns, windows carry the state, and it resumes exactly."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.families import FAMILIES, open_fit
from genray.gen.learned_optimizer.config import FunctionsConfig, LearnedOptimizerConfig
from genray.gen.learned_optimizer.evaluation import Setting, compare, learned, rule_settings
from genray.gen.learned_optimizer.presets import optimizer_digits, optimizer_quadratics
from genray.gen.learned_optimizer.problems import QuadraticProblem
from genray.gen.training.fit import Fit
from tuning.presets import named_study
from tuning.training import rehearse


def small(config: LearnedOptimizerConfig, steps: int = 4, **fit) -> LearnedOptimizerConfig:
    """A few steps of few functions with a short horizon."""
    return replace(
        config,
        data=replace(config.data, functions=8, held_out=2, hidden_units=3, minibatch=4),
        fit=replace(config.fit, steps=steps, batch_size=2, validate_every=2, device="cpu", **fit),
        horizon=6, window=3, rule_trials=2,
    )  # fmt: skip


def trained(config: LearnedOptimizerConfig) -> Fit:
    fit = open_fit("optimizer", config)
    for _ in fit:
        pass
    return fit


def test_training_on_quadratics_beats_the_untrained_rule():
    """80 updates of the LSTM halve what it leaves of held-out functions after 10 steps."""
    config = replace(optimizer_quadratics(), horizon=10, window=5, rule_trials=0)
    config = replace(
        config,
        data=replace(config.data, functions=320, held_out=64),
        fit=replace(config.fit, steps=40, batch_size=16, validate_every=20, device="cpu"),
    )
    fit = open_fit("optimizer", config)
    before = fit.test()["loss"]
    for _ in fit:
        pass
    assert fit.test()["loss"] < before - 0.3


def test_windows_carry_the_coordinates_and_the_state():
    """Without updates of the rule, two windows make the same path as one."""
    ends = []
    for window in (3, 6):
        config = replace(small(optimizer_quadratics(), steps=1), window=window)
        config = replace(config, optimizer=replace(config.optimizer, learning_rate=1e-20))
        ends += [step.values["loss"] for step in open_fit("optimizer", config)]
    assert ends[0] == pytest.approx(ends[1], abs=1e-6)


@pytest.mark.parametrize("preset", [optimizer_quadratics, optimizer_digits])
def test_resumed_training_is_bit_exact(preset, tmp_path: Path):
    config = replace(small(preset()), random_scaling=0.5)
    whole = open_fit("optimizer", config)
    for step in whole:
        if step.step == 2:
            whole.save(tmp_path)
    resumed = open_fit("optimizer", config)
    resumed.load(tmp_path)
    for _ in resumed:
        pass
    assert resumed.step == whole.step == 4
    for name, tensor in whole.task.networks.state_dict().items():
        assert torch.equal(tensor, resumed.task.networks.state_dict()[name]), name


def test_networks_have_images_of_their_own_in_each_split():
    task = open_fit("optimizer", small(optimizer_digits())).task
    data = open_fit("optimizer", small(optimizer_digits())).whole_data
    train, held_out = task._problem.images_MI, task._held_out.images_MI
    test = task.problem_of(data, data.test).images_MI
    assert (len(train), len(held_out), len(test)) == (908, 389, 500)
    assert train.shape[1] == 64 and not torch.equal(train[:389], held_out)


def test_compare_gives_every_rule_the_same_trials_and_takes_the_best():
    assert {len(configs) for configs in rule_settings(5).values()} == {5}
    assert all(len(set(configs)) == 5 for configs in rule_settings(5).values())
    setting = Setting("s", QuadraticProblem(3), QuadraticProblem(3), 10)
    rule = open_fit("optimizer", small(optimizer_quadratics())).task.rule
    makers = {"learned": learned(rule)}
    few = compare(makers, setting, trials=1, tune_functions=8, test_functions=16)
    more = compare(makers, setting, trials=5, tune_functions=8, test_functions=16)
    assert few.curves["sgd"].shape == (11, 16) and set(more.tuned) == set(rule_settings(1))
    assert np.array_equal(few.curves["learned"], more.curves["learned"])
    # The single trial of SGD is its lowest rate, with which little happens.
    assert few.tuned["sgd"] == "η 0.001" and more.final("sgd") < few.final("sgd") - 0.1


def test_diverged_functions_count_as_a_large_number():
    class Explode(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][0].data.fill_(float("nan"))

    setting = Setting("s", QuadraticProblem(3), QuadraticProblem(3), 2)
    makers = {"explode": lambda parameters: Explode(parameters, lr=1.0)}
    found = compare(makers, setting, trials=0, tune_functions=1, test_functions=2)
    assert found.final("explode") == 6.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"window": 7}, "--window 7: must divide --horizon 100; use e.g. --horizon 105"),
        ({"data": FunctionsConfig(data="cubics")}, "--data cubics: no such data set"),
        ({"data": FunctionsConfig(data="docs")}, "--data docs: a learned optimizer trains on im"),
        ({"data": FunctionsConfig(grey=True)}, "--grey: not for quadratics, which have no images"),
        ({"data": FunctionsConfig(dimensions=0)}, "--dimensions 0: must lie in 1..1000"),
        ({"random_scaling": -1.0}, "--random-scaling -1.0: must lie in"),
    ],
)
def test_bad_options_are_refused_by_name(change: dict, message: str):
    with pytest.raises(ConfigError) as caught:
        replace(LearnedOptimizerConfig(), **change).validate()
    assert str(caught.value).startswith(message)


def test_preset_suits_the_data():
    family = FAMILIES["optimizer"]
    assert family.preset(None) == optimizer_quadratics()
    assert family.preset(None, "digits") == optimizer_digits()
    assert family.preset(None, "quadratics-normal").model == optimizer_quadratics().model


def test_sweeps_train_optimizers():
    base = small(optimizer_quadratics())
    assert {"validation_loss", "loss"} <= rehearse("optimizer", base)
    paths = named_study("architecture", "optimizer", base).arms[0].space.paths
    assert "model.lstm_units" in paths
