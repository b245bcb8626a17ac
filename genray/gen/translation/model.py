"""The saved model of a translation: the generators alone, and how their inputs are made.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from genray.errors import require
from genray.gen.translation.config import TranslatorModelConfig
from genray.gen.translation.networks import ResNet, UNet, make_generator

DIRECTIONS = ("a_to_b", "b_to_a")


class Translator(nn.Module):
    """Translates images in −1..1; pix2pix has one direction, CycleGAN both.

    Args:
        config: the networks.
        shape: (C, H, W) of the training inputs. Pictures may have any other size.
        channels_out: channels of the translated images.
        directions: a_to_b, or also b_to_a.
        about: the method, the domains, and how inputs are made from pictures ("input").
    """

    low, high = -1.0, 1.0

    def __init__(
        self,
        config: TranslatorModelConfig,
        shape: Sequence[int],
        channels_out: int,
        directions: Sequence[str] = DIRECTIONS[:1],
        about: Mapping[str, Any] | None = None,
    ):
        super().__init__()
        self.config, self.about = config, dict(about or {})
        self.shape = cast(tuple[int, int, int], tuple(shape))
        self.channels_out, self.directions = channels_out, tuple(directions)
        channels = (self.shape[0], channels_out)
        self.networks = nn.ModuleDict(
            {
                direction: make_generator(
                    config, *(channels if direction == "a_to_b" else channels[::-1])
                )
                for direction in self.directions
            }
        )

    def network(self, direction: str = "a_to_b") -> UNet | ResNet:
        """Return the generator of a direction. Raises ConfigError if the model lacks it."""
        require(
            direction in self.directions,
            f"--direction {direction}: this model translates {' and '.join(self.directions)} only",
        )
        return cast(UNet | ResNet, self.networks[direction])

    def translate(self, x_BCHW: Tensor) -> Tensor:
        """Return the translations from A to B, float32 [B, C', H, W] in −1..1."""
        return self.network("a_to_b")(x_BCHW).float()

    def translate_back(self, x_BCHW: Tensor) -> Tensor:
        """Return the translations from B to A. Raises ConfigError if the model lacks them."""
        return self.network("b_to_a")(x_BCHW).float()


def translator_config(model: TranslatorModelConfig) -> dict[str, Any]:
    """Return the entries of a saved model's config that describe its generators."""
    names = ("network", "residual", "dropout", "norm")
    return {"widths": list(model.widths), **{name: getattr(model, name) for name in names}}


def build_translator(config: dict[str, Any]) -> Translator:
    """Build the model that a saved `config` describes, without its weights.

    The model store calls this function for models of kind "translator".
    """
    model = TranslatorModelConfig(
        network=config["network"], widths=tuple(config["widths"]), residual=config["residual"],
        dropout=config["dropout"], norm=config.get("norm", "instance"),
    )  # fmt: skip
    return Translator(
        model, config["shape"], config["channels_out"], config["directions"], config["about"]
    )
