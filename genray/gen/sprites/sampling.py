"""Draws sequences of tokens from a transformer, one field of one token at a time.

Shapes: B rows, T largest number of tokens, V shapes, H height, W width of the screen.
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from genray.gen.sprites.network import (
    FIELDS,
    GROUP,
    RUN,
    SHAPE,
    Block,
    SpriteTransformer,
    X,
    Y,
)  # fmt: skip

TOP_P = (1.0, 1.0, 1.0, 0.99, 0.99)
"""Default share of the likeliest values of each field (group, y, x, shape, run) that is drawn from.
Less than 1 for the group or a coordinate would drop rare objects."""


def top_p_of(share: float) -> tuple[float, ...]:
    """Return `share` for the shape and the run, and 1 for the other fields."""
    return (1.0, 1.0, 1.0, share, share)


@dataclass(frozen=True)
class Support:
    """Where each shape may be drawn: near a row and a column in which it was seen in training."""

    y_VH: Tensor
    """bool."""
    x_VW: Tensor
    """bool."""


@torch.no_grad()
def draw_tokens(
    network: SpriteTransformer,
    chance_BT5: Tensor,
    temperature: float = 1.0,
    top_p: tuple[float, ...] = TOP_P,
    support: Support | None = None,
    group_bias: Tensor | None = None,
) -> Tensor:
    """Draw one sequence for each row of `chance_BT5`; int64 [B, T, 5].

    Rows after the end of a sequence have the group `network.end`. A value is the inverse of the
    cumulative probabilities at its number in `chance_BT5`, so the result is a function of the
    weights and these numbers.

    Args:
        network: in evaluation mode.
        chance_BT5: numbers from U[0, 1).
        temperature: divides all logits.
        top_p: for each field, the share of the probability from which values are drawn.
        support: restricts the places of shapes; None: no restriction.
        group_bias: added to the logits of the groups and of the end, [G + 1].
    """
    batch, longest = chance_BT5.shape[:2]
    device, end = chance_BT5.device, network.end
    tokens_BT5 = torch.zeros(batch, longest, FIELDS, dtype=torch.int64, device=device)
    tokens_BT5[:, :, GROUP] = end
    tables = network.tables()
    # Rows whose sequence has not ended, and their keys and values.
    row_A = torch.arange(batch, device=device)
    side = network.width // network.heads
    cache = torch.zeros(2 * len(network.blocks), batch, network.heads, longest, side, device=device)
    previous_A5 = tokens_BT5[:, 0].clone()
    for step in range(longest):
        first_A = torch.full((len(row_A),), step == 0, device=device)
        x_AD = network.start.expand(len(row_A), -1) if step == 0 else tables.embed(previous_A5)
        x_AD = network.norm_in(x_AD + network.position.weight[step])
        for number, block in enumerate(network.blocks):
            x_AD = cast(Block, block).extend(x_AD, cache[2 * number], cache[2 * number + 1], step)
        context_AD = network.norm_out(x_AD)
        least = network.least(previous_A5, first_A)
        chance_A5 = chance_BT5[row_A, step]

        def draw(logits: Tensor, field: int, chance_A5: Tensor = chance_A5) -> Tensor:
            return _draw(logits, chance_A5[:, field], temperature, top_p[field])

        token_A5 = torch.zeros_like(previous_A5)
        logits = network.group_logits(context_AD, least)
        token_A5[:, GROUP] = draw(logits if group_bias is None else logits + group_bias, GROUP)
        # Drop the rows that have ended.
        going = token_A5[:, GROUP] != end
        if not going.all():
            kept = going.nonzero().flatten()
            row_A, token_A5, context_AD = row_A[kept], token_A5[kept], context_AD[kept]
            chance_A5, cache = chance_A5[kept], cache[:, kept]
            least = type(least)(*(each[kept] for each in least))
            if not len(kept):
                break

        def draw_going(logits: Tensor, field: int, chance_A5: Tensor = chance_A5) -> Tensor:
            return _draw(logits, chance_A5[:, field], temperature, top_p[field])

        context_AD = context_AD + tables.group[token_A5[:, GROUP]]
        token_A5[:, Y] = draw_going(network.y_logits(context_AD, token_A5, least), Y)
        context_AD = context_AD + tables.y[token_A5[:, Y]]
        token_A5[:, X] = draw_going(network.x_logits(context_AD, token_A5, least), X)
        context_AD = context_AD + tables.x[token_A5[:, X]]
        logits = network.shape_logits(context_AD, token_A5, least, tables)
        if support is not None:
            seen_AV = support.y_VH.T[token_A5[:, Y]] & support.x_VW.T[token_A5[:, X]]
            inside = logits.masked_fill(~seen_AV, -math.inf)
            # Without a shape that was seen here, any shape may be drawn.
            none_A1 = (inside == -math.inf).all(1, keepdim=True)
            logits = torch.where(none_A1, logits, inside)
        token_A5[:, SHAPE] = draw_going(logits, SHAPE)
        context_AD = context_AD + tables.shape[token_A5[:, SHAPE]]
        token_A5[:, RUN] = draw_going(network.run_logits(context_AD, token_A5, least), RUN)
        tokens_BT5[row_A, step] = token_A5
        previous_A5 = token_A5
    return tokens_BT5


def _draw(logits_AK: Tensor, chance_A: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draw one value of each row by inverting the cumulative probabilities."""
    share_AK = (logits_AK / temperature).softmax(1)
    if top_p < 1.0:
        # Keep the likeliest values; the value that reaches the share is kept, too.
        ordered, order = share_AK.sort(dim=1, descending=True, stable=True)
        before = ordered.cumsum(1) - ordered
        dropped = torch.zeros_like(share_AK).scatter(1, order, (before >= top_p).to(share_AK.dtype))
        share_AK = share_AK * (1 - dropped)
    total_AK = share_AK.cumsum(1)
    value_A = (total_AK <= (chance_A * total_AK[:, -1])[:, None]).sum(1)
    # Rounding may lead past the last value with a probability above 0.
    last_A = share_AK.shape[1] - 1 - (share_AK.flip(1) > 0).to(torch.uint8).argmax(1)
    return torch.minimum(value_A, last_A)
