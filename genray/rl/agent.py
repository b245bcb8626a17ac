"""Runs the whole algorithm in one process, as the reference for the distributed form.

    collect a chunk  →  add it to a shard  →  while the samples-per-insert limit allows: sample,
    update, send priorities back

The distributed form uses the same collector, shard and learner classes. Here they are called one
after the other, so on a CPU the same seed and number of threads give the same curve. A resumed run
continues bit for bit if its environment can save its state.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.errors import ConfigError
from genray.machine import keep_freed_memory, resolve_device
from genray.rl.annealing import clock_at, returns_at
from genray.rl.building import build_network, update_flop
from genray.rl.checkpoint import load_learner, save_learner, shards_of
from genray.rl.collect import Collector, Episode
from genray.rl.config import DQNConfig
from genray.rl.device_frames import DeviceFrames, empty_batch
from genray.rl.engine import Progress, initial_network, network_card, probe_env
from genray.rl.env import make_env
from genray.rl.learner import Learner
from genray.rl.networks import QNetwork
from genray.rl.recurrent_learner import make_learner
from genray.rl.replay import ReplayShard
from genray.rl.transfer import AnySample, DeviceSample
from genray.runs.storage import Place, reading, writing
from genray.threads import choose_threads, saved_threads


class LocalAgent:
    """An `Engine` that collects and learns in one process.

    Args:
        config: the configuration of the run. Raises ConfigError for invalid options and for options
            that need Ray.
        threads: PyTorch threads of this process until `close`. 0: on a CPU chosen by the network's
            size and the free cores, until `load` sets the checkpoint's number; on a GPU not
            changed. None: not changed.
    """

    def __init__(self, config: DQNConfig, threads: int | None = None):
        config.validate()
        if not config.replay.samples_per_insert:
            raise ConfigError(
                "--samples-per-insert 0: a free-running learner needs Ray; with --local choose "
                "e.g. 8"
            )
        if config.learner.learners > 1:
            raise ConfigError(
                f"--learners {config.learner.learners}: one process has one; leave --local out, or "
                "use 1"
            )
        self.config = config
        keep_freed_memory()
        seed = config.run.seed
        interface = probe_env(config.env)
        self._card = network_card(config, *interface)
        self._set_threads(threads)
        self.learner: Learner = make_learner(
            config.learner,
            initial_network(self._card, seed),
            build_network(self._card),
            resolve_device(config.run.device),
            seed=seed,
            sequence=config.sequence_layout,
        )
        self.shards = [
            ReplayShard(config.replay, layout, seed=np.random.SeedSequence([seed, 1, index]))
            for index, layout in enumerate(
                config.plan_shards(interface.frame_shape, interface.observation)
            )
        ]
        self._copies: list[DeviceFrames] = []
        self._copy_frames()
        self.collectors = [
            Collector(
                make_env(config.env, config.collect.envs_per_collector),
                self.learner.acting,  # shares the learner's weights, so the weight lag is 0
                config.env,
                config.collect,
                config.explore,
                index=index,
                seed=seed,
                device=str(self.learner.device),
                state_period=config.sequences.period,
            )
            for index in range(config.collect.collectors)
        ]
        self.limiter = config.limiter(config.learner.batch_size)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, 2]))
        self._turn = 0
        self.steps = 0

    def _set_threads(self, threads: int | None) -> None:
        self._threads_before = None if threads is None else torch.get_num_threads()
        self._chooses_threads = threads == 0
        if threads == 0:
            rows = self.config.learner.batch_size * self.config.rows_per_sample
            flop = update_flop(self._card, rows)
            threads = (
                choose_threads(flop) if resolve_device(self.config.run.device) == "cpu" else None
            )
        if threads:
            torch.set_num_threads(threads)

    def advance(self, until_step: int, seconds: float) -> Progress:
        """Alternate between collecting a chunk and learning from it; see Engine."""
        progress = Progress()
        losses: list[tuple[float, float, float]] = []
        stop = time.monotonic() + seconds
        while self.steps < until_step and time.monotonic() < stop:
            progress.episodes += self.collect()
            losses += [(update.loss, update.q_mean, update.grad_norm) for update in self.learn()]
        if losses:
            progress.loss, progress.q_mean, progress.grad_norm = np.mean(losses, axis=0).tolist()
        progress.steps, progress.updates = self.steps, self.learner.updates
        progress.replay_size = sum(shard.size for shard in self.shards)
        progress.samples_per_insert = self.limiter.actual
        progress.epsilon = float(
            np.mean([collector.epsilon_E.mean() for collector in self.collectors])
        )
        return progress

    def collect(self) -> list[Episode]:
        """Collect one chunk with the next collector in turn; return the episodes that ended."""
        collector = self.collectors[self._turn]
        self._turn = (self._turn + 1) % len(self.collectors)
        collector.run_step = self.steps
        chunk, episodes = collector.collect()
        shard = self.shards[chunk.source % len(self.shards)]
        self.limiter.inserted += shard.add(chunk)
        self.steps += chunk.num_rows * self.config.collect.envs_per_collector
        return episodes

    def learn(self) -> Iterator[Any]:
        """Make as many updates as the samples-per-insert limit allows now; yield each update."""
        batch_size = self.config.learner.batch_size
        while self.limiter.samples_allowed() >= batch_size * self.config.transitions_per_sample:
            yield self.update(batch_size)

    def update(self, batch_size: int) -> Any:
        """Sample a batch from all shards, make one update, and send new priorities back."""
        # Split the batch over the shards by their total priorities, and fill it shard by shard.
        counts, shares = split_by_mass(
            batch_size, [shard.total for shard in self.shards], self._rng
        )
        batch = empty_batch(
            batch_size, self.shards[0].layout, self.learner.device, self.config.learner.frames_on
        )
        ends = np.cumsum(counts).tolist()
        parts = [
            (index, slice(end - count, end))
            for index, (count, end) in enumerate(zip(counts, ends))
            if count
        ]
        returns = returns_at(
            self.config.collect, clock_at(self.config.learner, self.learner.updates)
        )
        for index, part in parts:
            rows = batch.rows(part)
            self.shards[index].returns = returns
            self._draw(index, counts[index], rows)
            rows.probability_B[:] *= shares[index]
        self.limiter.sampled += batch_size * self.config.transitions_per_sample
        # Learn, then send each shard the priorities of its part.
        beta = self.config.replay.beta_at(self.learner.updates)
        update = self.learner.update(batch, sum(shard.size for shard in self.shards), beta)
        for index, part in parts:
            self.shards[index].update(batch.key_B[part], update.delta_B[part])
        return update

    def _draw(self, index: int, count: int, out: AnySample) -> None:
        shard = self.shards[index]
        if isinstance(out, DeviceSample):
            self._copies[index].gather(shard.sample_places(count), out)
        else:
            shard.sample(count, out)

    def _copy_frames(self) -> None:
        """Make a copy of each shard's frames on the learner's device if `frames_on` is "device".

        A copy is empty at first; it is filled when batches are assembled.
        """
        if self.config.learner.frames_on == "device":
            self._copies = []  # frees the old copies: both might not fit
            self._copies = [
                DeviceFrames(shard.layout, shard.frame_LCP, self.learner.device)
                for shard in self.shards
            ]

    def network(self) -> QNetwork:
        """Return a copy of the policy on the CPU."""
        network = build_network(self._card)
        network.load_state_dict(self.learner.policy())
        return network.eval()

    def settle(self) -> int:
        return self.steps  # no chunk is in flight between calls

    def save(self, place: Place) -> None:
        """Write a checkpoint into `place`, with the environments' state if they can save it."""
        with writing(place) as folder:
            self._save(folder)

    def _save(self, folder: Path) -> None:
        save_learner(self.learner, folder)
        state: dict[str, Any] = {
            "steps": self.steps,
            "threads": torch.get_num_threads(),
            "turn": self._turn,
            "rng": self._rng.bit_generator.state,
            "limiter": self.limiter.state(),
            "collectors": [],
            "shards": [],
        }
        for index, collector in enumerate(self.collectors):
            values, arrays = collector.state()
            np.savez(folder / f"collector-{index}.npz", **arrays)  # type: ignore[arg-type]
            state["collectors"].append(values)
        if self.config.run.checkpoint_replay:
            state["shards"] = [
                shard.save(folder / f"replay-{index}") for index, shard in enumerate(self.shards)
            ]
        (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def load(self, place: Place) -> bool:
        """Continue from a checkpoint in `place`; return whether all collectors continue their
        episodes.

        Raises CheckpointError when the checkpoint does not fit the network or the shards.
        """
        with reading(place) as folder:
            return self._load(folder)

    def _load(self, folder: Path) -> bool:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        load_learner(self.learner, folder)
        # Older checkpoints and checkpoints of a Ray run do not contain "threads".
        if self._chooses_threads and state.get("threads"):
            # With the same number of threads, sums have the same order and the same rounding.
            torch.set_num_threads(saved_threads(state["threads"]))
        self.steps, self._turn = state["steps"], state.get("turn", 0)
        self._rng.bit_generator.state = state["rng"]
        if state["shards"]:
            for index, shard_state in shards_of(state, len(self.shards), folder):
                self.shards[index].load(folder / f"replay-{index}", shard_state)
            self._copy_frames()
            self.limiter.restore(state["limiter"])
        go_on = []
        # Restore the collectors; episodes continue only if every collector's state is complete.
        for index, (collector, values) in enumerate(zip(self.collectors, state["collectors"])):
            path = folder / f"collector-{index}.npz"
            arrays: dict[str, np.ndarray] = {}
            if path.exists():  # not in a checkpoint of a Ray run: new episodes begin
                with np.load(path) as stored:
                    arrays = dict(stored)
            go_on.append(collector.restore(values, arrays))
        return len(go_on) == len(self.collectors) and all(go_on)

    def close(self) -> None:
        if self._threads_before is not None:
            torch.set_num_threads(self._threads_before)
        for collector in self.collectors:
            collector.env.close()


def split_by_mass(
    count: int, masses: list[float], rng: np.random.Generator
) -> tuple[list[int], list[float]]:
    """Split `count` samples over the shards, by a multinomial draw over their total priorities.

    Returns (number of samples from each shard, probability of each shard). The probability P(i)
    over all shards is exactly (probability of the shard) · P(i | shard), even if a total priority
    is out of date.
    """
    share = np.array(masses, np.float64)
    share /= share.sum()
    return rng.multinomial(count, share).tolist(), share.tolist()
