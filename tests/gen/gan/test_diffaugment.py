"""DiffAugment: each change by hand, and gradients through all changes."""

import torch
from torch import Tensor

from genray.gen.gan.diffaugment import diff_augment
from genray.gen.training.world import ALONE, World


class Drawn(World):
    """A world whose random numbers are given."""

    def __init__(self, *rows: list[float]):
        super().__init__()
        self._rows = rows

    def uniform(self, count: int, *shape: int, device: torch.device) -> Tensor:
        return torch.tensor(self._rows)


def test_diffaugment_translation_shifts_and_fills_with_zeros():
    x = torch.arange(1.0, 65).reshape(1, 1, 8, 8).repeat(3, 1, 1, 1)
    # 8 · 0.125 = 1: the shift is −1, 0 or 1 pixel, with equal probability.
    moved = diff_augment(x, ("translation",), Drawn([0.0, 0.5], [0.5, 0.9], [0.4, 0.4]))
    up, right = torch.zeros(8, 8), torch.zeros(8, 8)
    up[:-1] = x[0, 0, 1:]
    right[:, 1:] = x[0, 0, :, :-1]
    assert (
        torch.equal(moved[0, 0], up)
        and torch.equal(moved[1, 0], right)
        and torch.equal(moved[2, 0], x[2, 0])
    )


def test_diffaugment_cutout_removes_half_of_each_side():
    x = torch.ones(2, 3, 8, 8)
    cut = diff_augment(x, ("cutout",), Drawn([0.5, 0.5], [0.0, 0.99]))
    inside = torch.ones(8, 8)
    inside[2:6, 2:6] = 0  # the centre is 4, so the cut starts at 2
    corner = torch.ones(8, 8)
    corner[:2, 6:] = 0  # the centres are 0 and 8: half of the cut is outside
    assert torch.equal(cut[0], inside.expand(3, 8, 8)) and torch.equal(
        cut[1], corner.expand(3, 8, 8)
    )


def test_diffaugment_color_by_hand():
    x = torch.rand(2, 3, 4, 4)
    neutral = diff_augment(x, ("color",), Drawn([0.5, 0.5, 0.5], [0.8, 0.0, 0.5]))
    torch.testing.assert_close(neutral[0], x[0])
    grey = (x[1].mean(0) + 0.3).expand(3, 4, 4)  # brighter by 0.3, without colour
    torch.testing.assert_close(neutral[1], grey)


def test_diffaugment_passes_gradients_through_all_changes():
    x = torch.rand(8, 3, 8, 8, requires_grad=True)
    diff_augment(x, ("color", "translation", "cutout"), ALONE).sum().backward()
    assert x.grad is not None and (x.grad != 0).flatten(1).any(1).all()
