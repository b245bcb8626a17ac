"""Trains MicroAST: a network for any style with small encoders of its own.

[Wang 2023, https://arxiv.org/abs/2211.15313]
Shapes: B batch, C channels, H height, W width, K kinds of signals, N numbers of all signals.
Pictures are float32 in 0..1.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.gen.images.style.any_style_task import AnyStyleTask
from genray.gen.images.style.losses import content_loss, total_variation
from genray.gen.images.style.micro_net import MicroNet
from genray.gen.images.style.steadiness import unsteadiness


def contrastive_loss(found: Sequence[Tensor], styles: Sequence[Tensor]) -> Tensor:
    """Return the style signal contrastive loss, averaged over the batch.

    The squared distance of a result's signals from those of its own style is divided by the sum of
    the squared distances from those of the batch's other styles. A batch of one has no others, and
    loss 0. Departure from the paper: squared distances, which have a gradient at 0.

    Args:
        found: the signals of the results, [B, K, C, 1, 1] for each stage.
        styles: the signals of the styles of the same rows.
    """
    found_BN, styles_BN = (
        torch.cat([each.flatten(1) for each in part], 1) for part in (found, styles)
    )
    if len(found_BN) < 2:
        return found_BN.new_zeros(())
    distance_BB = (found_BN[:, None] - styles_BN[None]).square().mean(2)
    own_B = distance_BB.diagonal()
    return (own_B / (distance_BB.sum(1) - own_B).clamp(min=1e-6)).mean()


class MicroStyleTask(AnyStyleTask):
    """Trains MicroAST with a feature extractor as the teacher: the extractor is not part of the
    model.

    The loss is style + content_weight · content + tv · total variation + contrastive_weight ·
    contrastive + identity_weight · identity. Departures from the paper: those of `AnyStyleTask`;
    the content loss is relative.
    """

    trains_all = True

    def make_network(self, side: int) -> nn.Module:
        """Return a new network. `side`: side of the style pictures in pixels."""
        return MicroNet(self.config.model, side, self.features.about).to(self.device)

    def losses(
        self, content_BCHW: Tensor, style_BCHW: Tensor, steady: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Style each content with the style of the same row; returns (losses, styled pictures).

        The losses are "loss" and its parts before weighting. `steady`: with the change of the
        result when the content is disturbed.
        """
        config, model = self.config, self.model
        with torch.no_grad():
            style = self.activations(style_BCHW, self.style_layers)
            content = self.activations(content_BCHW, self.content_layers)
        with self.autocast():
            code = model.encode_style(style_BCHW)
            y_BCHW = model.restyle(content_BCHW, [code], [1.0], 1.0)
        y_BCHW = y_BCHW.float()
        found = self.activations(y_BCHW, self.layers)
        parts = {
            "style": self.style_distance(found, style),
            "content": content_loss(found, content),
            "tv": total_variation(y_BCHW),
        }
        loss = parts["style"] + self.content_weight * parts["content"] + config.tv * parts["tv"]
        if config.contrastive_weight:
            with self.autocast():
                signals = model.encode_style(y_BCHW).signals
            parts["contrastive"] = contrastive_loss(signals, code.signals)
            loss = loss + config.contrastive_weight * parts["contrastive"]
        if config.identity_weight:
            with self.autocast():
                same_BCHW = model.unchanged(content_BCHW).float()
            error = F.mse_loss(same_BCHW, content_BCHW)
            parts["identity"] = error / content_BCHW.var().clamp(min=1e-4)
            loss = loss + config.identity_weight * parts["identity"]
        if steady:
            other_BCHW, mask_B1HW = self.disturbed(content_BCHW)
            with self.autocast():
                again_BCHW = model.restyle(other_BCHW, [code], [1.0], 1.0).float()
            parts["unsteady"] = unsteadiness(y_BCHW, again_BCHW, mask_B1HW)
            loss = loss + config.steadiness * parts["unsteady"]
        return {"loss": loss, **parts}, y_BCHW

    def about_network(self) -> str:
        """Return the words of the card that describe the network."""
        weights = sum(each.numel() for each in self.model.parameters())
        return (
            f"MicroAST of {' '.join(map(str, self.config.model.widths))} channels, {weights:,} "
            f"weights, taught by {self.features.about['note']}"
        )

    def network_config(self) -> dict[str, Any]:
        """Return the entries of config.json that this network needs."""
        return {"architecture": "micro"}
