"""The network of a world model: what becomes of each track, what appears, and what the step gives.

Two layers let all tracks see each other and the player's last actions. The events are decided next:
reward, lost life and ending. A causal layer then decides about one thing after another, given the
events: each track, in their order, then new sprites until "no more". Each decision knows all
earlier ones, so that sprites that touch do not contradict each other. The likelihood of a step is
the product of the decisions' probabilities. In models without `events_first`, events come last.

Shapes: B rows, M tracks, K births, S = M + K + 2 decisions, D width of the network, V looks,
A actions, G groups, Q moves, H height and W width of the screen, T = 1 + M + K known decisions.
With `events_first`, the causal layer has one decision fewer, S = M + K + 1.
"""

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from genray.gen.sprites.network import Places
from genray.gen.world import state as columns
from genray.gen.world.inputs import Inputs, WorldSizes, split_rows
from genray.gen.world.layers import NOWHERE, Layer, Offsets, chosen, head, places
from genray.gen.world.state import CLOCK, LONGEST_MOVE
from genray.gen.world.tracks import GHOST, OLDEST, STEADY

OFFSETS = 16
"""R: numbers that describe the offset of a pair."""
PARTS = ("moves", "looks", "births", "events")
"""Parts of a step's likelihood."""


class Tables(NamedTuple):
    """Embeddings, computed once for each batch."""

    look: Tensor
    y: Tensor
    x: Tensor
    clock: Tensor


class Seen(NamedTuple):
    """What the layers between all tracks computed."""

    tracks_BMD: Tensor
    whole_BD: Tensor
    """A summary of the screen."""
    place_BM2: Tensor


class WorldNetwork(nn.Module):
    """Predicts one step of a game.

    Args:
        sizes: of the game.
        num_features: length of the description of a look.
        width, layers, heads, dropout: of the network.
        memory: number of last moves that it reads, and one action more.
        track_clocks: whether it reads how long ago a look and a y changed.
        events_first: whether the events are decided before the tracks.
    """

    def __init__(
        self, sizes: WorldSizes, num_features: int, *, width: int, layers: int, heads: int,
        dropout: float, memory: int, track_clocks: bool, events_first: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.sizes, self.width, self.events_first = sizes, width, events_first
        self.features: Tensor
        """uint8 [V, F]: what the shape of each look is like."""
        self.group_of: Tensor
        """int64 [V]: the group of each look."""
        self.run_of: Tensor
        """int64 [V]: the run of each look."""
        self.move_table: Tensor
        """int64 [Q, 2]: (dy, dx) of each move."""
        self.register_buffer("move_table", torch.zeros(sizes.moves, 2, dtype=torch.int64))
        self.register_buffer("features", torch.zeros(sizes.looks, num_features, dtype=torch.uint8))
        self.register_buffer("group_of", torch.zeros(sizes.looks, dtype=torch.int64))
        self.register_buffer("run_of", torch.zeros(sizes.looks, dtype=torch.int64))
        # What the network reads.
        self.shape = nn.Linear(num_features, width)
        self.run = nn.Embedding(sizes.runs, width)
        self.look_free = nn.Embedding(sizes.looks, width)
        self.previous = nn.Linear(width, width)
        self.y, self.x = Places(sizes.height, width), Places(sizes.width, width)
        self.age = nn.Embedding(OLDEST + 1, width)
        self.unseen = nn.Embedding(GHOST + 1, width)
        self.last = nn.ModuleList(
            nn.Embedding(2 * most + 2, width) for _ in range(memory) for most in LONGEST_MOVE
        )
        self.action = nn.ModuleList(
            nn.Embedding(sizes.actions + 1, width) for _ in range(memory + 1)
        )
        # Steps since the look and since y changed: a game moves its sprites in rhythms.
        self.same = nn.ModuleList(
            nn.Embedding(STEADY + 1, width) for _ in range(2 if track_clocks else 0)
        )
        self.clock = Places(CLOCK + 1, 16)
        self.clocks = nn.Linear(16 * sizes.layout.clocks, width)
        self.situation = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.whole = nn.Parameter(torch.randn(width) * 0.02)
        self.norm_in, self.norm_out = nn.LayerNorm(width), nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        screen = (sizes.height, sizes.width)
        self.offsets, self.offsets_causal = (Offsets(OFFSETS, *screen) for _ in range(2))
        self.layers = nn.ModuleList(Layer(width, heads, OFFSETS, dropout) for _ in range(layers))
        self.causal = Layer(width, heads, OFFSETS, dropout)
        # What is known of earlier decisions.
        self.moved = nn.Embedding(sizes.moves + 1, width)
        self.birth, self.birth_asked, self.events_asked = (
            nn.Parameter(torch.randn(width) * 0.02) for _ in range(3)
        )
        self.birth_number = nn.Embedding(sizes.births + 1, width)
        # The heads.
        self.heads = nn.ModuleDict(
            {
                name: head(width)
                for name in ("move", "look", "group", "y", "x", "born", "reward", "life", "done")
            }
        )
        self.move_out = nn.Linear(width, sizes.moves + 1)
        self.look_out, self.born_out = nn.Linear(width, width), nn.Linear(width, width)
        self.copy_out = nn.Linear(width, 2)
        self.look_bias = nn.Parameter(torch.zeros(sizes.looks))
        self.group_out = nn.Linear(width, sizes.groups + 1)
        self.y_out, self.x_out = Places(sizes.height, width), Places(sizes.width, width)
        self.reward_out = nn.Linear(width, sizes.rewards)
        self.life_out, self.done_out = nn.Linear(width, 2), nn.Linear(width, 2)
        self.group_in = nn.Embedding(sizes.groups, width)
        self.reward_in, self.life_in = nn.Embedding(sizes.rewards, width), nn.Embedding(2, width)
        # What the decisions after the events know of the ending.
        self.done_in = nn.Embedding(2, width) if events_first else None
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def describe(
        self, features_VF: Tensor, group_V: Tensor, run_V: Tensor, move_Q2: Tensor
    ) -> None:
        """Set what the looks and the moves are like."""
        self.move_table.copy_(move_Q2)
        self.features.copy_(features_VF)
        self.group_of.copy_(group_V)
        self.run_of.copy_(run_V)

    @property
    def gone(self) -> int:
        """The number of the move of a track that is not on the next screen."""
        return self.sizes.moves

    @property
    def no_more(self) -> int:
        """The group that ends the births."""
        return self.sizes.groups

    def tables(self) -> Tables:
        """Compute the embeddings from the weights."""
        shape_VD = self.shape(self.features.to(self.shape.weight.dtype) / 255)
        look_VD = shape_VD + self.run(self.run_of) + self.look_free.weight
        return Tables(look_VD, self.y.table(), self.x.table(), self.clock.table())

    # -- what the network sees --------------------------------------------------------------------

    def see(self, inputs: Inputs, tables: Tables) -> Seen:
        """Run the layers between all tracks."""
        track = inputs.tracks_BMC
        x_BMD = (
            tables.look[track[..., columns.LOOK]]
            + self.previous(tables.look)[track[..., columns.PREVIOUS]]
            + tables.y[track[..., columns.Y]]
            + tables.x[track[..., columns.X]]
            + self.age(track[..., columns.AGE])
            + self.unseen(track[..., columns.UNSEEN])
        )
        for number, table in enumerate(self.last):
            x_BMD = x_BMD + table(track[..., columns.MOVES + number])
        for number, table in enumerate(self.same):
            x_BMD = x_BMD + table(track[..., columns.SAME_LOOK + number])
        now_BD = self.clocks(tables.clock[inputs.clocks_BC].flatten(1))
        for number, table in enumerate(self.action):
            now_BD = now_BD + table(inputs.actions_BA[:, number])
        now_B1D = self.situation(now_BD)[:, None]
        # The first position is the screen as a whole.
        whole_B1D = self.whole.expand(len(now_BD), 1, -1)
        x_BSD = torch.cat([whole_B1D, x_BMD], 1) + now_B1D
        x_BSD = self.drop(self.norm_in(x_BSD))
        place_BM2 = places(track[..., columns.Y], track[..., columns.X])
        nowhere_B12 = place_BM2.new_full((len(track), 1, 2), NOWHERE)
        place_BS2 = torch.cat([nowhere_B12, place_BM2], 1)
        pairs = self.offsets(place_BS2, place_BS2)
        allowed_BS = nn.functional.pad(inputs.has_track_BM, (1, 0), value=True)
        allowed_BSS = allowed_BS[:, None].expand(-1, x_BSD.shape[1], -1)
        for layer in self.layers:
            x_BSD = layer(x_BSD, cast(Layer, layer).keys(x_BSD), pairs, allowed_BSS)
        return Seen(x_BSD[:, 1:], x_BSD[:, 0], place_BM2)

    def known_track(
        self, track_D: Tensor, move: Tensor, look: Tensor, place_2: Tensor, tables: Tables
    ) -> Tensor:
        """Describe decided tracks for later decisions. A track that is gone has no new place."""
        new = tables.look[look] + tables.y[place_2[..., 0].clamp_min(0)]
        new = new + tables.x[place_2[..., 1].clamp_min(0)]
        on_screen = (move != self.gone)[..., None].to(new.dtype)
        return track_D + self.moved(move) + new * on_screen

    def known_birth(self, look: Tensor, place_2: Tensor, tables: Tables) -> Tensor:
        """Describe decided births for later decisions."""
        return (
            self.birth + tables.look[look] + tables.y[place_2[..., 0]] + tables.x[place_2[..., 1]]
        )

    def told(self, seen: Seen, events_B3: Tensor) -> Seen:
        """Return what was seen, with what is known of the events by the later decisions."""
        assert self.done_in is not None
        reward_B, life_B, done_B = events_B3.unbind(1)
        given_BD = self.reward_in(reward_B) + self.life_in(life_B) + self.done_in(done_B)
        return Seen(seen.tracks_BMD + given_BD[:, None], seen.whole_BD + given_BD, seen.place_BM2)

    # -- the heads --------------------------------------------------------------------------------

    def move_logits(self, state_MD: Tensor) -> Tensor:
        """Return the logits of the move, [M, Q + 1]; the last one is "gone"."""
        return _full(self.move_out(self.heads["move"](state_MD)))

    def look_logits(
        self, state_MD: Tensor, move_M: Tensor, look_M: Tensor, previous_M: Tensor, tables: Tables
    ) -> Tensor:
        """Return the logits of the next look, [M, V], given the move. Looks of another group have
        −∞.

        `look_M`, `previous_M`: the last two looks, whose logits are raised by as much as the state
        says.
        """
        state_MD = self.heads["look"](state_MD + self.moved(move_M))
        logits = _full(self.look_out(state_MD) @ tables.look.T / math.sqrt(self.width))
        copy_M2 = self.copy_out(state_MD).to(logits.dtype)
        logits = logits + self.look_bias
        logits = logits.scatter_add(1, look_M[:, None], copy_M2[:, :1])
        logits = logits.scatter_add(1, previous_M[:, None], copy_M2[:, 1:])
        return logits.masked_fill(self.group_of != self.group_of[look_M][:, None], -math.inf)

    def group_logits(self, state_MD: Tensor) -> Tensor:
        """Return the logits of a new sprite's group, [M, G + 1]; the last one is "no more"."""
        logits = _full(self.group_out(self.heads["group"](state_MD)))
        # A group of colours may have no looks of its own.
        empty_G = self.group_of.bincount(minlength=self.no_more) == 0
        empty_G = nn.functional.pad(empty_G, (0, 1), value=False)
        return logits.masked_fill(empty_G, -math.inf)

    def y_logits(self, context_MD: Tensor) -> Tensor:
        """Return the logits of a new sprite's y, [M, H]."""
        return _full(self.heads["y"](context_MD) @ self.y_out.table().T)

    def x_logits(self, context_MD: Tensor) -> Tensor:
        """Return the logits of a new sprite's x, [M, W]."""
        return _full(self.heads["x"](context_MD) @ self.x_out.table().T)

    def born_logits(self, context_MD: Tensor, group_M: Tensor, tables: Tables) -> Tensor:
        """Return the logits of a new sprite's look, [M, V]; looks of another group have −∞."""
        state_MD = self.born_out(self.heads["born"](context_MD))
        logits = _full(state_MD @ tables.look.T / math.sqrt(self.width)) + self.look_bias
        return logits.masked_fill(self.group_of != group_M[:, None], -math.inf)

    def event_logits(self, state_BD: Tensor, reward_B: Tensor, life_B: Tensor) -> list[Tensor]:
        """Return the logits of reward, lost life given the reward, and ending given both."""
        reward = _full(self.reward_out(self.heads["reward"](state_BD)))
        state_BD = state_BD + self.reward_in(reward_B)
        life = _full(self.life_out(self.heads["life"](state_BD)))
        state_BD = state_BD + self.life_in(life_B)
        return [reward, life, _full(self.done_out(self.heads["done"](state_BD)))]

    # -- the likelihood ---------------------------------------------------------------------------

    def decide(self, inputs: Inputs, seen: Seen, tables: Tables, next_BM2: Tensor) -> Tensor:
        """Run the causal layer over all decisions of known steps; returns states [B, S, D].

        `next_BM2`: the next place of each track, NOWHERE where it is gone.
        """
        track = inputs.tracks_BMC
        batch, most = track.shape[:2]
        births = inputs.births_BK3.shape[1]
        born_BK2 = inputs.births_BK3[..., 1:]
        known_BTD = torch.cat(
            [
                seen.whole_BD[:, None],
                self.known_track(
                    seen.tracks_BMD, track[..., columns.TO_MOVE], track[..., columns.TO_LOOK],
                    next_BM2, tables,
                ),
                self.known_birth(inputs.births_BK3[..., 0], born_BK2, tables),
            ],
            1,
        )  # fmt: skip
        asked = [seen.tracks_BMD, self.ask_births(seen.whole_BD, births + 1)]
        if not self.events_first:
            asked.append((seen.whole_BD + self.events_asked)[:, None])
        asked_BSD = torch.cat(asked, 1)
        decisions = asked_BSD.shape[1]
        nowhere = born_BK2.new_full((batch, 1, 2), NOWHERE)
        from_BS2 = torch.cat([seen.place_BM2, nowhere.expand(-1, decisions - most, -1)], 1)
        to_BT2 = torch.cat([nowhere, next_BM2, born_BK2], 1)
        pairs = self.offsets_causal(from_BS2, to_BT2)
        # A decision knows the screen and the decisions before it; events that are last know all.
        number_S = torch.arange(decisions, device=track.device)
        number_T = torch.arange(1 + most + births, device=track.device)
        real_BT = torch.cat(
            [inputs.has_track_BM.new_ones(batch, 1), inputs.has_track_BM, inputs.has_birth_BK], 1
        )
        allowed_BST = (number_T <= number_S[:, None]) & real_BT[:, None]
        state = self.causal(asked_BSD, self.causal.keys(known_BTD), pairs, allowed_BST)
        out: Tensor = self.norm_out(state)
        return out

    def events_state(self, whole_BD: Tensor) -> Tensor:
        """Return the state of the events that are decided first, [B, D]."""
        out: Tensor = self.norm_out(whole_BD + self.events_asked)
        return out

    def ask_births(self, whole_BD: Tensor, count: int) -> Tensor:
        """Return the queries of `count` births, [B, count, D]."""
        number = torch.arange(count, device=whole_BD.device).clamp_max(self.sizes.births)
        return whole_BD[:, None] + self.birth_asked + self.birth_number(number)

    def log_likelihoods(self, rows_BW: Tensor, read_BW: Tensor | None = None) -> Tensor:
        """Return ln p of what happened in each row, split into PARTS, nats, float32 [B, 4].

        `read_BW`: rows with changed inputs, which the network reads instead.
        """
        layout = self.sizes.layout
        inputs, tables = split_rows(rows_BW, layout), self.tables()
        read = inputs if read_BW is None else split_rows(read_BW, layout)
        seen = self.see(read, tables)
        events_BD = self.events_state(seen.whole_BD) if self.events_first else None
        if self.events_first:
            seen = self.told(seen, inputs.events_B3)
        # The next places, from the true ones.
        track = inputs.tracks_BMC
        next_BM2 = self.next_places(track)
        state_BSD = self.decide(read._replace(births_BK3=inputs.births_BK3), seen, tables, next_BM2)
        batch, most = track.shape[:2]
        parts = []
        # Tracks: the move, and the look of those that stay.
        state = state_BSD[:, :most][inputs.has_track_BM]
        seen_C = read.tracks_BMC[inputs.has_track_BM]
        move, look = (track[..., each][inputs.has_track_BM] for each in
                      (columns.TO_MOVE, columns.TO_LOOK))  # fmt: skip
        row = torch.arange(batch, device=track.device)[:, None].expand_as(inputs.has_track_BM)
        row = row[inputs.has_track_BM]
        zero = state_BSD.new_zeros(batch, dtype=torch.float32)
        parts.append(zero.index_add(0, row, chosen(self.move_logits(state), move)))
        stays = move != self.gone
        looks = self.look_logits(
            state[stays], move[stays], seen_C[stays][:, columns.LOOK],
            seen_C[stays][:, columns.PREVIOUS], tables,
        )  # fmt: skip
        parts.append(zero.index_add(0, row[stays], chosen(looks, look[stays])))
        # Births: the group, or "no more", and the place and the look of each.
        births = inputs.births_BK3.shape[1]
        number = torch.arange(births + 1, device=track.device)
        count_B1 = inputs.has_birth_BK.sum(1, keepdim=True)
        asked = number <= count_B1
        born_BK3 = nn.functional.pad(inputs.births_BK3, (0, 0, 0, 1))
        group_BK = self.group_of[born_BK3[..., 0]].masked_fill(number >= count_B1, self.no_more)
        row = torch.arange(batch, device=track.device)[:, None].expand_as(asked)[asked]
        state = state_BSD[:, most : most + births + 1][asked]
        group = group_BK[asked]
        total = zero.index_add(0, row, chosen(self.group_logits(state), group))
        born = group != self.no_more
        if born.any():
            row, group = row[born], group[born]
            look, y, x = born_BK3[asked][born].unbind(1)
            context = state[born] + self.group_in(group)
            found = chosen(self.y_logits(context), y)
            context = context + tables.y[y]
            found = found + chosen(self.x_logits(context), x)
            context = context + tables.x[x]
            found = found + chosen(self.born_logits(context, group, tables), look)
            total = total.index_add(0, row, found)
        parts.append(total)
        # Events.
        values = inputs.events_B3.unbind(1)
        events_BD = state_BSD[:, -1] if events_BD is None else events_BD
        logits = self.event_logits(events_BD, values[0], values[1])
        parts.append(sum((chosen(each, value) for each, value in zip(logits, values)), zero))
        return torch.stack(parts, 1)

    def next_places(self, track_BMC: Tensor) -> Tensor:
        """Return the next places of tracks, int64 [B, M, 2], from columns that rows keep."""
        move = track_BMC[..., columns.TO_MOVE]
        table = nn.functional.pad(self.move_table, (0, 0, 0, 1))
        place = places(track_BMC[..., columns.Y], track_BMC[..., columns.X]) + table[move]
        most = place.new_tensor([self.sizes.height - 1, self.sizes.width - 1])
        place = torch.minimum(place.clamp_min(0), most)
        return place.masked_fill((move == self.gone)[..., None], NOWHERE)


def _full(logits: Tensor) -> Tensor:
    """Convert half-precision logits to float32."""
    return logits if logits.dtype == torch.float64 else logits.float()
