"""What every model that makes images offers: latents from its prior, samples by seed, and sheets
of them to look at.

Shapes: B batch, Z latent, C channels, H height, W width.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.media import contact_sheet

Prior = Literal["uniform", "normal"]


class GenerativeModel(nn.Module):
    """A network that turns latents into images of `shape` (C, H, W) in `low`..`high`."""

    def __init__(self, *, latent: int, prior: Prior, shape: Sequence[int], low: float, high: float):
        super().__init__()
        self.latent, self.prior = latent, prior
        self.shape = cast(tuple[int, int, int], tuple(shape))
        self.low, self.high = low, high

    def generate(self, z_BZ: Tensor) -> Tensor:
        """The images of some latents, float32 [B, C, H, W] in low..high."""
        raise NotImplementedError

    @torch.no_grad()
    def sample(self, num: int, seed: int = 0, chunk: int = 256) -> Tensor:
        """`num` images from the prior, in evaluation mode, float32 [num, C, H, W].

        The latents are a function of (num, seed) alone, whatever the device.
        """
        generator = torch.Generator().manual_seed(seed)
        z_BZ = to_prior(
            torch.randn if self.prior == "normal" else torch.rand,
            self.prior,
            num,
            self.latent,
            generator,
        )
        device = next(self.parameters()).device
        training = self.training
        self.eval()
        images = [self.generate(z.to(device)) for z in z_BZ.split(chunk)]
        self.train(training)
        return torch.cat(images)


def to_prior(draw, prior: Prior, num: int, latent: int, generator: torch.Generator) -> Tensor:
    """[num, latent] of N(0, 1) as `draw` (torch.randn) gives it, or of U(−1, 1) from
    torch.rand's U[0, 1).
    """
    z = draw(num, latent, generator=generator)
    return z if prior == "normal" else z.mul_(2.0).sub_(1.0)


@torch.no_grad()
def latent_walk(
    model: GenerativeModel, stops: int, frames: int, seed: int = 0, chunk: int = 256
) -> Iterator[Tensor]:
    """Images on the way through `stops` random latents and back, `frames` from one to the next.

    [B, C, H, W] at a time with B ≤ `chunk`, so that a long walk does not fill the memory.
    """
    random = torch.Generator().manual_seed(seed)
    draw = torch.randn if model.prior == "normal" else torch.rand
    stops_SZ = to_prior(draw, model.prior, stops, model.latent, random)
    walk = torch.cat(
        [between(a, b, frames, model.prior) for a, b in zip(stops_SZ, stops_SZ.roll(-1, 0))]
    )
    device = next(model.parameters()).device
    for z_BZ in walk.split(chunk):
        yield model.generate(z_BZ.to(device))


def walk_frames(
    model: GenerativeModel, stops: int, frames: int, seed: int = 0
) -> Iterator[np.ndarray]:
    """The images of `latent_walk` one by one, as a clip takes them: uint8 RGB [H, W, 3]."""
    for images in latent_walk(model, stops, frames, seed):
        yield from to_uint8(images, model.low, model.high)


def between(a_Z: Tensor, b_Z: Tensor, frames: int, prior: str) -> Tensor:
    """From a (included) to b (not): along the line under a uniform prior, along the sphere under
    a normal one, where the line would pass through latents of a length that the prior hardly
    ever gives.  [White 2016, arXiv:1609.04468]

    Departure: the direction goes along the sphere, the length evenly from |a| to |b|. Slerp of
    the latents themselves leaves the prior when their lengths differ and they point away from
    each other, as of few numbers they often do.
    """
    t = torch.arange(frames)[:, None] / frames
    line = (1 - t) * a_Z + t * b_Z
    from_Z, to_Z = functional.normalize(a_Z, dim=0), functional.normalize(b_Z, dim=0)
    angle = torch.arccos(torch.dot(from_Z, to_Z).clamp(-1, 1))
    # Side by side, or opposite: no way along the sphere is the shortest.
    if prior == "uniform" or torch.sin(angle) < 1e-3:
        return line
    direction = functional.normalize(
        torch.sin((1 - t) * angle) * from_Z + torch.sin(t * angle) * to_Z, dim=1
    )
    return ((1 - t) * a_Z.norm() + t * b_Z.norm()) * direction


def to_uint8(images_BCHW: Tensor, low: float, high: float) -> np.ndarray:
    """RGB as a file keeps it, uint8 [B, H, W, 3]; grey images get three equal channels.

    Departure: values outside low..high are cut off (a decoder with a Gaussian likelihood may
    pass the range).
    """
    scaled = (
        images_BCHW.float().sub(low).mul(255.0 / (high - low)).round().clamp(0, 255).to(torch.uint8)
    )
    return scaled.permute(0, 2, 3, 1).expand(-1, -1, -1, 3).cpu().numpy()


def image_grid(
    images_BCHW: Tensor, low: float, high: float, columns: int = 8, least_side: int = 32
) -> np.ndarray:
    """A sheet of images, uint8 RGB; small ones are enlarged, each pixel to a square, to
    `least_side` or more.
    """
    frames = to_uint8(images_BCHW, low, high)
    scale = max(1, -(-least_side // frames.shape[2]))
    return contact_sheet(
        [frame.repeat(scale, axis=0).repeat(scale, axis=1) for frame in frames], columns
    )
