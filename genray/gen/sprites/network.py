"""The transformer over sprite tokens: its layers, its five chained heads and its likelihood.

A sequence's likelihood is a product over its tokens, and each token's likelihood is a product over
its five numbers: p(group) p(y | group) p(x | group, y) p(shape | …) p(run | …). Tokens are strictly
increasing in (group, y, x, shape, run); numbers that would break this order have probability 0, so
the likelihoods of all sequences add up to 1. After the last token comes the group `END`.

Shapes: B batch, T positions of the longest sequence, M all positions that are not padding, D width
of the network, G groups, H height and W width of the screen, V shapes, R runs.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP, Y, X, SHAPE, RUN = range(5)
"""Columns of a token."""
FIELDS = 5
FAR = 8
"""Corrupted tokens are moved by up to this many pixels in each direction."""


class Sizes(NamedTuple):
    """The sizes of a language: number of groups, screen height and width, shapes and runs."""

    groups: int
    height: int
    width: int
    shapes: int
    runs: int


class Block(nn.Module):
    """One pre-norm transformer layer with causal self-attention."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x_MD: Tensor, place_M: Tensor, batch: int, length: int) -> Tensor:
        """Apply the layer to positions without padding.

        `place_M`: the index of each position in the padded batch [`batch`, `length`].
        """
        qkv_MD = self.qkv(self.norm_attention(x_MD))
        padded = qkv_MD.new_zeros(batch * length, qkv_MD.shape[1]).index_copy(0, place_M, qkv_MD)
        q, k, v = padded.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        flat = attended.transpose(1, 2).reshape(batch * length, -1).index_select(0, place_M)
        x_MD = x_MD + self.drop(self.project(flat))
        return x_MD + self.drop(self.mlp(self.norm_mlp(x_MD)))

    def extend(self, x_BD: Tensor, keys: Tensor, values: Tensor, position: int) -> Tensor:
        """Apply the layer to one new position of every row.

        `keys`, `values`: [B, heads, T, D / heads], filled up to `position`, which is written.
        """
        q, k, v = (
            self.qkv(self.norm_attention(x_BD)).view(len(x_BD), 3, self.heads, 1, -1).unbind(1)
        )
        keys[:, :, position : position + 1] = k
        values[:, :, position : position + 1] = v
        seen = slice(0, position + 1)
        attended = F.scaled_dot_product_attention(q, keys[:, :, seen], values[:, :, seen])
        x_BD = x_BD + self.project(attended.flatten(1))
        return x_BD + self.mlp(self.norm_mlp(x_BD))


class Places(nn.Module):
    """Embeds a coordinate: waves of several lengths, which are alike for neighbours, and a free
    part.
    """

    def __init__(self, count: int, width: int):
        super().__init__()
        length = 2.0 * count / 2 ** torch.arange(0, math.log2(max(2, count)), 0.5)
        angle = 2 * math.pi * torch.arange(count)[:, None] / length
        self.register_buffer("waves", torch.cat([angle.sin(), angle.cos()], 1), persistent=False)
        self.waves: Tensor
        self.smooth = nn.Linear(self.waves.shape[1], width, bias=False)
        self.free = nn.Parameter(torch.randn(count, width) * 0.02)

    def table(self) -> Tensor:
        """Return the embeddings of all coordinates, [count, D]."""
        return self.smooth(self.waves) + self.free


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, width), nn.GELU(), nn.Linear(width, width)
    )


class Tables(NamedTuple):
    """Embeddings of everything that a token can contain, computed once for each batch."""

    group: Tensor
    y: Tensor
    x: Tensor
    shape: Tensor
    run: Tensor

    def embed(self, tokens_M5: Tensor) -> Tensor:
        """Return the sum of the embeddings of each token's fields, [M, D]."""
        total = self.group[tokens_M5[:, GROUP]]
        for column, table in ((Y, self.y), (X, self.x), (SHAPE, self.shape), (RUN, self.run)):
            total = total + table[tokens_M5[:, column]]
        return total


class SpriteTransformer(nn.Module):
    """A causal transformer over tokens.

    Args:
        sizes: of the language.
        num_features: length of the description of a shape, `features`.
        width, layers, heads, dropout: of the transformer.
        longest: largest number of tokens of a sequence.
        wrong_tokens: share of the tokens that the network reads changed in training.
    """

    def __init__(
        self, sizes: Sizes, num_features: int, *, width: int, layers: int, heads: int,
        dropout: float, longest: int, wrong_tokens: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.sizes, self.longest, self.heads, self.width = sizes, longest, heads, width
        self.wrong_tokens = wrong_tokens
        self.features: Tensor
        """uint8 [V, F]: what each shape looks like."""
        self.group_of: Tensor
        """int64 [V]: the group of each shape; shapes of one group are neighbours."""
        self.last_of: Tensor
        """int64 [G]: the last shape of each group; −1 for a group without shapes."""
        self.register_buffer("features", torch.zeros(sizes.shapes, num_features, dtype=torch.uint8))
        self.register_buffer("group_of", torch.zeros(sizes.shapes, dtype=torch.int64))
        self.register_buffer("last_of", torch.full((sizes.groups,), -1))
        self.group = nn.Embedding(sizes.groups + 1, width)
        self.y, self.x = Places(sizes.height, width), Places(sizes.width, width)
        self.look = nn.Linear(num_features, width)
        self.shape_free = nn.Embedding(sizes.shapes, width)
        self.run = nn.Embedding(sizes.runs, width)
        self.start = nn.Parameter(torch.randn(width) * 0.02)
        self.position = nn.Embedding(longest + 1, width)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.heads_out = nn.ModuleList(_head(width) for _ in range(FIELDS))
        # The output tables are separate from the input tables, except what shapes look like.
        self.group_out = nn.Linear(width, sizes.groups + 1)
        self.y_out, self.x_out = Places(sizes.height, width), Places(sizes.width, width)
        self.shape_out = nn.Linear(width, width)
        self.shape_bias = nn.Parameter(torch.zeros(sizes.shapes))
        self.run_out = nn.Linear(width, sizes.runs)
        for embedding in (self.group, self.shape_free, self.run, self.position):
            nn.init.normal_(embedding.weight, std=0.02)

    def describe(self, features_VF: Tensor, group_V: Tensor) -> None:
        """Set what the shapes look like, uint8, and their groups, int64."""
        self.features.copy_(features_VF)
        self.group_of.copy_(group_V)
        number_V = torch.arange(len(group_V), device=group_V.device)
        self.last_of.fill_(-1).scatter_reduce_(0, group_V, number_V, "amax")

    @property
    def end(self) -> int:
        """The group that ends a sequence."""
        return self.sizes.groups

    def tables(self) -> Tables:
        """Compute the embeddings from the weights."""
        shape_VD = (
            self.look(self.features.to(self.look.weight.dtype) / 255) + self.shape_free.weight
        )
        return Tables(self.group.weight, self.y.table(), self.x.table(), shape_VD, self.run.weight)

    def corrupted(self, tokens_M5: Tensor) -> Tensor:
        """Change a share of the tokens: move them by a few pixels, or replace their shape by that
        of another token.

        A model that draws a screen reads its own tokens, which are not always right. In training,
        it must therefore read wrong ones, too.
        """
        if not self.wrong_tokens:
            return tokens_M5
        count, device = len(tokens_M5), tokens_M5.device
        changed_M = torch.rand(count, device=device) < self.wrong_tokens
        move_M2 = torch.randint(-FAR, FAR + 1, (count, 2), device=device) * changed_M[:, None]
        # Half of the changed tokens get the shape of a random token.
        other_M = torch.randint(count, (count,), device=device)
        swapped_M = changed_M & (torch.rand(count, device=device) < 0.5)
        shape_M = tokens_M5[:, SHAPE]
        return torch.stack(
            [
                tokens_M5[:, GROUP],
                (tokens_M5[:, Y] + move_M2[:, 0]).clamp(0, self.sizes.height - 1),
                (tokens_M5[:, X] + move_M2[:, 1]).clamp(0, self.sizes.width - 1),
                torch.where(swapped_M, shape_M[other_M], shape_M),
                tokens_M5[:, RUN],
            ],
            1,
        )

    # -- the masks of the order -------------------------------------------------------------------

    def least(self, previous_M5: Tensor, first_M: Tensor) -> "Least":
        """Return what the next token must reach, given each previous token.

        `first_M`: bool; True where there is no previous token.
        """
        group, y, x, shape, run = previous_M5.unbind(1)
        # `…_used`: no larger value is left, so that the field before must grow.
        run_used = run == self.sizes.runs - 1
        shape_used = run_used & (shape == self.last_of[group.clamp(max=self.end - 1)])
        x_used = shape_used & (x == self.sizes.width - 1)
        y_used = x_used & (y == self.sizes.height - 1)
        return Least(
            torch.where(first_M, 0, group + y_used.long()),
            torch.where(first_M, -1, group),
            y, y + x_used.long(), x, x + shape_used.long(), shape, shape + run_used.long(), run + 1,
        )  # fmt: skip

    # -- the heads --------------------------------------------------------------------------------

    def group_logits(self, state_MD: Tensor, least: "Least") -> Tensor:
        """Return the logits of the group, [M, G + 1]; the last one is the end."""
        logits = _full(self.group_out(self.heads_out[GROUP](state_MD)))
        allowed = torch.arange(self.end + 1, device=logits.device) >= least.group[:, None]
        # A group without shapes cannot follow.
        allowed = allowed & F.pad(self.last_of >= 0, (0, 1), value=True)
        return logits.masked_fill(~allowed, -math.inf)

    def y_logits(self, context_MD: Tensor, token_M5: Tensor, least: "Least") -> Tensor:
        """Return the logits of y, [M, H], given the group in `token_M5`."""
        logits = _full(self.heads_out[Y](context_MD) @ self.y_out.table().T)
        floor = torch.where(token_M5[:, GROUP] == least.same_group, least.y, 0)
        return _from(logits, floor)

    def x_logits(self, context_MD: Tensor, token_M5: Tensor, least: "Least") -> Tensor:
        """Return the logits of x, [M, W], given group and y."""
        logits = _full(self.heads_out[X](context_MD) @ self.x_out.table().T)
        same = (token_M5[:, GROUP] == least.same_group) & (token_M5[:, Y] == least.same_y)
        return _from(logits, torch.where(same, least.x, 0))

    def shape_logits(
        self, context_MD: Tensor, token_M5: Tensor, least: "Least", tables: Tables
    ) -> Tensor:
        """Return the logits of the shape, [M, V], given group, y and x; other groups' shapes have
        −∞.
        """
        query_MD = self.shape_out(self.heads_out[SHAPE](context_MD))
        logits = _full(query_MD @ tables.shape.T / math.sqrt(self.width)) + self.shape_bias
        group_M1 = token_M5[:, GROUP, None]
        logits = logits.masked_fill(self.group_of != group_M1, -math.inf)
        same = (group_M1[:, 0] == least.same_group) & (token_M5[:, Y] == least.same_y)
        same = same & (token_M5[:, X] == least.same_x)
        return _from(logits, torch.where(same, least.shape, 0))

    def run_logits(self, context_MD: Tensor, token_M5: Tensor, least: "Least") -> Tensor:
        """Return the logits of the run, [M, R], given the other fields."""
        logits = _full(self.run_out(self.heads_out[RUN](context_MD)))
        same = (token_M5[:, GROUP] == least.same_group) & (token_M5[:, Y] == least.same_y)
        same = same & (token_M5[:, X] == least.same_x)
        same = same & (token_M5[:, SHAPE] == least.same_shape)
        return _from(logits, torch.where(same, least.run, 0))

    # -- the likelihood ---------------------------------------------------------------------------

    def log_likelihood(self, tokens_BT5: Tensor) -> Tensor:
        """Return ln p of each sequence, nats, float32 [B].

        `tokens_BT5`: int64; rows after a sequence's end have the group `end`.
        """
        return self.field_log_likelihoods(tokens_BT5).sum(1)

    def field_log_likelihoods(self, tokens_BT5: Tensor) -> Tensor:
        """Return ln p of each sequence, split by the five fields, nats, float32 [B, 5]."""
        # Remove columns that are padding in all rows, and add the end.
        batch = len(tokens_BT5)
        length_B = (tokens_BT5[:, :, GROUP] != self.end).sum(1)
        longest = int(length_B.max()) if batch else 0
        target_BT5 = F.pad(tokens_BT5[:, :longest], (0, 0, 0, 1))
        target_BT5[torch.arange(batch), length_B, GROUP] = self.end
        steps = torch.arange(longest + 1, device=tokens_BT5.device)
        valid_BT = steps <= length_B[:, None]
        place_M = valid_BT.flatten().nonzero().flatten()
        target_M5 = target_BT5.flatten(0, 1).index_select(0, place_M)
        previous_BT5 = F.pad(target_BT5, (0, 0, 1, 0))[:, :-1]
        previous_M5 = previous_BT5.flatten(0, 1).index_select(0, place_M)
        step_M = place_M % (longest + 1)
        first_M = step_M == 0
        # Run the transformer over the tokens before each position.
        tables = self.tables()
        read_M5 = self.corrupted(previous_M5) if self.training else previous_M5
        x_MD = torch.where(first_M[:, None], self.start, tables.embed(read_M5))
        x_MD = self.drop(self.norm_in(x_MD + self.position(step_M.clamp(max=self.longest))))
        for block in self.blocks:
            x_MD = block(x_MD, place_M, batch, longest + 1)
        state_MD = self.norm_out(x_MD)
        least = self.least(previous_M5, first_M)
        group_M = _chosen(self.group_logits(state_MD, least), target_M5[:, GROUP])
        # The other heads apply to tokens, not to the ends.
        token = (target_M5[:, GROUP] != self.end).nonzero().flatten()
        token_K5 = target_M5.index_select(0, token)
        least = Least(*(each.index_select(0, token) for each in least))
        context = state_MD.index_select(0, token) + tables.group[token_K5[:, GROUP]]
        y = _chosen(self.y_logits(context, token_K5, least), token_K5[:, Y])
        context = context + tables.y[token_K5[:, Y]]
        x = _chosen(self.x_logits(context, token_K5, least), token_K5[:, X])
        context = context + tables.x[token_K5[:, X]]
        shape = _chosen(self.shape_logits(context, token_K5, least, tables), token_K5[:, SHAPE])
        context = context + tables.shape[token_K5[:, SHAPE]]
        run = _chosen(self.run_logits(context, token_K5, least), token_K5[:, RUN])
        fields_M4 = y.new_zeros(len(target_M5), 4)
        fields_M4 = fields_M4.index_copy(0, token, torch.stack([y, x, shape, run], 1))
        fields_M5 = torch.cat([group_M[:, None], fields_M4], 1)
        row_M = place_M // (longest + 1)
        return fields_M5.new_zeros(batch, FIELDS).index_add(0, row_M, fields_M5)


class Least(NamedTuple):
    """The smallest allowed value of each field of a token, int64 [M] each.

    `y` applies if the token's group is `same_group`, `x` if also y is `same_y`, and so on.
    """

    group: Tensor
    same_group: Tensor
    same_y: Tensor
    y: Tensor
    same_x: Tensor
    x: Tensor
    same_shape: Tensor
    shape: Tensor
    run: Tensor


def _full(logits: Tensor) -> Tensor:
    """Convert half-precision logits to float32."""
    return logits if logits.dtype == torch.float64 else logits.float()


def _from(logits_MK: Tensor, least_M: Tensor) -> Tensor:
    """Set the logits of values below `least_M` to −∞."""
    below = torch.arange(logits_MK.shape[1], device=logits_MK.device) < least_M[:, None]
    return logits_MK.masked_fill(below, -math.inf)


def _chosen(logits_MK: Tensor, value_M: Tensor) -> Tensor:
    """Return ln p of the given values."""
    return -F.cross_entropy(logits_MK, value_M, reduction="none")
