"""The Fréchet Lite0 distance (FLD) between two sets of images.

Shapes: N real images, M generated images, C channels, H height, W width.
"""

from dataclasses import dataclass

from torch import Tensor

from genray.gen.evaluation.metrics import frechet_distance
from genray.gen.images.embedding import EXTRACTOR, Embedding, open_embedding


@dataclass(frozen=True)
class FLD:
    """A Fréchet Lite0 distance, with the extractor and the numbers of images.

    FLD is not FID, which uses another network. Two distances can be compared only if the extractor
    and both numbers are equal: the estimate has a bias upwards that shrinks as the numbers grow,
    and it is large for fewer images than the 1,280 features.
    """

    value: float
    num_real: int
    num_generated: int
    extractor: str = EXTRACTOR
    """The network, and the first digits of the SHA-256 of its weights."""

    def __str__(self) -> str:
        return (
            f"FLD {self.value:.2f} ({self.extractor}; {self.num_real:,} real and "
            f"{self.num_generated:,} generated images)"
        )


def frechet_lite0_distance(
    real_NCHW: Tensor,
    fake_MCHW: Tensor,
    low: float = 0.0,
    high: float = 1.0,
    embedding: Embedding | None = None,
) -> FLD:
    """Return the Fréchet distance of two sets of images in low..high, grey or RGB.

    The features are EfficientNet-Lite0's last activations, averaged over the image, 1,280 numbers.
    Images are enlarged or reduced as `prepared` does. `embedding`: default, a new one. Raises
    ConfigError for fewer than two images, and the errors of `open_embedding`.
    [Heusel 2017, https://arxiv.org/abs/1706.08500, with another network]
    """
    embedding = embedding or open_embedding()
    real, fake = (
        embedding.encode_images((x - low) / (high - low), unit=False)
        for x in (real_NCHW, fake_MCHW)
    )
    return FLD(frechet_distance(real, fake), len(real), len(fake))
