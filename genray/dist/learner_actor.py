"""The learner as a Ray actor: take batches from the feed, update, publish weights."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import RayError, RayTaskError

from genray.dist.calls import MAX_FAILURES, RETRY_S
from genray.dist.feed import Feed, batches_per_round
from genray.dist.messages import LearnReport, Published
from genray.errors import RunFault
from genray.machine import keep_freed_memory, resolve_device
from genray.rl.agent import initial_network, load_learner, save_learner
from genray.rl.config import DQNConfig
from genray.rl.learner import Learner, Update
from genray.rl.networks import build_network

WEIGHTS_KEPT = 4  # versions that stay in the object store for collectors which are still pulling them


class LearnerActor:
    """`rl.learner.Learner` on a feed. The coordinator asks for one portion of work after the other."""

    def __init__(self, config: DQNConfig, card: dict[str, Any], shards: list[ray.actor.ActorHandle], threads: int):
        torch.set_num_threads(threads)
        keep_freed_memory()
        self._config = config
        network = initial_network(card, config.run.seed)
        device = resolve_device(config.run.device)
        self._learner = Learner(config.learner, network, build_network(card), device, threads=threads)
        self._rng = np.random.default_rng(np.random.SeedSequence([config.run.seed, 2]))
        batch_size = config.learner.batch_size
        limiter = config.limiter(batch_size * batches_per_round(batch_size))
        self._feed = Feed(shards, limiter, batch_size, self._rng)
        self._versions: list[Published] = []
        self._publish()
        self._feed.refresh()

    def learn(self, seconds: float) -> LearnReport:
        """Learn for about `seconds`, as fast as samples per insert allows."""
        stop = time.monotonic() + seconds
        done: list[Update] = []
        while time.monotonic() < stop:
            batches = self._feed.next_round() or []
            for batch, following in zip(batches, [*batches[1:], None]):
                beta = self._config.replay.beta_at(self._learner.updates)
                ahead = following.sample if following else None
                update = self._learner.update(batch.sample, max(self._feed.size, 1), beta, ahead)
                self._feed.send_back(batch, update.delta_B)
                self._feed.updates = self._learner.updates
                done.append(update)
                if self._learner.updates % self._config.run.publish_every == 0:
                    self._publish()
        means = np.mean([update[1:] for update in done], axis=0) if done else np.full(3, np.nan)
        events, self._feed.events = self._feed.events, []
        limiter = self._feed.limiter
        return LearnReport(
            updates=self._learner.updates,
            done=len(done),
            idle=self._feed.idle,
            loss=float(means[0]),
            q_mean=float(means[1]),
            grad_norm=float(means[2]),
            size=self._feed.size,
            inserted=limiter.inserted,
            samples_per_insert=limiter.actual,
            weight_lag=self._feed.weight_lag,
            lost_transitions=self._feed.lost_transitions,
            events=events,
        )

    def _publish(self) -> None:
        """Put the weights once into the object store; requests to shards carry the reference to the collectors."""
        published = Published(version=self._learner.updates, reference=[ray.put(self._learner.weights())])
        self._feed.published = published
        self._versions = [*self._versions, published][-WEIGHTS_KEPT:]

    def policy(self) -> dict[str, torch.Tensor]:
        return self._learner.policy()

    def settle(self) -> None:
        """Hand the shards the newest priorities and learn where they stand; one that died is waited for."""
        for _ in range(MAX_FAILURES):
            try:
                return self._feed.refresh()
            except RayTaskError:
                raise
            except RayError:
                time.sleep(RETRY_S)
        raise RunFault("a replay shard cannot be kept alive, so no checkpoint could be written")

    def save(self, folder: str) -> dict[str, Any]:
        """Write `learner.pt`; returns the rest as JSON-able values. `settle` has come before."""
        save_learner(self._learner, Path(folder))
        limiter = self._feed.limiter
        sampled = limiter.sampled - self._feed.in_flight_samples()  # what is in flight will be drawn again
        return {
            "rng": self._rng.bit_generator.state,
            "limiter": limiter.state() | {"sampled": sampled},
            "lost_transitions": self._feed.lost_transitions,
            "restarts": len(self._feed.events),  # those that no report has told yet
        }

    def load(self, folder: str, state: dict[str, Any], with_replay: bool) -> None:
        """Continue from `save`; the shards have loaded before, the collectors start after."""
        load_learner(self._learner, Path(folder))
        self._rng.bit_generator.state = state["rng"]
        if with_replay:
            self._feed.limiter.restore(state["limiter"])
        self._feed.updates = self._learner.updates
        self._publish()
        self._feed.adopt()
