"""Trains networks that style a picture in one pass, with the losses of style optimisation.

    style_fast   one style: this file   [Johnson 2016, https://arxiv.org/abs/1603.08155]
    style_any    any style, by adaptive instance normalisation: any_style_task.py
    style_micro  any style, with an encoder of its own: micro_task.py

Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Mapping
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.data.types import Data, Split
from genray.gen.generative import image_grid
from genray.gen.images.pictures import to_tensor
from genray.gen.images.style.any_style_task import AnyStyleTask
from genray.gen.images.style.base import StyleTask, StyleTrainConfig, fit_square
from genray.gen.images.style.gram import grams
from genray.gen.images.style.losses import content_loss, style_loss, total_variation
from genray.gen.images.style.micro_task import MicroStyleTask
from genray.gen.images.style.network_parts import MAX_SIDE
from genray.gen.images.style.sources import open_style
from genray.gen.images.style.steadiness import unsteadiness
from genray.gen.images.style.transformer_net import TransformerNet
from genray.gen.training.fit import Batch, Export
from genray.gen.training.world import ALONE, World


def style_task(
    config: StyleTrainConfig, world: World = ALONE, device: torch.device | str = "cpu"
) -> StyleTask:
    """Return the task that `config.method` names."""
    tasks = {
        "style_fast": FastStyleTask, "style_any": AnyStyleTask, "style_micro": MicroStyleTask,
    }  # fmt: skip
    return tasks[config.method](config, world, device)


class Targets(nn.Module):
    """The style's Gram matrices, as a module, so that checkpoints contain them."""

    def __init__(self, found: Mapping[str, Tensor]):
        super().__init__()
        for layer, gram_1CC in found.items():
            self.register_buffer(layer, gram_1CC)

    def grams(self) -> dict[str, Tensor]:
        """Return the Gram matrix of each layer, [1, C, C]."""
        return dict(self.named_buffers())


class FastStyleTask(StyleTask):
    """Trains Johnson's network.

    The loss is style + content_weight · content + tv · total variation.
    Departures from the paper: the losses are relative (losses.py), the default content layers
    depend on the features, and the optimizer gets the gradient of the loss's logarithm.
    """

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Open the style and the features, and make the network."""
        config = self.config
        side = config.style_size or data.shape[-1]
        picture, self.style_name = open_style(config.style, side)
        self.style = to_tensor(picture)
        least = min(self.style.shape[-2:])
        self.open_features(data, [self.style])
        require(
            least >= self.features.min_side,
            f"--style {config.style}: its shorter side has {least} pixels at --style-size {side}; "
            f"{self.features.name} needs {self.features.min_side} or more",
        )
        with torch.no_grad():
            targets = grams(self.activations(self.style.to(self.device), self.style_layers))
        self.networks["targets"] = Targets(targets)
        self.networks["model"] = TransformerNet(config.model)
        self.model.begin_with(self.style)
        self.updaters["model"] = self.updater(self.networks["model"].parameters(), total_updates)
        return data

    def losses(self, x_BCHW: Tensor, y_BCHW: Tensor) -> dict[str, Tensor]:
        """Return "loss" and its parts before weighting, for the results y of the contents x."""
        with torch.no_grad():
            wanted = self.activations(x_BCHW, self.content_layers)
        found = self.activations(y_BCHW, self.layers)
        style = style_loss(found, cast(Targets, self.networks["targets"]).grams())
        content, tv = content_loss(found, wanted), total_variation(y_BCHW)
        loss = style + self.content_weight * content + self.config.tv * tv
        return {"loss": loss, "style": style, "content": content, "tv": tv}

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Style the batch, and update the network."""
        with self.autocast():
            y_BCHW = self.model(batch.x)
        found = self.losses(batch.x, y_BCHW.float())
        if self.config.steadiness:
            other_BCHW, mask_B1HW = self.disturbed(batch.x)
            with self.autocast():
                again_BCHW = self.model(other_BCHW)
            found["unsteady"] = unsteadiness(y_BCHW.float(), again_BCHW.float(), mask_B1HW)
            found["loss"] = found["loss"] + self.config.steadiness * found["unsteady"]
        # The optimizer gets the gradient of the loss's logarithm, which has the same minimum and
        # does not depend on the loss's scale. The loss's own gradient is a hundred times larger far
        # from the style than near it, so Adam would make tiny steps until its averages forget the
        # first gradients.
        self.updaters["model"].step(found["loss"].log())
        return {name: value.detach() for name, value in found.items()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return the loss, its parts, and as "style_of_unstyled" the style loss divided by the
        style loss of the unstyled contents.
        """

        def figures(x_1CHW: Tensor, row: int) -> dict[str, Tensor]:
            before = self.losses(x_1CHW, x_1CHW)["style"]
            return self.losses(x_1CHW, self.model(x_1CHW)) | {"unstyled": before}

        found = self.averaged(split, figures)
        return found | {"style_of_unstyled": found["style"] / found.pop("unstyled")}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a grid of the style and test contents (top row), with the results below."""
        x_BCHW = data.test.first(7).all().to(self.device)
        y_BCHW = torch.cat([self.model(x[None]) for x in x_BCHW])
        style = fit_square(self.style, x_BCHW.shape[-1]).to(self.device)
        sheet = torch.cat([style, x_BCHW, torch.zeros_like(style), y_BCHW])
        return {"styled": image_grid(sheet, 0.0, 1.0, len(x_BCHW) + 1)}

    def export(self) -> Export:
        """Return the network, its config and its card."""
        card = (
            f"# Style model: {self.style_name}\n\nStyles a picture of up to {MAX_SIDE} pixels a "
            "side in one pass. A transformer network of "
            f"{' '.join(map(str, self.config.model.widths))} channels, trained with "
            f"{self.features.about['note']}.\n"
        )
        return Export(
            "style_fast", self.described(style=self.style_name), dict(self.model.state_dict()), card
        )
