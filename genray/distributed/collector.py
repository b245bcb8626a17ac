"""A collector as a Ray actor: play a chunk, ship it, pull newer weights when the answer names
some.
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

WAIT_S = 0.5  # how soon a collector that waits for room notices that it has to leave


@dataclass
class _Shipped:
    chunk: Chunk
    epoch: int
    answer: ray.ObjectRef


class CollectorActor:
    """`rl.collect.Collector` that ships its chunks to one shard. One chunk is in flight while
    the next is played.

    Back-pressure: a shard that may not accept more answers late, and the collector waits for
    that answer. A chunk whose answer does not come (the shard is dead, or out of reach) is
    shipped again until one does: the shard knows a chunk that it has by (collector, life, row),
    so none is stored twice.

    SIGTERM (a spot machine's notice, a node that is drained) lets the collector finish its
    chunk, ship it, and stop.
    """

    def __init__(
        self, config: DQNConfig, card: dict, index: int, shard_name: str, ledger: str | None = None
    ):
        torch.set_num_threads(1)
        keep_freed_memory()
        self._index = index
        self._leaving = False
        # not in the main thread: then SIGTERM ends the process, as it always did
        with contextlib.suppress(ValueError):
            signal.signal(signal.SIGTERM, self._note_notice)
            # A private Ray's processes block it (session.py).
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        env = make_env(config.env, config.collect.envs_per_collector, num_threads=1)
        network = initial_network(card, config.run.seed)
        seed = config.run.seed
        if ray.get_runtime_context().was_current_actor_reconstructed:
            # a restarted collector must not replay its first life's episodes
            seed = secrets.randbits(31)
        self._collector = Collector(
            env, network, config.env, config.collect, config.explore, index=index, seed=seed
        )
        self._ledger = Ledger(ledger, f"collector-{index}")
        self._shard = ray.get_actor(shard_name)
        self._shipped: _Shipped | None = None
        self._shard_is_away = False
        """It outlasted a chunk: nothing is played, and lost, until it answers again."""
        self._lost = 0
        self._weight_epoch = 0
        # the shard is down as well; its next answer will name the weights
        with contextlib.suppress(RayError):
            self._pull(ray.get(self._shard.enter.remote(index, self._collector.incarnation)))

    def _note_notice(self, number: int, frame: object) -> None:
        self._leaving = True

    def collect(self, run_step: int, epoch: int = 0) -> CollectReport:
        """Play one chunk and ship it; `run_step` is the run's count of agent steps, for ε's
        annealing.

        `epoch` is this life's, by the coordinator's count: shards refuse a chunk of an older one.
        """
        if self._leaving or not self._shard_answers():
            return self.rest()
        collector = self._collector
        collector.run_step = run_step
        chunk, episodes = collector.collect()
        self._settle()
        self._ledger.chunk("made", chunk, epoch)
        self._shipped = _Shipped(chunk, epoch, self._shard.add.remote(chunk, epoch))
        if self._leaving:
            self._settle()
        return self._report(
            chunk.num_rows * collector.env.num_lanes, chunk.num_transitions, episodes
        )

    def rest(self) -> CollectReport:
        """Wait until the chunk in flight is accepted, and report of no new steps."""
        self._settle()
        return self._report(0, 0, [])

    def leave(self) -> CollectReport:
        """As after SIGTERM."""
        self._leaving = True
        return self.rest()

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
        """Wait until the shard has answered for the chunk in flight; ship it again while no
        answer comes.

        One that is refused, or that the shard's absence outlasts, is counted as lost; the next
        chunk tells the shard about the gap.
        """
        if self._shipped is None:
            return
        shipped, self._shipped = self._shipped, None
        for _ in range(MAX_FAILURES):
            try:
                receipt = self._answer(shipped.answer)
            except RayTaskError:
                raise  # a fault of the shard's code, which a second attempt would only repeat
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
                self._shard.hurry.remote(self._collector.incarnation)
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
        # the learner that owned them is gone; its successor's version will come
        with contextlib.suppress(RayError):
            self._collector.set_weights(ray.get(published.reference[0]), published.version)
            self._weight_epoch = published.epoch

    def state(self) -> dict:
        return self._collector.state()[0]

    def restore(self, values: dict) -> None:
        self._collector.restore(values, {})
