"""The state of a game as a world model sees it, and the rows of numbers that the network reads.

A row describes one step: the tracks, the last actions and some clocks, and what happened. Rows are
int16 vectors of one length: COUNTS, the globals, the tracks and the births.

Shapes: M longest list of tracks, K longest list of births, G groups, A actions.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from genray.gen.world.tracks import MEMORY, Looks, Outcome, Sprite, Track, advance, begin

ACTIONS = MEMORY + 1
"""Number of last actions that a state keeps, the newest one first; a network may read fewer."""
CLOCK = 127
"""Clocks stop here."""
LARGE = 24
"""The coming and going of sprites with at least this many pixels starts a clock."""
LOOK, PREVIOUS, Y, X, AGE, UNSEEN, SAME_LOOK, SAME_Y, MOVES = range(9)
"""Columns of a track. MOVES is the first of 2 · MEMORY columns (dy, dx, dy, …), plus their largest
size plus 1; 0: no such step."""
TO_MOVE = MOVES + 2 * MEMORY
"""Column of a track: the number of its move, or of "gone"."""
TO_LOOK = TO_MOVE + 1
"""Column of a track: its next look; of a track that is gone, its last one."""
TRACK = TO_LOOK + 1
"""Number of columns of a track."""
BIRTH = 3
"""Number of columns of a birth: look, y, x."""
REWARD, LIFE, DONE = range(3)
"""The events of a step."""
EVENTS = 3
COUNTS = 2
"""The first columns of a row: number of tracks, number of births."""
LONGEST_MOVE = (16, 24)
"""Larger moves (dy, dx) are cut to this size where a track remembers them."""


class Layout(NamedTuple):
    """Where the parts of a row are."""

    tracks: int
    """M."""
    births: int
    """K."""
    groups: int
    """G."""

    @property
    def clocks(self) -> int:
        """Number of clocks: the episode's, the last lost life's, and two of each group."""
        return 2 + 2 * self.groups

    @property
    def events(self) -> int:
        """First column of the events."""
        return COUNTS + ACTIONS + self.clocks

    @property
    def first_track(self) -> int:
        """First column of the tracks."""
        return self.events + EVENTS

    @property
    def first_birth(self) -> int:
        """First column of the births."""
        return self.first_track + TRACK * self.tracks

    @property
    def width(self) -> int:
        """Number of columns."""
        return self.first_birth + BIRTH * self.births


class Events(NamedTuple):
    """What a step gave."""

    reward: int = 0
    """Number of the reward in the table of rewards."""
    life: bool = False
    """Whether a life was lost; also the last one."""
    done: bool = False
    """Whether the game ended."""


@dataclass
class State:
    """The tracks of a game, its last actions and its clocks.

    Args:
        looks: the looks of the game.
        sizes: number of pixels of each look.
        groups: G.
    """

    looks: Looks
    sizes: Sequence[int]
    groups: int
    tracks: list[Track] = field(default_factory=list)
    actions: list[int] = field(default_factory=list)
    """The last actions, the newest one first; fewer at the start."""
    clocks: list[int] = field(default_factory=list)
    """Steps since the episode began, since a life was lost, and since a large sprite of each group
    came and went; at most CLOCK."""

    def begin(self, sprites: Sequence[Sprite]) -> None:
        """Begin an episode with its first screen."""
        self.tracks = begin(sprites, self.looks)
        self.actions = []
        self.clocks = [0, *(CLOCK,) * (1 + 2 * self.groups)]

    def act(self, action: int) -> None:
        """Add the action of the next step."""
        self.actions = [action, *self.actions[: ACTIONS - 1]]

    def follow(self, outcome: Outcome, life: bool) -> None:
        """Move on to the next screen; `life`: whether a life was lost."""
        self.clocks = [min(CLOCK, clock + 1) for clock in self.clocks]
        if life:
            self.clocks[1] = 0
        for look, _, _ in outcome.births:
            if self.sizes[look] >= LARGE:
                self.clocks[2 + 2 * self.looks.groups[look]] = 0
        for track, sprite in zip(self.tracks, outcome.sprites):
            if sprite is None and not track.unseen and self.sizes[track.look] >= LARGE:
                self.clocks[3 + 2 * self.looks.groups[track.look]] = 0
        self.tracks = advance(self.tracks, outcome, self.looks)

    def sprites(self) -> list[Sprite]:
        """Return the sprites on the screen."""
        return [Sprite(each.look, each.y, each.x) for each in self.tracks if not each.unseen]


class MoveTable:
    """The moves of a game by number; the number after the last one means "gone".

    Args:
        moves: (dy, dx), the most frequent first.
    """

    def __init__(self, moves: Sequence[tuple[int, int]]):
        self.moves = tuple(moves)
        self._number = {move: number for number, move in enumerate(self.moves)}

    def __len__(self) -> int:
        return len(self.moves)

    def number(self, move: tuple[int, int]) -> int:
        """Return the move's number; of an unknown move, the number of the nearest one."""
        if move not in self._number:
            dy, dx = move
            near = min(self.moves, key=lambda each: (abs(each[0] - dy) + abs(each[1] - dx), each))
            self._number[move] = self._number[near]
        return self._number[move]


def fill_inputs(row: np.ndarray, state: State, layout: Layout, num_actions: int) -> None:
    """Write what the network reads into a row of zeros. Tracks beyond M are left out."""
    tracks = state.tracks[: layout.tracks]
    row[0] = len(tracks)
    at = COUNTS
    row[at : at + ACTIONS] = num_actions
    row[at : at + len(state.actions)] = state.actions
    at += ACTIONS
    row[at : at + layout.clocks] = state.clocks
    part = row[layout.first_track : layout.first_birth].reshape(-1, TRACK)
    if tracks:
        part[: len(tracks), :TO_MOVE] = [past(track) for track in tracks]


def past(track: Track) -> list[int]:
    """Return what the network reads of a track: the columns before TO_MOVE."""
    numbers = [
        track.look, track.previous, track.y, track.x, track.age, track.unseen, track.same_look,
        track.same_y,
    ]  # fmt: skip
    most_y, most_x = LONGEST_MOVE
    for move in track.moves:
        if move is None:
            numbers += [0, 0]
        else:
            numbers.append(min(max(move[0], -most_y), most_y) + most_y + 1)
            numbers.append(min(max(move[1], -most_x), most_x) + most_x + 1)
    return numbers


def fill_targets(
    row: np.ndarray,
    state: State,
    outcome: Outcome,
    events: Events,
    layout: Layout,
    moves: MoveTable,
) -> None:
    """Write what happened in the step into a row, after `fill_inputs`."""
    part = row[layout.first_track : layout.first_birth].reshape(-1, TRACK)
    for line, track, sprite in zip(part, state.tracks, outcome.sprites):
        if sprite is None:
            line[TO_MOVE], line[TO_LOOK] = len(moves), track.look
        else:
            line[TO_MOVE] = moves.number((sprite.y - track.y, sprite.x - track.x))
            line[TO_LOOK] = sprite.look
    births = outcome.births[: layout.births]
    row[1] = len(births)
    part = row[layout.first_birth :].reshape(-1, BIRTH)
    for line, sprite in zip(part, births):
        line[:] = sprite
    row[layout.events : layout.events + EVENTS] = events
