"""Tests that the named studies work with their families, and refuse other families in one line."""

import pytest
import torch

from genray.errors import ConfigError
from genray.gen.autoencoder.model import AEModelConfig, Autoencoder
from tuning.plan import SweepConfig
from tuning.presets import STUDIES, Arm, Study, named_study
from tuning.settings import changed
from tuning.spaces import LogUniform, Space, Switch
from tuning.sweep import base_config

FITTING = {
    "optimizers": ("ae", "vae", "gan", "pix2pix", "cyclegan", "classifier", "optimizer"),
    "regularisers": ("ae", "vae", "gan", "pix2pix", "cyclegan", "classifier"),
    "gan_stability": ("gan",),
    "architecture": (
        "ae",
        "vae",
        "gan",
        "pix2pix",
        "cyclegan",
        "classifier",
        "optimizer",
        "dqn",
    ),
    "agent": ("dqn",),
}


@pytest.mark.parametrize(
    ("name", "family"), [(name, family) for name in FITTING for family in FITTING[name]]
)
def test_study_check_accepts_the_families_of_the_study(name, family):
    base = base_config(SweepConfig(model=family))
    study = named_study(name, family, base)
    base = changed(base, study.base)
    study.check(base)
    assert Study.from_dict(study.to_dict()).to_dict() == study.to_dict()
    for arm in study.arms:
        for point in arm.space.random(20, (0,)):
            changed(base, {**arm.fixed, **arm.space.resolve(point)}).validate()


@pytest.mark.parametrize("name", STUDIES)
def test_named_study_refuses_other_families(name):
    for family in set(FITTING["architecture"]) - set(FITTING[name]):
        with pytest.raises(
            ConfigError,
            match=f"--model {family}: study {name} does not support this family; use --model",
        ):
            named_study(name, family, base_config(SweepConfig(model=family)))


def test_optimizers_are_eleven_with_defaults_inside_their_ranges():
    study = named_study("optimizers", "vae", base_config(SweepConfig()))
    assert [arm.name for arm in study.arms] == [
        "sgd",
        "momentum",
        "nesterov",
        "adagrad",
        "rmsprop",
        "adam",
        "adadelta",
        "adagrad-da",
        "ftrl",
        "proximal-gradient-descent",
        "proximal-adagrad",
    ]
    for arm in study.arms:
        rate = arm.space.coordinates["optimizer.learning_rate"]
        assert (
            rate.low < arm.default["optimizer.learning_rate"] < rate.high
            and arm.fixed["optimizer.optimizer"] == arm.name
        )
    assert [
        arm.name
        for arm in study.arms
        if any(isinstance(each, Switch) for each in arm.space.dimensions)
    ] == [
        "adagrad-da",
        "ftrl",
        "proximal-gradient-descent",
        "proximal-adagrad",
    ]


def test_regularisers_are_those_of_the_family():
    def arms(family, **more):
        config = SweepConfig(model=family, **more)
        return [arm.name for arm in named_study("regularisers", family, base_config(config)).arms]

    every = ["none", "l1", "l2", "dropout", "batch-norm", "early-stopping", "augmentation"]
    assert arms("classifier") == every
    assert arms("vae") == [name for name in every if name != "batch-norm"]
    assert arms("gan") == every
    assert "dropout" in arms("ae", preset="stacked_digits") and "dropout" not in arms("ae")
    assert "batch-norm" in arms("ae", preset="stacked_digits") and "batch-norm" in arms(
        "ae", preset="conv_digits"
    )
    assert "batch-norm" not in arms("ae", preset="pca"), "it has no layer to normalise"
    assert {"augmentation", "batch-norm"}.isdisjoint(arms("ae", preset="text_docs"))


def test_autoencoder_dropout_acts_in_its_classifier_during_training():
    config = AEModelConfig(kind="stacked", code=4, widths=(16,), finetune_labels=100, dropout=0.5)
    torch.manual_seed(0)
    model, x = Autoencoder(config, (1, 8, 8), 0.0, 1.0, num_classes=3), torch.rand(64, 1, 8, 8)
    model.train()
    assert not torch.equal(model.classify(x), model.classify(x)) and torch.equal(
        model.encode_layers(x)[0], model.encode_layers(x)[0]
    )
    model.eval()
    assert torch.equal(model.classify(x), model.classify(x))
    with pytest.raises(
        ConfigError,
        match="--dropout 0.5: only the classifier has dropout; give --finetune-labels 100",
    ):
        AEModelConfig(dropout=0.5).validate()


def test_study_check_refuses_contradictions():
    base = base_config(SweepConfig())
    rate = Space(LogUniform("optimizer.learning_rate", 1e-4, 1e-1))
    for study, said in (
        (Study("mine", ()), "has no arms"),
        (Study("mine", (Arm("a", rate), Arm("a", rate))), "two arms have one name"),
        (
            Study("mine", (Arm("a", rate, {"optimizer.learning_rate": 0.1}),)),
            "arm a: optimizer.learning_rate is both fixed",
        ),
        (
            Study("mine", (Arm("a", rate, {"optimizer.optimizer": "adan"}),)),
            "arm a: --optimizer adan: no such optimizer",
        ),
        (
            Study("mine", (Arm("a", rate, {}, {"model.laten": 3}),)),
            "arm a: model.laten: no such setting",
        ),
    ):
        with pytest.raises(ConfigError, match=said):
            study.check(base)
    with pytest.raises(ConfigError, match="did you mean sgd"):
        named_study("optimizers", "vae", base).only(["sgdd"])
    with pytest.raises(ConfigError, match="did you mean optimizers"):
        named_study("optimisers", "vae", base)
