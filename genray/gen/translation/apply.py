"""Applies a saved translation to pictures: makes the model's input, and translates it.

Pictures are uint8 RGB [H, W, 3]. Shapes: C channels, H height, W width.
"""

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.sources import resize, to_grey
from genray.gen.generative import to_uint8
from genray.gen.translation.model import Translator
from genray.gen.translation.pairs import INPUT_OPTIONS, MASK, make_inputs
from genray.gen.translation.tiles import TILE, translate_picture

INK = 160
"""Darker pixels of a drawing are edges."""


def apply_translator(
    model: Translator,
    rgb: np.ndarray,
    *,
    alpha: np.ndarray | None = None,
    direction: str = "a_to_b",
    prepare: bool = False,
    tile: int = TILE,
) -> np.ndarray:
    """Return the translation of a picture, uint8 RGB [H, W, 3] of its size; for a model of low
    resolutions, of `factor` times its size unless `prepare`.

    Args:
        model: in evaluation mode.
        rgb: the picture, which is converted to the channels of the model.
        alpha: uint8 [H, W] or None. A model that fills missing squares fills its transparent
            pixels.
        direction: a_to_b, or for CycleGAN also b_to_a.
        prepare: make the input from the picture as in training: its edges, its luma, a low
            resolution, or a missing square.
        tile: see `translate_picture`.

    Raises:
        ConfigError: the model lacks the direction, has no such preparation, or the picture is too
            small.
        ResourceError: a package that finds edges is not installed.
    """
    network = model.network(direction)
    x = model_input(model, rgb, alpha, prepare=prepare)
    return to_uint8(translate_picture(network, x, tile), model.low, model.high)[0]


def model_input(
    model: Translator, rgb: np.ndarray, alpha: np.ndarray | None = None, *, prepare: bool = False
) -> Tensor:
    """Return the model's input, float32 [1, C, H, W] in −1..1; see `apply_translator`."""
    kind, channels = model.about.get("input", "images"), model.shape[0]
    image = np.moveaxis(rgb, 2, 0)[None]
    if prepare:
        require(
            kind not in ("images", "files"),
            "--prepare: this model takes pictures as they are; leave it out",
        )
        # Models of older versions lack the options that were added later.
        options = {name: model.about[name] for name in INPUT_OPTIONS if name in model.about}
        device = next(model.parameters()).device
        image = make_inputs(image, kind, **options, device=device)
    elif kind == "low":
        height, width = (side * model.about["factor"] for side in rgb.shape[:2])
        image = resize(image, (height, width))
    elif kind == "masked" and alpha is not None:
        image = np.where(alpha < 128, MASK, image).astype(np.uint8)
    if channels == 1 and image.shape[1] == 3:
        image = to_grey(image)
    if kind == "edges" and not prepare and not _has_soft_edges(model):
        # Edges in training are black or white, without the grey pixels of a scaled drawing.
        image = np.where(image < INK, 0, 255).astype(np.uint8)
    return torch.from_numpy(np.ascontiguousarray(image)).float().mul_(2 / 255).sub_(1)


def _has_soft_edges(model: Translator) -> bool:
    """Return whether the model was trained on grey edges, see `draw_hed`."""
    about = model.about
    return about.get("edge_detector") == "hed" and about["edge_threshold"] == 0
