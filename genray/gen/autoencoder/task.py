"""Trains autoencoders of every kind: all layers at once or layer by layer, then with few labels.

Shapes: B batch, Z dimension of the code, K classes, N rows, U windows.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.config import to_dict
from genray.errors import require
from genray.gen.autoencoder.corruption import corrupt, median_filter
from genray.gen.autoencoder.losses import LBFGSUpdater, contraction, reconstruction_loss, sparsity
from genray.gen.autoencoder.model import STACKED, AEModelConfig, Autoencoder
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_labels
from genray.gen.evaluation.probes import (
    flat,
    labelled_few,
    principal_components,
    softmax_regression,
)
from genray.gen.generative import image_grid
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World

CHUNK = 512
"""Number of rows evaluated at a time."""
CLASSIFYING = ("head", "classifier")
"""Stages with labels: first the head on fixed codes, then head and encoder together, so that an
untrained head does not damage the encoder's features. [Kumar 2022,
https://arxiv.org/abs/2202.10054]
"""
SHOWN = 12
"""Number of columns of the reconstruction picture."""


@dataclass(frozen=True, kw_only=True)
class AEConfig:
    """Configuration of an autoencoder: undercomplete, denoising, convolutional, or stacked."""

    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: AEModelConfig = field(default_factory=AEModelConfig)

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        require(
            not self.model.lbfgs or (self.fit.accumulate == 1 and self.fit.amp == "off"),
            "--lbfgs: takes all rows at once in float32; leave out --accumulate and --amp",
        )


def stage_names(config: AEModelConfig) -> tuple[str, ...]:
    """Return the stages: layer-1 … layer-n and whole, or train; then head and classifier."""
    stages: tuple[str, ...] = ("train",)
    if config.kind in STACKED:
        layers = tuple(f"layer-{number + 1}" for number in range(len(config.widths) + 1))
        stages = (layers if config.greedy else ()) + (("whole",) if config.whole else ())
    if config.finetune_labels:
        stages += CLASSIFYING
    require(
        len(stages) > 0,
        "--no-greedy --no-whole: nothing is left to train; leave one out, or give "
        "--finetune-labels 100",
    )
    return stages


class AETask(Task):
    """Trains an autoencoder: minimises the reconstruction error and penalties of a stage's layers.

    In greedy stages, layer i learns to reconstruct the codes of layer i−1, whose weights are
    fixed. These codes are computed anew at every step, with new corruption and augmentation.
    Departure from Vincent 2010: the data is corrupted, not the codes between layers. Layer i
    reconstructs the codes of the clean row from the codes of the corrupted row.
    """

    def __init__(self, config: AEConfig, world: World = ALONE, device: torch.device | str = "cpu"):
        super().__init__(world, device, config.fit.amp)
        config.validate()
        require(
            not config.model.lbfgs or world.size == 1,
            "--lbfgs: takes all rows at once; use one worker",
        )
        require(
            not config.model.batch_norm or config.fit.batch_size >= 2 * world.size,
            f"--batch-size {config.fit.batch_size}: batch norm needs 2 rows or more for each "
            "worker; use e.g. 100",
        )
        self.config = config
        self.stages = stage_names(config.model)
        self._stage = 0

    @property
    def model(self) -> Autoencoder:
        model = self.networks["model"]
        assert isinstance(model, Autoencoder)
        return model

    # -- training ----------------------------------------------------------------------------------

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        config = self.config.model
        if "model" not in self.networks:
            self._build(data)
        self._stage = stage
        self.progress.fill_(stage)
        name, model = self.stages[stage], self.model
        parameters = model.blocks.parameters()
        held: list[nn.Module] = []
        optimizer = self.config.optimizer
        if name in CLASSIFYING:
            assert model.classifier is not None
            if name == "head":
                model.start_classifier()
                parameters = model.classifier["head"].parameters()
                held = [model.classifier["blocks"]]
            else:
                parameters = model.classifier.parameters()
                optimizer = replace(
                    optimizer, learning_rate=optimizer.learning_rate * config.finetune_rate
                )
            data = replace(
                data, train=labelled_few(data.train, config.finetune_labels, self.config.fit.seed)
            )
        elif name.startswith("layer-"):
            block = model.blocks[int(name.removeprefix("layer-")) - 1]
            parameters = block.parameters()
            held = [each for each in model.blocks if each is not block]
        model.hold(held)
        maker: type[Updater] = LBFGSUpdater if config.lbfgs else Updater
        self.updaters = {
            name: maker(
                parameters,
                optimizer,
                total_updates=total_updates,
                accumulate=self.config.fit.accumulate,
                amp=self.amp,
                world=self.world,
            )
        }
        self._train = data.train
        return data

    def _build(self, data: Data) -> None:
        config, train, classes = self.config.model, data.train, 0
        if config.corruption_kind == "warp":
            require(
                len(data.shape) == 3, f"--corruption warp: {data.name} has no images; use masking"
            )
        if config.finetune_labels:
            need_labels(data, "--finetune-labels")
            assert train.label is not None
            classes = len(data.classes) or int(train.label.max()) + 1
            # Raises errors about labels now, before the first stage is trained.
            labelled_few(train, config.finetune_labels, self.config.fit.seed)
            require(
                config.finetune_labels >= self.config.fit.batch_size,
                f"--finetune-labels {config.finetune_labels}: fewer than --batch-size "
                f"{self.config.fit.batch_size}; "
                f"use --batch-size {config.finetune_labels}",
            )
        self.networks["model"] = Autoencoder(config, data.shape, train.low, train.high, classes)
        # The stage's number is saved with the networks: a finished run that is loaded again needs
        # the number for its evaluation.
        self.networks["progress"] = nn.Module()
        self.networks["progress"].register_buffer("stage", torch.zeros((), dtype=torch.int64))

    @property
    def progress(self) -> Tensor:
        return self.networks["progress"].get_buffer("stage")

    def _span(self, name: str) -> tuple[int, int]:
        """Return (floor, top): a stage trains the layers from `floor` to `top`."""
        if name.startswith("layer-"):
            top = int(name.removeprefix("layer-"))
            return top - 1, top
        return 0, self.model.depth

    def step(self, batch: Batch) -> dict[str, Tensor]:
        name = self.stages[self._stage]
        updater = self.updaters[name]
        if isinstance(updater, LBFGSUpdater):
            x, label = self._train.to(self.device).take(
                torch.arange(len(self._train), device=self.device)
            )
            return updater.minimise(lambda: self._loss(name, x.double(), label))
        values = self._loss(name, batch.x, batch.label)
        updater.step(values["loss"])
        return {key: value.detach() for key, value in values.items()}

    def _loss(self, name: str, x: Tensor, label: Tensor | None) -> dict[str, Tensor]:
        if name in CLASSIFYING:
            assert label is not None
            with self.autocast():
                logits_BK = self.model.classify(x)
            return {"loss": functional.cross_entropy(logits_BK.float(), label)}
        return self._reconstruction(name, x, penalties=True)

    def _reconstruction(self, name: str, x: Tensor, penalties: bool = False) -> dict[str, Tensor]:
        """Return `loss`, and each of its parts if there are several."""
        config, model = self.config.model, self.model
        floor, top = self._span(name)
        with self.autocast():
            with torch.no_grad():
                target, _ = model.up(x, floor)
                below, _ = model.up(self.corrupted(x), floor)
            if penalties and config.contractive:
                below.requires_grad_()
            h, positions = model.up(below, top, floor)
            rebuilt = model.down(h, positions, floor)
        kind = config.reconstruction if floor == 0 else "mse"
        loss = reconstruction_loss(kind, at_least_float32(rebuilt), at_least_float32(target))
        values = {"loss": loss}
        if penalties and config.sparsity:
            used = config.code_activation if top == model.depth else config.activation
            values["sparsity"] = sparsity(h.float(), used, config.sparsity_target)
            values["loss"] = values["loss"] + config.sparsity * values["sparsity"]
        if penalties and config.contractive:
            values["contraction"] = contraction(h, below, self.world)
            values["loss"] = values["loss"] + config.contractive * values["contraction"]
        return values if len(values) == 1 else {**values, "reconstruction": loss}

    def corrupted(self, x: Tensor) -> Tensor:
        config, model = self.config.model, self.model
        return corrupt(
            x, config.corruption_kind, config.corruption_strength, model.low, model.high, self.world
        )

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate: `loss` of the current stage; `mse` and `psnr` (dB) of clean rows through the
        layers trained so far; `accuracy` of the classifier.
        """
        name, sums = self.stages[int(self.progress)], _Means()
        top = self.model.depth if name in CLASSIFYING else self._span(name)[1]
        for x, label in chunks(split):
            if name in CLASSIFYING:
                assert label is not None
                logits_BK = self.model.classify(x)
                sums.add("loss", functional.cross_entropy(logits_BK, label), len(x))
                sums.add("accuracy", (logits_BK.argmax(1) == label).float().mean(), len(x))
            else:
                sums.add("loss", self._reconstruction(name, x)["loss"], len(x))
            if name not in CLASSIFYING or self._reconstructs:
                sums.add(
                    "mse", (self.model.down(*self.model.up(x, top)) - x).square().mean(), len(x)
                )
        values = sums.values()
        if values.get("mse"):
            values["psnr"] = 10 * math.log10((split.high - split.low) ** 2 / values["mse"])
        return values

    @property
    def _reconstructs(self) -> bool:
        """Whether any stage trains the decoder; a classifier from random weights trains none."""
        return self.stages != CLASSIFYING

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split, and add baselines: PCA, the input itself, a median
        filter.

        `accuracy` is the fine-tuned classifier's. `accuracy_codes`, `accuracy_pixels` and
        `accuracy_pca` are those of a softmax regression on the same labelled rows.
        """
        config, model, values = self.config.model, self.model, self.evaluate(data.test)
        train, test = flat(data.train.all()), flat(data.test.all())
        pca = principal_components(train, config.code)
        if pca is not None:
            values["pca_mse"] = float(
                np.square(pca.inverse_transform(pca.transform(test)) - test).mean()
            )
        if config.corruption_kind != "none":
            values |= self._denoising(data.test)
        if model.position_bits:
            values["position_bits"] = model.position_bits
            values["position_entropy_bits"] = self._position_entropy(data.test)
        if config.finetune_labels:
            few = labelled_few(data.train, config.finetune_labels, self.config.fit.seed)
            assert few.label is not None and data.test.label is not None
            label, test_label = few.label.cpu().numpy(), data.test.label.cpu().numpy()
            inputs = {"pixels": (flat(few.all()), test)}
            if pca is not None:
                inputs["pca"] = (pca.transform(inputs["pixels"][0]), pca.transform(test))
            if self._reconstructs:
                inputs["codes"] = (self._codes(few), self._codes(data.test))
            for name, (known, asked) in inputs.items():
                values[f"accuracy_{name}"] = softmax_regression(known, label, asked, test_label)
        return values

    def _codes(self, split: Split) -> np.ndarray:
        return flat(torch.cat([self.model.up(x)[0] for x, _ in chunks(split)]))

    def _denoising(self, split: Split) -> dict[str, float]:
        sums = _Means()
        for x, _ in chunks(split):
            seen = self.corrupted(x)
            sums.add("denoised_mse", (self.model(seen) - x).square().mean(), len(x))
            sums.add("identity_mse", (seen - x).square().mean(), len(x))
            if x.ndim == 4:
                sums.add("median_filter_mse", (median_filter(seen) - x).square().mean(), len(x))
        return sums.values()

    def _position_entropy(self, split: Split) -> float:
        """Return the bits of information in an image's positions: Σ over windows of the entropy
        of the window's position over `split`.

        Windows depend on each other, so the sum is an upper bound of the joint entropy. The sum
        is at most `position_bits`.
        """
        every: list[list[Tensor]] = []
        for x, _ in chunks(split):
            every.append(
                [position.flatten(1) for position in self.model.up(x)[1] if position is not None]
            )
        bits = 0.0
        for position_NU in (torch.cat(level) for level in zip(*every)):
            ordered = position_NU.sort(0).values
            for window in ordered.unbind(1):
                share = window.unique_consecutive(return_counts=True)[1].double() / len(window)
                bits -= float((share * share.log2()).sum())
        return bits

    # -- pictures and export -----------------------------------------------------------------------

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return "reconstruction": rows of originals, corrupted inputs if any, reconstructions."""
        if len(data.shape) != 3 or data.shape[0] not in (1, 3) or not self._reconstructs:
            return {}
        name = self.stages[int(self.progress)]
        held_out = data.validation if len(data.validation) else data.test
        x = held_out.first(SHOWN).all()
        seen = self.corrupted(x)
        top = self.model.depth if name in CLASSIFYING else self._span(name)[1]
        made = self.model.down(*self.model.up(seen, top)).float()
        rows = [x, made] if self.config.model.corruption_kind == "none" else [x, seen, made]
        return {
            "reconstruction": image_grid(
                torch.cat(rows), self.model.low, self.model.high, columns=len(x)
            )
        }

    def export(self) -> Export:
        model = self.model
        config = {
            "model": to_dict(self.config.model),
            "shape": list(model.shape),
            "low": model.low,
            "high": model.high,
            "num_classes": 0 if model.classifier is None else model.classifier["head"].out_features,
        }
        return Export("autoencoder", config, dict(model.state_dict()), self._card())

    def _card(self) -> str:
        config, model = self.config.model, self.model
        layers = " → ".join(map(str, (math.prod(model.shape), *config.widths, config.code)))
        text = (
            "---\nlibrary_name: genray\ntags: [autoencoder, pytorch, safetensors]\n---\n\n"
            f"# Autoencoder ({config.kind})\n\n{layers} and back: rows of shape {model.shape} in "
            f"{model.low:g}..{model.high:g}, codes of {config.code} "
            f"{'bits (−1 or 1)' if config.binary else 'numbers'}. Trained in the stages "
            f"{', '.join(self.stages)}"
            f" ({config.reconstruction}; corruption: {config.corruption_kind}).\n"
        )
        if model.position_bits:
            text += (
                "\n**Its reconstructions are not made from the code alone**: recorded pool "
                "positions carry up to "
                f"{model.position_bits:,.0f} bits an image around it. It refuses to encode, decode "
                "and retrieve.\n"
            )
        if config.finetune_labels:
            labels = config.finetune_labels
            text += f"\nThe classifier learned from {labels} labels, on a copy of the encoder.\n"
        return text


class _Means:
    """Means over all rows, from means over chunks of rows."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._rows: dict[str, int] = {}

    def add(self, name: str, mean: Tensor, rows: int) -> None:
        self._sums[name] = self._sums.get(name, 0.0) + float(mean) * rows
        self._rows[name] = self._rows.get(name, 0) + rows

    def values(self) -> dict[str, float]:
        return {name: total / self._rows[name] for name, total in self._sums.items()}


def chunks(split: Split) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield the split's rows and labels, at most `CHUNK` rows at a time."""
    for start in range(0, len(split), CHUNK):
        rows = torch.arange(start, min(start + CHUNK, len(split)), device=split.values.device)
        yield split.take(rows)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x as float32, or unchanged when x is float64."""
    return x if x.dtype == torch.float64 else x.float()
