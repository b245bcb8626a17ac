"""Describes observations that are not grey frames: records of named arrays, packed into bytes.

Shapes: E lanes, P bytes of a record, A actions.

A replay stores rows of uint8. A packed record is such a row: the bytes of its arrays, one after
another, each in the dtype in which the environment returns it. Records have the frame shape (1, P).
A vector of 4 float32 therefore takes 16 bytes, once for each row.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any, Literal

import numpy as np

from genray.rl.env_protocol import FrameVectorEnv

LARGEST_IMAGE_CHANNELS = 16


@dataclass(frozen=True, kw_only=True)
class Field:
    """One array of a record."""

    name: str
    """Names joined with dots lead to the array in nested dictionaries; "": the observation is the
    array.
    """
    kind: Literal["vector", "classes", "image", "mask"]
    """vector: numbers. classes: whole numbers, each of which a network gets one-hot. image: two or
    three axes. mask: which actions are legal, A bytes of 0 or 1.
    """
    shape: tuple[int, ...]
    dtype: str
    """NumPy's name of the dtype in which the array is stored."""
    classes: tuple[tuple[int, int], ...] = ()
    """Of kind classes: (smallest value, number of values) of each number."""
    channels: Literal["", "first", "last"] = ""
    """Of kind image: which axis has the channels; "": two axes, one channel."""
    low: float = 0.0
    high: float = 255.0
    """Of kind image: the values that a network gets as 0 and 1."""

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        if self.channels == "last":
            return (self.shape[2], self.shape[0], self.shape[1])
        if self.channels == "first":
            return (self.shape[0], self.shape[1], self.shape[2])
        return (1, self.shape[0], self.shape[1])


@dataclass(frozen=True, kw_only=True)
class Observation:
    """The arrays of a record, in the order of their bytes."""

    fields: tuple[Field, ...]

    @property
    def nbytes(self) -> int:
        """P, the bytes of a record."""
        return sum(field.nbytes for field in self.fields)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """The frame shape of packed records, (1, P)."""
        return (1, self.nbytes)

    @property
    def has_image(self) -> bool:
        """Whether an array is an image. Only images are stacked (`EnvConfig.stack`)."""
        return any(field.kind == "image" for field in self.fields)

    @property
    def mask(self) -> Field | None:
        """The mask of legal actions, if there is one."""
        return next((field for field in self.fields if field.kind == "mask"), None)

    def slice_of(self, wanted: Field) -> slice:
        """Return the bytes of a record that contain the array `wanted`."""
        start = 0
        for field in self.fields:
            if field is wanted:
                break
            start += field.nbytes
        return slice(start, start + wanted.nbytes)

    def pack(self, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the records of E lanes, uint8 [E, 1, P], from arrays [E, …] by name."""
        lanes = len(next(iter(arrays.values())))
        record_E1P = np.empty((lanes, 1, self.nbytes), np.uint8)
        for field in self.fields:
            array = np.ascontiguousarray(arrays[field.name], field.dtype).reshape(lanes, -1)
            record_E1P[:, 0, self.slice_of(field)] = array.view(np.uint8)
        return record_E1P

    def unpack(self, record_NP: np.ndarray) -> dict[str, np.ndarray]:
        """Return the arrays of packed records, uint8 [N, P], as new arrays."""
        return {field.name: self._array(field, record_NP) for field in self.fields}

    def _array(self, field: Field, record_NP: np.ndarray) -> np.ndarray:
        bytes_NP = record_NP[..., self.slice_of(field)].copy()
        return bytes_NP.view(field.dtype).reshape((*record_NP.shape[:-1], *field.shape))

    def legal(self, record_EHW: np.ndarray) -> np.ndarray | None:
        """Return which actions are legal in E packed records, bool [E, A]; None without a mask."""
        if self.mask is None:
            return None
        return record_EHW[:, 0, self.slice_of(self.mask)] != 0

    def card(self) -> list[dict[str, Any]]:
        """Return the fields as JSON values."""
        return [asdict(field) for field in self.fields]

    @classmethod
    def from_card(cls, card: list[dict[str, Any]]) -> "Observation":
        """Return the observation that `card` describes."""
        return cls(
            fields=tuple(
                Field(
                    **values
                    | {
                        "shape": tuple(values["shape"]),
                        "classes": tuple((start, count) for start, count in values["classes"]),
                    }
                )
                for values in card
            )
        )


def observation_of(env: FrameVectorEnv) -> Observation | None:
    """Return the description of an environment's packed records; None: it returns grey frames."""
    return getattr(env, "observation", None)


def stack_of(stack: int, observation: Observation | None) -> int:
    """Return the number of rows in one observation: `stack` for images, and 1 for records without
    an image, because vectors are not stacked.
    """
    return stack if observation is None or observation.has_image else 1
