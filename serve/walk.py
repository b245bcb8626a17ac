"""Renders a walk through a generator's latent space as a GIF."""

from typing import cast

from genray.gen.generative import GenerativeModel, walk_frames
from genray.media import encode_gif
from serve.models import Predictor

LEAST_SIDE = 128
"""Least side of a frame in pixels; smaller images are enlarged."""


def walk(predictor: Predictor, seed: int, stops: int, frames: int) -> bytes:
    """Return the bytes of the GIF. The model must be a generator."""
    model = cast(GenerativeModel, predictor.model)
    scale = max(1, LEAST_SIDE // model.shape[-1])
    return encode_gif(walk_frames(model, stops, frames, seed), fps=15, scale=scale)
