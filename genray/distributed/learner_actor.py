"""Runs a learner as a Ray actor, which fetches batches, makes updates, and publishes weights."""

import io
import socket
import time
from collections import deque
from collections.abc import Collection
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from genray.distributed.calls import MAX_FAILURES, RETRY_S
from genray.distributed.data_parallel import Group, Share, rendezvous_address
from genray.distributed.feed import Batch, Feed, batches_per_round
from genray.distributed.messages import LearnReport, Published, Snapshot
from genray.errors import ResourceError, RunFault
from genray.machine import keep_freed_memory, resolve_device
from genray.rl.annealing import clock_at, returns_at
from genray.rl.building import build_network
from genray.rl.checkpoint import load_learner, save_learner
from genray.rl.config import DQNConfig
from genray.rl.engine import initial_network
from genray.rl.learner import Learner
from genray.rl.limiter import SamplesPerInsert
from genray.rl.recurrent_learner import make_learner
from genray.rl.transfer import AnySample
from genray.runs.storage import as_place, reading, writing

# Versions of the weights kept in the object store, because collectors may still fetch an older one.
WEIGHTS_KEPT = 4


class LearnerActor:
    """Trains `rl.learner.Learner` on batches of a `Feed`, for a fraction of a second in each call
    of `learn`.

    Of K learners, the one of rank 0 is the leader. The leader has the limiter of samples per
    insert, sends the insert limit and the weights to the shards, and makes snapshots and
    checkpoints for all learners. Each of the other learners draws as many samples as the leader.

    Args:
        config: the configuration of the run.
        card: the arguments of the network (`rl.engine.network_card`).
        shards: handles of the replay shards.
        threads: PyTorch threads of this process.
        epoch: the epoch of this incarnation of the learners.
        rank: the learner's number, 0 … K − 1.
    """

    def __init__(
        self,
        config: DQNConfig,
        card: dict[str, Any],
        shards: list[ray.actor.ActorHandle],
        threads: int,
        epoch: int = 0,
        rank: int = 0,
    ):
        torch.set_num_threads(threads)
        keep_freed_memory()
        self._config, self._epoch, self._rank = config, epoch, rank
        network = initial_network(card, config.run.seed)
        device = resolve_device(config.run.device)
        self._learner: Learner = make_learner(
            config.learner,
            network,
            build_network(card),
            device,
            threads=threads,
            seed=config.run.seed,
            rank=rank,
            sequence=config.sequence_layout,
        )
        # NumPy ignores trailing zeros of the entropy, so the first incarnation of a single learner
        # has the same random numbers as LocalAgent, whose entropy is [seed, 2].
        self._rng = np.random.default_rng(np.random.SeedSequence([config.run.seed, 2, rank, epoch]))
        batch_size, learners = config.learner.batch_size, config.learner.learners
        limiter = config.limiter(learners * batch_size * batches_per_round(batch_size))
        self._feed = Feed(
            shards,
            limiter if rank == 0 else Follower(limiter),
            batch_size,
            self._rng,
            epoch=epoch,
            learners=learners,
            leads=rank == 0,
            device=device,
            frames_on=config.learner.frames_on,
            returns_at=self._returns_at if config.collect.anneals_returns else None,
            sample_transitions=config.transitions_per_sample,
        )
        # A GPU computes while this process fetches the next round. On a CPU, fetching would only
        # delay the update.
        self._fetches_ahead = device != "cpu"
        self._group: Group | None = None
        self._ready: deque[Batch] = deque()
        self._versions: list[Published] = []

    # -- start -------------------------------------------------------------------------------------

    def rendezvous_address(self) -> str:
        """Return an address on the leader's host, at which the other learners join the leader."""
        return rendezvous_address(ray.util.get_node_ip_address())

    def begin(self, snapshot: Snapshot | None, place: str | None) -> None:
        """Prepare for learning: join the group at the address `place`, unless it is None, and load
        `snapshot`, unless it is None.

        Raises ResourceError when Ray reserved a GPU that PyTorch cannot use, because the learner
        would use the CPU without a message. Raises PeerLost when another learner is lost.
        """
        if self._learner.device.type == "cpu" and ray.get_gpu_ids():
            raise ResourceError(
                f"--device auto: Ray gave the learner a GPU on {socket.gethostname()} that PyTorch "
                "cannot use; see `genray "
                "doctor` there, or use --device cpu"
            )
        # Join the other learners, then continue from the last snapshot.
        if place:
            learners, device = self._config.learner.learners, str(self._learner.device)
            self._group = Group(self._rank, learners, place, device, self._learner.trained)
            self._learner.share_statistics = self._group.take_from_leader
            self._learner.share_gradients = self._group.average_gradients
        if snapshot:
            state = torch.load(io.BytesIO(snapshot.learner), map_location="cpu", weights_only=True)
            self._learner.load_state_dict(state)
            self._feed.limiter.restore(snapshot.limiter)
            self._feed.restore(snapshot.shards)
            self._feed.lost_transitions = snapshot.lost_transitions
            self._feed.updates = self._learner.updates
            if self._rank == 0:
                self._rng.bit_generator.state = snapshot.rng
        # Send the weights and the insert limit to the shards, and get the shards' counts.
        self._publish()
        try:
            self._feed.refresh()
        except RayTaskError:
            raise
        except RayError:
            pass  # a shard that is down gets them with a later request

    def snapshot(self) -> Snapshot:
        """Return the state from which new learners continue after a death."""
        buffer = io.BytesIO()
        torch.save(self._learner.state_dict(), buffer)
        return Snapshot(
            updates=self._learner.updates,
            learner=buffer.getvalue(),
            rng=dict(self._rng.bit_generator.state),
            limiter=self._limiter_state(),
            shards=self._feed.state(),
            lost_transitions=self._feed.lost_transitions,
        )

    # -- work --------------------------------------------------------------------------------------

    def learn(self, seconds: float) -> LearnReport:
        """Make updates for about `seconds`, as many as the limit on samples per insert allows;
        return a report.
        """
        stop = time.monotonic() + seconds
        # Each update also gets the next batch, so that the learner can send it to the device early.
        done: list[tuple[float, float, float]] = []
        while (batches := self._next_batches(stop)) is not None:
            for batch, following, share in zip(
                batches, [*batches[1:], None], self._shares(batches)
            ):
                done.append(self._update(batch, following.sample if following else None, share))
        # Report the means over the updates of this call.
        means = np.mean(done, axis=0) if done else np.full(3, np.nan)
        events = self._feed.take_events()
        limiter = self._feed.limiter
        return LearnReport(
            updates=self._learner.updates,
            done=len(done),
            idle=self._feed.idle and not self._ready,
            loss=float(means[0]),
            q_mean=float(means[1]),
            grad_norm=float(means[2]),
            size=self._feed.size,
            inserted=limiter.inserted,
            samples_per_insert=limiter.actual,
            weight_lag=self._feed.weight_lag,
            lost_transitions=self._feed.lost_transitions,
            events=events,
            rank=self._rank,
        )

    def _next_batches(self, stop: float) -> list[Batch] | None:
        """Return the next batches, possibly none; None: this call of `learn` must end."""
        if self._group is None and time.monotonic() >= stop:
            return None
        if not self._ready:
            self._ready.extend(self._feed.next_round() or [])
        if self._group is None:
            return [self._ready.popleft() for _ in range(len(self._ready))]
        # All learners of a group take the same number of batches, and end when the leader's time is
        # over.
        limiter = self._feed.limiter
        count, sampled, more = self._group.agree(
            len(self._ready), limiter.sampled, time.monotonic() < stop
        )
        if isinstance(limiter, Follower):
            limiter.granted = sampled
        return [self._ready.popleft() for _ in range(count)] if more else None

    def _shares(self, batches: list[Batch]) -> list[Share | None]:
        if self._group is None or not batches:
            return [None] * len(batches)
        samples = [batch.sample for batch in batches]
        return list(self._group.shares(samples, self._config.learner.importance_weighting))

    def _update(
        self, batch: Batch, following: AnySample | None, share: Share | None
    ) -> tuple[float, float, float]:
        """Make one update; return (loss, mean Q-value, gradient norm)."""
        beta = self._config.replay.beta_at(self._learner.updates)
        part = self._group.begin_update(share, beta) if self._group and share else 1.0
        if self._group and self._learner.updates == 0:
            self._group.take_from_leader(self._learner.find_median(batch.sample))
        self._learner.begin(batch.sample, max(self._feed.size, 1), beta, following)
        # While the device computes this update, fetch the next round if no batch is left.
        if following is None and self._fetches_ahead:
            self._fetch()
        update = self._learner.finish()
        self._feed.send_back(batch, update.delta_B)
        self._feed.updates = self._learner.updates
        if self._learner.updates % self._config.run.publish_every == 0:
            self._publish()
        return part * update.loss, update.q_mean, update.grad_norm

    def _returns_at(self, updates: int) -> tuple[int, float]:
        return returns_at(self._config.collect, clock_at(self._config.learner, updates))

    def _fetch(self) -> None:
        """Receive the next round if it has been requested, and send its first batch to the device.

        This never waits for collectors to insert transitions.
        """
        if not self._ready and self._feed.in_flight_samples():
            self._ready.extend(self._feed.next_round() or [])
        if self._ready:
            self._learner.expect(self._ready[0].sample)

    def _publish(self) -> None:
        """Put the weights into the object store. Only the leader does this.

        Requests to the shards contain the reference to the weights, and the shards send the
        reference to the collectors.
        """
        if self._rank:
            return
        reference = [ray.put(self._learner.weights())]
        published = Published(version=self._learner.updates, reference=reference, epoch=self._epoch)
        self._feed.published = published
        self._versions = [*self._versions, published][-WEIGHTS_KEPT:]

    def policy(self) -> dict[str, torch.Tensor]:
        """Return a copy of the policy's weights on the CPU (`Learner.policy`)."""
        return self._learner.policy()

    # -- checkpoints -------------------------------------------------------------------------------

    def settle(self, absent: Collection[int] = ()) -> None:
        """Send the newest priorities to the shards, and read the shards' counts.

        The transitions of the shards `absent` are counted as lost. Raises RunFault when another
        shard does not answer.
        """
        for _ in range(MAX_FAILURES):
            try:
                return self._feed.refresh(absent)
            except RayTaskError:
                raise
            except RayError:
                time.sleep(RETRY_S)
        raise RunFault("a replay shard cannot be kept alive")

    def save(self, folder: str) -> dict[str, Any]:
        """Return the state as JSON values, except for the networks and the optimizer, which the
        leader writes to `learner.pt`. Call `settle` before.
        """
        if self._rank == 0:
            with writing(as_place(folder)) as local:
                save_learner(self._learner, local)
        return {
            "rng": self._rng.bit_generator.state,
            "limiter": self._limiter_state(),
            "lost_transitions": self._feed.lost_transitions,
            "restarts": len(self._feed.events),  # restarts that are in no report yet
        }

    def _limiter_state(self) -> dict[str, float]:
        """Return the limiter's state. Samples that are in flight or not used yet are not counted,
        because they will be drawn again.
        """
        limiter, learner = self._feed.limiter, self._config.learner
        waiting = len(self._ready) * learner.batch_size * learner.learners
        waiting *= self._config.transitions_per_sample
        return limiter.state() | {
            "sampled": limiter.sampled - self._feed.in_flight_samples() - waiting
        }

    def load(self, folder: str, state: dict[str, Any], with_replay: bool) -> None:
        """Continue from a checkpoint of `save`. Call it after the shards have loaded and before the
        collectors start. Raises CheckpointError when the networks or the optimizer do not fit.
        """
        with reading(as_place(folder), deep=False) as local:
            load_learner(self._learner, local)
        rngs = [state["rng"], *state.get("learner_rngs", [])]
        if self._rank < len(rngs):
            self._rng.bit_generator.state = rngs[self._rank]
        if with_replay:
            self._feed.limiter.restore(state["limiter"])
        self._feed.updates = self._learner.updates
        self._ready.clear()  # these batches are from the replay before loading
        self._publish()
        self._feed.adopt()


class Follower(SamplesPerInsert):
    """Limits a learner that is not the leader to the number of samples that the leader has drawn.

    Args:
        limiter: the limiter of the run, whose settings are used.
    """

    def __init__(self, limiter: SamplesPerInsert):
        super().__init__(**vars(limiter))
        self.granted = 0.0

    def samples_allowed(self) -> float:
        return self.granted - self.sampled

    def inserts_needed(self, samples: int) -> int:
        return 0  # this learner waits for the leader, not for inserts
