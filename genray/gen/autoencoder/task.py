"""Trains autoencoders of every kind: all layers at once or layer by layer, then with few labels.

Shapes: B batch, Z dimension of the code, K classes.
"""

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.config import to_dict
from genray.errors import require
from genray.gen.autoencoder.card import model_card
from genray.gen.autoencoder.config import CLASSIFYING, AEConfig, stage_names
from genray.gen.autoencoder.corruption import corrupt
from genray.gen.autoencoder.evaluation import (
    RowMeans,
    chunks,
    denoising_errors,
    linear_baselines,
    position_entropy,
)
from genray.gen.autoencoder.lbfgs import LBFGSUpdater
from genray.gen.autoencoder.losses import contraction, reconstruction_loss, sparsity
from genray.gen.autoencoder.model import Autoencoder
from genray.gen.data.types import Data, Split, need_labels
from genray.gen.evaluation.probes import labelled_few
from genray.gen.generative import image_grid
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World

__all__ = ["AEConfig", "AETask", "stage_names"]

SHOWN = 12
"""Number of columns of the reconstruction picture."""


class AETask(Task):
    """Trains an autoencoder: minimises the reconstruction error and penalties of a stage's layers.

    In greedy stages, layer i learns to reconstruct the codes of layer i−1, whose weights are
    fixed. These codes are computed anew at every step, with new corruption and augmentation.
    Departure from Vincent 2010: the data is corrupted, not the codes between layers. Layer i
    reconstructs the codes of the clean row from the codes of the corrupted row.

    Args:
        config: the autoencoder's configuration.
        world: this data-parallel worker.
        device: the device on which the network is trained.

    Raises:
        ConfigError: the options are invalid, or do not fit the number of workers.
    """

    def __init__(self, config: AEConfig, world: World = ALONE, device: torch.device | str = "cpu"):
        super().__init__(world, device, config.fit.amp)
        config.validate()
        require(
            not config.model.lbfgs or world.size == 1,
            "--lbfgs: each step uses all rows; use one worker",
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
        """The network, which the first call of `begin_stage` creates."""
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
        # Choose the parameters that the stage trains, and the blocks that stay in evaluation mode.
        parameters = model.blocks.parameters()
        fixed: list[nn.Module] = []
        optimizer = self.config.optimizer
        if name in CLASSIFYING:
            assert model.classifier is not None
            # Train the head on fixed codes, then head and encoder together.
            if name == "head":
                model.start_classifier()
                parameters = model.classifier["head"].parameters()
                fixed = [model.classifier["blocks"]]
            else:
                parameters = model.classifier.parameters()
                optimizer = replace(
                    optimizer,
                    learning_rate=optimizer.learning_rate * config.finetune_rate,
                    learned_scale=optimizer.learned_scale * config.finetune_rate,
                )
            data = replace(
                data, train=labelled_few(data.train, config.finetune_labels, self.config.fit.seed)
            )
        elif name.startswith("layer-"):
            block = model.blocks[int(name.removeprefix("layer-")) - 1]
            parameters = block.parameters()
            fixed = [each for each in model.blocks if each is not block]
        model.keep_evaluating(fixed)
        # Create the updater.
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
        """Create the network before the first stage.

        Raises ConfigError if the data do not fit the corruption, the labels or the network.
        """
        config, train, classes = self.config.model, data.train, 0
        if config.corruption_kind == "warp":
            require(
                len(data.shape) == 3, f"--corruption warp: {data.name} has no images; use masking"
            )
        if config.finetune_labels:
            need_labels(data, "--finetune-labels")
            assert train.label is not None
            classes = len(data.classes) or int(train.label.max()) + 1
            # `labelled_few` raises ConfigError if there are too few labels. Call it now, before
            # any training.
            labelled_few(train, config.finetune_labels, self.config.fit.seed)
            require(
                config.finetune_labels >= self.config.fit.batch_size,
                f"--finetune-labels {config.finetune_labels}: fewer than --batch-size "
                f"{self.config.fit.batch_size}; use --batch-size {config.finetune_labels}",
            )
        self.networks["model"] = Autoencoder(config, data.shape, train.low, train.high, classes)
        # The stage's number is saved with the networks, because a finished run that is loaded again
        # needs the number for its evaluation.
        self.networks["progress"] = nn.Module()
        self.networks["progress"].register_buffer("stage", torch.zeros((), dtype=torch.int64))

    @property
    def progress(self) -> Tensor:
        """The number of the stage, int64 [], saved with the networks."""
        return self.networks["progress"].get_buffer("stage")

    def _layer_range(self, name: str) -> tuple[int, int]:
        """Return (first, last): stage `name` trains the layers from `first` (0: the data) to
        `last`.
        """
        if name.startswith("layer-"):
            last = int(name.removeprefix("layer-"))
            return last - 1, last
        return 0, self.model.depth

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the stage's layers; returns `loss`, and its parts if there are several."""
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
        first, last = self._layer_range(name)
        # Encode the clean and the corrupted rows into the input of the stage, without gradients.
        with self.autocast():
            with torch.no_grad():
                target, _ = model.encode_layers(x, first)
                below, _ = model.encode_layers(self.corrupted(x), first)
            if penalties and config.contractive:
                below.requires_grad_()
            # Encode and decode through the stage's layers.
            h, positions = model.encode_layers(below, last, first)
            rebuilt = model.decode_layers(h, positions, first)
        # Compare with the encoded clean rows, and add the penalties on the code.
        kind = config.reconstruction if first == 0 else "mse"
        loss = reconstruction_loss(kind, at_least_float32(rebuilt), at_least_float32(target))
        values = {"loss": loss}
        if penalties and config.sparsity:
            used = config.code_activation if last == model.depth else config.activation
            values["sparsity"] = sparsity(h.float(), used, config.sparsity_target)
            values["loss"] = values["loss"] + config.sparsity * values["sparsity"]
        if penalties and config.contractive:
            values["contraction"] = contraction(h, below, self.world)
            values["loss"] = values["loss"] + config.contractive * values["contraction"]
        return values if len(values) == 1 else {**values, "reconstruction": loss}

    def corrupted(self, x: Tensor) -> Tensor:
        """Return the rows x with the configured corruption."""
        config, model = self.config.model, self.model
        return corrupt(
            x, config.corruption_kind, config.corruption_strength, model.low, model.high, self.world
        )

    # -- evaluation --------------------------------------------------------------------------------

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return `loss` of the current stage, `mse` and `psnr` (dB) of the reconstructions of clean
        rows by the layers trained so far, and `accuracy` in the stages with labels.
        """
        name, sums = self.stages[int(self.progress)], RowMeans()
        last = self.model.depth if name in CLASSIFYING else self._layer_range(name)[1]
        for x, label in chunks(split):
            if name in CLASSIFYING:
                assert label is not None
                logits_BK = self.model.classify(x)
                sums.add("loss", functional.cross_entropy(logits_BK, label), len(x))
                sums.add("accuracy", (logits_BK.argmax(1) == label).float().mean(), len(x))
            else:
                sums.add("loss", self._reconstruction(name, x)["loss"], len(x))
            if name not in CLASSIFYING or self._reconstructs:
                rebuilt = self.model.decode_layers(*self.model.encode_layers(x, last))
                sums.add("mse", (rebuilt - x).square().mean(), len(x))
        values = sums.values()
        if values.get("mse"):
            values["psnr"] = 10 * math.log10((split.high - split.low) ** 2 / values["mse"])
        return values

    @property
    def _reconstructs(self) -> bool:
        """Whether any stage trains the decoder. A run with only a classifier does not."""
        return self.stages != CLASSIFYING

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test split, and add baselines and the information in positions.

        `linear_baselines` and `denoising_errors` describe the baselines. `accuracy` belongs to the
        fine-tuned classifier; `accuracy_codes`, `accuracy_pixels` and `accuracy_pca` belong to
        softmax regressions on the same labelled rows.
        """
        config, model, values = self.config.model, self.model, self.evaluate(data.test)
        few = None
        if config.finetune_labels:
            few = labelled_few(data.train, config.finetune_labels, self.config.fit.seed)
        values |= linear_baselines(model, data, few, self._reconstructs)
        if config.corruption_kind != "none":
            values |= denoising_errors(model, self.corrupted, data.test)
        if model.position_bits:
            values["position_bits"] = model.position_bits
            values["position_entropy_bits"] = position_entropy(model, data.test)
        return values

    # -- pictures and export -----------------------------------------------------------------------

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return "reconstruction": a row of originals, of corrupted inputs (if any), and of
        reconstructions.

        Returns no picture if the data are not images, or if no stage trains the decoder.
        """
        if len(data.shape) != 3 or data.shape[0] not in (1, 3) or not self._reconstructs:
            return {}
        name = self.stages[int(self.progress)]
        held_out = data.validation if len(data.validation) else data.test
        x = held_out.first(SHOWN).all()
        noisy = self.corrupted(x)
        last = self.model.depth if name in CLASSIFYING else self._layer_range(name)[1]
        rebuilt = self.model.decode_layers(*self.model.encode_layers(noisy, last)).float()
        rows = [x, rebuilt] if self.config.model.corruption_kind == "none" else [x, noisy, rebuilt]
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
        card = model_card(model, self.stages)
        return Export("autoencoder", config, dict(model.state_dict()), card)


def at_least_float32(x: Tensor) -> Tensor:
    """Return x as float32, or unchanged when x is float64."""
    return x if x.dtype == torch.float64 else x.float()
