"""The network of a world model in NumPy, for one screen at a time on a CPU.

Drawing a step takes two dozen decisions, each of which is a few dozen operations on a hundred
numbers. PyTorch needs ten times as long to start such an operation as to compute it. Here, each
norm is part of the linear layer after it, linear layers without a non-linearity between them are
one, and what depends on weights alone is computed once.

Shapes: D width of the network, M tracks, S = M + 1 positions (the screen, then its tracks), N
heads, d = D / N, R numbers that describe an offset, T known decisions, V looks, O outputs.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from scipy.special import erf

from genray.gen.world.layers import NOWHERE, Layer, Offsets
from genray.gen.world.network import WorldNetwork
from genray.gen.world.state import MOVES, SAME_LOOK, State, past
from genray.gen.world.tracks import Track

Parts = dict[str, Any]
"""Arrays, numbers, and lists and dictionaries of them, by the names of `web/network.js`."""
HALF = np.float32(0.5)
ROOT = np.float32(1 / math.sqrt(2))


def array(tensor: Any) -> np.ndarray:
    """Return weights as float64, in which they are combined."""
    values: np.ndarray = tensor.detach().cpu().double().numpy()
    return values


def ready(values: np.ndarray) -> np.ndarray:
    """Return combined weights as the network computes with them."""
    return np.ascontiguousarray(values, np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    """GELU, exactly as in PyTorch."""
    result: np.ndarray = HALF * x * (1 + erf(x * ROOT))
    return result


class NormLinear:
    """A LayerNorm, and a linear layer after it.

    W ((x − mean) / σ · n + m) + b = V x / σ + (W m + b), where V is W · n with centred rows.

    Args:
        norm: the LayerNorm.
        weight_OD, bias_O: W and b.
    """

    def __init__(self, norm: Any, weight_OD: np.ndarray, bias_O: np.ndarray):
        scaled = weight_OD * array(norm.weight)
        self._weight_OD = ready(scaled - scaled.mean(1, keepdims=True))
        self._bias_O = ready(bias_O + weight_OD @ array(norm.bias))
        self._share, self._epsilon = 1 / scaled.shape[1], norm.eps

    def parts(self) -> Parts:
        """Return what computes the layers elsewhere, as `web` writes it; so do all `parts`."""
        return {"weight": self._weight_OD, "bias": self._bias_O, "epsilon": self._epsilon}

    def __call__(self, x_D: np.ndarray) -> np.ndarray:
        mean = float(x_D.sum()) * self._share
        variance = float(x_D @ x_D) * self._share - mean * mean
        result = self._weight_OD @ x_D
        result *= 1 / math.sqrt(max(variance, 0.0) + self._epsilon)
        result += self._bias_O
        return result

    def rows(self, x_SD: np.ndarray) -> np.ndarray:
        """Apply both layers to several vectors."""
        centred_SD = x_SD - x_SD.mean(1, keepdims=True)
        variance_S1 = np.square(centred_SD).mean(1, keepdims=True)
        result: np.ndarray = (centred_SD @ self._weight_OD.T) / np.sqrt(variance_S1 + self._epsilon)
        return result + self._bias_O


class Mlp:
    """A LayerNorm, a linear layer, GELU and another linear layer.

    Args:
        norm, first: the first two layers.
        weight_OD, bias_O: of the last one.
    """

    def __init__(self, norm: Any, first: Any, weight_OD: np.ndarray, bias_O: np.ndarray):
        self._first = NormLinear(norm, array(first.weight), array(first.bias))
        self._weight_OD, self._bias_O = ready(weight_OD), ready(bias_O)

    def parts(self) -> Parts:
        """See `NormLinear.parts`."""
        return {"first": self._first.parts(), "weight": self._weight_OD, "bias": self._bias_O}

    def hidden(self, x_D: np.ndarray) -> np.ndarray:
        """Return what the last layer reads."""
        return gelu(self._first(x_D))

    def __call__(self, x_D: np.ndarray) -> np.ndarray:
        return self._weight_OD @ self.hidden(x_D) + self._bias_O

    def rows(self, x_SD: np.ndarray) -> np.ndarray:
        """Apply the layers to several vectors."""
        return gelu(self._first.rows(x_SD)) @ self._weight_OD.T + self._bias_O


class QuickOffsets:
    """The descriptions of all offsets in one table.

    A place (y, x) has the code y · C + x, C = 2 · width + 1, so that the difference of two codes
    gives the row of the table. The last row describes the offset from or to nowhere.
    """

    def __init__(self, offsets: Offsets, height: int, width: int):
        with torch.no_grad():
            y, x = (ready(array(offsets.table(axis))) for axis in range(2))
            pairs = gelu(y[:-1, None] + x[None, :-1]).reshape(-1, y.shape[1])
            pairs = np.concatenate([pairs, gelu(y[-1:] + x[-1:])])
        weight, bias = (ready(array(each)) for each in (offsets.mix.weight, offsets.mix.bias))
        self._parts: Parts = {"y": y, "x": x, "weight": weight, "bias": bias}
        self.table = pairs @ weight.T + bias
        self.columns = 2 * width + 1
        self._zero, self._last = height * self.columns + width, len(pairs) - 1

    def parts(self) -> Parts:
        """See `NormLinear.parts`. The table is large, and quickly computed from them."""
        return self._parts

    @property
    def nowhere(self) -> int:
        """A code that is so large that its difference to any other is beyond the table."""
        return 4 * self._last

    def code(self, y: int, x: int) -> int:
        """Return the code of a place."""
        return self.nowhere if y == NOWHERE else y * self.columns + x

    def pairs(self, from_code: Any, to_code: np.ndarray) -> np.ndarray:
        """Return the description of each pair, […, R]. The first place must not be nowhere."""
        result: np.ndarray = self.table[np.minimum(to_code + (self._zero - from_code), self._last)]
        return result


class QuickLayer:
    """A `Layer` whose attention reads offsets."""

    def __init__(self, layer: Layer, width: int):
        attention = layer.attention
        self.heads = attention.heads
        scale = 1 / math.sqrt(width // self.heads)
        self._query = NormLinear(
            layer.norm, array(attention.query.weight) * scale, array(attention.query.bias) * scale
        )
        key = attention.key_value
        self._memory = NormLinear(layer.norm_memory, array(key.weight), array(key.bias))
        # The part of the bias that is the same for all keys has no effect.
        self.bias_RN = ready(array(attention.bias.weight).T)
        project = attention.project
        self._out = ready(np.concatenate([array(project.weight), array(attention.value.weight)], 1))
        self._out_bias = ready(array(project.bias))
        first, _, second = layer.mlp
        self._mlp = Mlp(layer.norm_mlp, first, array(second.weight), array(second.bias))

    def parts(self) -> Parts:
        """See `NormLinear.parts`."""
        return {
            "query": self._query.parts(), "memory": self._memory.parts(), "bias": self.bias_RN,
            "out": self._out, "out_bias": self._out_bias, "mlp": self._mlp.parts(),
        }  # fmt: skip

    def queries(self, x_SD: np.ndarray) -> np.ndarray:
        """Return the queries of several positions, [S, N, d]."""
        return self._query.rows(x_SD).reshape(len(x_SD), self.heads, -1)

    def query(self, x_D: np.ndarray) -> np.ndarray:
        """Return the query of one position, [N, d]."""
        return self._query(x_D).reshape(self.heads, -1)

    def keys(self, x_D: np.ndarray) -> np.ndarray:
        """Return key and value of an entry, [2, N, d]."""
        return self._memory(x_D).reshape(2, self.heads, -1)

    def all_rows(self, x_SD: np.ndarray, pairs_SSR: np.ndarray, bias_NSS: np.ndarray) -> np.ndarray:
        """Apply the layer to positions that all see each other."""
        length = len(x_SD)
        both = self._memory.rows(x_SD).reshape(length, 2, self.heads, -1)
        query_NSd = self.queries(x_SD).transpose(1, 0, 2)
        share_NSS = query_NSd @ both[:, 0].transpose(1, 2, 0)
        share_NSS += bias_NSS
        share_NSS -= share_NSS.max(2, keepdims=True)
        np.exp(share_NSS, out=share_NSS)
        share_NSS /= share_NSS.sum(2, keepdims=True)
        found = (share_NSS @ both[:, 1].transpose(1, 0, 2)).transpose(1, 0, 2)
        offset = share_NSS.transpose(1, 0, 2) @ pairs_SSR
        read = np.concatenate([found.reshape(length, -1), offset.reshape(length, -1)], 1)
        x_SD = x_SD + (read @ self._out.T + self._out_bias)
        return x_SD + self._mlp.rows(x_SD)

    def one(
        self, x_D: np.ndarray, query_Nd: np.ndarray, key_NTd: np.ndarray, value_NTd: np.ndarray,
        pairs_TR: np.ndarray | None, nowhere_R: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """Apply the layer to one position. `pairs_TR`: None for a position without a place."""
        share_NT = np.matmul(key_NTd, query_Nd[:, :, None])[:, :, 0]
        if pairs_TR is not None:
            share_NT += (pairs_TR @ self.bias_RN).T
        share_NT -= share_NT.max(1, keepdims=True)
        np.exp(share_NT, out=share_NT)
        share_NT /= share_NT.sum(1, keepdims=True)
        found = np.matmul(share_NT[:, None], value_NTd).reshape(-1)
        offset = np.tile(nowhere_R, self.heads) if pairs_TR is None else share_NT @ pairs_TR
        x_D = x_D + (self._out @ np.concatenate([found, offset.reshape(-1)]) + self._out_bias)
        return x_D + self._mlp(x_D)


class QuickSeen(NamedTuple):
    """What the layers between all tracks computed for one screen."""

    tracks_MD: np.ndarray
    whole_D: np.ndarray
    codes: list[int]
    """The code of each track's place."""


class QuickNetwork:
    """The weights that a network has now, as NumPy computes with them."""

    @torch.no_grad()
    def __init__(self, network: WorldNetwork):
        tables, sizes = network.tables(), network.sizes
        self.heads, self.width = network.causal.attention.heads, network.width
        self.look, self.y, self.x = (ready(array(each)) for each in tables[:3])
        previous = array(tables.look) @ array(network.previous.weight).T
        parts = [
            array(tables.look), previous + array(network.previous.bias), array(tables.y),
            array(tables.x), array(network.age.weight), array(network.unseen.weight),
            *(array(each.weight) for each in network.same),
            *(array(each.weight) for each in network.last),
        ]  # fmt: skip
        # The columns of `past` that the network reads, in the order of `parts`.
        same = [SAME_LOOK + number for number in range(len(network.same))]
        moves = [MOVES + number for number in range(len(network.last))]
        self._columns = [*range(SAME_LOOK), *same, *moves]
        self._first = np.cumsum([0, *map(len, parts[:-1])])
        self._track = ready(np.concatenate(parts))
        self._clock, self._clocks = ready(array(tables.clock)), ready(array(network.clocks.weight))
        self._clocks_bias = ready(array(network.clocks.bias))
        self._action = [ready(array(each.weight)) for each in network.action]
        self._none = sizes.actions
        norm, linear = network.situation
        self._situation = NormLinear(norm, array(linear.weight), array(linear.bias))
        self._whole = ready(array(network.whole))
        self._norm_in, self._norm_out = (
            NormLinear(norm, np.eye(self.width), np.zeros(self.width))
            for norm in (network.norm_in, network.norm_out)
        )
        screen = (sizes.height, sizes.width)
        self._offsets = QuickOffsets(network.offsets, *screen)
        self.offsets = QuickOffsets(network.offsets_causal, *screen)
        self._layers = [QuickLayer(cast(Layer, each), self.width) for each in network.layers]
        self._bias = np.concatenate([each.bias_RN for each in self._layers], 1)
        self.causal = QuickLayer(network.causal, self.width)

    def parts(self) -> Parts:
        """See `NormLinear.parts`."""
        return {
            "tables": {
                "look": self.look, "y": self.y, "x": self.x, "track": self._track,
                "first": self._first.tolist(), "columns": self._columns, "clock": self._clock,
                "clocks": self._clocks, "clocks_bias": self._clocks_bias, "action": self._action,
                "none": self._none, "whole": self._whole,
            },
            "situation": self._situation.parts(),
            "norm_in": self._norm_in.parts(), "norm_out": self._norm_out.parts(),
            "offsets_seen": self._offsets.parts(), "offsets": self.offsets.parts(),
            "layers": [each.parts() for each in self._layers], "causal": self.causal.parts(),
        }  # fmt: skip

    def see(self, state: State, tracks: Sequence[Track]) -> QuickSeen:
        """Run the layers between `tracks`, which are those of a state that knows its action."""
        now_D = self._clocks_bias + self._clocks @ self._clock[state.clocks].reshape(-1)
        for number, table in enumerate(self._action):
            known = number < len(state.actions)
            now_D = now_D + table[state.actions[number] if known else self._none]
        length = 1 + len(tracks)
        x_SD = np.empty((length, self.width), np.float32)
        x_SD[0] = self._whole
        if tracks:
            rows = np.array([past(track) for track in tracks])[:, self._columns] + self._first
            self._track[rows].sum(1, out=x_SD[1:])
        x_SD += self._situation(now_D)
        x_SD = self._norm_in.rows(x_SD)
        codes = [self._offsets.code(track.y, track.x) for track in tracks]
        to_S = np.array([self._offsets.nowhere, *codes])
        from_S1 = np.array([0, *codes])[:, None]
        pairs_SSR = self._offsets.pairs(from_S1, to_S)
        pairs_SSR[0] = self._offsets.table[-1]  # the first position has no place
        bias_SSK = pairs_SSR.reshape(-1, pairs_SSR.shape[2]) @ self._bias
        bias_KSS = bias_SSK.T.reshape(-1, length, length)
        for number, layer in enumerate(self._layers):
            bias_NSS = bias_KSS[number * self.heads : (number + 1) * self.heads]
            x_SD = layer.all_rows(x_SD, pairs_SSR, bias_NSS)
        return QuickSeen(x_SD[1:], x_SD[0], codes)

    def norm_out(self, x_D: np.ndarray) -> np.ndarray:
        """Return the state of a decision."""
        return self._norm_out(x_D)
