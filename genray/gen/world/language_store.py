"""Keeps a language of sprites in the tensors of a model."""

import numpy as np
import torch
from torch import Tensor, nn

from genray.gen.sprites.runs import Run
from genray.gen.sprites.tokens import Language
from genray.gen.sprites.vocabulary import Shape, Vocabulary


class LanguageStore(nn.Module):
    """The tensors of a language, so that a saved model contains it.

    Args:
        colours: number of colours.
        screen: (height, width).
        groups, shapes, runs: of the language.
        pixels: number of pixels of all shapes' bounding boxes.
    """

    def __init__(
        self, colours: int, screen: tuple[int, int], groups: int, shapes: int, runs: int,
        pixels: int,
    ):  # fmt: skip
        super().__init__()
        for name, shape, dtype in (
            ("palette", (colours, 3), torch.uint8),
            ("background", screen, torch.uint8),
            ("group_of_colour", (colours,), torch.int64),
            ("painted", (groups,), torch.int64),
            ("runs", (runs, 3), torch.int64),
            ("shape_groups", (shapes,), torch.int64),
            ("shape_sizes", (shapes, 2), torch.int64),
            ("shape_pixels", (pixels,), torch.uint8),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        self._language: Language | None = None

    @classmethod
    def of(cls, language: Language) -> "LanguageStore":
        """Store a language."""
        shapes = language.vocabulary.shapes
        store = cls(
            len(language.palette_P3), language.screen_shape, language.groups, len(shapes),
            len(language.runs), sum(len(shape.pixels) for shape in shapes),
        )  # fmt: skip
        for name, value in (
            ("palette", language.palette_P3),
            ("background", language.background_HW),
            ("group_of_colour", language.group_P),
            ("painted", np.array(language.layers)),
            ("runs", np.array(language.runs)),
            ("shape_groups", np.array([shape.group for shape in shapes])),
            ("shape_sizes", np.array([(shape.height, shape.width) for shape in shapes])),
            ("shape_pixels", np.frombuffer(b"".join(each.pixels for each in shapes), np.uint8)),
        ):
            store._array(name).copy_(torch.from_numpy(np.array(value)))
        store._language = language
        return store

    def _array(self, name: str) -> Tensor:
        buffer: Tensor = getattr(self, name)
        return buffer

    @property
    def language(self) -> Language:
        """The language of the tensors."""
        if self._language is None:
            pixels, start = self._array("shape_pixels").cpu().numpy().tobytes(), 0
            shapes = []
            for group, (height, width) in zip(
                self._array("shape_groups").tolist(), self._array("shape_sizes").tolist()
            ):
                shapes.append(Shape(group, height, width, pixels[start : start + height * width]))
                start += height * width
            self._language = Language(
                self._array("palette").cpu().numpy(),
                self._array("background").cpu().numpy(),
                self._array("group_of_colour").cpu().numpy(),
                Vocabulary(shapes),
                tuple(Run(*run) for run in self._array("runs").tolist()),
                tuple(self._array("painted").tolist()),
            )
        return self._language
