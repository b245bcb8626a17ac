"""Draws the next screen of a game from a world model, quickly on a CPU: `sampling.Drawer`, one
dream at a time in NumPy.

Shapes: S decisions, M tracks, K values of a decision, D width of the network, V looks, G groups.
"""

import math
from collections.abc import Sequence

import numpy as np

from genray.gen.world.model import WorldModel
from genray.gen.world.quick_heads import QuickHeads
from genray.gen.world.quick_network import Parts, QuickNetwork, array, ready
from genray.gen.world.sampling import Drawn, Sampling, classes_of
from genray.gen.world.state import DONE, Events, State
from genray.gen.world.tracks import Outcome, Sprite, Track


class QuickDrawer:
    """Draws steps from the weights that a model has now.

    It keeps nothing of a dream: dreams in several threads may share it.

    Args:
        model: in evaluation mode.
        sampling: how decisions are drawn.
    """

    def __init__(self, model: WorldModel, sampling: Sampling):
        self._sampling, self._sizes = sampling, model.sizes
        network = model.network
        self._net = QuickNetwork(network)
        self._heads = QuickHeads(network)
        self._moves = [(dy, dx) for dy, dx in network.move_table.tolist()]
        shapes = [model.language.vocabulary.shapes[shape] for shape, _ in model.looks.pairs]
        self._most_y = [model.sizes.height - shape.height for shape in shapes]
        self._most_x = [model.sizes.width - shape.width for shape in shapes]
        self._class_of = classes_of(model)
        self._class_V, self._alike_V = np.array(self._class_of), model.most_alike.cpu().numpy()
        self._repeat = math.log(model.config.repeat_events)
        self._asked = ready(array(network.birth_asked + network.birth_number.weight))
        self._asked_events = ready(array(network.events_asked))
        self._birth = ready(array(network.birth))
        self._events_first = network.events_first

    def parts(self) -> tuple[Parts, Parts]:
        """Return the parts of the network and of the drawer; see `NormLinear.parts`."""
        network = self._net.parts()
        network["heads"] = self._heads.parts()
        network["tables"] |= {
            "asked": self._asked, "asked_events": self._asked_events, "birth": self._birth,
        }  # fmt: skip
        drawer = {
            "sampling": {
                "top_p": self._sampling.top_p, "floor": self._sampling.floor,
                "events_first": self._events_first, "tracks": self._sizes.tracks,
                "births": self._sizes.births,
            },
            "repeat": math.exp(self._repeat), "moves": self._moves,
            "most": list(zip(self._most_y, self._most_x)), "classes": self._class_of,
            "alike": self._alike_V.tolist(),
        }  # fmt: skip
        return network, drawer

    def draw(self, states: Sequence[State], chance_ES4: np.ndarray | None) -> list[Drawn]:
        """Draw the next step of each dream; see `Drawer.draw`."""
        chances = [None] * len(states) if chance_ES4 is None else chance_ES4
        return [self._draw(state, chance) for state, chance in zip(states, chances)]

    def _draw(self, state: State, chance_S4: np.ndarray | None) -> Drawn:
        net, heads = self._net, self._heads
        tracks = state.tracks[: self._sizes.tracks]
        tracks_MD, whole_D, codes = net.see(state, tracks)
        pick = _Pick(self._sampling, chance_S4)
        if self._events_first:
            events = self._events(net.norm_out(whole_D + self._asked_events), pick)
            pick.decision += 1
            given_D = heads.given(events)
            tracks_MD, whole_D = tracks_MD + given_D, whole_D + given_D
        known = _Known(net, 1 + len(tracks) + self._sizes.births)
        known.put(whole_D, net.offsets.nowhere)
        count_C = np.zeros(max(self._class_of) + 1, np.int64)
        # Tracks.
        sprites: list[Sprite | None] = []
        if tracks:
            query_MNd = net.causal.queries(tracks_MD)
        for number, (track, code) in enumerate(zip(tracks, codes)):
            state_D = known.ask(tracks_MD[number], query_MNd[number], code)
            sprite, entry_D = self._follow(track, tracks_MD[number], state_D, pick)
            sprites.append(sprite)
            place = net.offsets.nowhere if sprite is None else net.offsets.code(*sprite[1:])
            known.put(entry_D, place)
            if sprite is not None:
                count_C[self._class_of[sprite.look]] += 1
            pick.decision += 1
        # Births, until "no more".
        births: list[Sprite] = []
        for number in range(self._sizes.births + 1):
            state_D = known.ask(whole_D + self._asked[number])
            free_V = count_C[self._class_V] < self._alike_V
            free_V &= number < self._sizes.births
            group = pick(heads.group(state_D, free_V), 0, rare=True)
            if group == self._sizes.groups:
                pick.decision += 1
                break
            sprite, entry_D = self._born(group, state_D, free_V, pick)
            births.append(sprite)
            known.put(entry_D, net.offsets.code(*sprite[1:]))
            count_C[self._class_of[sprite.look]] += 1
            pick.decision += 1
        if not self._events_first:
            events = self._events(known.ask(whole_D + self._asked_events), pick)
        return Drawn(Outcome(sprites, births), events, pick.nats)

    def _follow(
        self, track: Track, track_D: np.ndarray, state_D: np.ndarray, pick: "_Pick"
    ) -> tuple[Sprite | None, np.ndarray]:
        """Decide what becomes of a track; returns that, and its description for later decisions."""
        net, heads = self._net, self._heads
        move = pick(heads.move(state_D), 0)
        entry_D = track_D + heads.moved[move]
        if move == len(self._moves):
            return None, entry_D
        looks = heads.looks_of(track.look)
        value = pick(looks.next(state_D + heads.moved[move], track), 1)
        dy, dx = self._moves[move]
        sprite = self._inside(int(looks.numbers_K[value]), track.y + dy, track.x + dx)
        return sprite, entry_D + net.look[sprite.look] + net.y[sprite.y] + net.x[sprite.x]

    def _inside(self, look: int, y: int, x: int) -> Sprite:
        """Move a sprite into the screen."""
        return Sprite(look, min(max(y, 0), self._most_y[look]), min(max(x, 0), self._most_x[look]))

    def _born(
        self, group: int, state_D: np.ndarray, free_V: np.ndarray, pick: "_Pick"
    ) -> tuple[Sprite, np.ndarray]:
        """Draw a new sprite of a group."""
        net, heads = self._net, self._heads
        context_D = state_D + heads.group_in[group]
        y = pick(heads.y(context_D), 1)
        context_D = context_D + net.y[y]
        x = pick(heads.x(context_D), 2)
        context_D = context_D + net.x[x]
        looks = heads.looks[group]
        value = pick(looks.born(context_D, free_V), 3)
        sprite = self._inside(int(looks.numbers_K[value]), y, x)
        return sprite, self._birth + net.look[sprite.look] + net.y[sprite.y] + net.x[sprite.x]

    def _events(self, state_D: np.ndarray, pick: "_Pick") -> Events:
        """Draw the events. Each is corrected for the repeated training steps, unless another one
        happened.
        """
        heads, values = self._heads, list[int]()
        for number, event in enumerate(heads.events):
            logits = event(state_D)
            if not any(values):
                logits[1:] -= self._repeat
            values.append(pick(logits, number, rare=True))
            if number < DONE:  # The events after this one know it.
                state_D = state_D + heads.event_in[number][values[-1]]
        reward, life, done = values
        return Events(reward, bool(life), bool(done))


class _Known:
    """The decisions so far of one step, for the causal layer.

    Args:
        net: the network.
        longest: largest number of entries.
    """

    def __init__(self, net: QuickNetwork, longest: int):
        self._net, self._count = net, 0
        shape = (2, net.heads, longest, net.width // net.heads)
        self._keys_2NTd, self._code_T = np.empty(shape, np.float32), np.empty(longest, np.int64)

    def put(self, entry_D: np.ndarray, code: int) -> None:
        """Add a decision and the code of its place."""
        self._keys_2NTd[:, :, self._count] = self._net.causal.keys(entry_D)
        self._code_T[self._count] = code
        self._count += 1

    def ask(
        self, asked_D: np.ndarray, query_Nd: np.ndarray | None = None, code: int | None = None
    ) -> np.ndarray:
        """Return the state of the next decision.

        `query_Nd`: the decision's query, if it is already computed; `code`: None for a decision
        without a place.
        """
        net = self._net
        if query_Nd is None:
            query_Nd = net.causal.query(asked_D)
        key_NTd, value_NTd = self._keys_2NTd[:, :, : self._count]
        pairs_TR = None if code is None else net.offsets.pairs(code, self._code_T[: self._count])
        nowhere_R = net.offsets.table[-1]
        return net.norm_out(
            net.causal.one(asked_D, query_Nd, key_NTd, value_NTd, pairs_TR, nowhere_R)
        )


class _Pick:
    """Draws the decisions of one step, and adds up their −ln p."""

    def __init__(self, sampling: Sampling, chance_S4: np.ndarray | None):
        self._sampling = sampling
        self._chance_S4 = None if sampling.greedy else chance_S4
        self.decision, self.nats = 0, 0.0

    def __call__(self, logits_K: np.ndarray, field: int, rare: bool = False) -> int:
        """Draw a value. `field`: which of the decision's random numbers is used."""
        value = best = int(logits_K.argmax())
        share_K = np.exp(logits_K - logits_K[best])
        total = float(share_K.sum())
        if self._chance_S4 is not None:
            chance = float(self._chance_S4[self.decision, field])
            if rare:
                value = self._draw_rare(share_K, total, best, chance)
            else:
                value = self._draw_likely(share_K, total, best, chance)
        self.nats += math.log(total) - float(logits_K[value] - logits_K[best])
        return value

    def _draw_rare(self, share_K: np.ndarray, total: float, best: int, chance: float) -> int:
        """Draw among the values that are likelier than the floor. `share_K`: p · `total`."""
        least = self._sampling.floor * total
        if total - 1 < least:  # All others together are less likely than the floor.
            return best
        kept_K = share_K >= least
        kept_K[best] = True
        return _invert(share_K * kept_K, chance)

    def _draw_likely(self, share_K: np.ndarray, total: float, best: int, chance: float) -> int:
        """Draw among the likeliest values, which together have the probability `top_p`."""
        most = self._sampling.top_p * total
        if most <= 1:  # The likeliest value alone has it.
            return best
        order = np.argsort(-share_K, kind="stable")
        ordered = share_K[order]
        share_K[order[ordered.cumsum() - ordered >= most]] = 0
        return _invert(share_K, chance)


def _invert(share_K: np.ndarray, chance: float) -> int:
    """Return the value at which the cumulative probability passes `chance`."""
    total_K = share_K.cumsum()
    value = int((total_K <= chance * total_K[-1]).sum())
    # Rounding may lead past the last value with a probability above 0.
    return min(value, int(share_K.nonzero()[0][-1]))
