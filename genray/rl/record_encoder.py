"""Encodes packed records: fully connected layers for vectors, convolutions for images.

Shapes: B batch, S stack, P bytes of a record, D numbers of all vectors, C channels, H height, W
width, F features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from genray.rl.encoders import make_encoder
from genray.rl.observation import Field, Observation

if TYPE_CHECKING:
    from genray.rl.networks import NetworkConfig

SMALLEST_LARGE_IMAGE = 36
"""Sides in pixels from which `--encoder` is used."""
LARGEST_MAP = 12
"""Largest side of the last feature map, before it is flattened."""
LARGEST_DEVIATION = 10.0
"""Normalised numbers are clipped to this many standard deviations."""


class RecordEncoder(nn.Module):
    """Maps packed records, uint8 [B, S, 1, P], to features, float32 [B, F].

    Vectors and one-hot classes of the newest record go through one fully connected layer. Each
    image of the stack goes through convolutions that suit its size (`image_layers`).

    Args:
        config: widths and options of the network.
        observation: the arrays of a record.
        stack: S.
    """

    def __init__(self, config: NetworkConfig, observation: Observation, stack: int):
        super().__init__()
        self._observation, self._gain = observation, config.input_gain
        fields = observation.fields
        self._vectors = [field for field in fields if field.kind in ("vector", "classes")]
        self._images = [field for field in fields if field.kind == "image"]
        count = sum(_inputs(field) for field in self._vectors)
        self.vector = (
            nn.Sequential(nn.Linear(count, config.hidden), nn.ReLU()) if self._vectors else None
        )
        self.images = nn.ModuleList(
            image_layers(config, stack * field.image_shape[0], *field.image_shape[1:])
            for field in self._images
        )
        self.normalises = bool(config.normalise and self._vectors)
        if self.normalises:
            self.count: Tensor
            self.mean_D: Tensor
            self.square_D: Tensor
            self.register_buffer("count", torch.zeros((), dtype=torch.float64))
            self.register_buffer("mean_D", torch.zeros(count, dtype=torch.float64))
            # The sum of the squared deviations from the mean.
            self.register_buffer("square_D", torch.zeros(count, dtype=torch.float64))
        with torch.no_grad():
            empty = torch.zeros(1, stack, *observation.frame_shape, dtype=torch.uint8)
            self.features = self(empty).shape[1]

    def forward(self, record_BSHW: Tensor) -> Tensor:
        """Return the features, float32 [B, F]."""
        images = {field.name: self._array(record_BSHW, field) for field in self._images}
        return self.encode(self._newest_vectors(record_BSHW) | images)

    def encode(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the features, float32 [B, F], of the arrays of records by name: images as
        [B, S, *shape], oldest first, vectors and classes of the newest record as [B, *shape].
        """
        parts = []
        if self.vector is not None:
            parts.append(self.vector(self._normalised(self._numbers(arrays))))
        for field, layers in zip(self._images, self.images):
            parts.append(layers(self._image(arrays[field.name], field)))
        return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]

    def _numbers(self, arrays: Mapping[str, Tensor]) -> Tensor:
        """Return the numbers of all vectors, and all classes one-hot, float32 [B, D]."""
        parts = []
        for field in self._vectors:
            part = arrays[field.name].flatten(1)
            if field.kind == "classes":
                one_hot = [
                    part[:, index, None].long() == torch.arange(size, device=part.device)
                    for index, (_, size) in enumerate(field.classes)
                ]
                part = torch.cat(one_hot, dim=1)
            parts.append(part.float())
        return torch.cat(parts, dim=1)

    def vectors(self, record_BSHW: Tensor) -> Tensor:
        """Return the numbers and one-hot classes of the newest records, float32 [B, D]."""
        return self._numbers(self._newest_vectors(record_BSHW))

    def _newest_vectors(self, record_BSHW: Tensor) -> dict[str, Tensor]:
        """Return the vectors and classes of the newest records by name, [B, *shape]."""
        newest_B1HW = record_BSHW[:, -1:]
        return {field.name: self._array(newest_B1HW, field)[:, 0] for field in self._vectors}

    def _array(self, record_BSHW: Tensor, field: Field) -> Tensor:
        """Return an array of the records, [B, S, *shape], in its own dtype."""
        part = record_BSHW[:, :, 0, self._observation.slice_of(field)]
        # A copy, because only aligned memory can be viewed as another dtype.
        part = part.clone(memory_format=torch.contiguous_format)
        return part.view(TORCH_DTYPES[field.dtype]).unflatten(2, field.shape or (1,))

    def _image(self, image: Tensor, field: Field) -> Tensor:
        """Return images [B, S, *shape] as float32 [B, S · C, H, W], scaled to 0 … 1."""
        image = image.float()
        if field.channels == "last":
            image = image.movedim(-1, 2)
        image = (image - field.low) * (self._gain / (field.high - field.low))
        return image.reshape(image.shape[0], -1, *field.image_shape[1:])

    # -- running normalisation ---------------------------------------------------------------------

    def _normalised(self, vector_BD: Tensor) -> Tensor:
        if not self.normalises:
            return vector_BD
        variance_D = self.square_D / self.count.clamp(min=1)
        # Before the first `observe`, and where a number has always been the same, 1.
        deviation_D = torch.where(variance_D > 1e-12, variance_D.sqrt(), 1.0)
        normalised_BD = (vector_BD - self.mean_D.float()) / deviation_D.float()
        return normalised_BD.clamp(-LARGEST_DEVIATION, LARGEST_DEVIATION)

    @property
    def statistics(self) -> list[Tensor]:
        """The tensors that `observe` changes."""
        return [self.count, self.mean_D, self.square_D] if self.normalises else []

    @torch.no_grad()
    def observe(self, record_BSHW: Tensor) -> None:
        """Add the vectors of a batch to the mean and the standard deviation. [Chan 1983,
        https://doi.org/10.1080/00031305.1983.10483115]
        """
        vector_BD = self.vectors(record_BSHW).double()
        batch = len(vector_BD)
        mean_D = vector_BD.mean(0)
        apart_D, total = mean_D - self.mean_D, self.count + batch
        self.square_D += (vector_BD - mean_D).square().sum(0)
        self.square_D += apart_D.square() * (self.count * batch / total)
        self.mean_D += apart_D * (batch / total)
        self.count += batch


def _inputs(field: Field) -> int:
    if field.kind == "classes":
        return sum(size for _, size in field.classes)
    return int(np.prod(field.shape, dtype=np.int64))


def image_layers(config: NetworkConfig, channels: int, height: int, width: int) -> nn.Sequential:
    """Return convolutions for images [B, channels, height, width], with a flattening layer.

    From 36x36 pixels on, the encoder that `config.encoder` names; smaller images get up to three
    3x3 convolutions with stride 1, or 2 where the map is larger than 12x12. Where the last map is
    larger than 12x12, more convolutions with stride 2 follow.
    """
    if min(height, width) >= SMALLEST_LARGE_IMAGE:
        *layers, flatten = make_encoder(config, channels)
    else:
        layers, flatten, inputs = [], nn.Flatten(), channels
        for outputs in config.channels:
            stride = 2 if max(_map(layers, channels, height, width)) > LARGEST_MAP else 1
            layers += [nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1), nn.ReLU()]
            inputs = outputs
    while max(_map(layers, channels, height, width)) > LARGEST_MAP:
        last = _outputs(layers, channels, height, width)
        layers += [nn.Conv2d(last, last, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, flatten)


@torch.no_grad()
def _shape(layers: list[nn.Module], channels: int, height: int, width: int) -> torch.Size:
    image = torch.zeros(1, channels, height, width)
    return nn.Sequential(*layers)(image).shape


def _map(layers: list[nn.Module], channels: int, height: int, width: int) -> tuple[int, int]:
    shape = _shape(layers, channels, height, width)
    return shape[2], shape[3]


def _outputs(layers: list[nn.Module], channels: int, height: int, width: int) -> int:
    return _shape(layers, channels, height, width)[1]


TORCH_DTYPES = {
    name: getattr(torch, name)
    for name in (
        "float16", "float32", "float64", "int8", "int16", "int32", "int64",
        "uint8", "uint16", "uint32", "uint64", "bool",
    )
}  # fmt: skip
