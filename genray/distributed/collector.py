"""Runs a collector as a Ray actor, which plays chunks, sends them to a replay shard and fetches new
weights.
"""

import contextlib
import secrets
import signal
import time
from dataclasses import dataclass

import ray
import torch
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S
from genray.distributed.ledger import Ledger
from genray.distributed.messages import CollectReport, Published, Receipt
from genray.machine import keep_freed_memory
from genray.rl.chunk import Chunk
from genray.rl.collect import Collector, Episode
from genray.rl.config import DQNConfig
from genray.rl.engine import initial_network
from genray.rl.env import make_env

# Seconds between two checks whether a collector that waits for a shard's answer has to stop.
WAIT_S = 0.5


@dataclass
class _Shipped:
    chunk: Chunk
    epoch: int
    answer: ray.ObjectRef


class CollectorActor:
    """Plays chunks with `rl.collect.Collector` and sends them to one replay shard.

    One chunk is in flight while the next chunk is played. A shard that may not accept more
    transitions delays its answer, so the collector, which waits for this answer, plays no faster
    than the limit on samples per insert allows.

    If the shard dies, the chunk in flight is sent again, up to MAX_FAILURES times. The shard
    recognises a repeated chunk by (collector, incarnation, row), so no chunk is stored twice.

    After SIGTERM, which announces the end of a spot machine or of a drained node, the collector
    finishes its chunk, sends it, and stops.

    Args:
        config: the configuration of the run.
        card: the arguments of the network (`rl.engine.network_card`).
        index: the collector's number, which selects the ε of its lanes and its random numbers.
        shard_name: Ray's name of the replay shard.
        ledger: a directory that records every chunk, for tests; None: no record.
    """

    def __init__(
        self, config: DQNConfig, card: dict, index: int, shard_name: str, ledger: str | None = None
    ):
        torch.set_num_threads(1)
        keep_freed_memory()
        self._index = index
        self._leaving = False
        # Outside the main thread no handler can be set, so SIGTERM then ends the process.
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, self._note_notice)
            # The processes of a private Ray session block SIGTERM (session.py).
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        env = make_env(config.env, config.collect.envs_per_collector, num_threads=1)
        network = initial_network(card, config.run.seed)
        seed = config.run.seed
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # With the same seed, a restarted collector would play the same episodes again.
            seed = secrets.randbits(31)
        self._collector = Collector(
            env, network, config.env, config.collect, config.explore, index=index, seed=seed,
            state_period=config.sequences.period,
        )  # fmt: skip
        self._ledger = Ledger(ledger, f"collector-{index}")
        self._shard = ray.get_actor(shard_name)
        self._shipped: _Shipped | None = None
        self._shard_is_away = False
        """True after a chunk was lost because the shard did not answer. Until the shard answers
        again, no chunk is played, because it would be lost as well.
        """
        self._lost = 0
        self._weight_epoch = 0
        # If the shard is down, this call fails, but its next answer contains the weights.
        with contextlib.suppress(RayError):
            self._pull(ray.get(self._shard.enter.remote(index, self._collector.incarnation)))

    def _note_notice(self, number: int, frame: object) -> None:
        self._leaving = True

    def collect(self, run_step: int, epoch: int = 0) -> CollectReport:
        """Play one chunk and send it; return a report.

        `run_step` is the run's count of agent steps, for the annealing of ε. `epoch` is the epoch
        that the coordinator gave this incarnation; shards refuse chunks of an older epoch. If the
        collector has to stop, or the shard does not answer, no chunk is played.
        """
        if self._leaving or not self._shard_answers():
            return self.finish_chunk()
        collector = self._collector
        collector.run_step = run_step
        chunk, episodes = collector.collect()
        # The previous chunk was in flight meanwhile; wait for its answer before sending this one.
        self._settle()
        self._ledger.chunk("made", chunk, epoch)
        self._shipped = _Shipped(chunk, epoch, self._shard.add.remote(chunk, epoch))
        if self._leaving:
            self._settle()
        return self._report(
            chunk.num_rows * collector.env.num_lanes, chunk.num_transitions, episodes
        )

    def finish_chunk(self) -> CollectReport:
        """Wait for the shard's answer to the chunk in flight; return a report without new steps."""
        self._settle()
        return self._report(0, 0, [])

    def leave(self) -> CollectReport:
        """Finish the chunk in flight and stop, as after SIGTERM."""
        self._leaving = True
        return self.finish_chunk()

    def _report(self, steps: int, transitions: int, episodes: list[Episode]) -> CollectReport:
        lost, self._lost = self._lost, 0
        return CollectReport(
            steps=steps,
            transitions=transitions,
            episodes=episodes,
            epsilon=float(self._collector.epsilon_E.mean()),
            lost_transitions=lost,
            node=ray.get_runtime_context().get_node_id(),
            leaving=self._leaving and self._shipped is None,
        )

    def _settle(self) -> None:
        """Wait for the shard's answer to the chunk in flight; send the chunk again if the shard
        died.

        A chunk counts as lost if the shard refuses it, or does not answer any of MAX_FAILURES
        attempts. From the next chunk's row number, the shard sees that rows are missing.
        """
        if self._shipped is None:
            return
        shipped, self._shipped = self._shipped, None
        for _ in range(MAX_FAILURES):
            try:
                receipt = self._answer(shipped.answer)
            except RayTaskError:
                raise  # an error in the shard's code: a second attempt would raise it again
            except RayError:
                time.sleep(RETRY_S)
                shipped.answer = self._shard.add.remote(shipped.chunk, shipped.epoch)
                continue
            self._ledger.chunk(
                "acknowledged" if receipt.accepted else "refused", shipped.chunk, shipped.epoch
            )
            if not receipt.accepted:
                self._lost += shipped.chunk.num_transitions
            self._pull(receipt.published)
            return
        # No answer after all attempts.
        self._ledger.chunk("lost", shipped.chunk, shipped.epoch)
        self._lost += shipped.chunk.num_transitions
        self._shard_is_away = True

    def _shard_answers(self) -> bool:
        if self._shard_is_away:
            try:
                ray.get(self._shard.counts.remote())
                self._shard_is_away = False
            except RayTaskError:
                raise
            except RayError:
                time.sleep(RETRY_S)
        return not self._shard_is_away

    def _answer(self, reference: ray.ObjectRef) -> Receipt:
        while True:
            if self._leaving:
                self._shard.accept_leaving.remote(self._collector.incarnation)
            if ray.wait([reference], timeout=WAIT_S)[0]:
                return ray.get(reference)

    def _pull(self, published: Published | None) -> None:
        if published is None:
            return
        if (published.epoch, published.version) <= (
            self._weight_epoch,
            self._collector.weight_version,
        ):
            return
        # This fails if the learner that owned the weights is dead; the next one publishes new ones.
        with contextlib.suppress(RayError):
            self._collector.set_weights(ray.get(published.reference[0]), published.version)
            self._weight_epoch = published.epoch

    def state(self) -> dict:
        """Return the JSON values of `Collector.state` for a checkpoint; `restore` uses only the
        random state and the step count.
        """
        return self._collector.state()[0]

    def restore(self, values: dict) -> None:
        """Continue from `state`, in new episodes."""
        self._collector.restore(values, {})
