"""A walk through a generator's latents as a GIF."""

from typing import cast

from genray.gen.generative import GenerativeModel, latent_walk, to_uint8
from genray.media import encode_gif
from serve.models import Predictor

LEAST_SIDE = 128
"""Pixels: smaller images are enlarged."""


def walk(predictor: Predictor, seed: int, stops: int, frames: int) -> bytes:
    """The GIF's bytes. The model must be a generator."""
    model = cast(GenerativeModel, predictor.model)
    images = latent_walk(model, stops, frames, seed)
    scale = max(1, LEAST_SIDE // images.shape[-1])
    return encode_gif(list(to_uint8(images, model.low, model.high)), fps=15, scale=scale)
