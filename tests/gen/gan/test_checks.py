"""What `GANTask` refuses before the first step: options, images and batches that do not fit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from genray.errors import CheckpointError, ConfigError
from genray.gen.data.types import Data
from genray.gen.gan.task import GANTask
from genray.gen.images.classifier import ClassifierConfig, ClassifierTask
from genray.gen.training.fit import Fit, FitConfig
from genray.runs.modelstore import save_model
from tests.helpers.gan import CONV, small, spots


def test_gan_task_names_the_option_of_a_bad_value(tmp_path: Path):
    config = small(fit={"batch_size": 200})
    with pytest.raises(ConfigError, match="--batch-size 200: .* 80 rows"):
        Fit(GANTask(config), spots(), config.fit)
    with pytest.raises(ConfigError, match="10x10"):
        Fit(GANTask(small(model=CONV)), spots(side=10), config.fit)
    with pytest.raises(ConfigError, match="--label-smoothing 0.1: hinge"):
        GANTask(small(loss="hinge", label_smoothing=0.1))
    with pytest.raises(ConfigError, match="--discriminator-norm batch: wgan-gp"):
        GANTask(small(loss="wgan-gp", model={**CONV, "discriminator_norm": "batch"}))
    with pytest.raises(ConfigError, match="--pack 4: wgan-gp"):
        GANTask(small(loss="wgan-gp", model={**CONV, "pack": 4}))
    config = small(model={"pack": 3})
    with pytest.raises(ConfigError, match="--pack 3: .* 20 rows of a batch; use --batch-size 21"):
        Fit(GANTask(config), spots(), config.fit)
    with pytest.raises(CheckpointError, match="not a model"):
        GANTask(small(extractor=str(tmp_path)))


def few(train: int, validation: int, test: int, classes: int) -> Data:
    """Return spots with these numbers of rows and two names of classes.

    `classes`: the number of classes that the rows really have.
    """
    data = spots()
    counts = {"train": train, "validation": validation, "test": test}
    parts = {name: getattr(data, name).first(count) for name, count in counts.items()}
    labelled = {
        name: replace(part, label=torch.arange(len(part)) % classes) for name, part in parts.items()
    }
    return replace(data, **labelled, classes=("a", "b"))


@pytest.mark.parametrize("counts", [(20, 1, 5), (20, 0, 1)])
def test_gan_task_refuses_too_few_images_for_its_evaluation(counts):
    config = small()
    with pytest.raises(ConfigError, match="--data spots: .*Fréchet distance"):
        Fit(GANTask(config), few(*counts, classes=2), config.fit)


@pytest.mark.parametrize("classes", [1, 2])
def test_gan_task_test_of_few_images_leaves_out_what_needs_more(classes: int):
    config = small(fit={"steps": 1})
    fit = Fit(GANTask(config), few(20, 0, 3, classes), config.fit)
    list(fit)
    figures = fit.test()
    assert (
        ("fcd" in figures) == (classes == 2)
        and "pca_frechet" in figures
        and "precision" not in figures
    )


def test_gan_task_refuses_an_extractor_of_another_image_shape(tmp_path):
    config = ClassifierConfig(fit=FitConfig(steps=1, batch_size=20))
    task = ClassifierTask(config)
    labelled = few(20, 0, 5, classes=2)
    Fit(
        task,
        replace(
            labelled, train=replace(labelled.train, values=labelled.train.values[:, :, :4, :4])
        ),
        config.fit,
    )
    export = task.export()
    save_model(tmp_path / "extractor", export.kind, export.config, export.tensors, export.card)
    with pytest.raises(
        ConfigError,
        match=r"--extractor .*extractor: the classifier takes images of shape \(1, 4, 4\)",
    ):
        Fit(GANTask(small(extractor=str(tmp_path / "extractor"))), labelled, small().fit)


@pytest.mark.parametrize(
    ("model", "batch_size", "least"),
    [
        ({"generator_norm": "batch"}, 1, 2),
        ({"discriminator_norm": "batch", "discriminator_widths": (16, 8), "pack": 4}, 4, 8),
        ({**CONV, "generator_widths": (8, 6, 4)}, 1, 2),  # the smallest map has 1x1 pixels
        ({**CONV, "discriminator_norm": "batch"}, 1, 0),
        ({"discriminator_norm": "batch"}, 1, 0),  # the only hidden layer has no norm
    ],
)
def test_gan_task_refuses_a_batch_norm_with_a_single_value(model, batch_size: int, least: int):
    config = small(model=model, fit={"batch_size": batch_size, "steps": 1})
    if not least:
        list(Fit(GANTask(config), spots(), config.fit))
        return
    with pytest.raises(
        ConfigError, match=f"--batch-size {batch_size}: .*-norm batch .*use {least} or more"
    ):
        Fit(GANTask(config), spots(), config.fit)
