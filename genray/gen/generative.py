"""Base class of models that generate images, with sampling, latent walks and grids of samples.

Shapes: B batch, Z latent, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.errors import ConfigError
from genray.media import contact_sheet

Prior = Literal["uniform", "normal"]


class GenerativeModel(nn.Module):
    """Base class of networks that map latents to images.

    Args:
        latent: dimension of the latents.
        prior: distribution of the latents, U(−1, 1) or N(0, 1).
        shape: (C, H, W) of the images.
        low, high: range of the images' values.
    """

    can_walk: bool = True
    """Whether images change smoothly with their latents, so that a walk shows something."""

    def __init__(self, *, latent: int, prior: Prior, shape: Sequence[int], low: float, high: float):
        super().__init__()
        self.latent, self.prior = latent, prior
        self.shape = cast(tuple[int, int, int], tuple(shape))
        self.low, self.high = low, high

    def generate(self, z_BZ: Tensor) -> Tensor:
        """Return the images of the given latents, float32 [B, C, H, W].

        The values are in low..high, but a VAE with a Gaussian likelihood may exceed this range.
        """
        raise NotImplementedError

    def draw(self, z_BZ: Tensor, random: torch.Generator) -> Tensor:
        """Draw images from p(x | z), of which `generate` returns the mean; float32 [B, C, H, W].

        `random` is a generator on the CPU. Raises ConfigError for a GAN: its z determines x.
        """
        raise ConfigError("--noise: in a GAN, z determines the image; leave it out, or use a vae")

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0, chunk: int = 256, noise: bool = False) -> Tensor:
        """Generate `num` images from the prior, in evaluation mode; float32 [num, C, H, W].

        For one model, the latents depend on `num` and `seed`, but not on the device. `chunk` is
        the number of images that are generated at a time. With `noise`, images are drawn from
        p(x | z); otherwise they are its mean.
        """
        generator = torch.Generator().manual_seed(seed)
        z_BZ = draw_prior(self.prior, num, self.latent, generator)
        device = next(self.parameters()).device
        training = self.training
        self.eval()
        parts = [z.to(device) for z in z_BZ.split(chunk)]
        images = [self.draw(z, generator) if noise else self.generate(z) for z in parts]
        self.train(training)
        return torch.cat(images)


def draw_prior(prior: Prior, num: int, latent: int, generator: torch.Generator) -> Tensor:
    """Draw latents from N(0, 1) or U(−1, 1); float32 [num, latent] on the CPU."""
    if prior == "normal":
        return torch.randn(num, latent, generator=generator)
    return torch.rand(num, latent, generator=generator).mul_(2.0).sub_(1.0)


@torch.no_grad()
def latent_walk(
    model: GenerativeModel, stops: int, frames: int, seed: int = 0, chunk: int = 256
) -> Iterator[Tensor]:
    """Yield the images of a closed path through `stops` random latents.

    The path has `frames` images from each stop (included) to the next stop (excluded). Each yielded
    tensor is [B, C, H, W] with B ≤ `chunk`, so that a long walk does not fill the memory. The
    caller puts the model into evaluation mode.
    """
    random = torch.Generator().manual_seed(seed)
    stops_SZ = draw_prior(model.prior, stops, model.latent, random)
    walk = torch.cat(
        [between(a, b, frames, model.prior) for a, b in zip(stops_SZ, stops_SZ.roll(-1, 0))]
    )
    device = next(model.parameters()).device
    for z_BZ in walk.split(chunk):
        yield model.generate(z_BZ.to(device))


def walk_frames(
    model: GenerativeModel, stops: int, frames: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """Yield the images of `latent_walk` one by one, as frames of a clip: uint8 RGB [H, W, 3]."""
    for images in latent_walk(model, stops, frames, seed):
        yield from to_uint8(images, model.low, model.high)


def between(a_Z: Tensor, b_Z: Tensor, frames: int, prior: str) -> Tensor:
    """Interpolate in `frames` steps from latent a (included) to latent b (excluded); [frames, Z].

    For a uniform prior, the path is a straight line. For a normal prior, the direction follows an
    arc on the sphere, because a straight line would pass through latents whose length is very
    unlikely under the prior. [slerp: White 2016, arXiv:1609.04468]

    Departure from slerp: the length changes linearly from |a| to |b|. Slerp itself gives unlikely
    latents when the lengths differ and the directions are nearly opposite. This case is frequent in
    few dimensions.
    """
    t = torch.arange(frames)[:, None] / frames
    line = (1 - t) * a_Z + t * b_Z
    from_Z, to_Z = functional.normalize(a_Z, dim=0), functional.normalize(b_Z, dim=0)
    angle = torch.arccos(torch.dot(from_Z, to_Z).clamp(-1, 1))
    # Equal directions need no arc, and opposite directions have no unique shortest arc.
    if prior == "uniform" or torch.sin(angle) < 1e-3:
        return line
    direction = functional.normalize(
        torch.sin((1 - t) * angle) * from_Z + torch.sin(t * angle) * to_Z, dim=1
    )
    return ((1 - t) * a_Z.norm() + t * b_Z.norm()) * direction


def to_uint8(images_BCHW: Tensor, low: float, high: float) -> np.ndarray:
    """Convert images in low..high to uint8 RGB [B, H, W, 3]; grey becomes three equal channels.

    Values outside low..high, which a decoder with a Gaussian likelihood may produce, are clipped.
    """
    scaled = (
        images_BCHW.float().sub(low).mul(255.0 / (high - low)).round().clamp(0, 255).to(torch.uint8)
    )
    return scaled.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).cpu().numpy()


def image_grid(
    images_BCHW: Tensor, low: float, high: float, columns: int = 8, least_side: int = 32
) -> np.ndarray:
    """Return a grid of images, uint8 RGB [H, W, 3].

    Images that are narrower than `least_side` pixels are enlarged by the smallest whole factor
    that makes them at least this wide.
    """
    frames = to_uint8(images_BCHW, low, high)
    scale = max(1, -(-least_side // frames.shape[2]))
    return contact_sheet(
        [frame.repeat(scale, axis=0).repeat(scale, axis=1) for frame in frames], columns
    )
