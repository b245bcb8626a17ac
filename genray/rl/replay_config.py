"""What the replay is asked to be, and how its lanes are shared out over shards."""

from dataclasses import dataclass
from typing import Literal

from genray.errors import ConfigError, require


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The replay memory, over all its shards."""

    capacity: int = 200_000
    """Transitions kept, over all shards; 7,077 bytes each (200,000 = 1.4 GB). The oldest are
    overwritten.
    """
    shards: int = 1
    """Replay processes among which the collectors' lanes are shared out."""
    replay_store: Literal["raw", "lz4"] = "raw"
    """raw: frames as they are. lz4: compressed, about a tenth of the memory, at six to seven
    tenths of the sampling rate.
    """
    prioritized: bool = True
    """Draw in proportion to priorities; otherwise uniformly."""
    alpha: float = 0.6
    """Exponent of the priorities: 0 is uniform, 1 in proportion."""
    beta: float = 0.4
    """Importance-weight exponent at the start."""
    beta_end: float = 1.0
    """… and at the end of the annealing."""
    beta_anneal_updates: int = 1_000_000
    """Updates over which β goes from start to end."""
    priority_epsilon: float = 1e-3
    """ε in p = |δ| + ε: nothing is ever impossible to draw."""
    min_size: int = 5_000
    """Transitions collected before learning begins."""
    samples_per_insert: float = 8.0
    """How often a transition is sampled on average (batch / agent steps an update); 0:
    collectors and learner run free.
    """

    def validate(self) -> None:
        require(self.shards >= 1, f"--shards {self.shards}: must be ≥ 1")
        require(
            self.replay_store in ("raw", "lz4"),
            f"--replay-store {self.replay_store}: must be raw (frames as they are) or lz4 "
            "(compressed)",
        )
        require(0 <= self.alpha <= 1, f"--alpha {self.alpha}: must lie in [0, 1], e.g. 0.6")
        require(0 <= self.beta <= 1, f"--beta {self.beta}: must lie in [0, 1], e.g. 0.4")
        require(
            0 <= self.beta_end <= 1, f"--beta-end {self.beta_end}: must lie in [0, 1], e.g. 1.0"
        )
        require(
            self.beta_anneal_updates >= 1,
            f"--beta-anneal-updates {self.beta_anneal_updates}: must be ≥ 1",
        )
        require(
            self.priority_epsilon > 0,
            f"--priority-epsilon {self.priority_epsilon}: must be > 0, e.g. 0.001",
        )
        require(self.min_size >= 1, f"--min-size {self.min_size}: must be ≥ 1, e.g. 5000")
        require(
            self.min_size <= self.capacity,
            f"--min-size {self.min_size}: more than --capacity {self.capacity}; learning would "
            "never begin",
        )
        require(
            self.samples_per_insert >= 0,
            f"--samples-per-insert {self.samples_per_insert}: must be ≥ 0, e.g. 8 (0: no limit)",
        )

    def beta_at(self, updates: int) -> float:
        """β after `updates` updates, linear from `beta` to `beta_end`."""
        return self.beta + (self.beta_end - self.beta) * min(
            1.0, updates / self.beta_anneal_updates
        )


@dataclass(frozen=True, kw_only=True)
class ShardLayout:
    """The geometry that collectors and shards share."""

    sources: tuple[int, ...]
    """The collectors that feed this shard."""
    lanes_per_source: int
    rows: int
    """Rows a lane (the shard's capacity / its lanes)."""
    frame_shape: tuple[int, int]
    stack: int
    stack_start: Literal["blank", "repeat", "wait"]
    past_actions: int
    n_step: int

    @property
    def lanes(self) -> int:
        return len(self.sources) * self.lanes_per_source

    @property
    def lookback(self) -> int:
        """Rows before a transition's own that an observation reaches back to."""
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
    """Share the collectors out over the shards (collector i feeds shard i mod M) and size the
    rings.

    Raises ConfigError when a ring would be too short to hold a chunk, its returns and its stacks.
    """
    if config.shards > collectors:
        raise ConfigError(
            f"--shards {config.shards}: more than --collectors {collectors}; each shard needs a "
            "collector of its own, "
            f"so at most {collectors}"
        )
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
