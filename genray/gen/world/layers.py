"""Layers of a world model: attention between sprites that knows how far apart they are.

Shapes: B rows, S queries, T keys, D width of the network, N heads, R size of an offset's
description.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FINE = 48
"""Offsets of up to this many pixels are distinguished exactly."""
COARSE, COARSE_STEP = 28, 8
"""Larger offsets are distinguished in steps of COARSE_STEP pixels."""
NOWHERE = -1
"""The coordinate of something without a place."""


class Offsets(nn.Module):
    """Describes pairs of places by their offset, with R numbers for each pair.

    Args:
        size: R.
        height, width: of the screen; the largest offsets.
    """

    def __init__(self, size: int, height: int, width: int):
        super().__init__()
        self._most = (height, width)
        self.fine = nn.ModuleList(nn.Embedding(2 * FINE + 1, size) for _ in range(2))
        self.coarse = nn.ModuleList(nn.Embedding(2 * COARSE + 1, size) for _ in range(2))
        self.nowhere = nn.Parameter(torch.randn(size) * 0.02)
        self.mix = nn.Linear(size, size)

    def table(self, axis: int) -> Tensor:
        """Return the description of each offset −most..most, and of none, [2 · most + 2, R]."""
        most = self._most[axis]
        offset = torch.arange(-most, most + 1, device=self.nowhere.device)
        coarse = offset.div(COARSE_STEP, rounding_mode="floor").clamp(-COARSE, COARSE) + COARSE
        table = self.fine[axis](offset.clamp(-FINE, FINE) + FINE) + self.coarse[axis](coarse)
        return torch.cat([table, self.nowhere[None]])

    def forward(self, from_BS2: Tensor, to_BT2: Tensor) -> Tensor:
        """Return the description of each pair, [B, S, T, R]. Places are int64 (y, x) or NOWHERE."""
        offset_BST2 = to_BT2[:, None] - from_BS2[:, :, None]
        nowhere_BST = (from_BS2[:, :, None, 0] < 0) | (to_BT2[:, None, :, 0] < 0)
        y, x = (
            self.table(axis)[(offset_BST2[..., axis] + most).masked_fill(nowhere_BST, 2 * most + 1)]
            for axis, most in enumerate(self._most)
        )
        mixed: Tensor = self.mix(F.gelu(y + x))
        return mixed


class Attention(nn.Module):
    """Attention from S queries to T keys, with a bias and a value for each pair's offset.

    Args:
        width: D.
        heads: N.
        offsets: R.
    """

    def __init__(self, width: int, heads: int, offsets: int):
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.bias = nn.Linear(offsets, heads)
        self.value = nn.Linear(heads * offsets, width, bias=False)
        self.project = nn.Linear(width, width)

    def keys(self, memory_BTD: Tensor) -> Tensor:
        """Return keys and values, [2, B, N, T, D / N]."""
        batch, length, _ = memory_BTD.shape
        both = self.key_value(memory_BTD).view(batch, length, 2, self.heads, -1)
        moved: Tensor = both.permute(2, 0, 3, 1, 4)
        return moved

    def forward(
        self, x_BSD: Tensor, keys_2BNTd: Tensor, pairs_BSTR: Tensor, allowed_BST: Tensor
    ) -> Tensor:
        """Return what each query finds among the allowed keys, [B, S, D]."""
        batch, length, width = x_BSD.shape
        query = self.query(x_BSD).view(batch, length, self.heads, -1).transpose(1, 2)
        key, value = keys_2BNTd.unbind(0)
        logits = query @ key.transpose(2, 3) / math.sqrt(width // self.heads)
        logits = logits + self.bias(pairs_BSTR).permute(0, 3, 1, 2)
        share_BNST = logits.masked_fill(~allowed_BST[:, None], -math.inf).softmax(3)
        found = (share_BNST @ value).transpose(1, 2).reshape(batch, length, width)
        # The mean of the offsets' descriptions that each head attends to.
        offset = (share_BNST.transpose(1, 2) @ pairs_BSTR).flatten(2)
        result: Tensor = self.project(found) + self.value(offset)
        return result


class Layer(nn.Module):
    """One pre-norm transformer layer: attention to a memory, then a small network.

    Args:
        width, heads, offsets: as in Attention.
        dropout: of both parts.
    """

    def __init__(self, width: int, heads: int, offsets: int, dropout: float):
        super().__init__()
        self.norm, self.norm_memory = nn.LayerNorm(width), nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.attention = Attention(width, heads, offsets)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def keys(self, memory_BTD: Tensor) -> Tensor:
        """Return the memory's keys and values."""
        return self.attention.keys(self.norm_memory(memory_BTD))

    def forward(
        self, x_BSD: Tensor, keys: Tensor, pairs_BSTR: Tensor, allowed_BST: Tensor
    ) -> Tensor:
        """Apply the layer to S queries."""
        x_BSD = x_BSD + self.drop(self.attention(self.norm(x_BSD), keys, pairs_BSTR, allowed_BST))
        result: Tensor = x_BSD + self.drop(self.mlp(self.norm_mlp(x_BSD)))
        return result


def head(width: int) -> nn.Sequential:
    """Return a small network that prepares a state for one head."""
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
    )


def chosen(logits_MK: Tensor, value_M: Tensor) -> Tensor:
    """Return ln p of the given values, [M]."""
    return -F.cross_entropy(logits_MK, value_M, reduction="none")


def places(*columns: Tensor) -> Tensor:
    """Stack coordinates to places, int64 […, 2]."""
    return torch.stack(columns, -1)
