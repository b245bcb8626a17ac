"""Starts the actors of a distributed run, gives them work, has dead actors replaced, and writes
checkpoints. Frames never pass through the coordinator.

collectors ──chunks──▶ shards ──batches──▶ learner ──weights──▶ (object store) ──▶ collectors
"""

import contextlib
import json
import secrets
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from genray.distributed import ledger
from genray.distributed.calls import MAX_FAILURES
from genray.distributed.checkpoint import load_actors, save_actors
from genray.distributed.collector import CollectorActor
from genray.distributed.collector_handle import PORTIONS_AHEAD, CollectorHandle
from genray.distributed.epoch_broadcast import EpochBroadcast
from genray.distributed.fence import Epochs
from genray.distributed.learner_actor import LearnerActor
from genray.distributed.learner_group import LearnerGroup, LearnerLost
from genray.distributed.messages import LearnReport, ShardCounts
from genray.distributed.replay_shard import ReplayShardActor
from genray.distributed.session import (
    draining_nodes,
    gpus_each,
    node_cpus,
    ray_session,
    reserve_share,
    role,
)
from genray.distributed.tally import Tally
from genray.errors import RunFault
from genray.rl.building import build_network, update_flop
from genray.rl.config import DQNConfig
from genray.rl.engine import Progress, network_card, probe_env
from genray.rl.networks import QNetwork
from genray.runs.storage import Place, absolute, reading, writing
from genray.threads import threads_for

__all__ = ["Coordinator", "ray_session"]

# Seconds without any collector after which the run ends, because no host can run one.
MAX_AWAY_S = 600.0
LOOK_S = 1.0  # seconds between two queries for the nodes that are about to stop


class Coordinator:
    """Runs N collectors, M replay shards and K learners on Ray as an engine (`rl.engine.Engine`).

    Ray restarts collectors and shards, on other hosts if necessary. After the restart of a
    collector, the coordinator has the shards refuse late writes of the dead incarnation, and gives
    the new incarnation work. Lost transitions are counted. The coordinator itself replaces
    learners, which continue from their last snapshot (`learner_group`). If the coordinator dies,
    the run ends, and can be resumed from its last checkpoint.

    The constructor starts shards and learners. The first `advance` starts the collectors.

    Args:
        config: the configuration of the run. Raises ConfigError for invalid options, and
            ResourceError for too few CPUs or GPUs.
        learner_threads: PyTorch threads of each learner; None: chosen by the network's size and the
            cores.
        cpus_each: CPUs that each collector and learner reserve; None: an even share of the
            cluster's nodes.
        free_cores: cores of this machine that other programs leave free; None: all cores of the
            largest node.
    """

    def __init__(
        self,
        config: DQNConfig,
        learner_threads: int | None = None,
        cpus_each: float | None = None,
        free_cores: int | None = None,
    ):
        config.validate()
        self.config = config
        interface = probe_env(config.env)
        card = self._card = network_card(config, *interface)
        layouts = config.plan_shards(interface.frame_shape, interface.observation)
        cpus = reserve_share(config) if cpus_each is None else cpus_each
        gpus = gpus_each(config, int(ray.cluster_resources().get("GPU", 0)))

        # Collectors get the name of their shard, not its handle, because Ray does not always
        # restart an actor that was made with handles.
        run_name = secrets.token_hex(4)
        self._ledger = ledger.folder_from_environment()
        self._shard_names = [f"genray-replay-{run_name}-{index}" for index in range(len(layouts))]
        shard_class = ray.remote(ReplayShardActor)
        self.shards = [
            shard_class.options(
                name=self._shard_names[index],
                num_cpus=0,
                max_restarts=-1,
                max_concurrency=1000,
                resources=role("replay"),
            ).remote(config.replay, layout, (config.run.seed, 1, index), self._ledger)
            for index, layout in enumerate(layouts)
        ]  # fmt: skip
        learners, collectors = config.learner.learners, config.collect.collectors
        cores = int(max(node_cpus(), default=1)) if free_cores is None else free_cores
        threads = learner_threads or threads_for(
            update_flop(card, config.learner.batch_size * config.rows_per_sample),
            (cores - collectors // 2) // learners,
        )
        # LearnerGroup replaces learners, and max_restarts stays 0: Ray does not always restart an
        # actor made with handles, and a restarted learner would have lost its state.
        learner_class = ray.remote(LearnerActor).options(
            num_cpus=cpus, num_gpus=gpus, resources=role("learner")
        )
        self._learners = LearnerGroup(
            lambda epoch, rank: learner_class.remote(
                config, card, self.shards, threads, epoch, rank
            ),
            learners,
            config.run.learner_snapshot_s,
        )
        self._broadcast = EpochBroadcast(self.shards)
        # The collectors are made at the first `advance`, so after a `load` they start with the
        # loaded weights.
        self._collector_options = {
            "num_cpus": cpus,
            "max_restarts": -1,
            "resources": role("collector"),
        }
        self._collectors: list[CollectorHandle] = []
        self._collector_states: list[dict[str, Any]] = []
        self._unreported = Progress()
        self._stale_reports = PORTIONS_AHEAD
        self._tally = Tally(collectors, len(layouts), config.collect.envs_per_collector)
        self._look_at = 0.0
        self.restarts = 0

    @property
    def learner(self) -> ray.actor.ActorHandle:
        """The learner of rank 0."""
        return self._learners.first

    @property
    def steps(self) -> int:
        """Agent steps made so far, according to the collectors' reports."""
        return self._tally.steps

    # -- work --------------------------------------------------------------------------------------

    def advance(self, until_step: int, seconds: float) -> Progress:
        """Collect and learn until `until_step` agent steps are made or `seconds` have passed.

        Returns the progress; see Engine. Raises RunFault when an actor cannot be kept alive.
        """
        progress, self._unreported = self._unreported, Progress()
        means: list[LearnReport] = []
        if not self._collectors:
            self._start_collectors()
        stop = time.monotonic() + seconds
        self._watch()
        while time.monotonic() < stop:
            # Queue calls, take finished calls, and repeat until collectors and learners are done.
            if self._settled(until_step):
                break
            self._give_work(until_step)
            means += self._take_results(progress)
        # Only reports with updates contain means.
        self._report(progress, [report for report in means if report.done])
        return progress

    def _take_results(self, progress: Progress) -> list[LearnReport]:
        """Take the calls that have ended, after waiting 0.1 s at most if none has; return the
        learners' reports.
        """
        self._watch()
        owners = {call: worker for worker in self._collectors for call in worker.calls}
        waiting = [*owners, *self._learners.waiting]
        ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0) if waiting else ([], [])
        if not ready and waiting:
            ready, _ = ray.wait(waiting, timeout=0.1)
        for call in ready:
            # Skip a call if this loop has found that its collector died.
            if call in owners and call in owners[call].calls:
                self._take_collected(owners[call], call, progress)
        return self._take_learned(ready, progress)

    def _settled(self, until_step: int) -> bool:
        """Whether all steps are made, and the learner has drawn all samples that the limit on
        samples per insert allows. A learner without a limit counts as done.
        """
        collecting = self.steps < until_step or any(worker.calls for worker in self._collectors)
        learn = self._learners.last
        free_running = not self.config.replay.samples_per_insert
        caught_up = learn is not None and learn.idle and not self._stale_reports
        return not collecting and not self._learners.starting and (free_running or caught_up)

    def _start_collectors(self) -> None:
        self._ask_shards(self._tally.begin)
        actor_class = ray.remote(CollectorActor).options(**self._collector_options)
        for index in range(self.config.collect.collectors):
            shard = self._shard_names[index % len(self.shards)]
            actor = actor_class.remote(self.config, self._card, index, shard, self._ledger)
            if index < len(self._collector_states):
                actor.restore.remote(self._collector_states[index])
            self._collectors.append(CollectorHandle(index, actor))

    def _give_work(self, until_step: int) -> None:
        chunk = self.config.collect.chunk_rows * self.config.collect.envs_per_collector
        for worker in self._collectors:
            queued = sum(len(other.calls) for other in self._collectors)
            # Count the steps of queued calls as made, so that the run does not exceed its steps.
            while worker.is_ready and self.steps + queued * chunk < until_step:
                worker.collect(self.steps)
                queued += 1
        self._learners.give()

    def _watch(self) -> None:
        """Send the epochs to the shards, and have collectors leave the hosts that will stop.

        Raises RunFault when every collector has been away (died or left) for over MAX_AWAY_S.
        """
        epochs = {worker.index: worker.epoch for worker in self._collectors}
        self._broadcast.tick(Epochs(collectors=epochs, learner=self._learners.epoch))
        now = time.monotonic()
        if self._collectors and all(worker.away_s() > MAX_AWAY_S for worker in self._collectors):
            raise RunFault(f"no collector has come back for {MAX_AWAY_S / 60:.0f} minutes")
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            leaving = draining_nodes()
            for worker in self._collectors:
                if worker.node in leaving:
                    worker.leave()

    def _take_collected(
        self, worker: CollectorHandle, call: ray.ObjectRef, progress: Progress
    ) -> None:
        report, event = worker.take(call)
        if event:
            progress.events.append(event)
        if report is None:
            self.restarts += event is not None
            return
        self._tally.add(worker.index, report)
        # The calls of `learn` in flight may have ended before this chunk arrived. Their reports may
        # say "idle" although there is work again, so they are not trusted.
        self._stale_reports = PORTIONS_AHEAD
        progress.episodes += report.episodes

    def _take_learned(self, ready: list[ray.ObjectRef], progress: Progress) -> list[LearnReport]:
        reports = self._learners.take(ready)
        for report in reports:
            self._stale_reports = max(0, self._stale_reports - 1)
            progress.events += report.events
            self.restarts += len(report.events)
        return reports

    def _report(self, progress: Progress, means: list[LearnReport]) -> None:
        learners = self._learners
        progress.events += learners.events()
        progress.steps, progress.restarts = self.steps, self.restarts + learners.restarts
        epsilons = [worker.epsilon for worker in self._collectors if worker.epsilon is not None]
        progress.epsilon = float(np.mean(epsilons)) if epsilons else None
        progress.lost_transitions = self._tally.lost
        progress.lost_updates, progress.refused_writes = (
            learners.lost_updates,
            self._broadcast.refused,
        )
        progress.recovering = learners.starting
        if last := learners.last:
            progress.updates, progress.replay_size = last.updates, last.size
            progress.samples_per_insert, progress.weight_lag = (
                last.samples_per_insert,
                last.weight_lag,
            )
            progress.lost_transitions += last.lost_transitions
        if means:
            weights = [report.done for report in means]
            values = [(report.loss, report.q_mean, report.grad_norm) for report in means]
            progress.loss, progress.q_mean, progress.grad_norm = np.average(
                values, axis=0, weights=weights
            ).tolist()

    # -- state -------------------------------------------------------------------------------------

    def network(self) -> QNetwork:
        """Return a copy of the policy on the CPU, from the learner of rank 0."""
        network = build_network(self._card)
        network.load_state_dict(self._learners.ask(lambda learner: learner.policy.remote()))
        return network.eval()

    def settle(self) -> int:
        """Wait until all data in flight has arrived, so that nothing changes until the next
        `advance`; return the steps made.

        This waits for the queued calls: at most two chunks of each collector and half a second of
        learning. Shards accept these chunks at once, even beyond the limit on samples per insert.
        """
        for shard in self.shards:
            shard.accept_beyond_limit.remote(True)
        try:
            for worker in self._collectors:
                worker.finish_chunk()
            # The learner continues: a shard that restarts now forgets `accept_beyond_limit`, and
            # accepts no chunk until a request of the learner sets its insert limit.
            while any(worker.calls for worker in self._collectors):
                self._give_work(until_step=0)
                self._take_results(self._unreported)
            while self._learners.waiting:
                self._take_results(self._unreported)
        finally:
            for shard in self.shards:
                shard.accept_beyond_limit.remote(False)
        if self._collectors:
            self._ask_shards(self._tally.balance)
        return self.steps

    def _ask_shards(self, report: Callable[[int, ShardCounts, dict[int, int]], None]) -> None:
        for index, shard in enumerate(self.shards):
            # If the shard has just died, the learner counts the shard's transitions as lost.
            with contextlib.suppress(RayError):
                report(index, *ray.get([shard.counts.remote(), shard.heads.remote()]))

    def save(self, place: Place) -> None:
        """Write a checkpoint into `place`.

        Raises RunFault when an actor cannot be restarted, and OSError when `place` cannot be
        written.
        """
        place = absolute(place)  # actors have other working directories
        shards = self.shards if self.config.run.checkpoint_replay else []
        state: dict[str, Any] = {"form": "ray", "turn": 0}
        for _ in range(MAX_FAILURES):
            # If a learner dies during the save, it is replaced, and all actors save again.
            self.settle()
            here = [worker for worker in self._collectors if not worker.away]
            try:
                state |= save_actors(
                    place, self._learners.members, shards, [worker.actor for worker in here]
                )
                break
            except LearnerLost as error:
                self._learners.restart(error)
        else:
            raise RunFault("the learner cannot be kept alive, so no checkpoint could be written")
        state |= self._tally.state()
        state["lost_transitions"] += self._tally.lost
        state["restarts"] += self.restarts + self._learners.restarts
        state["lost_updates"] = self._learners.lost_updates
        states = dict(zip((worker.index for worker in here), state["collectors"]))
        state["collectors"] = [
            states.get(worker.index, self._new_state()) for worker in self._collectors
        ]
        # Before the first `advance`, the collectors' states are those of the loaded checkpoint.
        if not self._collectors:
            state["collectors"] = self._collector_states
        with writing(place) as folder:
            (folder / "state.json").write_text(json.dumps(state), encoding="utf-8")

    def _new_state(self) -> dict[str, Any]:
        """Return a state for a collector that is away during the save. Its random state may be any,
        because the next incarnation begins new episodes in any case.
        """
        return {"rng": np.random.default_rng().bit_generator.state, "run_step": self.steps}

    def load(self, place: Place) -> bool:
        """Continue from a checkpoint in `place`; return False, because all lanes begin new
        episodes.

        Raises CheckpointError when the checkpoint does not fit the network or the shards.
        """
        place = absolute(place)
        with reading(place, deep=False) as folder:
            state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        load_actors(place, state, self.shards, self._learners)
        self._tally.restore(
            state, [shard_state["counts"]["inserted"] for shard_state in state["shards"]]
        )
        self.restarts = state.get("restarts", 0)
        self._learners.lost_updates = state.get("lost_updates", 0)
        # Emulators cannot be saved. Each collector continues with its random state and its step
        # count, in new episodes.
        self._collector_states = [
            {"rng": values["rng"], "run_step": values["run_step"]} for values in state["collectors"]
        ]
        return False

    def close(self) -> None:
        """End all actors. Ray itself keeps running."""
        self._learners.close()
        for actor in [*(worker.actor for worker in self._collectors), *self.shards]:
            ray.kill(actor)
