"""The source's models on published data of 28x28 pixels: `python -m tests.bench.bench_published`.

Every figure is of held-out rows of the 5,000 MNIST digits (3,600 training, 400 validation and 1,000
test rows), or of Fashion-MNIST with as many rows (`--data fashion-mnist`). One run of one seed is a
JSON file in `--out`; a run whose file exists is not repeated, so that the benchmark can be stopped
and continued. Beside the figures, each run leaves its pictures there.
"""

import argparse
import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from genray.config import save_yaml
from genray.gen import presets
from genray.gen.autoencoder import presets as ae_presets
from genray.gen.autoencoder.config import AEConfig
from genray.gen.autoencoder.task import AETask
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data
from genray.gen.evaluation.copies import find_copies
from genray.gen.evaluation.metrics import Extractor, generator_report
from genray.gen.evaluation.retrieval import baselines, database, evaluate_retrieval
from genray.gen.families import BUILDERS
from genray.gen.gan.config import GANConfig
from genray.gen.gan.task import GANTask
from genray.gen.generative import GenerativeModel, to_uint8
from genray.gen.images.classifier import (
    Classifier,
    ClassifierModelConfig,
    train_extractor,
)
from genray.gen.sheets import Tile, draw_sheet
from genray.gen.training.fit import Fit, evaluating, fixed_randomness
from genray.gen.training.run import FitRun, columns
from genray.gen.training.task import Task
from genray.gen.vae import VAETask
from genray.machine import keep_freed_memory
from genray.media import write_png
from genray.runs.live import Live
from genray.runs.modelstore import load_model
from genray.runs.rundir import RunDir
from tests.bench.common import describe_machine, last_json_line, print_table

SAMPLES = 1000
TRAINING_ROWS, TEST_ROWS = 4000, 1000
"""Rows of Fashion-MNIST: as many as the 5,000 digits have."""


class Place:
    """The data in both ranges, the extractor, and the folder of the results."""

    def __init__(self, data: str, out: Path, quick: bool):
        self.name, self.out, self.quick = data, out, quick
        self.unit, self.signed = (
            shortened(load_data(DataConfig(data=data), low=low, high=1.0)) for low in (0.0, -1.0)
        )
        self._extractor: Extractor | None = None

    @property
    def extractor(self) -> Extractor:
        """A classifier that is trained on the training rows, once for all runs in `out`."""
        if self._extractor is None:
            file = self.out / f"{self.name}-extractor.pt"
            if file.exists():
                classes = len(self.unit.classes)
                kept = Classifier(ClassifierModelConfig(), self.unit.shape, classes, 0.0, 1.0)
                kept.load_state_dict(torch.load(file, weights_only=True))
                self._extractor = Extractor(kept)
            else:
                self._extractor = train_extractor(self.unit, steps=20 if self.quick else 400)
                torch.save(self._extractor.classifier.state_dict(), file)
            guess = self._extractor.probabilities(self.unit.test.all()).argmax(1)
            right = (guess == self.unit.test.label).float().mean().item()
            print(f"extractor {self._extractor.name}: accuracy {right:.3f}", flush=True)
        return self._extractor

    def picture(self, name: str, picture: np.ndarray) -> None:
        write_png(self.out / f"{self.name}-{name}.png", picture)


def shortened(data: Data) -> Data:
    """Keep the first rows of a larger data set, as many as the 5,000 digits have."""
    parts = {
        "train": data.train.first(TRAINING_ROWS * 9 // 10),
        "validation": data.validation.first(TRAINING_ROWS // 10),
        "test": data.test.first(TEST_ROWS),
    }
    return replace(data, **parts)


def prepared(config: Any, place: Place, seed: int, **model: Any) -> Any:
    """Return the configuration for the data and the seed, without evaluations on the way."""
    fit = replace(config.fit, seed=seed, device="cpu", validate_every=10**9)
    if place.quick:
        fit = replace(fit, steps=4)
    return replace(
        config,
        data=replace(config.data, data=place.name),
        fit=fit,
        model=replace(config.model, **model),
    )


def fitted(task: Task, data: Data) -> Fit:
    """Train the task to its end."""
    fit = Fit(task, data, task.config.fit)
    for _ in fit:
        pass
    return fit


# -- generators ------------------------------------------------------------------------------------


def unit_samples(model: GenerativeModel, seed: int = 0) -> Tensor:
    """Draw SAMPLES images in 0..1."""
    return ((model.sample(SAMPLES, seed) - model.low) / (model.high - model.low)).clamp(0, 1)


def report(place: Place, samples: Tensor) -> dict[str, float]:
    """Return FCD and its company, and the share of near-duplicates of training images."""
    figures = generator_report(place.extractor, place.unit.test.all(), samples)
    copies = find_copies(place.unit, samples)
    figures["near_duplicates"] = float(copies.duplicates_N.mean())
    return {**figures, "near_duplicates_held_out": copies.held_out_share}


class ReportedGAN(GANTask):
    """A GAN whose test figures are `report`, with the extractor that all runs share."""

    place: Place

    def test(self, data: Data) -> dict[str, float]:
        return report(self.place, unit_samples(self.generator))


class ReportedVAE(VAETask):
    """A VAE whose test figures are both bounds and `report`."""

    place: Place

    def test(self, data: Data) -> dict[str, float]:
        return {**super().test(data), **report(self.place, unit_samples(self.vae))}


def run_whole(task: Task, data: Data, name: str, place: Place, seed: int) -> dict[str, Any]:
    """Train as `genray train` does, in a run directory with a model and all pictures."""
    folder = place.out / f"{place.name}-{name}-{seed}"
    shutil.rmtree(folder, ignore_errors=True)  # an attempt that was stopped
    fit = Fit(task, data, task.config.fit)
    cpu = time.process_time()
    with RunDir.create(folder) as run, Live(name, fit.planned_steps(), columns(fit)) as live:
        save_yaml(task.config, run.path / "config.yaml")
        figures: dict[str, Any] = FitRun(fit, run, live, "").run()
    return {**figures, "steps": fit.step, "cpu_s": time.process_time() - cpu}


def generator(
    task: ReportedGAN | ReportedVAE, data: Data, name: str, place: Place, seed: int
) -> dict[str, Any]:
    """Train a generator; adds the FCD before the training, and the extractor's hash."""
    task.place = place
    # A second task, because the first one's networks are drawn when its training begins.
    untrained = type(task)(task.config)
    Fit(untrained, data, task.config.fit)
    samples = unit_samples(untrained.generator if isinstance(untrained, GANTask) else untrained.vae)
    before = place.extractor.distance(place.unit.test.all(), samples).value
    figures = run_whole(task, data, name, place, seed)
    return {"fcd_start": before, **figures, "extractor": place.extractor.name}


def gan(preset: Callable[[], Any], name: str, place: Place, seed: int) -> dict[str, Any]:
    """Train a GAN; its figures, with FCD before the training."""
    return generator(ReportedGAN(prepared(preset(), place, seed)), place.signed, name, place, seed)


def more_epochs() -> GANConfig:
    """Configure the source's GAN for 54,000 steps, which its 100 epochs of MNIST have."""
    config = presets.gan_mnist()
    return replace(config, fit=replace(config.fit, epochs=1500))


def vae(preset: Callable[[], Any], name: str, place: Place, seed: int) -> dict[str, Any]:
    """Train a VAE; both bounds on binarised test rows, in nats an image, and FCD of the means."""
    return generator(ReportedVAE(prepared(preset(), place, seed)), place.unit, name, place, seed)


def samples(place: Place, seed: int) -> dict[str, Any]:
    """Draw held-out images above the first samples of both models, whose runs are in `out`."""
    models = {"VAE": "vae_mnist5k", "GAN": "gan_mnist5k"}
    rows, labels = [], []
    for number in range(2):
        rows.append(_tiles(place.unit.test.all()[10 * number : 10 * (number + 1)]))
        labels.append("held out" if number == 0 else "")
    for label, name in models.items():
        run = RunDir(place.out / f"{place.name}-{name}-{seed}")
        images = unit_samples(cast(GenerativeModel, load_model(run.model, BUILDERS)[0]))
        for number in range(3):
            rows.append(_tiles(images[10 * number : 10 * (number + 1)]))
            labels.append(label if number == 0 else "")
    title = f"{place.name}: held-out images, and samples of {' and '.join(models.values())}"
    place.picture(f"samples-{seed}", draw_sheet(rows, labels, title))
    return {}


# -- autoencoders ----------------------------------------------------------------------------------


def autoencoder(
    preset: Callable[[], AEConfig], name: str, place: Place, seed: int, **model: Any
) -> dict[str, Any]:
    """Train an autoencoder of a preset; its figures on the test rows."""
    task = AETask(prepared(preset(), place, seed, **model))
    return run_whole(task, place.unit, name, place, seed)


def retrieval(preset: Callable[[], AEConfig], name: str, place: Place, seed: int) -> dict[str, Any]:
    """Train an autoencoder; adds its retrieval figures: test rows ask for all other rows."""
    task = AETask(prepared(preset(), place, seed))
    figures = run_whole(task, place.unit, name, place, seed)
    base, test = database(place.unit), place.unit.test
    assert base.label is not None and test.label is not None
    label, test_label = base.label.numpy(), test.label.numpy()
    with evaluating(task, 0):
        codes, test_codes = (task.model.encode(part.all()).numpy() for part in (base, test))
    table = {"": evaluate_retrieval(codes, label, test_codes, test_label)} | baselines(
        base.all().numpy(), label, test.all().numpy(), test_label, numbers=codes.shape[1]
    )
    for row, found in table.items():
        figures |= {f"{row} {figure}".strip(): value for figure, value in found.items()}
    return figures


def random_start(
    preset: Callable[[], AEConfig], name: str, place: Place, seed: int
) -> dict[str, Any]:
    """Train the classifier of a stacked autoencoder from random weights, as a comparison."""
    return autoencoder(preset, name, place, seed, greedy=False, whole=False, finetune_rate=1.0)


CODES = (2, 4, 8, 16, 32, 64)


def capacity(place: Place, seed: int) -> dict[str, Any]:
    """Train autoencoders 784-128-K-128-784 with several code sizes, then two whose code is larger
    than the image: without a penalty, and with noise on their input.
    """
    # The last columns are noise: a code with room for everything copies noise as well.
    with fixed_randomness([seed]):
        noise = torch.rand(200, *place.unit.shape)
    shown = torch.cat([place.unit.test.first(8).all(), noise[:2]])
    rows, labels, figures = [_tiles(shown)], ["held out, and noise"], {}
    wide = {"code": 1024, "widths": (), "code_activation": "sigmoid"}
    arms: list[tuple[str, dict[str, Any]]] = [
        (f"{code} numbers", {"code": code, "widths": (128,)}) for code in CODES
    ]
    arms += [
        ("1,024, no penalty", wide),
        ("1,024, noise .5", {**wide, "kind": "denoising", "corruption_strength": 0.5}),
    ]
    for label, model in arms:
        config = replace(ae_presets.ae_digits(), fit=replace(ae_presets.ae_digits().fit, epochs=20))
        task = AETask(prepared(config, place, seed, **model))
        fit = fitted(task, place.unit)
        with evaluating(task, 0):
            figures[label] = fit.task.evaluate(place.unit.test)["mse"]
            figures[f"{label}, noise"] = (task.model(noise) - noise).square().mean().item()
            rows.append(_tiles(task.model(shown)))
        labels.append(f"{label}: {figures[label]:.4f}")
    title = (
        f"{place.name}: reconstructions by code size, with the error on "
        f"{len(place.unit.test):,} held-out rows"
    )
    place.picture(f"capacity-{seed}", draw_sheet(rows, labels, title))
    return figures


def _tiles(images: Tensor) -> list[Tile]:
    return [Tile(image) for image in to_uint8(images, 0.0, 1.0)]


# -- the table -------------------------------------------------------------------------------------

RUNS: dict[str, Callable[[str, Place, int], dict[str, Any]]] = {
    "gan_mnist": lambda name, place, seed: gan(presets.gan_mnist, name, place, seed),
    "gan_mnist 1500 epochs": lambda name, place, seed: gan(more_epochs, name, place, seed),
    "gan_mnist5k": lambda name, place, seed: gan(presets.gan_mnist5k, name, place, seed),
    "vae_mnist5k": lambda name, place, seed: vae(presets.vae_mnist5k, name, place, seed),
    "vae_conv_mnist5k": lambda name, place, seed: vae(presets.vae_conv_mnist5k, name, place, seed),
    "samples": lambda name, place, seed: samples(place, seed),
    "stacked_source": lambda name, place, seed: autoencoder(
        ae_presets.stacked_source, name, place, seed
    ),
    "stacked_classifier": lambda name, place, seed: autoencoder(
        ae_presets.stacked_classifier, name, place, seed
    ),
    "stacked_classifier from random weights": lambda name, place, seed: random_start(
        ae_presets.stacked_classifier, name, place, seed
    ),
    "stacked_classifier with a tenth of the rate": lambda name, place, seed: autoencoder(
        ae_presets.stacked_classifier, name, place, seed, finetune_rate=0.1
    ),
    "denoising_conv_digits": lambda name, place, seed: autoencoder(
        ae_presets.denoising_conv_digits, name, place, seed
    ),
    "map_digits": lambda name, place, seed: autoencoder(ae_presets.map_digits, name, place, seed),
    "retrieval_mnist5k": lambda name, place, seed: retrieval(
        ae_presets.retrieval_mnist5k, name, place, seed
    ),
    "capacity": lambda name, place, seed: capacity(place, seed),
}


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default="mnist5k", choices=("mnist5k", "fashion-mnist"))
    parser.add_argument("--only", nargs="+", choices=tuple(RUNS), default=tuple(RUNS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/bench_published"))
    parser.add_argument("--quick", action="store_true", help="4 steps: shows that it runs")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    keep_freed_memory()
    arguments.out.mkdir(parents=True, exist_ok=True)
    place = Place(arguments.data, arguments.out, arguments.quick)
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for seed in arguments.seeds:
        for name in arguments.only:
            file = arguments.out / f"{arguments.data}-{name.replace(' ', '_')}-{seed}.json"
            if not file.exists():
                figures = RUNS[name](name.replace(" ", "_"), place, seed)
                file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
            found.setdefault(name, {})[seed] = json.loads(file.read_text(encoding="utf-8"))
            print(f"{name}, seed {seed}: {found[name][seed]}", flush=True)
    rows = []
    for name, runs in found.items():
        for figure in next(iter(runs.values())):
            values = [figures[figure] for figures in runs.values()]
            middle = f"{mean(values):.4g}" if not isinstance(values[0], str) else ""
            each = ", ".join(
                value if isinstance(value, str) else f"{value:.4g}" for value in values
            )
            rows.append((name, figure, middle, each))
    title = f"{arguments.data}, seeds {arguments.seeds}; {describe_machine()}"
    print_table(title, ("run", "figure", "mean", "each seed"), rows)
    last_json_line({name: dict(runs) for name, runs in found.items()})


if __name__ == "__main__":
    main()
