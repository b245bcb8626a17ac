"""One shard of the prioritized replay: for each lane (one environment of a collector) a ring of
frames, each stored once, and one sum tree over the slots of all rings.

Shapes: L lanes of the shard, C rows per lane, B batch, S stack, T frames of a block, H height, W
width, P = H·W, K past actions.

Bytes per transition (84x84): frame 7,056 + action, age, horizon, valid 4 + return, discount 8 +
tree leaf and parents 8·(8/7) = 9.1, in all 7,077. Stacks are assembled when sampled. If n or γ
is annealed, a row also has its reward and how it ends the episode: 5 bytes. rl/sequences.py says
what sequences of a recurrent network need.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from genray.errors import CheckpointError
from genray.rl import kernels, targets
from genray.rl.chunk import Chunk, Draw, PlacedSample, Sample, SlicedSample, empty_draw
from genray.rl.frame_store import FrameStore, Places, RawFrames, load_frames, make_store, pieces
from genray.rl.replay_config import ReplayConfig as ReplayConfig
from genray.rl.replay_config import ShardLayout as ShardLayout
from genray.rl.replay_config import plan_shards as plan_shards
from genray.rl.sequences import SequenceStore
from genray.rl.sum_tree import SumTree

_IN_ORDER = np.empty(0)


class ReplayShard:
    """Stores rows in rings and samples them in proportion to (|δ| + ε)^α.

    A row can be sampled if its n-step return is known, and its stack and its next observation are
    stored. This excludes the `lookback` oldest rows and the n newest rows of each lane. A key
    identifies a row by its lane and its number since the start. A late priority for an overwritten
    row is recognised by its key and dropped. [Lin 1992; Schaul 2016; Horgan 2018]

    Args:
        config: the exponents of priorities, and the kind of store.
        layout: the shard's shapes and sources.
        seed: the seed of the samples.
        frames: a store to use; None: the kind that `config` names.
    """

    def __init__(
        self,
        config: ReplayConfig,
        layout: ShardLayout,
        seed: int | np.random.SeedSequence = 0,
        frames: FrameStore | None = None,
    ):
        self.config, self.layout = config, layout
        lanes, rows = layout.lanes, layout.rows
        self._frames = frames or make_store(config.replay_store, lanes, rows, self._pixels)
        self._row_LC = np.zeros((lanes, rows), kernels.ROW)
        self._return_LC, self._discount_LC = self._row_LC["n_return"], self._row_LC["discount"]
        self._action_LC, self._age_LC = self._row_LC["action"], self._row_LC["age"]
        self._horizon_LC, self._valid_LC = self._row_LC["horizon"], self._row_LC["valid"]
        # Rewards and ends of rows, and the n and γ with which they give the returns of draws.
        annealed = (lanes, rows) if layout.anneals_returns else (0, 0)
        self._reward_LC, self._end_LC = np.zeros(annealed, np.float32), np.zeros(annealed, np.uint8)
        self.returns: tuple[int, float] = (layout.n_step, 0.0)
        """(n, γ) of the next draws, if n or γ is annealed; n is at most the layout's."""
        self._sequences = layout.sequence and SequenceStore(lanes, rows, layout.sequence)
        self._tree = SumTree(lanes * rows)
        self._rng = np.random.default_rng(seed)
        self._repeat = layout.stack_start == "repeat"
        self._head = dict.fromkeys(layout.sources, 0)  # rows ever written in each lane of a source
        self._floor = dict.fromkeys(layout.sources, 0)  # first row of the current stream
        # (incarnation, row) of the next chunk
        self._expected = dict.fromkeys(layout.sources, (0, 0))
        self._head_L = np.zeros(lanes, np.int64)  # _head of each lane
        self.size = 0
        self.inserted = 0
        self.dropped_updates = 0

    @property
    def total(self) -> float:
        """Σ priority^α: this shard's total priority, which determines its share of a batch."""
        return self._tree.total

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the shard takes."""
        rewards = self._reward_LC.nbytes + self._end_LC.nbytes
        rows = self._row_LC.nbytes + rewards + self._head_L.nbytes
        rows += self._sequences.nbytes if self._sequences else 0
        return rows + self._tree.nbytes + self._frames.nbytes

    @property
    def frame_LCP(self) -> np.ndarray:
        """The rings of frames, if they are uncompressed; to be read only."""
        assert isinstance(self._frames, RawFrames), "compressed frames have no such array"
        return self._frames.frame_LCP

    def heads(self) -> dict[int, int]:
        """Return the rows ever written in each lane of a source, by source."""
        return dict(self._head)

    def add(self, chunk: Chunk) -> int:
        """Write a chunk; return the number of transitions that became available.

        A chunk that does not continue its source's last one (a restarted collector, a lost
        chunk) begins a new stream: no observation extends across the gap. A chunk that was
        written already (a retried call) is ignored.
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

        # Remove the rows to be overwritten from the tree before their frames change.
        self._retire(lanes, head, num_rows)
        self._frames.write(
            lanes, head, chunk.frame_ETHW.reshape(layout.lanes_per_source, num_rows, self._pixels)
        )
        for ring, part in pieces(head, num_rows, layout.rows):
            self._action_LC[lanes, ring] = chunk.action_ET[:, part]
            self._age_LC[lanes, ring] = chunk.age_ET[:, part]
            if chunk.reward_ET is not None and chunk.end_ET is not None:
                self._reward_LC[lanes, ring] = chunk.reward_ET[:, part]
                self._end_LC[lanes, ring] = chunk.end_ET[:, part]
        if self._sequences:
            self._sequences.write(lanes, head, chunk)
        self._head[source] = head + num_rows
        self._head_L[lanes] = head + num_rows
        self._expected[source] = (chunk.incarnation, chunk.first_row + num_rows)
        added = self._complete(lanes, head, self._floor[source], chunk)
        self.inserted += added
        return added

    def _retire(self, lanes: slice, head: int, num_rows: int) -> None:
        """Remove from the tree the rows that will be overwritten, and the rows whose stacks include
        them.
        """
        rows = self.layout.rows
        first, last = max(0, head - rows), head + num_rows - rows + self.layout.lookback
        if last <= 0:
            return
        for ring, _ in pieces(first, last - first, self.layout.rows):
            self.size -= self._each * int(np.count_nonzero(self._valid_LC[lanes, ring]))
            self._valid_LC[lanes, ring] = False
            self._tree.set(self._leaves(lanes, ring), 0.0)

    def _complete(self, lanes: slice, head: int, floor: int, chunk: Chunk) -> int:
        """Write the transitions that a chunk completed and put them into the tree."""
        first = head - self.layout.n_step
        gone = min(
            chunk.num_rows, max(0, floor - first)
        )  # rows of the previous stream: their returns were never completed
        added = 0
        for ring, part in pieces(first + gone, chunk.num_rows - gone, self.layout.rows):
            new = slice(part.start + gone, part.stop + gone)
            self._return_LC[lanes, ring] = chunk.return_ET[:, new]
            self._discount_LC[lanes, ring] = chunk.discount_ET[:, new]
            self._horizon_LC[lanes, ring] = chunk.horizon_ET[:, new]
            row_T = np.arange(first + new.start, first + new.stop)
            reach_LT = np.minimum(self._age_LC[lanes, ring], self.layout.lookback)
            # A transition is valid if its whole observation belongs to the current stream.
            valid_LT = chunk.valid_ET[:, new] & (row_T - reach_LT >= floor)
            if self._sequences:
                self._sequences.delta_LC[lanes, ring] = chunk.delta_ET[:, new]
                self._horizon_LC[lanes, ring] *= valid_LT  # 0: not learned from
                continue
            self._valid_LC[lanes, ring] = valid_LT
            priority_LT = np.where(valid_LT, self._priority(chunk.delta_ET[:, new]), 0.0)
            self._tree.set(self._leaves(lanes, ring), priority_LT.ravel())
            added += int(np.count_nonzero(valid_LT))
        if self._sequences:
            added = self._complete_sequences(self._sequences, lanes, head, floor, chunk.num_rows)
        self.size += added
        return added

    def _complete_sequences(
        self, sequences: SequenceStore, lanes: slice, head: int, floor: int, num_rows: int
    ) -> int:
        """Put the sequences that a chunk completed into the tree; return their transitions."""
        start_N = sequences.completed(head, num_rows, floor)
        slot_N = start_N % self.layout.rows
        reach_LN = np.minimum(self._age_LC[lanes, slot_N], self.layout.lookback)
        valid_LN = start_N - reach_LN >= floor
        self._valid_LC[lanes, slot_N] = valid_LN
        delta_LN = sequences.first_priorities(lanes, start_N, self._horizon_LC)
        priority_LN = np.where(valid_LN, self._priority(delta_LN), 0.0)
        lane_L1 = np.arange(lanes.start, lanes.stop)[:, None]
        self._tree.set((lane_L1 * self.layout.rows + slot_N).ravel(), priority_LN.ravel())
        return self._each * int(np.count_nonzero(valid_LN))

    @property
    def _each(self) -> int:
        """Transitions for which one leaf of the tree counts."""
        return self.layout.sequence.period if self.layout.sequence else 1

    def _leaves(self, lanes: slice, ring: slice) -> np.ndarray:
        """Return the tree's indices of some slots of some lanes, lane by lane; int64."""
        lane_L1 = np.arange(lanes.start, lanes.stop)[:, None]
        return (lane_L1 * self.layout.rows + np.arange(ring.start, ring.stop)).ravel()

    def sample(self, count: int, out: Sample | None = None, *, shuffled: bool = False) -> Sample:
        """Sample `count` transitions with P(i) = p_i^α / Σ p_k^α over this shard.

        Returns new arrays, or `out` (`Sample.empty`) overwritten: reusing a batch saves the time
        of allocating memory. `shuffled`: in random order, so that any part is a representative
        batch; otherwise in the tree's order. Raises ValueError when the shard is empty.
        """
        layout = self.layout
        if out is None:
            shape = (layout.stack, layout.frame_shape, layout.past_actions, layout.later)
            out = Sample.empty(count, *shape, layout.sequence)
        self._frames.stacks(
            self._draw(count, out, shuffled),
            self._repeat,
            out.obs_BSHW.reshape(count, -1, self._pixels),
            out.next_obs_BSHW.reshape(count, -1, self._pixels),
        )
        return out

    def sample_places(self, count: int, *, shuffled: bool = False) -> PlacedSample:
        """Sample like `sample`, without the frames."""
        places = Places(np.empty(0, np.int64), *np.empty((3, 0), np.uint8))
        layout = self.layout
        draw = empty_draw(count, layout.past_actions, layout.later, layout.sequence)
        out = PlacedSample(**draw, **places._asdict())
        return replace(out, **self._draw(count, out, shuffled)._asdict())

    def sample_slices(
        self, count: int, *, packed: bool = True, shuffled: bool = False
    ) -> SlicedSample:
        """Sample like `sample`, for transport: each frame of a transition is there once, seven
        frames instead of eight for stack 4 and n = 3.

        `packed`: compress the frames.
        """
        layout = self.layout
        draw = Draw(**empty_draw(count, layout.past_actions, layout.later, layout.sequence))
        places = self._draw(count, draw, shuffled)
        reach_B = np.maximum(places.horizon_B, np.uint8(layout.later))
        after = max(layout.n_step, layout.later)
        slices = self._frames.slices(
            places._replace(horizon_B=reach_B), layout.stack - 1, after, packed
        )
        ages = {
            "age_B": places.age_B,
            "horizon_B": places.horizon_B,
            "next_age_B": places.next_age_B,
        }
        return SlicedSample(**vars(draw), **slices._asdict(), **ages)

    def _draw(self, count: int, out: Draw, shuffled: bool = False) -> Places:
        """Sample transitions and write all fields except frames into `out`."""
        if self._tree.total <= 0:
            raise ValueError("every priority is 0: nothing to sample")
        leaf_B = np.empty(count, np.int64)
        age_B, horizon_B, next_age_B = np.empty((3, count), np.uint8)
        kernels.draw(
            self._tree.flat_F8,
            self._tree.start,
            self._row_LC,
            self._head_L,
            self._rng.random(count),
            self._rng.random(count) if shuffled else _IN_ORDER,
            leaf_B,
            out.past_BK,
            out.next_past_BK,
            out.action_B,
            out.return_B,
            out.discount_B,
            out.key_B,
            out.probability_B,
            out.later_BJ,
            age_B,
            horizon_B,
            next_age_B,
        )
        if self._sequences:
            self._sequences.fill(self._row_LC, leaf_B, out)
        if self.layout.anneals_returns:
            kernels.returns(
                self._row_LC, self._reward_LC, self._end_LC, leaf_B, *self.returns,
                out.return_B, out.discount_B, horizon_B, next_age_B, out.next_past_BK,
            )  # fmt: skip
        return Places(leaf_B, age_B, horizon_B, next_age_B)

    def update(self, key_B: np.ndarray, delta_B: np.ndarray) -> None:
        """Set priorities from the learner's latest |δ|; keys of overwritten rows are counted and
        ignored.

        Raises ValueError for a δ that is not finite; nothing is changed.
        """
        # Copies, because Numba would compile the loop again for read-only arrays (Ray's are).
        key_B, delta_B = np.array(key_B, np.int64), np.array(delta_B, np.float64)
        alpha = self.config.alpha if self.config.prioritized else 0.0  # x⁰ = 1
        gone = kernels.update(
            self._tree.flat_F8, self._tree.start, self._row_LC, self._head_L, key_B, delta_B,
            self.config.priority_epsilon, alpha,
        )  # fmt: skip
        if gone < 0:
            raise ValueError("priorities must be finite and ≥ 0")
        self.dropped_updates += gone

    def _priority(self, delta_B: np.ndarray) -> np.ndarray | float:
        if not self.config.prioritized:
            return 1.0
        return targets.priority(
            np.abs(delta_B, dtype=np.float64), self.config.priority_epsilon, self.config.alpha
        )

    @property
    def _pixels(self) -> int:
        return self.layout.frame_shape[0] * self.layout.frame_shape[1]

    # -- checkpoints -------------------------------------------------------------------------------

    _ARRAYS = ("action_LC", "age_LC", "return_LC", "discount_LC", "horizon_LC", "valid_LC")

    @property
    def _saved_arrays(self) -> tuple[str, ...]:
        return self._ARRAYS + (("reward_LC", "end_LC") if self.layout.anneals_returns else ())

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the arrays into `folder`; return the rest as JSON values. Rows that were never
        written are not stored.
        """
        folder.mkdir(parents=True, exist_ok=True)
        used = min(self.layout.rows, max(self._head.values()))
        self._frames.save(folder / "frame_LCP.npy", used)
        for name in self._saved_arrays:
            np.save(folder / f"{name}.npy", getattr(self, f"_{name}")[:, :used])
        if self._sequences:
            self._sequences.save(folder, used)
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
            "counts": {
                "size": self.size,
                "inserted": self.inserted,
                "dropped_updates": self.dropped_updates,
            },
        }

    def load(self, folder: Path, state: dict[str, Any]) -> None:
        """Continue from what `save` wrote, bit for bit. If collectors then begin new streams, `add`
        recognises them.

        Raises CheckpointError when lanes, rows or frame shape differ, or a stored horizon exceeds
        n_step.
        """
        geometry = {
            "lanes": self.layout.lanes,
            "rows": self.layout.rows,
            "frame_shape": list(self.layout.frame_shape),
        }
        if state["layout"] != geometry:
            raise CheckpointError(
                f"{folder}: a replay of {state['layout']} does not fit this run's {geometry}; "
                "resume with the same "
                "--capacity, --shards, --collectors and --envs-per-collector"
            )
        used = state["used"]
        for name in self._saved_arrays:
            getattr(self, f"_{name}")[:, :used] = np.load(folder / f"{name}.npy")
        if self._sequences:
            self._sequences.load(folder)
        # A sample has at most n_step frames after its stack, so longer horizons do not fit.
        if (longest := int(self._horizon_LC.max())) > self.layout.n_step:
            raise CheckpointError(
                f"{folder}: its returns reach over {longest} steps; resume with --n-step {longest} "
                "or more, not "
                f"{self.layout.n_step}"
            )
        heads = {int(k): v for k, v in state["head"].items()}
        load_frames(self._frames, folder / "frame_LCP.npy", self.layout, heads)
        leaves_LC = np.zeros((self.layout.lanes, self.layout.rows))
        leaves_LC[:, :used] = np.load(folder / "tree.npy")
        self._tree.restore(leaves_LC.ravel())
        self._rng.bit_generator.state = state["rng"]
        self._head = heads
        self._head_L[:] = np.repeat(
            [self._head[source] for source in self.layout.sources], self.layout.lanes_per_source
        )
        self._floor = {int(k): v for k, v in state["floor"].items()}
        self._expected = {int(k): (v[0], v[1]) for k, v in state["expected"].items()}
        self.size, self.inserted = state["counts"]["size"], state["counts"]["inserted"]
        self.dropped_updates = state["counts"]["dropped_updates"]
