"""Defines the messages between the actors, except chunks and samples."""

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
    """The version of the newest weights and a reference to them.

    The reference is inside a list, so that Ray passes it on instead of fetching the weights.
    """

    version: int
    """The learner's count of updates when it published the weights."""
    reference: list[Any]
    epoch: int = 0
    """The learner's epoch. Weights of a later epoch are newer, even if their version is lower."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A shard's answer to a chunk: if `accepted`, the shard holds its transitions, once."""

    accepted: bool
    """False: the chunk came from a stale incarnation of the collector, and is not stored."""
    published: Published | None
    """The newest weights."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """The learner's request to a shard for the batches of a round."""

    counts: tuple[int, ...] = ()
    """Transitions wanted from this shard for each of the round's batches."""
    key_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    delta_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """New priorities: the newest |δ| of transitions sampled from this shard earlier (`key_B`)."""
    places: bool = False
    """True: the learner reads the shard's frames itself, and needs only their places."""
    packed: bool = True
    """Whether frames are compressed in transit, even if the shard stores them uncompressed."""
    insert_limit: float | None = 0.0
    """Number of transitions that the shard may have accepted since its start; further chunks
    wait. None: the limit stays as it is.
    """
    updates: int = 0
    published: Published | None = None
    epoch: int = 0
    """The learner's epoch. A shard ignores a stale learner's request, and answers without
    transitions.
    """


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """A shard's counts."""

    incarnation: int
    """Random number of this incarnation. If the number changes, the shard's data was lost."""
    inserted: int
    size: int
    total: float
    weight_lag: float
    """Mean number of updates by which the collectors' weights were older than the learner's."""
    nbytes: int
    layout: ShardLayout
    address: Address | None = None
    """Address of the shard's frames for a process of the same node; None: they are compressed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A shard's answer to a Request."""

    counts: ShardCounts
    drawn: PlacedSample | SlicedSample | None
    """The transitions of all batches of the round, in the order of the batches; None: the shard
    is empty, or the learner is stale. They are in one record, because pickling costs by the array:
    sixteen separate batches of 32 cost several times as much.
    """


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """A collector's report of one portion of work."""

    steps: int
    transitions: int
    """Number of transitions made, whether or not they have arrived."""
    episodes: list[Episode]
    epsilon: float
    lost_transitions: int
    """Number of transitions made but not accepted: the shard did not answer, or refused this
    collector as stale.
    """
    node: str = ""
    """Ray's id of the collector's node."""
    leaving: bool = False
    """True after SIGTERM: no chunk is in flight, and no further chunk will be played."""


@dataclass(frozen=True, kw_only=True)
class LearnReport:
    """A learner's report of one portion of work. Means are over the portion's updates."""

    updates: int
    """Updates since the start of the run."""
    done: int
    """Updates in this portion."""
    idle: bool
    """Whether samples per insert allowed no further batch at the end of the portion."""
    loss: float
    q_mean: float
    grad_norm: float
    size: int
    inserted: int
    samples_per_insert: float
    weight_lag: float
    lost_transitions: int
    """Transitions lost with dead shards since the start of the run."""
    events: list[str]
    rank: int = 0
    """The rank of the reporting learner."""


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The state from which a new learner continues; the coordinator keeps it."""

    updates: int
    learner: bytes
    """Weights w, target weights w⁻, optimizer and average, as `torch.save` writes them."""
    rng: dict[str, Any]
    limiter: dict[str, float]
    shards: list[ShardCounts | None]
    """The last counts of each shard."""
    lost_transitions: int
