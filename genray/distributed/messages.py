"""What the actors say to each other, beside chunks and samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from genray.distributed.shared_frames import Address
from genray.rl.chunk import PlacedSample, SlicedSample
from genray.rl.replay_config import ShardLayout

if TYPE_CHECKING:  # a replay shard imports this module and needs no PyTorch
    from genray.rl.collect import Episode


@dataclass(frozen=True, kw_only=True)
class Published:
    """The newest weights: a version and where to pull them. The reference sits in a list so that
    Ray passes it on instead of fetching it.
    """

    version: int
    """The learner's count of updates when it made them."""
    reference: list[Any]
    epoch: int = 0
    """The learner's life: a later one's weights count, even where it starts again from a lower
    version.
    """


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A shard's answer to a chunk. With `accepted`, its transitions count as acknowledged: the
    shard holds them, once.
    """

    accepted: bool
    """False: the chunk came from a stale life of the collector, and is not stored."""
    published: Published | None
    """The newest weights."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the learner tells a shard each time it asks for batches."""

    counts: tuple[int, ...] = ()
    """Transitions wanted from this shard for each of the round's batches."""
    key_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    delta_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """Priorities ride along: the newest |δ| of transitions drawn from this shard earlier."""
    places: bool = False
    """The learner reads the shard's frames itself: it wants to know where they are."""
    packed: bool = True
    """Frames that have to travel come compressed, also where the shard keeps them as they are."""
    insert_limit: float | None = 0.0
    """Transitions that the shard may have accepted since it started; collectors wait beyond it.
    None: as it was.
    """
    updates: int = 0
    published: Published | None = None
    epoch: int = 0
    """The learner's life: a shard answers a stale one with nothing, and takes nothing from it."""


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """Where a shard stands."""

    incarnation: int
    """Random number of this life of the shard: another one means that its transitions were lost."""
    inserted: int
    size: int
    total: float
    weight_lag: float
    """Mean updates by which the weights behind the last chunks were older than the learner's."""
    nbytes: int
    layout: ShardLayout
    address: Address | None = None
    """Where a process of the same node finds the shard's frames; None: it keeps them compressed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    counts: ShardCounts
    drawn: PlacedSample | SlicedSample | None
    """The transitions of all the round's batches, one batch after the other; None when the shard
    holds nothing yet. Together, because pickling costs by the array: sixteen batches of 32 apart
    cost several times as much.
    """


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """One portion of a collector's work."""

    steps: int
    transitions: int
    """Made, whether or not they have arrived."""
    episodes: list[Episode]
    epsilon: float
    lost_transitions: int
    """Made, but not accepted: their shard did not come back, or took this collector for a stale
    one.
    """
    node: str = ""
    """Ray's id of the machine."""
    leaving: bool = False
    """SIGTERM was heard: nothing is on its way any more, and no further chunk will be played."""


@dataclass(frozen=True, kw_only=True)
class LearnReport:
    """One portion of the learner's work. Means are over the portion's updates."""

    updates: int
    """Total."""
    done: int
    """In this portion."""
    idle: bool
    """Samples per insert allowed nothing more when it ended."""
    loss: float
    q_mean: float
    grad_norm: float
    size: int
    inserted: int
    samples_per_insert: float
    weight_lag: float
    lost_transitions: int
    """Total transitions that vanished with dead shards."""
    events: list[str]
    rank: int = 0
    """Which of the learners reports."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """All that a learner needs to continue where another was: what the coordinator keeps for it."""

    updates: int
    learner: bytes
    """w, w⁻, optimizer and average, as `torch.save` writes them."""
    rng: dict[str, Any]
    limiter: dict[str, float]
    shards: list[ShardCounts | None]
    """Where each shard stood."""
    lost_transitions: int
