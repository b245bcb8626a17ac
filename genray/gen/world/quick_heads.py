"""The heads of a world model in NumPy; see `quick_network`.

Shapes: D width of the network, K looks of a group, V looks.
"""

import math
from typing import Any

import numpy as np
import torch

from genray.gen.world.network import WorldNetwork
from genray.gen.world.quick_network import Mlp, Parts, array, ready
from genray.gen.world.state import Events
from genray.gen.world.tracks import Track


def head(layers: Any, weight_OD: np.ndarray, bias_O: np.ndarray | float = 0.0) -> Mlp:
    """Return a head of the network together with the linear layer after it."""
    norm, first, _, second = layers
    return Mlp(
        norm, first, weight_OD @ array(second.weight), weight_OD @ array(second.bias) + bias_O
    )


class QuickHeads:
    """Gives the logits of every kind of decision for its state, [D].

    Args:
        network: as it is now.
    """

    @torch.no_grad()
    def __init__(self, network: WorldNetwork):
        heads = network.heads
        self.move = head(heads["move"], *_linear(network.move_out))
        """Logits of the move; the last one is "gone"."""
        self.y = head(heads["y"], array(network.y_out.table()))
        self.x = head(heads["x"], array(network.x_out.table()))
        self.events = tuple(
            head(heads[name], *_linear(layer))
            for name, layer in (
                ("reward", network.reward_out), ("life", network.life_out),
                ("done", network.done_out),
            )
        )  # fmt: skip
        known = (network.reward_in, network.life_in, network.done_in)
        self.event_in = [ready(array(each.weight)) for each in known if each is not None]
        """What later decisions know of the reward, of the lost life, and of the ending."""
        self.moved, self.group_in = (
            ready(array(each.weight)) for each in (network.moved, network.group_in)
        )
        self.looks = [LookHeads(network, group) for group in range(network.sizes.groups)]
        self._group = head(heads["group"], *_linear(network.group_out))
        self._group_of = network.group_of.tolist()

    def parts(self) -> Parts:
        """See `NormLinear.parts`."""
        return {
            "move": self.move.parts(), "y": self.y.parts(), "x": self.x.parts(),
            "group": self._group.parts(), "events": [each.parts() for each in self.events],
            "event_in": self.event_in, "moved": self.moved, "group_in": self.group_in,
            "looks": [each.parts() for each in self.looks], "group_of": self._group_of,
        }  # fmt: skip

    def given(self, events: Events) -> np.ndarray:
        """Return what the decisions after the events know of them, [D]."""
        reward, life, done = (table[int(each)] for table, each in zip(self.event_in, events))
        known: np.ndarray = reward + life + done
        return known

    def looks_of(self, look: int) -> "LookHeads":
        """Return the heads of the group to which a look belongs."""
        return self.looks[self._group_of[look]]

    def group(self, state_D: np.ndarray, free_V: np.ndarray) -> np.ndarray:
        """Return the logits of a new sprite's group; the last one is "no more". A group without
        a free look has −∞.
        """
        logits = self._group(state_D)
        for group, looks in enumerate(self.looks):
            if not free_V[looks.numbers_K].any():
                logits[group] = -math.inf
        return logits


class LookHeads:
    """Gives the logits of the looks of one group."""

    def __init__(self, network: WorldNetwork, group: int):
        self.numbers_K = np.flatnonzero(network.group_of.cpu().numpy() == group)
        """The looks of the group."""
        self._index = {look: index for index, look in enumerate(self.numbers_K.tolist())}
        look_KD = array(network.tables().look)[self.numbers_K] / math.sqrt(network.width)
        free_K = array(network.look_bias)[self.numbers_K]
        (next_DD, next_D), (born_DD, born_D), (copy_2D, copy_2) = map(
            _linear, (network.look_out, network.born_out, network.copy_out)
        )
        # The last two outputs raise the logits of the track's last two looks.
        self._next = head(
            network.heads["look"], np.concatenate([look_KD @ next_DD, copy_2D]),
            np.concatenate([look_KD @ next_D + free_K, copy_2]),
        )  # fmt: skip
        self._born = head(network.heads["born"], look_KD @ born_DD, look_KD @ born_D + free_K)

    def parts(self) -> Parts:
        """See `NormLinear.parts`."""
        return {
            "numbers": self.numbers_K.tolist(), "next": self._next.parts(),
            "born": self._born.parts(),
        }  # fmt: skip

    def next(self, state_D: np.ndarray, track: Track) -> np.ndarray:
        """Return the logits of a track's next look, [K]; the state knows the move."""
        both = self._next(state_D)
        logits: np.ndarray = both[:-2]
        for look, copied in zip((track.look, track.previous), both[-2:]):
            if look in self._index:
                logits[self._index[look]] += copied
        return logits

    def born(self, context_D: np.ndarray, free_V: np.ndarray) -> np.ndarray:
        """Return the logits of a new sprite's look, [K]. Looks that are not free have −∞, unless
        none is.
        """
        logits = self._born(context_D)
        free_K = free_V[self.numbers_K]
        if free_K.any():
            logits[~free_K] = -math.inf
        return logits


def _linear(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    return array(layer.weight), array(layer.bias)
