"""The learner as a Ray actor: take batches from the feed, update, publish weights."""

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
from genray.distributed.data_parallel import Group, Share, meeting_place
from genray.distributed.feed import Batch, Feed, batches_per_round
from genray.distributed.messages import LearnReport, Published, Snapshot
from genray.errors import ResourceError, RunFault
from genray.machine import keep_freed_memory, resolve_device
from genray.rl.checkpoint import load_learner, save_learner
from genray.rl.config import DQNConfig
from genray.rl.engine import initial_network
from genray.rl.learner import Learner
from genray.rl.limiter import SamplesPerInsert
from genray.rl.networks import build_network
from genray.rl.transfer import AnySample
from genray.runs.storage import as_place, reading, writing

# versions that stay in the object store for collectors which are still pulling them
WEIGHTS_KEPT = 4


class LearnerActor:
    """`rl.learner.Learner` on a feed. The coordinator asks for one portion of work after the other.

    Of K learners, the one of rank 0 leads: it keeps samples per insert, tells the shards the
    limit and the weights, and speaks for all in snapshots and checkpoints. The others draw as
    much as it does, at the same time.
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
        self._learner = Learner(
            config.learner, network, build_network(card), device, threads=threads
        )
        # Rank and epoch stand behind zeros that NumPy ignores: one learner's first life draws as it
        # always did.
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
        )
        # A GPU is at work by itself, and the next round is fetched meanwhile; a CPU would only put
        # its own work off.
        self._fetches_ahead = device != "cpu"
        self._group: Group | None = None
        self._ready: deque[Batch] = deque()
        self._versions: list[Published] = []

    # -- the beginning -----------------------------------------------------------------------------

    def meeting_place(self) -> str:
        """Where the other learners find this one."""
        return meeting_place(ray.util.get_node_ip_address())

    def begin(self, snapshot: Snapshot | None, place: str | None) -> None:
        """Take up learning, where `snapshot` left off if there is one, together with those who
        meet at `place`.

        Raises ResourceError when Ray gave it a GPU for which PyTorch has no use: it would stand
        idle, and nobody know.
        """
        if self._learner.device.type == "cpu" and ray.get_gpu_ids():
            raise ResourceError(
                f"--device auto: Ray gave the learner a GPU on {socket.gethostname()} that PyTorch "
                "cannot use; see `genray "
                "doctor` there, or use --device cpu"
            )
        if place:
            learners, device = self._config.learner.learners, str(self._learner.device)
            self._group = Group(self._rank, learners, place, device, self._learner.online)
        if snapshot:
            state = torch.load(io.BytesIO(snapshot.learner), map_location="cpu", weights_only=True)
            self._learner.load_state_dict(state)
            self._feed.limiter.restore(snapshot.limiter)
            self._feed.restore(snapshot.shards)
            self._feed.lost_transitions = snapshot.lost_transitions
            self._feed.updates = self._learner.updates
            if self._rank == 0:
                self._rng.bit_generator.state = snapshot.rng
        self._publish()
        try:
            self._feed.refresh()
        except RayTaskError:
            raise
        except RayError:
            pass  # a shard that is down is asked again with every round

    def snapshot(self) -> Snapshot:
        """Everything that a successor needs; between two portions of work."""
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
        """Learn for about `seconds`, as fast as samples per insert allows."""
        stop = time.monotonic() + seconds
        done: list[tuple[float, float, float]] = []
        while (batches := self._next_batches(stop)) is not None:
            for batch, following, share in zip(
                batches, [*batches[1:], None], self._shares(batches)
            ):
                done.append(self._update(batch, following.sample if following else None, share))
        means = np.mean(done, axis=0) if done else np.full(3, np.nan)
        events, self._feed.events = self._feed.events, []
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
        """The batches to learn from next, perhaps none yet; None: this portion is over."""
        if self._group is None and time.monotonic() >= stop:
            return None
        if not self._ready:
            self._ready.extend(self._feed.next_round() or [])
        if self._group is None:
            return [self._ready.popleft() for _ in range(len(self._ready))]
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
        """One update; returns (loss, mean Q, gradient norm)."""
        beta = self._config.replay.beta_at(self._learner.updates)
        part = self._group.begin_update(share, beta) if self._group and share else 1.0
        self._learner.begin(batch.sample, max(self._feed.size, 1), beta, following)
        if following is None and self._fetches_ahead:
            self._fetch()
        update = self._learner.finish()
        self._feed.send_back(batch, update.delta_B)
        self._feed.updates = self._learner.updates
        if self._learner.updates % self._config.run.publish_every == 0:
            self._publish()
        return part * update.loss, update.q_mean, update.grad_norm

    def _fetch(self) -> None:
        """The next round, if it is on its way: nobody waits for inserts here."""
        if not self._ready and self._feed.in_flight_samples():
            self._ready.extend(self._feed.next_round() or [])
        if self._ready:
            self._learner.expect(self._ready[0].sample)

    def _publish(self) -> None:
        """Put the weights once into the object store; requests to shards carry the reference to
        the collectors.
        """
        if self._rank:
            return
        reference = [ray.put(self._learner.weights())]
        published = Published(version=self._learner.updates, reference=reference, epoch=self._epoch)
        self._feed.published = published
        self._versions = [*self._versions, published][-WEIGHTS_KEPT:]

    def policy(self) -> dict[str, torch.Tensor]:
        return self._learner.policy()

    # -- checkpoints -------------------------------------------------------------------------------

    def settle(self, absent: Collection[int] = ()) -> None:
        """Hand the shards the newest priorities and learn where they stand; those that are
        `absent` are given up.
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
        """Write `learner.pt`; returns the rest as JSON-able values. `settle` has come before."""
        if self._rank == 0:
            with writing(as_place(folder)) as local:
                save_learner(self._learner, local)
        return {
            "rng": self._rng.bit_generator.state,
            "limiter": self._limiter_state(),
            "lost_transitions": self._feed.lost_transitions,
            "restarts": len(self._feed.events),  # those that no report has told yet
        }

    def _limiter_state(self) -> dict[str, float]:
        """What is in flight, or not yet learned from, will be drawn again."""
        limiter, learner = self._feed.limiter, self._config.learner
        waiting = len(self._ready) * learner.batch_size * learner.learners
        return limiter.state() | {
            "sampled": limiter.sampled - self._feed.in_flight_samples() - waiting
        }

    def load(self, folder: str, state: dict[str, Any], with_replay: bool) -> None:
        """Continue from `save`; the shards have loaded before, the collectors start after."""
        with reading(as_place(folder), deep=False) as local:
            load_learner(self._learner, local)
        rngs = [state["rng"], *state.get("learner_rngs", [])]
        if self._rank < len(rngs):
            self._rng.bit_generator.state = rngs[self._rank]
        if with_replay:
            self._feed.limiter.restore(state["limiter"])
        self._feed.updates = self._learner.updates
        self._ready.clear()  # of the replay that was there before
        self._publish()
        self._feed.adopt()


class Follower(SamplesPerInsert):
    """The limiter of a learner that does not lead: it may draw what the first one has drawn, no
    more.
    """

    def __init__(self, limiter: SamplesPerInsert):
        super().__init__(**vars(limiter))
        self.granted = 0.0

    def sample_room(self) -> float:
        return self.granted - self.sampled

    def inserts_needed(self, samples: int) -> int:
        return 0  # it waits for the first learner, not for inserts
