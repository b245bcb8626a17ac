"""Trains a network for any style: a decoder after adaptive instance normalisation (AdaIN).

[Huang 2017, https://arxiv.org/abs/1703.06868]
Shapes: B batch, C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import require
from genray.gen.data.types import Data, Split, need_images
from genray.gen.generative import image_grid
from genray.gen.images.style.adain import mean_std
from genray.gen.images.style.adain_net import AdaINNet, deepest_layer
from genray.gen.images.style.base import CALIBRATION, StyleTask, fit_square
from genray.gen.images.style.gram import grams
from genray.gen.images.style.losses import content_loss, style_loss, total_variation
from genray.gen.images.style.network_parts import MAX_SIDE
from genray.gen.images.style.sources import StyleSet, open_styles
from genray.gen.images.style.steadiness import unsteadiness
from genray.gen.training.fit import Batch, Export


def moments_loss(
    found: Mapping[str, Tensor], style: Mapping[str, Tensor], layers: Sequence[str]
) -> Tensor:
    """Return the relative distance of the channels' means μ and deviations σ from the style's means
    and deviations, averaged over layers and the batch.

    `found`, `style`: activations by layer. Departure from Huang's style loss: ‖Δμ‖² + ‖Δσ‖² is
    divided by ‖μ‖² + ‖σ‖² of the style, so that all layers have the same weight.
    """
    total = torch.zeros((), device=found[layers[0]].device)
    for layer in layers:
        mean, std = mean_std(found[layer])
        mean_to, std_to = mean_std(style[layer])
        off = (mean - mean_to).square().sum(1) + (std - std_to).square().sum(1)
        total = (
            total
            + (off / (mean_to.square().sum(1) + std_to.square().sum(1)).clamp(min=1e-12)).mean()
        )
    return total / len(layers)


class AnyStyleTask(StyleTask):
    """Trains Huang's decoder, so that the encoded result has the style's statistics.

    The content loss compares the activations of the decoded picture with the restyled activations,
    and the style loss compares the statistics of the decoded picture with the style's statistics.

    Departures from the paper: the losses are relative; the optimizer gets the gradient of the
    loss's logarithm; a total variation is added; and an identity loss with weight
    `identity_weight` compares contents and styles with their decoded activations.
    """

    shown = ("loss", "style", "content", "identity")
    trains_all = False
    """Whether all weights of the network are trained, or those of its decoder."""
    styles: StyleSet

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Open the styles and the features, and make the network."""
        config = self.config
        need_images(data, "a style", self.multiple)
        side = config.style_size or data.shape[-1]
        side -= side % self.multiple
        self.styles = open_styles(config.styles, config.num_styles, side)
        some = (
            torch.linspace(0, len(self.styles.train) - 1, min(CALIBRATION, len(self.styles.train)))
            .round()
            .long()
        )
        self.open_features(data, [self.styles.train[some].float() / 255])
        features = self.features
        require(
            side >= features.min_side,
            f"--style-size {side}: {features.name} needs pictures of at least {features.min_side} "
            "pixels",
        )
        self.networks["model"] = self.make_network(side)
        trained = self.model.parameters() if self.trains_all else self.model.decoder.parameters()
        self.updaters["model"] = self.updater(trained, total_updates)
        self._train_styles = self.styles.train.to(self.device)
        return data

    def make_network(self, side: int) -> nn.Module:
        """Return a new network. `side`: side of the style pictures in pixels."""
        config, features = self.config.model, self.features
        layer = config.encoder_layer or self.default_encoder_layer()
        features.check_layers([layer], "--encoder-layer")
        return AdaINNet(config, features.up_to(layer), side)

    def default_encoder_layer(self) -> str:
        """Return the deepest layer of the size at which the decoder begins; if there is none, the
        first layer.
        """
        features = self.features
        return deepest_layer(features, self.multiple) or features.layers[0]

    def losses(
        self, content_BCHW: Tensor, style_BCHW: Tensor, steady: bool = False
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Style each content with the style of the same row; returns (losses, styled pictures).

        The losses are "loss" and its parts before weighting. `steady`: with the change of the
        result when the content is disturbed.
        """
        # The targets are the style's activations, and the content's activations with the style's
        # statistics.
        layer = self.model.config.encoder_layer
        with torch.no_grad():
            style = self.activations(style_BCHW, (*self.style_layers, *self.model.layers))
            content = self.activations(content_BCHW, self.model.layers)
            style_codes = self.model.codes(style_BCHW, style)
            content_codes = self.model.codes(content_BCHW, content)
            target = self.model.restyled(content_codes, [style_codes], [1.0], 1.0)
        with self.autocast():
            y_BCHW = self.model.decoder(target)
        y_BCHW = y_BCHW.float()
        # The losses of the decoded picture.
        found = self.activations(y_BCHW, (*self.style_layers, layer))
        parts = {
            "style": self.style_distance(found, style),
            "content": content_loss(found, {layer: target[-1]}),
            "tv": total_variation(y_BCHW),
        }
        loss = (
            parts["style"] + self.content_weight * parts["content"] + self.config.tv * parts["tv"]
        )
        if self.config.identity_weight:
            # The identity loss includes style pictures, because a decoder trained on photographs
            # alone cannot produce many of the styles' colours.
            same = style_BCHW.shape == content_BCHW.shape
            plain = [content_BCHW, style_BCHW] if same else [content_BCHW]
            codes = [content_codes, style_codes] if same else [content_codes]
            with self.autocast():
                again = self.model.decoder([torch.cat(each) for each in zip(*codes)]).float()
            parts["identity"] = F.mse_loss(again, torch.cat(plain)) / torch.cat(plain).var().clamp(
                min=1e-4
            )
            loss = loss + self.config.identity_weight * parts["identity"]
        if steady:
            other_BCHW, mask_B1HW = self.disturbed(content_BCHW)
            with torch.no_grad():
                found = self.activations(other_BCHW, self.model.layers)
                codes = self.model.codes(other_BCHW, found)
                codes = self.model.restyled(codes, [style_codes], [1.0], 1.0)
            with self.autocast():
                other_BCHW = self.model.decoder(codes).float()
            parts["unsteady"] = unsteadiness(y_BCHW, other_BCHW, mask_B1HW)
            loss = loss + self.config.steadiness * parts["unsteady"]
        return {"loss": loss, **parts}, y_BCHW

    def style_distance(self, found: Mapping[str, Tensor], style: Mapping[str, Tensor]) -> Tensor:
        """Return the style loss with the configured statistics (moments or gram)."""
        if self.config.statistics == "moments":
            return moments_loss(found, style, self.style_layers)
        return style_loss(found, grams({layer: style[layer] for layer in self.style_layers}))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Style the batch with random training styles, and update the decoder."""
        count = len(self._train_styles)
        drawn_B1 = self.world.uniform(len(batch.x), 1, device=self.device)
        number_B = (drawn_B1[:, 0] * count).long().clamp(max=count - 1)
        styles_BCHW = self._train_styles[number_B].float() / 255
        found, _ = self.losses(batch.x, styles_BCHW, self.config.steadiness > 0)
        self.updaters["model"].step(found["loss"].log())  # for the reason, see FastStyleTask.step
        return {name: value.detach() for name, value in found.items()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Evaluate the contents of `split` in the validation styles; returns the figures of
        `evaluate_in`.
        """
        return self.evaluate_in(split, self.styles.validation)

    def test(self, data: Data) -> dict[str, float]:
        """Evaluate the test contents in the test styles; returns the figures of `evaluate_in`."""
        return self.evaluate_in(data.test.to(self.device), self.styles.test)

    def evaluate_in(self, split: Split, styles: Tensor) -> dict[str, float]:
        """Style each content of `split` with one of `styles`, in turn, and average the figures.

        Returns the losses, and as "style_of_unstyled" the style loss divided by the style loss of
        the unstyled contents.
        """

        def figures(x_1CHW: Tensor, row: int) -> dict[str, Tensor]:
            style = styles[row % len(styles)][None].to(self.device).float() / 255
            parts, _ = self.losses(x_1CHW, style)
            before = self.activations(x_1CHW, self.style_layers)
            return parts | {
                "unstyled": self.style_distance(before, self.activations(style, self.style_layers))
            }

        found = self.averaged(split, figures)
        return found | {"style_of_unstyled": found["style"] / found.pop("unstyled")}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return a grid of test contents (top row) in test styles (left column).

        The second row shows each content decoded without a style.
        """
        x_BCHW = data.test.first(6).all().to(self.device)
        side = x_BCHW.shape[-1]
        black = torch.zeros_like(x_BCHW[:1])
        rows = [black, x_BCHW, black, self.model.unchanged(x_BCHW)]
        for style in self.styles.test[:6]:
            one = style[None].to(self.device).float() / 255
            rows += [fit_square(one, side), self.model(x_BCHW, one)]
        return {"styled": image_grid(torch.cat(rows), 0.0, 1.0, len(x_BCHW) + 1)}

    def export(self) -> Export:
        """Return the network, its encoder's config and its card."""
        model = self.model
        card = (
            f"# Style model for any style\n\nStyles a picture of up to {MAX_SIDE} pixels a side in "
            f"the manner of others, in one pass: {self.about_network()}, trained on "
            f"{self.styles.name}.\n"
        )
        credits = self.styles.credits
        if credits:
            card += "\nThe styles:\n\n" + "".join(f"- {credit}\n" for credit in credits)
        more = {"style_credits": list(credits)} if credits else {}
        config = self.described(styles=self.styles.name, **more) | self.network_config()
        config["style_side"] = model.style_side
        return Export("style_any", config, dict(model.state_dict()), card)

    def about_network(self) -> str:
        """Return the words of the card that describe the network."""
        model = cast(AdaINNet, self.model)
        widths = " ".join(map(str, model.config.widths))
        return (
            f"adaptive instance normalisation behind {model.config.encoder_layer} of "
            f"{self.features.about['note']}; a decoder of {widths} channels"
        )

    def network_config(self) -> dict[str, Any]:
        """Return the entries of config.json that this network needs."""
        model = cast(AdaINNet, self.model)
        return {"encoder_layer": model.config.encoder_layer, "encoder": model.encoder.config()}
