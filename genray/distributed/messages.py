"""Defines the messages between the actors, except chunks and samples (rl/chunk.py)."""

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
    """The version of the newest weights, and Ray's reference to these weights.

    The reference is inside a list, so that Ray sends the reference itself instead of the weights.
    """

    version: int
    """The learner's count of updates when it published the weights."""
    reference: list[Any]
    epoch: int = 0
    """The learner's epoch. Weights of a later epoch are newer, even if their version is lower."""


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """A shard's answer to a chunk."""

    accepted: bool
    """True: the chunk is stored, and only once. False: the chunk came from a stale incarnation of
    the collector, and is not stored.
    """
    published: Published | None
    """The newest weights; None if the shard has not received any."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A learner's request to a shard for the shard's part of a round (several batches)."""

    counts: tuple[int, ...] = ()
    """Number of transitions wanted from this shard for each batch of the round."""
    key_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64))
    """Keys of transitions, sampled from this shard earlier, that get new priorities."""
    delta_B: np.ndarray = field(default_factory=lambda: np.empty(0, np.float32))
    """The new |δ| of these transitions."""
    returns: tuple[int, float] | None = None
    """(n, γ) of the transitions' returns, if n or γ is annealed."""
    places: bool = False
    """True: the learner reads frames from the shard's memory, and needs only their positions."""
    packed: bool = True
    """Whether frames are compressed before they are sent. A shard that stores compressed frames
    always sends them compressed.
    """
    insert_limit: float | None = 0.0
    """When the shard has accepted this number of transitions since its start, further chunks wait.
    None: the limit does not change.
    """
    updates: int = 0
    """The learner's number of updates."""
    published: Published | None = None
    """The newest weights; None in requests of learners other than the leader."""
    epoch: int = 0
    """The learner's epoch. If it is stale, the shard ignores the request and sends no transitions.
    """


@dataclass(frozen=True, kw_only=True)
class ShardCounts:
    """A shard's counts, and how its frames can be read."""

    incarnation: int
    """Random number of this life of the shard. If it changes, the shard has lost its data."""
    inserted: int
    """Number of transitions that were ever inserted."""
    size: int
    """Number of transitions that can be sampled now."""
    total: float
    """The sum of all priorities."""
    weight_lag: float
    """Mean over the last 64 chunks: how many updates older than the learner's weights the weights
    were that chose the chunk's actions.
    """
    nbytes: int
    layout: ShardLayout
    address: Address | None = None
    """Address of the shard's frames for a process of the same node; None: they are compressed."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A shard's answer to a Request."""

    counts: ShardCounts
    drawn: PlacedSample | SlicedSample | None
    """The transitions of all batches of the round, in the order of the batches. One record contains
    all batches, because the time of pickling depends on the number of arrays. None: no transitions
    were requested, the shard is empty, or the learner is stale.
    """


@dataclass(frozen=True, kw_only=True)
class CollectReport:
    """A collector's report of one call."""

    steps: int
    """Number of agent steps made, over all lanes."""
    transitions: int
    """Number of transitions made, whether the shard has stored them or not."""
    episodes: list[Episode]
    epsilon: float
    """Mean ε of the lanes."""
    lost_transitions: int
    """Number of transitions lost since the last report: the shard did not answer, or refused this
    collector as stale.
    """
    node: str = ""
    """Ray's id of the collector's node."""
    leaving: bool = False
    """True after SIGTERM: no chunk is in flight, and no further chunk will be played."""


@dataclass(frozen=True, kw_only=True)
class LearnReport:
    """A learner's report of one call of `learn`."""

    updates: int
    """Updates since the start of the run."""
    done: int
    """Updates in this call."""
    idle: bool
    """Whether the limit on samples per insert allowed no further batch at the end of the call."""
    loss: float
    """Mean over the updates of this call, as are `q_mean` and `grad_norm`; NaN without updates."""
    q_mean: float
    grad_norm: float
    size: int
    """Number of transitions in all shards that answer."""
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
    """A copy of the learners' state, from which new learners continue; the coordinator keeps it."""

    updates: int
    learner: bytes
    """Weights of the online network, the target network and the average policy, and the state of
    the optimizer, as `torch.save` writes them.
    """
    rng: dict[str, Any]
    limiter: dict[str, float]
    shards: list[ShardCounts | None]
    """The last counts of each shard."""
    lost_transitions: int
