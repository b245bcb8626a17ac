"""Base class of the networks for any style: checks a picture and its styles, and crops the result.

Shapes: C channels, H height, W width. Pictures are float32 in 0..1.
"""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.images.style.config import normalise_weights
from genray.gen.images.style.network_parts import (
    LEAST_SIDE,
    MAX_SIDE,
    check_alpha,
    check_picture,
    pad_to_multiple,
)
from genray.gen.images.style.sizes import resize

Code = TypeVar("Code")
"""What a network computes from a style picture."""


class AnyStyleNet(nn.Module, Generic[Code]):
    """Styles a picture with other pictures in one pass.

    Subclasses compute the code of a style, and apply codes to a content.

    Args:
        style_side: shorter side of style pictures in training, in pixels.
        multiple: the sides of pictures are padded to multiples of this number.
        min_side: shortest side of a content, in pixels.
        about: description of the training, for the metadata of results.
    """

    def __init__(
        self,
        style_side: int,
        multiple: int,
        min_side: int = LEAST_SIDE,
        about: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.style_side, self.multiple, self.about = style_side, multiple, about or {}
        self.max_side, self.min_side = MAX_SIDE, max(LEAST_SIDE, min_side)

    def encode_style(self, style_1CHW: Tensor) -> Code:
        """Return the code of a style, whose sides are multiples of `multiple`."""
        raise NotImplementedError

    def restyle(
        self, content_1CHW: Tensor, styles: Sequence[Code], weights: Sequence[float], alpha: float
    ) -> Tensor:
        """Return a content, whose sides are multiples of `multiple`, in a mixture of the styles.

        Args:
            content_1CHW: the content.
            styles: the code of each style.
            weights: weights of the styles, with sum 1.
            alpha: strength of the style.
        """
        raise NotImplementedError

    @torch.no_grad()
    def stylize(
        self,
        content_1CHW: Tensor,
        styles: Sequence[Tensor] = (),
        *,
        weights: Sequence[float] = (),
        alpha: float = 1.0,
    ) -> Tensor:
        """Return the content in a mixture of the styles, [1, 3, H, W] in 0..1.

        Large contents are processed in parts, with the same result up to rounding.
        `weights`: weights of the styles (default: equal). `alpha`: strength of the style; 0 decodes
        the content without a style, 1 applies the full style. Styles larger than in training are
        scaled down. Raises ConfigError for missing styles, or invalid weights, `alpha` or sizes.
        """
        require(
            len(styles) >= 1,
            "a style_any model needs a style: name one or more style pictures",
        )
        check_alpha(alpha)
        mix = normalise_weights(weights, len(styles))
        check_picture("content", content_1CHW, self.max_side, self.min_side)
        for number, style in enumerate(styles, 1):
            check_picture(f"style {number}", style, 8 * self.max_side)
        height, width = content_1CHW.shape[-2:]
        codes = [
            self.encode_style(pad_to_multiple(self.at_training_size(style), self.multiple))
            for style in styles
        ]
        padded = pad_to_multiple(content_1CHW, self.multiple)
        return self.restyle(padded, codes, mix, alpha)[..., :height, :width]

    def at_training_size(self, style_1CHW: Tensor) -> Tensor:
        """Scale a style so that its shorter side is at most `style_side`, as in training, and large
        enough for the network.
        """
        height, width = style_1CHW.shape[-2:]
        side = max(min(height, width, self.style_side), self.min_side)
        if min(height, width) == side:
            return style_1CHW
        scale = side / min(height, width)
        return resize(style_1CHW, round(height * scale), round(width * scale)).clamp(0, 1)
