"""Extracts features with a stack of convolutions and poolings like VGG's.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import ConfigError
from genray.gen.images.features.base import Features


class ConvStack(Features):
    """A network like VGG: blocks of 3x3 convolutions with ReLU, and 2x2 average pooling between
    the blocks.

    Departures from VGG: average pooling, which gives smoother pictures than max pooling
    [Gatys 2016, https://doi.org/10.1109/CVPR.2016.265]; and reflection padding, because zero
    padding would give the result a visible border.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[str],
        counts: Sequence[int],
        widths: Sequence[int],
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        """Make the convolutions without initialising their weights.

        Args:
            name: the extractor's name, for messages.
            layers: a name for each convolution, shallow to deep.
            counts: number of convolutions of each block.
            widths: number of channels of each block.
            mean, std: mean and deviation of red, green and blue, with which pictures are
                normalised.
        """
        super().__init__()
        self.name, self.layers = name, tuple(layers)
        self.counts, self.widths = tuple(counts), tuple(widths)
        assert len(self.layers) == sum(counts)
        self.mean: Tensor
        self.std: Tensor
        inputs, self.convs = 3, nn.ModuleList()
        self._pools: list[bool] = []  # whether a pooling precedes the convolution
        for block, (count, width) in enumerate(zip(counts, widths)):
            for number in range(count):
                # Initial weights would be overwritten; drawing them takes time and changes the
                # global random state.
                conv = nn.utils.skip_init(
                    nn.Conv2d, inputs, width, 3, padding=1, padding_mode="reflect"
                )
                self.convs.append(conv)
                self._pools.append(block > 0 and number == 0)
                inputs = width
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])
        self.freeze()

    @property
    def min_side(self) -> int:  # type: ignore[override]
        """The shortest side that the default layers support, in pixels."""
        return self.least_side((*self.style_layers, *self.content_layers))

    def least_side(self, layers: Sequence[str]) -> int:
        """Return the smallest side, in pixels, that a picture must have for `layers`."""
        used = max(self.layers.index(layer) for layer in layers)
        # Reflection padding needs two pixels at the smallest size.
        return 2 << sum(self._pools[: used + 1])

    def width_of(self, layer: str) -> int:
        """Return a layer's number of channels."""
        return self.convs[self.layers.index(layer)].out_channels  # type: ignore[return-value]

    def stride_of(self, layer: str) -> int:
        """Return the distance of a layer's neighbouring activations: 2 to the power of the number
        of poolings before the layer.
        """
        return 1 << sum(self._pools[: self.layers.index(layer) + 1])

    def up_to(self, layer: str) -> "ConvStack":
        """Return a copy that ends with `layer`, as a part of a model.

        Raises ConfigError for an unknown layer.
        """
        self.check_layers([layer])
        layers = self.layers[: self.layers.index(layer) + 1]
        blocks = sum(self._pools[: len(layers)]) + 1
        counts = [*self.counts[: blocks - 1], len(layers) - sum(self.counts[: blocks - 1])]
        config = self.config() | {
            "layers": layers,
            "counts": counts,
            "widths": self.widths[:blocks],
            "style_layers": [each for each in self.style_layers if each in layers],
            "content_layers": [each for each in self.content_layers if each in layers],
        }
        short = build_stack(config)
        kept = short.state_dict().keys()
        short.load_state_dict(
            {name: value.clone() for name, value in self.state_dict().items() if name in kept}
        )
        return short

    def before(self, index: int, h_BCHW: Tensor) -> Tensor:
        """Return the input of convolution `index`, given the activations before it."""
        if not self._pools[index]:
            return h_BCHW
        if min(h_BCHW.shape[-2:]) < 4:
            raise ConfigError(
                f"a picture of too few pixels: layer {self.layers[index]} of {self.name} needs a "
                f"short side of at least {2 << sum(self._pools[: index + 1])}; choose a larger "
                "--size, or shallower layers"
            )
        return F.avg_pool2d(h_BCHW, 2)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Compute `forward`; layers deeper than the named ones are not computed."""
        found: dict[str, Tensor] = {}
        h_BCHW = (x_BCHW - self.mean) / self.std
        for index, (layer, conv) in enumerate(zip(self.layers, self.convs)):
            if len(found) == len(set(layers)):
                break
            h_BCHW = F.relu(conv(self.before(index, h_BCHW)))
            if layer in layers:
                found[layer] = h_BCHW
        return found

    def config(self) -> dict[str, Any]:
        """Return the argument with which `build_stack` and `build_features` build this stack.

        The argument is JSON-serialisable and has no weights.
        """
        return {
            "name": self.name,
            "trained": self.trained,
            "about": self.about,
            "layers": list(self.layers),
            "style_layers": list(self.style_layers),
            "content_layers": list(self.content_layers),
            "counts": list(self.counts),
            "widths": list(self.widths),
        }


def build_stack(config: Mapping[str, Any]) -> ConvStack:
    """Build the stack that `ConvStack.config` describes.

    The weights and the normalisation must then be loaded from a state dict.
    """
    stack = ConvStack(config["name"], config["layers"], config["counts"], config["widths"])
    stack.trained, stack.about = bool(config["trained"]), dict(config["about"])
    stack.style_layers, stack.content_layers = (
        tuple(config["style_layers"]),
        tuple(config["content_layers"]),
    )
    return stack
