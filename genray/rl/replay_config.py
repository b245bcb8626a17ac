"""Defines the replay's options, and assigns the collectors' lanes to shards."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The replay memory, over all its shards."""

    capacity: int = 200_000
    """Transitions kept, over all shards; 7,077 bytes each (200,000 = 1.4 GB). The oldest are
    overwritten.
    """
    shards: int = bounded(1, min=1)
    """Replay processes; the collectors' lanes are divided among them."""
    replay_store: Literal["raw", "lz4"] = "raw"
    """raw: uncompressed frames. lz4: compressed frames, about a tenth of the memory, at six to
    seven tenths of the sampling rate.
    """
    prioritized: bool = True
    """Sample in proportion to priorities; otherwise uniformly."""
    alpha: float = bounded(0.6, min=0, max=1, example=0.6)
    """Exponent of the priorities: 0 samples uniformly, 1 in proportion."""
    beta: float = bounded(0.4, min=0, max=1, example=0.4)
    """Importance-weight exponent at the start."""
    beta_end: float = bounded(1.0, min=0, max=1, example=1.0)
    """Importance-weight exponent at the end of the annealing."""
    beta_anneal_updates: int = bounded(1_000_000, min=1)
    """Updates over which β anneals from its first to its last value."""
    priority_epsilon: float = bounded(1e-3, above=0, example=0.001)
    """ε in p = |δ| + ε, so that every transition can be sampled."""
    min_size: int = bounded(5_000, min=1, example=5000)
    """Transitions collected before learning begins."""
    samples_per_insert: float = bounded(8.0, min=0, note="(0: no limit)", example=8)
    """How often a transition is sampled on average (batch / agent steps per update); 0: no limit
    for collectors and learner.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.replay_store in ("raw", "lz4"),
            f"--replay-store {self.replay_store}: must be raw (frames as they are) or lz4 "
            "(compressed)",
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
    """The shapes that collectors and shards share."""

    sources: tuple[int, ...]
    """The collectors that write to this shard."""
    lanes_per_source: int
    rows: int
    """Rows per lane (the shard's capacity / its lanes)."""
    frame_shape: tuple[int, int]
    stack: int
    stack_start: Literal["blank", "repeat", "wait"]
    past_actions: int
    n_step: int

    @property
    def lanes(self) -> int:
        """Lanes of all the shard's collectors together."""
        return len(self.sources) * self.lanes_per_source

    @property
    def lookback(self) -> int:
        """Number of rows before a transition's own row that its observation uses."""
        return max(self.stack - 1, self.past_actions)


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
) -> list[ShardLayout]:
    """Assign collectors to shards (collector i writes to shard i mod M) and work out the size of
    the rings.

    Raises ConfigError when a ring would be too short for a chunk, its returns and its stacks.
    """
    if config.shards > collectors:
        raise ConfigError(
            f"--shards {config.shards}: more than --collectors {collectors}; each shard needs a "
            "collector of its own, "
            f"so at most {collectors}"
        )
    # A ring must be long enough for the chunk being written and for the rows that are not sampled.
    rows = config.capacity // (collectors * lanes)
    needed = chunk_rows + n_step + max(stack - 1, past_actions) + 1
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
        )
        for shard in range(config.shards)
    ]
