"""Draws few sequences quickly on a CPU: `sampling.draw_tokens`, one sequence at a time in NumPy.

A step of one sequence is two hundred operations on a hundred numbers each. PyTorch needs ten times
as long to start such an operation as to compute it. Here, also values that the order of the tokens
forbids are left out instead of masked.

Shapes: D width of the network, T tokens, K values of a field.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.special import erf
from torch import Tensor

from genray.gen.sprites.network import FIELDS, GROUP, RUN, SHAPE, SpriteTransformer, X, Y

if TYPE_CHECKING:
    from genray.gen.sprites.sampling import Support

Layer = Callable[[np.ndarray], np.ndarray]


class QuickSampler:
    """Draws sequences from the weights that the network has now.

    Args:
        network, temperature, top_p, support, group_bias: as for `draw_tokens`; on a CPU.
    """

    @torch.no_grad()
    def __init__(
        self,
        network: SpriteTransformer,
        temperature: float,
        top_p: tuple[float, ...],
        support: Support | None,
        group_bias: Tensor | None,
    ):
        self._end, self._sizes, self._heads = network.end, network.sizes, network.heads
        self._temperature, self._top_p = temperature, top_p
        self._tables = [table.numpy() for table in network.tables()]
        self._start, self._position = network.start.numpy(), network.position.weight.numpy()
        self._norm_in, self._norm_out = _norm(network.norm_in), _norm(network.norm_out)
        self._blocks = [_Block(block) for block in network.blocks]
        heads_out = [_sequence(head) for head in network.heads_out]
        self._group_head, self._y_head, self._x_head, self._shape_head, self._run_head = heads_out
        self._group_out, self._run_out = _linear(network.group_out), _linear(network.run_out)
        self._y_out, self._x_out = network.y_out.table().numpy(), network.x_out.table().numpy()
        self._shape_out, self._shape_bias = _linear(network.shape_out), network.shape_bias.numpy()
        self._last_of = network.last_of.tolist()
        # Shapes of one group are neighbours.
        self._first_of = np.searchsorted(network.group_of.numpy(), np.arange(self._end)).tolist()
        self._bias = 0 if group_bias is None else group_bias.numpy()
        self._empty = np.array([last < 0 for last in self._last_of] + [False])
        self._seen = support and (support.y_VH.numpy(), support.x_VW.numpy())

    def draw(self, chance_T5: np.ndarray) -> list[list[int]]:
        """Return the tokens of one sequence for numbers from U[0, 1)."""
        tokens: list[list[int]] = []
        for block in self._blocks:
            block.begin(len(chance_T5))
        for step, chance_5 in enumerate(chance_T5):
            x_D = self._start if step == 0 else self._embedding(tokens[-1])
            x_D = self._norm_in(x_D + self._position[step])
            for block in self._blocks:
                x_D = block(x_D, step, self._heads)
            token = self._token(self._norm_out(x_D), tokens[-1] if tokens else None, chance_5)
            if token is None:
                break
            tokens.append(token)
        return tokens

    def _embedding(self, token: list[int]) -> np.ndarray:
        return np.sum([table[value] for table, value in zip(self._tables, token)], axis=0)

    def _token(
        self, context_D: np.ndarray, before: list[int] | None, chance_5: np.ndarray
    ) -> list[int] | None:
        """Draw a token that is larger than the one before; None: the end."""
        least = [0] * FIELDS if before is None else self._successor(before)
        logits = self._group_out(self._group_head(context_D)) + self._bias
        logits[self._empty] = -math.inf
        group = self._draw(logits, GROUP, chance_5, least[GROUP])
        if group == self._end:
            return None
        token = [group, 0, 0, 0, 0]
        context_D = context_D + self._tables[GROUP][group]
        # `bound`: the fields so far are the smallest ones, so the next one has a smallest value.
        bound = group == least[GROUP]
        for field, head, out_KD in (
            (Y, self._y_head, self._y_out),
            (X, self._x_head, self._x_out),
        ):
            logits = out_KD @ head(context_D)
            token[field] = self._draw(logits, field, chance_5, least[field] if bound else 0)
            bound = bound and token[field] == least[field]
            context_D = context_D + self._tables[field][token[field]]
        token[SHAPE] = self._shape(context_D, token, chance_5, least[SHAPE] if bound else 0)
        bound = bound and token[SHAPE] == least[SHAPE]
        context_D = context_D + self._tables[SHAPE][token[SHAPE]]
        logits = self._run_out(self._run_head(context_D))
        token[RUN] = self._draw(logits, RUN, chance_5, least[RUN] if bound else 0)
        return token

    def _successor(self, token: list[int]) -> list[int]:
        """Return the smallest token that may follow; fields after a grown one are 0."""
        group, y, x, shape, run = token
        if run + 1 < self._sizes.runs:
            return [group, y, x, shape, run + 1]
        if shape < self._last_of[group]:
            return [group, y, x, shape + 1, 0]
        if x + 1 < self._sizes.width:
            return [group, y, x + 1, 0, 0]
        if y + 1 < self._sizes.height:
            return [group, y + 1, 0, 0, 0]
        return [group + 1, 0, 0, 0, 0]

    def _shape(
        self, context_D: np.ndarray, token: list[int], chance_5: np.ndarray, least: int
    ) -> int:
        """Draw one of the group's shapes."""
        first = max(self._first_of[token[GROUP]], least)
        shapes = slice(first, self._last_of[token[GROUP]] + 1)
        query_D = self._shape_out(self._shape_head(context_D))
        logits = self._tables[SHAPE][shapes] @ query_D / math.sqrt(len(query_D))
        logits += self._shape_bias[shapes]
        if self._seen:
            y_VH, x_VW = self._seen
            seen_K = y_VH[shapes, token[Y]] & x_VW[shapes, token[X]]
            # Without a shape that was seen here, any shape may be drawn.
            if seen_K.any():
                logits = np.where(seen_K, logits, np.float32(-math.inf))
        return first + self._draw(logits, SHAPE, chance_5)

    def _draw(self, logits_K: np.ndarray, field: int, chance_5: np.ndarray, least: int = 0) -> int:
        """Draw a value by inverting the cumulative probabilities."""
        share_K = logits_K[least:] / np.float32(self._temperature)
        share_K = np.exp(share_K - share_K.max())
        share_K /= share_K.sum()
        if self._top_p[field] < 1.0:
            order = np.argsort(-share_K, kind="stable")
            ordered = share_K[order]
            before = ordered.cumsum() - ordered
            share_K[order[before >= self._top_p[field]]] = 0
        total_K = share_K.cumsum()
        value = int((total_K <= chance_5[field] * total_K[-1]).sum())
        # Rounding may lead past the last value with a probability above 0.
        return least + min(value, int(share_K.nonzero()[0][-1]))


class _Block:
    """A layer of the transformer, with the keys and values of one sequence."""

    def __init__(self, block: Any):
        self._norm_attention, self._norm_mlp = _norm(block.norm_attention), _norm(block.norm_mlp)
        self._qkv, self._project = _linear(block.qkv), _linear(block.project)
        self._mlp = _sequence(block.mlp)
        self._width = block.project.in_features

    def begin(self, length: int) -> None:
        """Forget the sequence before; the next one has at most `length` tokens."""
        self._keys_TD = np.empty((length, self._width), np.float32)
        self._values_TD = np.empty((length, self._width), np.float32)

    def __call__(self, x_D: np.ndarray, step: int, heads: int) -> np.ndarray:
        q_D, self._keys_TD[step], self._values_TD[step] = self._qkv(
            self._norm_attention(x_D)
        ).reshape(3, -1)
        # h heads of d numbers.
        keys_Thd = self._keys_TD[: step + 1].reshape(step + 1, heads, -1)
        values_Thd = self._values_TD[: step + 1].reshape(step + 1, heads, -1)
        q_hd = q_D.reshape(heads, -1)
        score_hT = np.matmul(keys_Thd.transpose(1, 0, 2), q_hd[:, :, None])[:, :, 0]
        score_hT *= 1 / math.sqrt(q_hd.shape[1])
        share_hT = np.exp(score_hT - score_hT.max(1, keepdims=True))
        share_hT /= share_hT.sum(1, keepdims=True)
        read_hd = np.matmul(share_hT[:, None], values_Thd.transpose(1, 0, 2))[:, 0]
        x_D = x_D + self._project(read_hd.reshape(-1))
        return x_D + self._mlp(self._norm_mlp(x_D))


def _linear(layer: Any) -> Layer:
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    return lambda x_D: weight @ x_D + bias


def _norm(layer: Any) -> Layer:
    weight, bias, epsilon = layer.weight.detach().numpy(), layer.bias.detach().numpy(), layer.eps

    def normalised(x_D: np.ndarray) -> np.ndarray:
        centred_D = x_D - x_D.sum() / len(x_D)
        return centred_D * (weight / math.sqrt(centred_D @ centred_D / len(x_D) + epsilon)) + bias

    return normalised


def _gelu(x_D: np.ndarray) -> np.ndarray:
    return 0.5 * x_D * (1 + erf(x_D * np.float32(1 / math.sqrt(2))))


def _sequence(layers: Any) -> Layer:
    """A norm, two linear layers with GELU between them, or the latter alone."""
    made: dict[type, Callable[[Any], Layer]] = {
        torch.nn.LayerNorm: _norm,
        torch.nn.Linear: _linear,
        torch.nn.GELU: lambda layer: _gelu,
    }
    steps = [made[type(layer)](layer) for layer in layers]

    def apply(x_D: np.ndarray) -> np.ndarray:
        for step in steps:
            x_D = step(x_D)
        return x_D

    return apply
