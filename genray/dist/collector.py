"""A collector as a Ray actor: play a chunk, ship it, pull newer weights when the answer names some."""

import contextlib
import secrets

import ray
import torch
from ray.exceptions import RayError

from genray.dist.messages import CollectReport, Published
from genray.machine import keep_freed_memory
from genray.rl.agent import initial_network
from genray.rl.collect import Collector, Episode
from genray.rl.config import DQNConfig
from genray.rl.env import make_env


class CollectorActor:
    """`rl.collect.Collector` that ships its chunks to one shard. One chunk is in flight while the next is played.

    Back-pressure: a shard that may not accept more answers late, and the collector waits for that answer.
    """

    def __init__(self, config: DQNConfig, card: dict, index: int, shard_name: str):
        torch.set_num_threads(1)
        keep_freed_memory()
        env = make_env(config.env, config.collect.envs_per_collector, num_threads=1)
        network = initial_network(card, config.run.seed)
        seed = config.run.seed
        if ray.get_runtime_context().was_current_actor_reconstructed:
            seed = secrets.randbits(31)  # a restarted collector must not replay its first life's episodes
        self._collector = Collector(env, network, config.env, config.collect, config.explore, index=index, seed=seed)
        self._shard = ray.get_actor(shard_name)
        self._in_flight: tuple[ray.ObjectRef, int] | None = None
        self._lost = 0
        with contextlib.suppress(RayError):  # the shard is down as well; its next answer will name the weights
            self._pull(ray.get(self._shard.published.remote()))

    def collect(self, run_step: int) -> CollectReport:
        """Play one chunk and ship it; `run_step` is the run's count of agent steps, for ε's annealing."""
        collector = self._collector
        collector.run_step = run_step
        chunk, episodes = collector.collect()
        self._settle()
        self._in_flight = (self._shard.add.remote(chunk), chunk.num_transitions)
        return self._report(chunk.num_rows * collector.env.num_lanes, chunk.num_transitions, episodes)

    def rest(self) -> CollectReport:
        """Wait until the chunk in flight is accepted, and report of no new steps."""
        self._settle()
        return self._report(0, 0, [])

    def _report(self, steps: int, transitions: int, episodes: list[Episode]) -> CollectReport:
        lost, self._lost = self._lost, 0
        return CollectReport(
            steps=steps,
            transitions=transitions,
            episodes=episodes,
            epsilon=float(self._collector.epsilon_E.mean()),
            lost_transitions=lost,
        )

    def _settle(self) -> None:
        """Wait until the chunk in flight is accepted. One that the shard's death swallowed is counted, not retried: the
        next chunk tells the new shard about the gap."""
        if self._in_flight is None:
            return
        reference, transitions = self._in_flight
        self._in_flight = None
        try:
            self._pull(ray.get(reference))
        except RayError:
            self._lost += transitions

    def _pull(self, published: Published | None) -> None:
        if published is None or published.version == self._collector.weight_version:
            return
        with contextlib.suppress(RayError):  # the learner that owned them is gone; its successor's version will come
            self._collector.set_weights(ray.get(published.reference[0]), published.version)

    def state(self) -> dict:
        return self._collector.state()[0]

    def restore(self, values: dict) -> None:
        self._collector.restore(values, {})
