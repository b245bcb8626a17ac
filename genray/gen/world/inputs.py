"""The sizes of a game, and the parts of the rows that the network of a world model reads.

Shapes: B rows, W columns, M tracks, C columns of a track, K births, A last actions.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from genray.gen.world import state as columns
from genray.gen.world.state import Layout


class WorldSizes(NamedTuple):
    """The sizes of a game: groups, screen, looks, runs, moves, actions, rewards, and the longest
    lists of tracks and births."""

    groups: int
    height: int
    width: int
    looks: int
    runs: int
    moves: int
    actions: int
    rewards: int
    tracks: int
    births: int

    @property
    def layout(self) -> Layout:
        """Where the parts of a row are."""
        return Layout(self.tracks, self.births, self.groups)

    @property
    def decisions(self) -> int:
        """Largest number of decisions of a step."""
        return self.tracks + self.births + 2


class Inputs(NamedTuple):
    """A batch of rows, cut to its longest lists; int64 and bool."""

    tracks_BMC: Tensor
    births_BK3: Tensor
    events_B3: Tensor
    actions_BA: Tensor
    clocks_BC: Tensor
    has_track_BM: Tensor
    has_birth_BK: Tensor


def split_rows(rows_BW: Tensor, layout: Layout) -> Inputs:
    """Return the parts of int rows."""
    rows_BW = rows_BW.long()
    most = [max(1, int(rows_BW[:, part].max())) for part in range(columns.COUNTS)]
    at, device = columns.COUNTS, rows_BW.device
    clocks = at + columns.ACTIONS
    tracks = rows_BW[:, layout.first_track : layout.first_birth]
    births = rows_BW[:, layout.first_birth :]
    return Inputs(
        tracks.unflatten(1, (-1, columns.TRACK))[:, : most[0]],
        births.unflatten(1, (-1, columns.BIRTH))[:, : most[1]],
        rows_BW[:, layout.events : layout.first_track],
        rows_BW[:, at:clocks],
        rows_BW[:, clocks : layout.events],
        torch.arange(most[0], device=device) < rows_BW[:, :1],
        torch.arange(most[1], device=device) < rows_BW[:, 1:2],
    )
