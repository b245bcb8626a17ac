"""genray's ReplayShard, and in turns with it the limits: the same bytes moved by one memcpy or
one gather, nothing else.

The limit of a batch is the faster of NumPy's and PyTorch's gather by indices drawn beforehand
into memory used again and again: no tree, no priorities, no metadata. Beside it stands memcpy of
as many bytes in one piece, which nothing that picks frames from random places can be held to,
though streaming stores may overtake it.
"""

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import torch

from genray.machine import keep_freed_memory
from genray.rl.chunk import Chunk, Sample
from genray.rl.nstep import n_step
from genray.rl.replay import ReplayConfig, ReplayShard, ShardLayout
from genray.rl.sum_tree import SumTree
from tests.bench.rivals.replays import work

LANES, N_STEP = 4, 3
ROWS = work.CAPACITY // LANES
CHUNK_ROWS = work.CHUNK // LANES


class Replay:
    def __init__(self, store: Literal["raw", "lz4"] = "raw", n: int = N_STEP) -> None:
        keep_freed_memory()
        self.layout = ShardLayout(
            sources=(0,),
            lanes_per_source=LANES,
            rows=ROWS,
            frame_shape=(84, 84),
            stack=work.STACK,
            stack_start="blank",
            past_actions=0,
            n_step=n,
        )
        config = ReplayConfig(
            capacity=work.CAPACITY,
            alpha=work.ALPHA,
            priority_epsilon=work.EPSILON,
            replay_store=store,
        )
        self.shard = ReplayShard(config, self.layout, seed=0)
        self._rng = np.random.default_rng(0)
        self._chunks: dict[int, Chunk] = {}
        self._row = 0
        self._buffers: dict[tuple[str, int], Sample] = {}

    def add(self, steps: work.Steps) -> None:
        chunk = self._chunks.setdefault(id(steps), _chunk(steps, self._rng, self.layout.n_step))
        self.shard.add(Chunk(**{**vars(chunk), "first_row": self._row}))
        self._row += CHUNK_ROWS

    def draw(self, batch_size: int) -> None:
        out = self._buffers.get(("stacks", batch_size))
        out = self._buffers["stacks", batch_size] = self.shard.sample(batch_size, out)
        self.shard.update(out.key_B, self._rng.random(batch_size))

    def draw_fresh(self, batch_size: int) -> None:
        """As `draw`, into memory of its own each time: what the learner in one process does."""
        sample = self.shard.sample(batch_size)
        self.shard.update(sample.key_B, self._rng.random(batch_size))

    def nbytes(self) -> int:
        return self.shard.nbytes


class Tree:
    def __init__(self, leaves: int):
        self._rng = np.random.default_rng(0)
        self._tree = SumTree(leaves)
        self._tree.set(np.arange(leaves), self._rng.random(leaves))

    def pair(self, batch_size: int) -> None:
        index_B = self._tree.sample(batch_size, self._rng)
        self._tree.set(index_B, self._rng.random(batch_size))


def _chunk(steps: work.Steps, rng: np.random.Generator, n: int) -> Chunk:
    """500 steps as those of 4 lanes, each an unbroken stretch of the game."""

    def lanes(array: np.ndarray) -> np.ndarray:
        return array.reshape(LANES, CHUNK_ROWS, *array.shape[1:])

    ends_ET = lanes(steps.done_T)
    last_end_ET = np.maximum.accumulate(np.where(ends_ET, np.arange(CHUNK_ROWS), -1), axis=1)
    before_ET = np.concatenate([np.full((LANES, 1), -1), last_end_ET[:, :-1]], axis=1)
    age_ET = np.minimum(np.where(before_ET < 0, 100, np.arange(CHUNK_ROWS) - before_ET - 1), 255)
    tail = np.zeros((LANES, n), bool)
    reward_ET = np.concatenate([lanes(steps.reward_T), tail], axis=1)
    ends_ET = np.concatenate([ends_ET, tail], axis=1)
    returns = n_step(reward_ET, np.where(ends_ET, 0.0, 0.99), ends_ET, n, CHUNK_ROWS)
    return Chunk(
        source=0,
        incarnation=1,
        first_row=0,
        weight_version=0,
        frame_ETHW=lanes(steps.frame_THW),
        action_ET=lanes(steps.action_T).astype(np.uint8),
        age_ET=age_ET.astype(np.uint8),
        return_ET=returns.return_ET,
        discount_ET=returns.discount_ET,
        horizon_ET=returns.horizon_ET,
        delta_ET=rng.exponential(size=(LANES, CHUNK_ROWS)).astype(np.float32),
        valid_ET=np.ones((LANES, CHUNK_ROWS), bool),
    )


def _gathers(
    ring_NP: np.ndarray, batch_size: int, offsets: list[int], rng: np.random.Generator
) -> dict[str, Callable[[], None]]:
    """Ways to bring the frames at `offsets` from random places of the ring into one piece of
    memory.
    """
    frames = batch_size * len(offsets)
    out_NP = np.zeros((frames, ring_NP.shape[1]), np.uint8)
    # 64 draws, one after the other
    first_XB = rng.integers(len(ring_NP) - max(offsets), size=(64, batch_size))
    index_XN = (first_XB[:, :, None] + np.array(offsets)).reshape(64, frames)
    ring, out, index = (
        torch.from_numpy(ring_NP),
        torch.from_numpy(out_NP),
        torch.from_numpy(index_XN),
    )
    turn = iter(range(10**9))

    def by_numpy() -> None:
        np.take(ring_NP, index_XN[next(turn) % 64], axis=0, out=out_NP, mode="clip")

    def by_torch() -> None:
        torch.index_select(ring, 0, index[next(turn) % 64], out=out)

    def in_one_piece() -> None:
        first = index_XN[next(turn) % 64, 0] % (len(ring_NP) - frames)
        np.copyto(out_NP, ring_NP[first : first + frames])

    return {"np.take": by_numpy, "index_select": by_torch, "memcpy": in_one_piece}


def measure(seconds: float, turns: int, run: Path | None = None) -> dict[str, object]:
    """Rates of genray and of the limits, in turns, and each as a part of its limit: the median
    over the turns.

    `run`: whose policy plays the frames.
    """
    replay, packed, chunks = Replay(), Replay("lz4"), work.played_steps(run=run)
    for index in range(work.CAPACITY // work.CHUNK + 2):
        replay.add(chunks[index % work.CHUNKS])
        packed.add(chunks[index % work.CHUNKS])
    rng = np.random.default_rng(1)
    ring_NP = replay.shard._frames.frame_LCP.reshape(-1, work.PIXELS)
    turn = iter(range(10**9))
    frames_CHW = [steps.frame_THW.reshape(work.CHUNK, -1) for steps in chunks]
    spare_NP = np.zeros_like(ring_NP)

    def copy_chunk() -> None:
        at = next(turn)
        first = at * work.CHUNK % (len(spare_NP) - work.CHUNK)
        np.copyto(spare_NP[first : first + work.CHUNK], frames_CHW[at % work.CHUNKS])

    ours: dict[str, tuple[Callable[[], object], int]] = {
        "sample_512": (lambda: replay.draw(512), 1),
        "sample_32": (lambda: replay.draw(32), 1),
        "adds": (lambda: replay.add(chunks[next(turn) % work.CHUNKS]), work.CHUNK),
        "sample_512_fresh": (lambda: replay.draw_fresh(512), 1),
        "sample_32_fresh": (lambda: replay.draw_fresh(32), 1),
        "lz4_sample_512": (lambda: packed.draw(512), 1),
        "lz4_sample_32": (lambda: packed.draw(32), 1),
        "lz4_adds": (lambda: packed.add(chunks[next(turn) % work.CHUNKS]), work.CHUNK),
    }
    both = [
        *range(work.STACK),
        *range(N_STEP, N_STEP + work.STACK),
    ]  # the second stack is half in the cache, as in ours
    limits = {
        "sample_512": _gathers(ring_NP, 512, both, rng),
        "sample_32": _gathers(ring_NP, 32, both, rng),
        "adds": {"memcpy": copy_chunk},
    }
    works = dict(ours)
    for name, ways in limits.items():
        works |= {f"limit {name} {way}": (work_, ours[name][1]) for way, work_ in ways.items()}
    rates = work.in_turns(works, seconds, turns)
    result: dict[str, object] = {name: median(rates[name]) for name in ours}
    for name, ways in limits.items():
        gathers = [way for way in ways if way != "memcpy"] or ["memcpy"]
        best_T = np.max([rates[f"limit {name} {way}"] for way in gathers], axis=0)
        result[f"{name}_limit"] = float(np.median(best_T))
        result[f"{name}_of_limit"] = float(np.median(np.array(rates[name]) / best_T))
        result[f"{name}_memcpy"] = median(rates[f"limit {name} memcpy"])
        result[f"{name}_of_memcpy"] = float(
            np.median(np.array(rates[name]) / rates[f"limit {name} memcpy"])
        )
    of_raw = [
        float(np.median(np.array(rates[f"lz4_{name}"]) / rates[name]))
        for name in ("sample_512", "sample_32")
    ]
    return result | {
        "bytes": replay.nbytes() / work.CAPACITY,
        "bytes_compressed": packed.nbytes() / work.CAPACITY,
        "compressed_rate_of_raw": min(of_raw),
    }
