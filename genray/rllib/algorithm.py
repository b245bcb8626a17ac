"""Defines `ApexDQN`, an RLlib `Algorithm` whose work is done by a `Coordinator`."""

import atexit
import contextlib
import dataclasses
import logging
import os
import sys
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.policy.sample_batch import DEFAULT_POLICY_ID
from ray.rllib.utils import force_list
from ray.rllib.utils.checkpoints import Checkpointable
from ray.tune import PlacementGroupFactory

from genray.distributed.coordinator import Coordinator
from genray.distributed.session import even_share, node_cpus, ray_session
from genray.distributed.waiting import waits_explained
from genray.errors import CheckpointError, ConfigError
from genray.rl.collect import Episode
from genray.rl.engine import Progress
from genray.rl.evaluate import evaluate
from genray.rl.networks import QNetwork
from genray.rllib.config import ApexDQNConfig
from genray.rllib.results import episode_results, iteration_results
from genray.runs.files import find_directory, remove_directory, replacing_directory, write_whole
from genray.threads import user_threads

logger = logging.getLogger(__name__)

WORK_S = 0.25  # seconds of a training step; the limits of an iteration are checked after each step

# Contains the Ray session that `setup` started or joined, if Ray was not initialized. The session
# ends with the process.
_SESSION = contextlib.ExitStack()
atexit.register(_SESSION.close)


class ApexDQN(Algorithm):
    """Trains Ape-X through RLlib's `Algorithm` interface, with one `Coordinator`."""

    config: ApexDQNConfig

    @classmethod
    def get_default_config(cls) -> ApexDQNConfig:
        return ApexDQNConfig()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """Return one bundle for this process, for each collector and for each learner, and one for
        each shard if nodes are marked by role.

        Collectors and learners get one CPU each, or an equal share if the cluster has fewer CPUs
        than actors. Tune starts a trial when all its bundles are free, so parallel trials do not
        use the same cores.
        """
        settings = cls.get_default_config().update_from_dict(config)
        settings.validate()
        dqn = settings.to_dqn()
        cluster = ray.cluster_resources() if ray.is_initialized() else {}
        places = sorted(node_cpus() if cluster else [float(os.cpu_count() or 1)])
        places[-1] -= settings.num_cpus_for_main_process
        share = even_share(dqn, places)

        def bundle(role: str, cpus: Any, gpus: float = 0) -> dict[str, float]:
            # If nodes are marked by role (cluster.yaml), each actor reserves one unit of its role.
            marks = {f"genray_{role}": 1.0} if f"genray_{role}" in cluster else {}
            return {"CPU": share if cpus == "auto" else cpus, "GPU": gpus, **marks}

        gpus = settings.num_gpus_per_learner
        if gpus == "auto":
            gpus = 1 if cluster.get("GPU") else 0
        bundles = [
            {
                "CPU": settings.num_cpus_for_main_process,
                **settings.custom_resources_for_main_process,
            }
        ]
        bundles += [bundle("collector", settings.num_cpus_per_env_runner)] * dqn.collect.collectors
        bundles += [bundle("learner", settings.num_cpus_per_learner, gpus)] * dqn.learner.learners
        if "genray_replay" in cluster:
            bundles += [bundle("replay", 0)] * dqn.replay.shards
        if not any(sum(wanted.values()) for wanted in bundles):
            bundles[0] = {"CPU": 0.01}  # Tune refuses a request without any resource
        return PlacementGroupFactory(bundles, strategy=settings.placement_strategy)

    def setup(self, config: AlgorithmConfig) -> None:
        """Start a coordinator instead of RLlib's environment runners, learner group and replay.

        If Ray is not initialized, this joins the cluster at RAY_ADDRESS, or starts a private Ray.
        """
        if not ray.is_initialized():
            _SESSION.enter_context(ray_session(os.environ.get("RAY_ADDRESS")))
        if self.config.log_level:
            logging.getLogger("ray.rllib").setLevel(self.config.log_level)
        self._set_up_metrics()
        self.callbacks = [cls() for cls in force_list(self.config.callbacks_class)]
        self._progress = Progress()
        self._episodes: deque[Episode] = deque(
            maxlen=self.config.metrics_num_episodes_for_smoothing
        )
        self._num_episodes = 0
        self._engine = self._new_engine()
        self._worked = False
        self._tell("on_algorithm_init", metrics_logger=self.metrics)

    def _new_engine(self) -> Coordinator:
        settings, dqn = self.config, self.config.to_dqn()
        cpus_each = (
            None
            if settings.num_cpus_per_env_runner == "auto"
            else float(settings.num_cpus_per_env_runner)
        )
        threads = (
            0 if settings.num_cpus_per_learner == "auto" else int(settings.num_cpus_per_learner)
        )
        trial = ray.util.get_current_placement_group()
        if trial:
            # Ray places the actors into the trial's bundles (Tune sets
            # placement_group_capture_child_tasks), but only if they fit. The share of an actor is
            # therefore computed from the bundles, not from the cluster.
            bundles = [dict(bundle) for bundle in trial.bundle_specs]
            mine = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
            bundles[0]["CPU"] = bundles[0].get("CPU", 0.0) - mine  # this process uses the first
            cpus_each = even_share(dqn, [bundle.get("CPU", 0.0) for bundle in bundles])
            threads = max(1, threads)
            gpu = any(bundle.get("GPU") for bundle in bundles)
            dqn = dataclasses.replace(
                dqn, run=dataclasses.replace(dqn.run, device="cuda" if gpu else "cpu")
            )
        engine = Coordinator(
            dqn, learner_threads=threads or user_threads() or None, cpus_each=cpus_each
        )
        with waits_explained("ApexDQN"):
            # Wait until the learner has its bundle, the one with the GPU, before collectors start.
            engine.network()
        return engine

    # -- work --------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """Run one iteration and return its results.

        An iteration makes training steps until the configured minima of time, agent steps and
        trained transitions are reached, and then evaluates if an evaluation is due.
        """
        before, start = self._progress, time.monotonic()
        num_before, self._reports = self._num_episodes, list[Progress]()
        settings, batch_size = self.config, self.config.train_batch_size
        while True:
            self.training_step()
            done = (
                time.monotonic() - start >= (settings.min_time_s_per_iteration or 0),
                self._progress.steps - before.steps
                >= (settings.min_sample_timesteps_per_iteration or 0),
                (self._progress.updates - before.updates) * batch_size
                >= (settings.min_train_timesteps_per_iteration or 0),
            )
            if all(done):
                break
        ours = iteration_results(
            before,
            self._progress,
            self._reports,
            self._episodes,
            (num_before, self._num_episodes),
            batch_size,
        )
        results = self.metrics.compile() | ours  # adds the values that callbacks logged
        interval = settings.evaluation_interval
        if interval and (self.iteration + 1) % interval == 0:
            results["evaluation"] = self.evaluate()
        return results

    def training_step(self) -> None:
        """Let the engine work for WORK_S seconds, and add its report to the iteration's reports.

        Afterwards the actors still have queued calls, so they need not wait for the next training
        step.
        """
        self._worked = True
        progress = self._engine.advance(sys.maxsize, WORK_S)
        for event in progress.events:
            logger.warning(event)
        self._episodes.extend(progress.episodes)
        self._num_episodes += len(progress.episodes)
        self._reports.append(progress)
        if not progress.updates:  # the learner has not reported since this process started
            progress.updates, progress.replay_size = (
                self._progress.updates,
                self._progress.replay_size,
            )
        self._progress = progress

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Play `evaluation_duration` whole episodes with the current network in this process;
        return the results with RLlib's keys.

        Meanwhile the engine gets no new work.
        """
        self._tell("on_evaluate_start", metrics_logger=self.metrics)
        dqn = self.config.to_dqn()
        played = evaluate(
            self.network(),
            dqn.env,
            episodes=dqn.run.evaluate_episodes,
            epsilon=dqn.run.evaluate_epsilon,
            seed=dqn.run.seed + 10_000,
        )
        episodes = [
            Episode(score, steps, played.epsilon)
            for score, steps in zip(played.scores, played.steps)
        ]
        counts = {"num_episodes": len(episodes), "num_env_steps_sampled": sum(played.steps)}
        results: dict[str, Any] = {"env_runners": episode_results(episodes) | counts}
        if played.human_normalised is not None:
            results["human_normalised"] = played.human_normalised
        self._tell("on_evaluate_end", metrics_logger=self.metrics, evaluation_metrics=results)
        return results

    def network(self) -> QNetwork:
        """Return a copy of the policy's network on the CPU. Use it instead of `get_module`."""
        return self._engine.network()

    def get_module(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ConfigError, because there is no RLModule."""
        raise ConfigError(
            "get_module: there is no RLModule here; algo.network() returns the PyTorch network"
        )

    def get_weights(self, policies: Any = None) -> dict[str, dict[str, np.ndarray]]:
        """Return {RLlib's name of the single policy: {name: tensor of the network as an array}}."""
        tensors = self.network().state_dict()
        return {DEFAULT_POLICY_ID: {name: tensor.numpy() for name, tensor in tensors.items()}}

    def set_weights(self, weights: Any) -> None:
        """Raise ConfigError, because weights can only be restored from a checkpoint."""
        raise ConfigError(
            "set_weights: not supported; algo.restore_from_path(PATH) loads networks, optimizer "
            "and replay"
        )

    def compute_single_action(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ConfigError, because there is no RLlib policy."""
        raise ConfigError(
            "compute_single_action: there is no RLlib policy here; "
            "algo.network()(frames).argmax(1), frames uint8 "
            "[B, stack, H, W], gives greedy actions"
        )

    compute_actions = compute_single_action

    def get_policy(self, *args: Any, **kwargs: Any) -> Any:
        """Raise ConfigError, because there is no RLlib policy."""
        raise ConfigError(
            "get_policy: there is no RLlib policy here; algo.network() returns the PyTorch network"
        )

    def _tell(self, event: str, **kwargs: Any) -> None:
        functions = getattr(self.config, f"callbacks_{event}")
        make_callback(event, self.callbacks, functions, kwargs={"algorithm": self, **kwargs})

    # -- checkpoints: RLlib's files, and the directory `engine` ------------------------------------

    def save_to_path(
        self,
        path: Any = None,
        *,
        state: Any = None,
        filesystem: Any = None,
        use_msgpack: bool = False,
    ) -> str:
        """Write a checkpoint into the local directory `path` and return the directory's path.

        The checkpoint contains networks, optimizer, random states, counters, and the replay unless
        `checkpoint_replay` is False. All its files are in `path`/engine. This directory is replaced
        in one step, so if the process is killed, either the old or the new checkpoint can be
        loaded. RLlib's own files are also copied to `path`, where RLlib expects them. Tune uploads
        the checkpoints of its trials itself. Raises ConfigError if `path` is not local.
        """
        folder = _local(path or tempfile.mkdtemp(prefix="apex-dqn-"), filesystem)
        # Remove the files of an older version of genray that was killed while it saved.
        for leftover in folder.glob("engine.*.tmp"):
            remove_directory(leftover)
        with replacing_directory(folder / "engine") as fresh:
            # Save the engine first: it waits for chunks in flight, whose steps RLlib's part counts.
            self._engine.save(fresh)
            engine = {file.name for file in fresh.iterdir()}
            Checkpointable.save_to_path(self, str(fresh), state=state, use_msgpack=use_msgpack)
            own = [file.name for file in fresh.iterdir() if file.name not in engine]
        for name in own:
            write_whole(folder / name, (folder / "engine" / name).read_bytes())
        return str(folder)

    @classmethod
    def from_checkpoint(cls, path: Any, filesystem: Any = None, **kwargs: Any) -> "ApexDQN":
        """Make a new algorithm that continues from a checkpoint of `save_to_path`. Raises the same
        errors as `restore_from_path`.
        """
        place = path.to_directory() if isinstance(path, ray.tune.Checkpoint) else path
        return super().from_checkpoint(str(_rllib_files(_local(place, filesystem))), **kwargs)

    def restore_from_path(
        self, path: Any, *, component: Any = None, filesystem: Any = None, **kwargs: Any
    ) -> None:
        """Continue from a checkpoint of `save_to_path`; the lanes begin new episodes.

        Raises CheckpointError when the directory is not such a checkpoint or does not fit this
        configuration, and ConfigError for a path that is not local or a `component`.
        """
        folder = _local(path, filesystem)
        if component is not None:
            raise ConfigError(
                f"component={component!r}: parts of a checkpoint cannot be restored; leave it None"
            )
        engine = _engine_files(folder)
        Checkpointable.restore_from_path(self, str(_rllib_files(folder)), **kwargs)
        if self._worked:  # a coordinator can load only before its collectors start
            self._engine.close()
            self._engine, self._worked = self._new_engine(), False
        self._engine.load(engine)

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        """Return no components: `save_to_path` saves the engine as a whole."""
        return []

    def get_state(
        self, components: Any = None, *, not_components: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Return the counters and results that the engine does not save."""
        return {
            "training_iteration": self.training_iteration,
            "metrics_logger": self.metrics.get_state(),
            "progress": dataclasses.asdict(
                dataclasses.replace(
                    self._progress, steps=self._engine.steps, episodes=[], events=[]
                )
            ),
            "episodes": [dataclasses.astuple(episode) for episode in self._episodes],
            "num_episodes": self._num_episodes,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Restore the counters and results that `get_state` returned."""
        self._iteration = state["training_iteration"]
        self.metrics.set_state(state["metrics_logger"])
        self._progress = Progress(**state["progress"])
        self._episodes.clear()
        self._episodes.extend(Episode(*values) for values in state["episodes"])
        self._num_episodes = state["num_episodes"]

    def cleanup(self) -> None:
        """Stop the coordinator's actors; Ray keeps running."""
        if hasattr(self, "_engine") and ray.is_initialized():
            self._engine.close()


def _engine_files(folder: Path) -> Path:
    """Return the directory of the engine's files: `folder`/engine, or `folder` itself if it
    contains them. Raises CheckpointError if neither does.
    """
    for place in (find_directory(folder / "engine"), folder):
        if (place / "state.json").exists():
            return place
    raise CheckpointError(f"{folder}: not a checkpoint of ApexDQN (no engine/state.json)")


def _rllib_files(folder: Path) -> Path:
    """Return the directory of RLlib's files: that of the engine's files or, in checkpoints of older
    versions, `folder`.
    """
    engine = _engine_files(folder)
    return engine if (engine / ApexDQN.CLASS_AND_CTOR_ARGS_FILE_NAME).exists() else folder


def _local(path: Any, filesystem: Any) -> Path:
    if getattr(filesystem, "type_name", "local") != "local" or "://" in str(path):
        raise ConfigError(
            f"{path}: checkpoints go to a local folder; let Tune upload them (storage_path), or "
            "copy it"
        )
    return Path(path).absolute()
