"""The coordinator: starts the actors, keeps them busy, restarts what dies, checkpoints. No data passes through it.

collectors ──chunks──▶ shards ──batches──▶ learner ──weights by version──▶ (object store) ──▶ collectors
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError, RayTaskError

from genray.dist.calls import MAX_FAILURES, RETRY_S, cause, get
from genray.dist.checkpoint import save_actors
from genray.dist.collector import CollectorActor
from genray.dist.learner_actor import LearnerActor
from genray.dist.messages import CollectReport, LearnReport, ShardCounts
from genray.dist.replay_shard import ReplayShardActor
from genray.dist.session import even_share, has_resource, node_cpus, ray_session, role
from genray.dist.tally import Tally
from genray.errors import ResourceError, RunFault
from genray.machine import resolve_device
from genray.rl.agent import Progress, check_shards, network_card, probe_env
from genray.rl.config import DQNConfig
from genray.rl.networks import QNetwork, build_network

__all__ = ["Coordinator", "ray_session"]

PORTIONS_AHEAD = 2  # calls queued at each worker, so that none waits for the coordinator


class _Worker:
    """One actor, the calls queued at it, and when it may be asked again after a failure."""

    def __init__(self, index: int, actor: ray.actor.ActorHandle):
        self.index, self.name, self.actor = index, f"collector {index}", actor
        self.calls: list[ray.ObjectRef] = []
        self.retry_at = 0.0
        self.failures = 0
        self.epsilon = 1.0


class Coordinator:
    """`rl.agent.Engine` on Ray: N collectors, M replay shards, one learner.

    Collectors and shards are Ray actors that Ray restarts; the coordinator notices, counts what was lost, and gives the
    new ones work. A learner that dies ends the run with a RunFault: its last checkpoint continues it.
    """

    def __init__(self, config: DQNConfig, learner_threads: int | None = None, cpus_each: float | None = None):
        """`cpus_each`: CPUs that each collector and the learner reserve; None: an even share of the cluster's nodes."""
        config.validate()
        self.config = config
        num_actions, frame_shape = probe_env(config.env)
        self._card = network_card(config, num_actions, frame_shape)
        layouts = config.plan_shards(frame_shape)
        cpus = even_share(config, node_cpus()) if cpus_each is None else cpus_each
        device = resolve_device(config.run.device) if not has_resource("GPU") else config.run.device
        gpus = 1 if device != "cpu" and has_resource("GPU") else 0
        if device == "cuda" and not has_resource("GPU"):
            raise ResourceError("--device cuda: Ray sees no GPU in this cluster; use --device cpu")

        # Collectors find their shard by name: Ray cannot promise to restart an actor that was made with a handle.
        run_name = secrets.token_hex(4)
        self._shard_names = [f"genray-replay-{run_name}-{index}" for index in range(len(layouts))]
        shard_class = ray.remote(ReplayShardActor)
        self.shards = [
            shard_class.options(
                name=self._shard_names[index],
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=1000,
                resources=role("replay"),
            ).remote(config.replay, layout, (config.run.seed, 1, index))
            for index, layout in enumerate(layouts)
        ]  # fmt: skip
        threads = learner_threads or max(1, int(max(node_cpus(), default=1)) - config.collect.collectors // 2)
        self.learner = (
            ray.remote(LearnerActor)
            .options(num_cpus=cpus, num_gpus=gpus, resources=role("learner"))
            .remote(config, self._card, self.shards, threads)
        )
        # The collectors are made when work begins: after `load`, so that they start with the loaded weights.
        self._collector_options = {"num_cpus": cpus, "max_restarts": -1, "resources": role("collector")}
        self._collectors: list[_Worker] = []
        self._collector_states: list[dict[str, Any]] = []
        self._learner_calls: list[ray.ObjectRef] = []
        self._learn: LearnReport | None = None
        self._unreported = Progress()
        self._stale_reports = PORTIONS_AHEAD
        self._tally = Tally(config.collect.collectors, len(layouts), config.collect.envs_per_collector)
        self.restarts = 0

    @property
    def steps(self) -> int:
        """Agent steps made so far, as far as the collectors told."""
        return self._tally.steps

    # -- work ----------------------------------------------------------------------------------------------------------

    def advance(self, until_step: int, seconds: float) -> Progress:
        progress, self._unreported = self._unreported, Progress()
        means: list[LearnReport] = []
        if not self._collectors:
            self._start_collectors()
        stop = time.monotonic() + seconds
        while time.monotonic() < stop:
            if self._settled(until_step):
                break
            self._give_work(until_step)
            means += self._take_results(progress)
        self._report(progress, [report for report in means if report.done])
        return progress

    def _take_results(self, progress: Progress) -> list[LearnReport]:
        """Wait a moment for calls to end; returns the learner's reports among them."""
        owners = {call: worker for worker in self._collectors for call in worker.calls}
        ready, _ = ray.wait([*owners, *self._learner_calls], timeout=0.1)
        for call in ready:
            if call in owners:
                self._take_collected(owners[call], call, progress)
        return [self._take_learned(call, progress) for call in ready if call not in owners]

    def _settled(self, until_step: int) -> bool:
        """All steps are made and the learner has used up what samples per insert allows."""
        collecting = self.steps < until_step or any(worker.calls for worker in self._collectors)
        free_running = not self.config.replay.samples_per_insert
        return not collecting and (
            free_running or (self._learn is not None and self._learn.idle and not self._stale_reports)
        )

    def _start_collectors(self) -> None:
        self._ask_shards(self._tally.begin)
        actor_class = ray.remote(CollectorActor)
        for index in range(self.config.collect.collectors):
            shard = self._shard_names[index % len(self.shards)]
            actor = actor_class.options(**self._collector_options).remote(self.config, self._card, index, shard)
            if index < len(self._collector_states):
                actor.restore.remote(self._collector_states[index])
            self._collectors.append(_Worker(index, actor))

    def _give_work(self, until_step: int) -> None:
        chunk = self.config.collect.chunk_rows * self.config.collect.envs_per_collector
        now = time.monotonic()
        for worker in self._collectors:
            queued = sum(len(other.calls) for other in self._collectors)
            while (
                len(worker.calls) < PORTIONS_AHEAD
                and now >= worker.retry_at
                and self.steps + queued * chunk < until_step
            ):
                worker.calls.append(worker.actor.collect.remote(self.steps))
                queued += 1
        while len(self._learner_calls) < PORTIONS_AHEAD:
            self._learner_calls.append(self.learner.learn.remote(0.25))

    def _take_collected(self, worker: _Worker, call: ray.ObjectRef, progress: Progress) -> None:
        worker.calls.remove(call)
        try:
            report: CollectReport = ray.get(call)
        except RayError as error:
            if isinstance(error, RayTaskError):  # the environment raised: begin anew in a new process
                ray.kill(worker.actor, no_restart=False)
            worker.calls.clear()  # all that was queued died with it
            worker.failures += 1
            if getattr(error, "actor_init_failed", False) or worker.failures >= MAX_FAILURES:
                raise RunFault(f"{worker.name} cannot be kept alive: {cause(error)}") from error
            worker.retry_at = time.monotonic() + RETRY_S
            self.restarts += 1
            progress.events.append(f"{worker.name} died ({cause(error)}); it restarts with new episodes")
            return
        worker.failures = 0
        self._tally.add(worker.index, report)
        # The learner's queued portions may have looked before this chunk was there.
        self._stale_reports = PORTIONS_AHEAD
        worker.epsilon = report.epsilon
        progress.episodes += report.episodes

    def _take_learned(self, call: ray.ObjectRef, progress: Progress) -> LearnReport:
        self._learner_calls.remove(call)
        report: LearnReport = get(call)
        self._stale_reports = max(0, self._stale_reports - 1)
        self._learn = report
        progress.events += report.events
        self.restarts += len(report.events)
        return report

    def _report(self, progress: Progress, means: list[LearnReport]) -> None:
        progress.steps, progress.restarts = self.steps, self.restarts
        progress.epsilon = float(np.mean([worker.epsilon for worker in self._collectors]))
        progress.lost_transitions = self._tally.lost
        if self._learn:
            last = self._learn
            progress.updates, progress.replay_size = last.updates, last.size
            progress.samples_per_insert, progress.weight_lag = last.samples_per_insert, last.weight_lag
            progress.lost_transitions += last.lost_transitions
        if means:
            weights = [report.done for report in means]
            values = [(report.loss, report.q_mean, report.grad_norm) for report in means]
            progress.loss, progress.q_mean, progress.grad_norm = np.average(values, axis=0, weights=weights).tolist()

    # -- state ---------------------------------------------------------------------------------------------------------

    def network(self) -> QNetwork:
        network = build_network(self._card)
        network.load_state_dict(get(self.learner.policy.remote()))
        return network.eval()

    def settle(self) -> int:
        """Let what is on its way arrive, and ask for no more: from here to the next `advance` nothing moves.

        Takes as long as the portions already queued: at most two chunks of each collector, which the shards accept at once,
        beyond samples per insert, and half a second of the learner. Returns the steps made.
        """
        for shard in self.shards:
            shard.admit.remote(True)
        try:
            for worker in self._collectors:
                if time.monotonic() >= worker.retry_at:  # one that has just died has nothing on its way
                    worker.calls.append(worker.actor.rest.remote())
            # The learner goes on meanwhile: a shard that has just restarted, and admits nothing, opens by its word.
            while any(worker.calls for worker in self._collectors):
                self._give_work(until_step=0)
                self._take_results(self._unreported)
            while self._learner_calls:
                self._take_results(self._unreported)
        finally:
            for shard in self.shards:
                shard.admit.remote(False)
        if self._collectors:
            self._ask_shards(self._tally.balance)
        return self.steps

    def _ask_shards(self, tell: Callable[[int, ShardCounts, dict[int, int]], None]) -> None:
        for index, shard in enumerate(self.shards):
            with contextlib.suppress(RayError):  # it has just died, and the learner counts what it held
                tell(index, *ray.get([shard.counts.remote(), shard.heads.remote()]))

    def save(self, folder: Path) -> None:
        self.settle()
        folder = folder.resolve()  # actors have working directories of their own
        shards = self.shards if self.config.run.checkpoint_replay else []
        state: dict[str, Any] = {"form": "ray", "turn": 0, **self._tally.state()}
        state |= save_actors(folder, self.learner, shards, [worker.actor for worker in self._collectors])
        state["lost_transitions"] += self._tally.lost
        state["restarts"] += self.restarts
        if not self._collectors:  # none was needed yet: they would still begin where the last checkpoint left them
            state["collectors"] = self._collector_states
        (folder / "state.json").write_text(json.dumps(state))

    def load(self, folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        folder = folder.resolve()
        if state["shards"]:
            check_shards(folder, state, len(self.shards))
        for index, shard_state in enumerate(state["shards"]):
            get(self.shards[index].load.remote(str(folder / f"replay-{index}"), shard_state))
        get(self.learner.load.remote(str(folder), state, bool(state["shards"])))
        self._tally.restore(state, [shard_state["counts"]["inserted"] for shard_state in state["shards"]])
        self.restarts = state.get("restarts", 0)
        # Emulators cannot be saved: what continues is each collector's random state and clock, in new episodes.
        self._collector_states = [
            {"rng": values["rng"], "run_step": values["run_step"]} for values in state["collectors"]
        ]

    def close(self) -> None:
        for actor in [worker.actor for worker in self._collectors] + [self.learner, *self.shards]:
            ray.kill(actor)
