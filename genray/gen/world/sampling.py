"""Draws the next screen of a game from a world model, one decision at a time, for many dreams at
once. `quick_sampling` draws few dreams faster.

Shapes: E lanes, M tracks, K births, V looks, T known decisions, D width of the network.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from genray.gen.sprites.acceptance import class_of
from genray.gen.world.inputs import split_rows
from genray.gen.world.layers import NOWHERE, places
from genray.gen.world.model import WorldModel
from genray.gen.world.state import LOOK, PREVIOUS, Events, State, X, Y, fill_inputs
from genray.gen.world.tracks import Outcome, Sprite

CHANCES = 4
"""Numbers in [0, 1) for each decision: a new sprite has a group, y, x and a look."""


@dataclass(frozen=True)
class Sampling:
    """How decisions are drawn."""

    top_p: float = 0.9
    """Moves and looks come from the likeliest values with this share of the probability."""
    floor: float = 0.03
    """New sprites and events that are less likely are not drawn. A share of the likeliest values,
    as for moves, would drop rare events."""
    greedy: bool = False
    """Take the likeliest value of every decision."""


class Drawn(NamedTuple):
    """One drawn step of one lane."""

    outcome: Outcome
    events: Events
    nats: float
    """−ln p of the step."""


def classes_of(model: WorldModel) -> list[int]:
    """Return the number of the class of each look: its group and its size."""
    shapes = [model.language.vocabulary.shapes[shape] for shape, _ in model.looks.pairs]
    names = sorted({class_of(shape) for shape in shapes})
    return [names.index(class_of(shape)) for shape in shapes]


class Drawer:
    """Draws steps from a model whose weights no longer change.

    Args:
        model: in evaluation mode.
        sampling: how decisions are drawn.
    """

    def __init__(self, model: WorldModel, sampling: Sampling):
        # Decisions depend on each other, so they are taken on the CPU also while a GPU trains.
        if model.rewards.device.type != "cpu":
            model = copy.deepcopy(model).cpu()
        self._model, self._sampling = model, sampling
        network = model.network
        self._tables = network.tables()
        shapes = [model.language.vocabulary.shapes[shape] for shape, _ in model.looks.pairs]
        self._class_V = torch.tensor(classes_of(model))
        self._least_2V = torch.tensor(
            [[model.sizes.height - s.height for s in shapes],
             [model.sizes.width - s.width for s in shapes]]
        )  # fmt: skip
        self._repeat = math.log(model.config.repeat_events)

    @torch.inference_mode()
    def draw(self, states: Sequence[State], chance_ES4: Tensor | None) -> list[Drawn]:
        """Draw the next step of each lane; the states, which know their action, do not change.

        `chance_ES4`: numbers of U[0, 1), float32 [E, S, CHANCES] with S ≥ the model's
        `decisions`; None for greedy decisions.
        """
        model, network, tables = self._model, self._model.network, self._tables
        sizes, layout = model.sizes, model.sizes.layout
        rows = np.zeros((len(states), layout.width), np.int16)
        for row, state in zip(rows, states):
            fill_inputs(row, state, layout, sizes.actions)
        inputs = split_rows(torch.from_numpy(rows), layout)
        seen = network.see(inputs, tables)
        lanes, most = inputs.has_track_BM.shape
        total = 1 + most + sizes.births
        # What is known: keys and values, places, and which entries are real.
        known = _Known(self._model, lanes, total)
        nats_E = torch.zeros(lanes, dtype=torch.float64)
        # Each lane uses its own random numbers, however many decisions the others take.
        every_E, decision_E = torch.arange(lanes), torch.zeros(lanes, dtype=torch.int64)

        def choose(logits: Tensor, active_E: Tensor, field: int, rare: bool = False) -> Tensor:
            chance_E = None if chance_ES4 is None else chance_ES4[every_E, decision_E, field]
            value_E, surprise_E = _pick(logits, chance_E, self._sampling, rare)
            nats_E.add_(surprise_E.double().masked_fill(~active_E, 0.0))
            return value_E

        always_E, zero_E = torch.ones(lanes).bool(), torch.zeros(lanes, dtype=torch.int64)

        def choose_events(state_ED: Tensor) -> Tensor:
            """Return events, int64 [E, 3]. Each is corrected for the repeated training steps,
            unless another one happened.
            """
            values = [zero_E, zero_E, zero_E]
            for number in range(3):
                logits = network.event_logits(state_ED, values[0], values[1])[number].clone()
                happened_E = torch.stack(values, 1).any(1)
                logits[:, 1:] -= self._repeat * (~happened_E)[:, None]
                values[number] = choose(logits, always_E, number, rare=True)
            return torch.stack(values, 1)

        events_E3 = None
        if network.events_first:
            events_E3 = choose_events(network.events_state(seen.whole_BD))
            seen = network.told(seen, events_E3)
            decision_E += 1
        known.put(0, seen.whole_BD, torch.full((lanes, 2), NOWHERE), always_E)
        # Tracks.
        count_EC = torch.zeros(lanes, int(self._class_V.max()) + 1, dtype=torch.int64)
        sprites: list[list[Sprite | None]] = [[] for _ in states]
        table_Q2 = torch.nn.functional.pad(network.move_table, (0, 0, 0, 1))
        for number in range(most):
            track, active_E = inputs.tracks_BMC[:, number], inputs.has_track_BM[:, number]
            state_ED = known.ask(seen.tracks_BMD[:, number], seen.place_BM2[:, number], number + 1)
            move_E = choose(network.move_logits(state_ED), active_E, 0)
            logits = network.look_logits(
                state_ED, move_E, track[:, LOOK], track[:, PREVIOUS], tables
            )
            stays_E = active_E & (move_E != network.gone)
            look_E = choose(logits, stays_E, 1)
            place_E2 = places(track[:, Y], track[:, X]) + table_Q2[move_E]
            place_E2 = torch.minimum(place_E2.clamp_min(0), self._least_2V[:, look_E].T)
            place_E2 = place_E2.masked_fill(~stays_E[:, None], NOWHERE)
            entry = network.known_track(
                seen.tracks_BMD[:, number], move_E, look_E, place_E2, tables
            )
            known.put(1 + number, entry, place_E2, active_E)
            count_EC[every_E, self._class_V[look_E]] += stays_E
            for lane, (active, look, (y, x)) in enumerate(
                zip(active_E.tolist(), look_E.tolist(), place_E2.tolist())
            ):
                if active:
                    sprites[lane].append(None if y == NOWHERE else Sprite(look, y, x))
            decision_E += active_E
        # Births, until no lane has one.
        births: list[list[Sprite]] = [[] for _ in states]
        active_E = torch.ones(lanes).bool()
        asked_EKD = network.ask_births(seen.whole_BD, sizes.births + 1)
        nowhere_E2 = torch.full((lanes, 2), NOWHERE)
        for number in range(sizes.births + 1):
            state_ED = known.ask(asked_EKD[:, number], nowhere_E2, 1 + most + number)
            # A screen has no more sprites of a class than a training screen.
            free_EV = count_EC[:, self._class_V] < model.most_alike
            free_EG = torch.zeros(lanes, sizes.groups + 1, dtype=torch.int64)
            free_EG.scatter_reduce_(1, network.group_of.expand(lanes, -1), free_EV.long(), "amax")
            free_EG[:, network.no_more] = 1
            if number == sizes.births:
                free_EG[:, : network.no_more] = 0
            logits = network.group_logits(state_ED).masked_fill(free_EG == 0, -math.inf)
            group_E = choose(logits, active_E, 0, rare=True)
            decision_E += active_E & (group_E == network.no_more)
            active_E = active_E & (group_E != network.no_more)
            if not active_E.any():
                break
            group_E = group_E.clamp_max(sizes.groups - 1)
            context = state_ED + network.group_in(group_E)
            y_E = choose(network.y_logits(context), active_E, 1)
            context = context + tables.y[y_E]
            x_E = choose(network.x_logits(context), active_E, 2)
            context = context + tables.x[x_E]
            logits = network.born_logits(context, group_E, tables)
            limited = logits.masked_fill(~free_EV, -math.inf)
            none_E1 = (limited == -math.inf).all(1, keepdim=True)
            look_E = choose(torch.where(none_E1, logits, limited), active_E, 3)
            place_E2 = torch.minimum(places(y_E, x_E), self._least_2V[:, look_E].T)
            entry = network.known_birth(look_E, place_E2, tables)
            known.put(1 + most + number, entry, place_E2, active_E)
            count_EC[every_E, self._class_V[look_E]] += active_E
            for lane, (active, look, (y, x)) in enumerate(
                zip(active_E.tolist(), look_E.tolist(), place_E2.tolist())
            ):
                if active:
                    births[lane].append(Sprite(look, y, x))
            decision_E += active_E
        if events_E3 is None:
            state_ED = known.ask(seen.whole_BD + network.events_asked, nowhere_E2, total)
            events_E3 = choose_events(state_ED)
        return [
            Drawn(Outcome(kept, born), Events(reward, bool(life), bool(done)), float(nats))
            for kept, born, (reward, life, done), nats in zip(
                sprites, births, events_E3.tolist(), nats_E
            )
        ]


class _Known:
    """The decisions so far, for the causal layer."""

    def __init__(self, model: WorldModel, lanes: int, total: int):
        self._network = model.network
        heads = model.config.heads
        side = model.config.width // heads
        self._keys = torch.zeros(2, lanes, heads, total, side)
        self._place_ET2 = torch.full((lanes, total, 2), NOWHERE)
        self._real_ET = torch.zeros(lanes, total, dtype=torch.bool)

    def put(self, number: int, entry_ED: Tensor, place_E2: Tensor, real_E: Tensor) -> None:
        """Add a decision."""
        keys = self._network.causal.keys(entry_ED[:, None])
        self._keys[:, :, :, number : number + 1] = keys
        self._place_ET2[:, number] = place_E2
        self._real_ET[:, number] = real_E

    def ask(self, query_ED: Tensor, place_E2: Tensor, count: int) -> Tensor:
        """Return the state of a decision that knows the first `count` entries, [E, D]."""
        network = self._network
        pairs = network.offsets_causal(place_E2[:, None], self._place_ET2[:, :count])
        state = network.causal(
            query_ED[:, None], self._keys[:, :, :, :count], pairs, self._real_ET[:, None, :count]
        )
        out: Tensor = network.norm_out(state)[:, 0]
        return out


def _pick(
    logits_EK: Tensor, chance_E: Tensor | None, sampling: Sampling, rare: bool
) -> tuple[Tensor, Tensor]:
    """Choose a value of each row; returns the values and −ln p of each."""
    log_EK = logits_EK.log_softmax(1)
    if chance_E is None or sampling.greedy:
        value_E = log_EK.argmax(1)
    else:
        share_EK = log_EK.exp()
        if rare:
            kept = (share_EK >= sampling.floor) | (share_EK == share_EK.amax(1, keepdim=True))
            share_EK = share_EK * kept
        else:
            ordered, order = share_EK.sort(dim=1, descending=True, stable=True)
            dropped = (ordered.cumsum(1) - ordered) >= sampling.top_p
            share_EK = share_EK.scatter(1, order, ordered.masked_fill(dropped, 0.0))
        total_EK = share_EK.cumsum(1)
        value_E = (total_EK <= (chance_E * total_EK[:, -1])[:, None]).sum(1)
        # Rounding may lead past the last value with a probability above 0.
        last_E = share_EK.shape[1] - 1 - (share_EK.flip(1) > 0).to(torch.uint8).argmax(1)
        value_E = torch.minimum(value_E, last_E)
    return value_E, -log_EK.gather(1, value_E[:, None])[:, 0]
