"""Defines the replay's options, and plans the size of the shards and which collectors use them."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.rl.sequences import SequenceLayout


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The options of the replay, for all its shards together."""

    capacity: int = 200_000
    """Largest number of transitions in all shards together, 7,077 bytes each (200,000: 1.4 GB). New
    transitions overwrite the oldest ones.
    """
    shards: int = bounded(1, min=1)
    """Replay processes; each stores the transitions of some of the collectors."""
    replay_store: Literal["raw", "lz4"] = "raw"
    """raw: uncompressed frames. lz4: compressed frames, which need about a tenth of the memory but
    are sampled at only 60 to 70% of the rate.
    """
    prioritized: bool = True
    """Sample in proportion to priorities instead of uniformly."""
    alpha: float = bounded(0.6, min=0, max=1, example=0.6)
    """Exponent α of priorities (|δ| + ε)^α; 0: all transitions are equally probable."""
    beta: float = bounded(0.4, min=0, max=1, example=0.4)
    """Exponent β of importance weights at the start."""
    beta_end: float = bounded(1.0, min=0, max=1, example=1.0)
    """Exponent β of importance weights at the end of its annealing."""
    beta_anneal_updates: int = bounded(1_000_000, min=1)
    """Updates over which β changes linearly from --beta to --beta-end."""
    priority_epsilon: float = bounded(1e-3, above=0, example=0.001)
    """ε in priorities (|δ| + ε)^α, so that every transition can be sampled."""
    min_size: int = bounded(5_000, min=1, example=5000)
    """Transitions collected before learning begins."""
    samples_per_insert: float = bounded(8.0, min=0, note="(0: no limit)", example=8)
    """How often a transition is sampled on average (batch size / agent steps per update); 0: no
    limit, so collectors and learner never wait for each other.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.replay_store in ("raw", "lz4"),
            f"--replay-store {self.replay_store}: must be raw (uncompressed frames) or lz4 "
            "(compressed frames)",
        )
        require(
            self.min_size <= self.capacity,
            f"--min-size {self.min_size}: more than --capacity {self.capacity}; learning would "
            "never begin",
        )

    def beta_at(self, updates: int) -> float:
        """Return β after `updates` updates, linear from `beta` to `beta_end`."""
        return self.beta + (self.beta_end - self.beta) * min(
            1.0, updates / self.beta_anneal_updates
        )


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """The shapes and settings of one shard and of the collectors that write to it."""

    sources: tuple[int, ...]
    """The numbers of the collectors that write to this shard."""
    lanes_per_source: int
    rows: int
    """Rows per lane (the run's capacity / the lanes of all collectors)."""
    frame_shape: tuple[int, int]
    stack: int
    stack_start: Literal["blank", "repeat", "wait"]
    past_actions: int
    n_step: int
    """The largest n."""
    anneals_returns: bool = False
    """Whether n or γ is annealed, so that the shard stores rewards and computes returns when
    transitions are drawn.
    """
    later: int = 0
    """J, the number of rows after a transition whose frames and actions are drawn as well; at most
    n_step, or the rows of a sequence after its first one.
    """
    sequence: SequenceLayout | None = None
    """The sequences that are drawn for a recurrent network; None: transitions are drawn."""

    @property
    def lanes(self) -> int:
        """Number of lanes of all collectors that write to this shard."""
        return len(self.sources) * self.lanes_per_source

    @property
    def lookback(self) -> int:
        """Number of earlier rows that the observation at a row uses, for its stack of frames and
        its past actions.
        """
        last_action = 1 if self.sequence else 0
        return max(self.stack - 1, self.past_actions, last_action)


def plan_shards(
    config: ReplayConfig,
    *,
    collectors: int,
    lanes: int,
    frame_shape: tuple[int, int],
    stack: int,
    stack_start: Literal["blank", "repeat", "wait"],
    past_actions: int,
    n_step: int,
    chunk_rows: int,
    anneals_returns: bool = False,
    later: int = 0,
    sequence: SequenceLayout | None = None,
) -> list[ShardLayout]:
    """Return the layouts of the M shards: which collectors write to a shard, and the number of rows
    of its ring buffers.

    Collector i writes to shard i mod M. `lanes`: the lanes of each collector. Raises ConfigError
    for more shards than collectors, and when a ring buffer would be too short for a chunk, its
    n-step returns and its stacks.
    """
    if config.shards > collectors:
        raise ConfigError(
            f"--shards {config.shards}: more than --collectors {collectors}, but each shard needs "
            f"at least one collector; use at most --shards {collectors}"
        )
    # Rows that are being written, whose return is unknown, or whose stack is incomplete cannot be
    # sampled. A ring buffer needs one row more than these.
    rows = config.capacity // (collectors * lanes)
    needed = chunk_rows + n_step + max(stack - 1, past_actions) + 1
    if sequence:  # a sequence needs all its rows, and starts at a multiple of its period
        period, later = sequence.period, sequence.rows - 1
        rows = rows // period * period
        needed = -(-(chunk_rows + sequence.rows + max(stack, past_actions) + 1) // period) * period
    if rows < needed:
        raise ConfigError(
            f"--capacity {config.capacity}: leaves {rows} rows for each of {collectors * lanes} "
            "lanes; a chunk, its "
            f"returns and stacks need {needed}: use at least {needed * collectors * lanes}"
        )
    return [
        ShardLayout(
            sources=tuple(range(shard, collectors, config.shards)),
            lanes_per_source=lanes,
            rows=rows,
            frame_shape=frame_shape,
            stack=stack,
            stack_start=stack_start,
            past_actions=past_actions,
            n_step=n_step,
            anneals_returns=anneals_returns,
            later=later,
            sequence=sequence,
        )
        for shard in range(config.shards)
    ]
