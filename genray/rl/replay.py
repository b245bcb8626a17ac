"""One shard of the prioritized replay: a ring of frames a lane, each frame stored once, and a sum tree over its slots.

Shapes: L lanes of the shard, C rows a lane, B batch, S stack, H height, W width, K past actions.

Bytes a transition (84x84): frame 7,056 + action, age, horizon, valid 4 + return, discount 8 + tree leaf and parents
8·(8/7) = 9.1, in all 7,077. Stacks are put together when sampled.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from genray.errors import CheckpointError, ConfigError, require
from genray.rl import targets
from genray.rl.chunk import Chunk, Sample
from genray.rl.sum_tree import SumTree


@dataclass(frozen=True, kw_only=True)
class ReplayConfig:
    """The replay memory, over all its shards."""

    capacity: int = 200_000
    """Transitions kept, over all shards; 7,077 bytes each (200,000 = 1.4 GB). The oldest are overwritten."""
    shards: int = 1
    """Replay processes among which the collectors' lanes are shared out."""
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
    """How often a transition is sampled on average (batch / agent steps an update); 0: collectors and learner run free."""

    def validate(self) -> None:
        require(self.shards >= 1, f"--shards {self.shards}: must be ≥ 1")
        require(0 <= self.alpha <= 1, f"--alpha {self.alpha}: must lie in [0, 1], e.g. 0.6")
        require(0 <= self.beta <= 1, f"--beta {self.beta}: must lie in [0, 1], e.g. 0.4")
        require(0 <= self.beta_end <= 1, f"--beta-end {self.beta_end}: must lie in [0, 1], e.g. 1.0")
        require(self.beta_anneal_updates >= 1, f"--beta-anneal-updates {self.beta_anneal_updates}: must be ≥ 1")
        require(self.priority_epsilon > 0, f"--priority-epsilon {self.priority_epsilon}: must be > 0, e.g. 0.001")
        require(self.min_size >= 1, f"--min-size {self.min_size}: must be ≥ 1, e.g. 5000")
        require(
            self.min_size <= self.capacity,
            f"--min-size {self.min_size}: more than --capacity {self.capacity}; learning would never begin",
        )
        require(
            self.samples_per_insert >= 0,
            f"--samples-per-insert {self.samples_per_insert}: must be ≥ 0, e.g. 8 (0: no limit)",
        )

    def beta_at(self, updates: int) -> float:
        """β after `updates` updates, linear from `beta` to `beta_end`."""
        return self.beta + (self.beta_end - self.beta) * min(1.0, updates / self.beta_anneal_updates)


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


class ReplayShard:
    """Rings of rows, sampled in proportion to (|δ| + ε)^α.  [Lin 1992; Schaul 2016; Horgan 2018]

    A row can be drawn while its n-step return is known, its stack has not been overwritten, and its next frame is
    here: the `lookback` oldest rows and the n newest rest. Keys are absolute row numbers, so that a late priority for a
    row that has since been overwritten is recognised and dropped.
    """

    def __init__(self, config: ReplayConfig, layout: ShardLayout, seed: int | np.random.SeedSequence = 0):
        self.config, self.layout = config, layout
        lanes, rows = layout.lanes, layout.rows
        self._frame_LCP = np.zeros((lanes, rows, layout.frame_shape[0] * layout.frame_shape[1]), np.uint8)
        self._action_LC = np.zeros((lanes, rows), np.uint8)
        self._age_LC = np.zeros((lanes, rows), np.uint8)
        self._return_LC = np.zeros((lanes, rows), np.float32)
        self._discount_LC = np.zeros((lanes, rows), np.float32)
        self._horizon_LC = np.zeros((lanes, rows), np.uint8)
        self._valid_LC = np.zeros((lanes, rows), bool)
        self._tree = SumTree(lanes * rows)
        self._rng = np.random.default_rng(seed)
        self._head = dict.fromkeys(layout.sources, 0)  # rows ever written in each lane of a source
        self._floor = dict.fromkeys(layout.sources, 0)  # first row of the stream that is going on
        self._expected = dict.fromkeys(layout.sources, (0, 0))  # (incarnation, row) of the next chunk
        self.size = 0
        self.inserted = 0
        self.dropped_updates = 0

    @property
    def total(self) -> float:
        """Σ priority^α: this shard's mass among the shards."""
        return self._tree.total

    @property
    def nbytes(self) -> int:
        arrays = [value for value in vars(self).values() if isinstance(value, np.ndarray)]
        return sum(array.nbytes for array in arrays) + self._tree.nbytes

    def heads(self) -> dict[int, int]:
        """Rows ever written in each lane of a source, by source."""
        return dict(self._head)

    def add(self, chunk: Chunk) -> int:
        """Write a chunk; returns the number of transitions that became available.

        A chunk that does not continue its source's last one (a restarted collector, a lost chunk) begins a new stream:
        no observation reaches across the gap. A chunk that was written already (a retried call) is ignored.
        """
        layout, source, num_rows = self.layout, chunk.source, chunk.num_rows
        incarnation, expected_row = self._expected[source]
        if chunk.incarnation == incarnation and chunk.first_row < expected_row:
            return 0
        head = self._head[source]
        if (chunk.incarnation, chunk.first_row) != (incarnation, expected_row):
            self._floor[source] = head
        base = layout.sources.index(source) * layout.lanes_per_source
        lanes = slice(base, base + layout.lanes_per_source)

        self._retire(lanes, head, num_rows)
        for ring, part in self._pieces(head, num_rows):
            self._frame_LCP[lanes, ring] = chunk.frame_ETHW[:, part].reshape(layout.lanes_per_source, -1, self._pixels)
            self._action_LC[lanes, ring] = chunk.action_ET[:, part]
            self._age_LC[lanes, ring] = chunk.age_ET[:, part]
        self._head[source] = head + num_rows
        self._expected[source] = (chunk.incarnation, chunk.first_row + num_rows)
        added = self._complete(lanes, head, self._floor[source], chunk)
        self.inserted += added
        return added

    def _retire(self, lanes: slice, head: int, num_rows: int) -> None:
        """Take the rows about to be overwritten out of the tree, and those whose stacks reach into them."""
        rows = self.layout.rows
        first, last = max(0, head - rows), head + num_rows - rows + self.layout.lookback
        if last <= 0:
            return
        slot_T = np.arange(first, last) % rows
        lane_L = np.arange(lanes.start, lanes.stop)
        self.size -= int(self._valid_LC[lane_L[:, None], slot_T].sum())
        self._valid_LC[lane_L[:, None], slot_T] = False
        self._tree.set((lane_L[:, None] * rows + slot_T).ravel(), 0.0)

    def _complete(self, lanes: slice, head: int, floor: int, chunk: Chunk) -> int:
        """Write the transitions that a chunk completed and put them into the tree."""
        rows = self.layout.rows
        row_T = np.arange(chunk.num_rows) + head - self.layout.n_step
        here_T = row_T >= max(floor, 0)  # those before began in a stream that is gone, and never got their returns
        slot_T = row_T[here_T] % rows
        lane_L1 = np.arange(lanes.start, lanes.stop)[:, None]
        self._return_LC[lane_L1, slot_T] = chunk.return_ET[:, here_T]
        self._discount_LC[lane_L1, slot_T] = chunk.discount_ET[:, here_T]
        self._horizon_LC[lane_L1, slot_T] = chunk.horizon_ET[:, here_T]
        reach_LT = np.minimum(self._age_LC[lane_L1, slot_T], self.layout.lookback)
        valid_LT = chunk.valid_ET[:, here_T] & (row_T[here_T] - reach_LT >= floor)
        self._valid_LC[lane_L1, slot_T] = valid_LT
        leaf_LT = lane_L1 * rows + slot_T
        self._tree.set(leaf_LT[valid_LT], self._priority(chunk.delta_ET[:, here_T][valid_LT]))
        added = int(valid_LT.sum())
        self.size += added
        return added

    def sample(self, count: int) -> Sample:
        """`count` transitions with P(i) = p_i^α / Σ p_k^α over this shard; its arrays are the caller's to keep.

        Raises ValueError when the shard is empty.
        """
        leaf_B = self._tree.sample(count, self._rng)
        probability_B = self._tree.get(leaf_B) / self._tree.total
        rows = self.layout.rows
        lane_B, slot_B = leaf_B // rows, leaf_B % rows
        head_B = np.array([self._head[source] for source in self.layout.sources])[
            lane_B // self.layout.lanes_per_source
        ]
        row_B = head_B - 1 - (head_B - 1 - slot_B) % rows
        next_slot_B = (slot_B + self._horizon_LC[lane_B, slot_B]) % rows
        return Sample(
            obs_BSHW=self._stacks(lane_B, slot_B),
            next_obs_BSHW=self._stacks(lane_B, next_slot_B),
            past_BK=self._past_actions(lane_B, slot_B),
            next_past_BK=self._past_actions(lane_B, next_slot_B),
            action_B=self._action_LC[lane_B, slot_B],
            return_B=self._return_LC[lane_B, slot_B],
            discount_B=self._discount_LC[lane_B, slot_B],
            key_B=row_B * self.layout.lanes + lane_B,
            probability_B=probability_B,
        )

    def update(self, key_B: np.ndarray, delta_B: np.ndarray) -> None:
        """Set priorities from the learner's latest |δ|; keys whose rows are gone are counted and ignored."""
        row_B, lane_B = np.divmod(key_B, self.layout.lanes)
        rows = self.layout.rows
        head_B = np.array([self._head[source] for source in self.layout.sources])[
            lane_B // self.layout.lanes_per_source
        ]
        # A row beyond the head is from before this shard restarted, and began again at row 0.
        here_B = (head_B - rows <= row_B) & (row_B < head_B)
        alive_B = here_B & self._valid_LC[lane_B, row_B % rows]
        self.dropped_updates += int((~alive_B).sum())
        leaf_B = lane_B[alive_B] * rows + row_B[alive_B] % rows
        self._tree.set(leaf_B, self._priority(delta_B[alive_B]))

    def _priority(self, delta_B: np.ndarray) -> np.ndarray | float:
        if not self.config.prioritized:
            return 1.0
        return targets.priority(np.abs(delta_B, dtype=np.float64), self.config.priority_epsilon, self.config.alpha)

    def _stacks(self, lane_B: np.ndarray, slot_B: np.ndarray) -> np.ndarray:
        """Observations that end at the given slots; uint8 [B, S, H, W], oldest frame first."""
        layout = self.layout
        back_S = np.arange(layout.stack - 1, -1, -1)
        age_B1 = self._age_LC[lane_B, slot_B][:, None].astype(np.int64)
        reach_BS = np.minimum(back_S, age_B1)  # never before the episode's first frame
        flat_BS = lane_B[:, None] * layout.rows + (slot_B[:, None] - reach_BS) % layout.rows
        # take() with mode="clip" skips the bounds check of every index: twice as fast (the indices are ours).
        stack_BSP = self._frame_LCP.reshape(-1, self._pixels).take(flat_BS, axis=0, mode="clip")
        if layout.stack_start != "repeat":
            stack_BSP[back_S > age_B1] = 0
        return stack_BSP.reshape(len(slot_B), layout.stack, *layout.frame_shape)

    def _past_actions(self, lane_B: np.ndarray, slot_B: np.ndarray) -> np.ndarray:
        """The actions of the K rows before, newest first, −1 before the episode's first; int16 [B, K]."""
        back_K = np.arange(1, self.layout.past_actions + 1)
        action_BK = self._action_LC[lane_B[:, None], (slot_B[:, None] - back_K) % self.layout.rows].astype(np.int16)
        action_BK[back_K > self._age_LC[lane_B, slot_B][:, None]] = -1
        return action_BK

    def _pieces(self, head: int, count: int) -> list[tuple[slice, slice]]:
        """(ring slice, chunk slice) of `count` rows from `head` on: one piece, or two where the ring wraps."""
        rows = self.layout.rows
        start = head % rows
        first = min(count, rows - start)
        pieces = [(slice(start, start + first), slice(0, first))]
        if first < count:
            pieces.append((slice(0, count - first), slice(first, count)))
        return pieces

    @property
    def _pixels(self) -> int:
        return self.layout.frame_shape[0] * self.layout.frame_shape[1]

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    _ARRAYS = ("frame_LCP", "action_LC", "age_LC", "return_LC", "discount_LC", "horizon_LC", "valid_LC")

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays into `folder`; returns the rest as JSON-able values. Only rows ever written are stored."""
        folder.mkdir(parents=True, exist_ok=True)
        used = min(self.layout.rows, max(self._head.values()))
        for name in self._ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, f"_{name}")[:, :used])
        np.save(folder / "tree.npy", self._tree.state().reshape(self.layout.lanes, -1)[:, :used])
        return {
            "layout": {
                "lanes": self.layout.lanes,
                "rows": self.layout.rows,
                "frame_shape": list(self.layout.frame_shape),
            },
            "used": used,
            "rng": self._rng.bit_generator.state,
            "head": {str(k): v for k, v in self._head.items()},
            "floor": {str(k): v for k, v in self._floor.items()},
            "expected": {str(k): list(v) for k, v in self._expected.items()},
            "counts": {"size": self.size, "inserted": self.inserted, "dropped_updates": self.dropped_updates},
        }

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Continue from what `save` wrote, bit for bit. Collectors that begin new streams are seen as such.

        Raises CheckpointError when the shard's geometry differs.
        """
        geometry = {
            "lanes": self.layout.lanes,
            "rows": self.layout.rows,
            "frame_shape": list(self.layout.frame_shape),
        }
        if state["layout"] != geometry:
            raise CheckpointError(
                f"{folder}: a replay of {state['layout']} does not fit this run's {geometry}; resume with the same "
                "--capacity, --shards, --collectors and --envs-per-collector"
            )
        used = state["used"]
        for name in self._ARRAYS:
            getattr(self, f"_{name}")[:, :used] = np.load(folder / f"{name}.npy")
        leaves_LC = np.zeros((self.layout.lanes, self.layout.rows))
        leaves_LC[:, :used] = np.load(folder / "tree.npy")
        self._tree.restore(leaves_LC.ravel())
        self._rng.bit_generator.state = state["rng"]
        self._head = {int(k): v for k, v in state["head"].items()}
        self._floor = {int(k): v for k, v in state["floor"].items()}
        self._expected = {int(k): (v[0], v[1]) for k, v in state["expected"].items()}
        self.size, self.inserted = state["counts"]["size"], state["counts"]["inserted"]
        self.dropped_updates = state["counts"]["dropped_updates"]


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
    """Share the collectors out over the shards (collector i feeds shard i mod M) and size the rings.

    Raises ConfigError when a ring would be too short to hold a chunk, its returns and its stacks.
    """
    if config.shards > collectors:
        raise ConfigError(
            f"--shards {config.shards}: more than --collectors {collectors}; each shard needs a collector of its own, "
            f"so at most {collectors}"
        )
    rows = config.capacity // (collectors * lanes)
    needed = chunk_rows + n_step + max(stack - 1, past_actions) + 1
    if rows < needed:
        raise ConfigError(
            f"--capacity {config.capacity}: leaves {rows} rows for each of {collectors * lanes} lanes; a chunk, its "
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
