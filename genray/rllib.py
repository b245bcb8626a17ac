"""Ape-X behind the face that RLlib users know: `ApexDQNConfig` and `ApexDQN`.

    from genray.rllib import ApexDQN, ApexDQNConfig

    algo = ApexDQNConfig().environment("ale_py:ALE/Pong-v5").training(lr=2.5e-4, n_step=5).build_algo()
    algo.train(); algo.evaluate(); algo.save_to_path("/somewhere")
    tune.run(ApexDQN, config={"env": "breakout", "lr": tune.loguniform(1e-5, 1e-3)}, stop={"training_iteration": 100})

Only the face is RLlib's. Playing, replay and learning are the coordinator's actors; RLlib's environment runners,
learner group and replay buffers are never made. A setting of AlgorithmConfig therefore either means something here or
is refused by `validate`; none is ignored. This is the only file that imports ray.rllib: it alone follows its changes.
"""

import atexit
import contextlib
import dataclasses
import difflib
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.callbacks.utils import make_callback
from ray.rllib.utils import force_list
from ray.rllib.utils.checkpoints import Checkpointable
from ray.tune import PlacementGroupFactory

from genray.config import from_dict
from genray.dist.coordinator import Coordinator, even_share, node_cpus, ray_session
from genray.errors import CheckpointError, ConfigError
from genray.rl.agent import Progress
from genray.rl.collect import CollectConfig, Episode
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.evaluate import evaluate
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig

logger = logging.getLogger(__name__)

WORK_S = 0.25  # one training step; the iteration's limits are looked at in between


class TrainingOptions(TypedDict, total=False):
    """What `training(...)` takes: the fields of genray's dataclasses, documented there, under their own names and
    under those of RLlib's DQNConfig that mean the same. A value may also be one of Tune's search spaces."""

    # genray.rl.collect.CollectConfig, genray.rl.exploration.ExploreConfig
    gamma: float
    n_step: int
    chunk_rows: int
    reward_clip: Literal["clip", "sign", "none"]
    exploration: Literal["ladder", "shared"]
    epsilon: float
    epsilon_power: float
    persistence: float
    anneal_steps: int
    # genray.rl.networks.NetworkConfig
    channels: tuple[int, int, int]
    hidden: int
    dueling: bool
    past_actions: int
    layer_norm: bool
    # genray.rl.learner.LearnerConfig
    lr: float
    learning_rate: float
    average_updates: int
    train_batch_size: int
    train_batch_size_per_learner: int
    batch_size: int
    double: bool
    double_q: bool
    loss: Literal["huber", "squared"]
    optimizer: Literal["adam", "rmsprop"]
    optimizer_epsilon: float
    adam_epsilon: float
    grad_clip: float | None
    max_grad_norm: float
    target_period_updates: int
    target_network: bool
    importance_weighting: bool
    # genray.rl.replay.ReplayConfig
    capacity: int
    shards: int
    prioritized: bool
    alpha: float
    beta: float
    beta_end: float
    beta_anneal_updates: int
    priority_epsilon: float
    min_size: int
    num_steps_sampled_before_learning_starts: int
    samples_per_insert: float
    training_intensity: float
    # genray.rl.config.RunConfig
    evaluate_epsilon: float
    publish_every: int
    checkpoint_replay: bool
    store_buffer_in_checkpoints: bool


# Other name -> the config's attribute: RLlib's own where AlgorithmConfig has one, else genray's.
ALIASES = {
    "collectors": "num_env_runners",
    "envs_per_collector": "num_envs_per_env_runner",
    "chunk_rows": "rollout_fragment_length",
    "learning_rate": "lr",
    "batch_size": "train_batch_size",
    "train_batch_size_per_learner": "train_batch_size",
    "max_grad_norm": "grad_clip",
    "learners": "num_learners",
    "evaluate_episodes": "evaluation_duration",
    "double_q": "double",
    "adam_epsilon": "optimizer_epsilon",
    "num_steps_sampled_before_learning_starts": "min_size",
    "training_intensity": "samples_per_insert",
    "store_buffer_in_checkpoints": "checkpoint_replay",
}
PARTS: dict[str, type] = {
    "network": NetworkConfig,
    "replay": ReplayConfig,
    "learner": LearnerConfig,
    "explore": ExploreConfig,
    "collect": CollectConfig,
    "run": RunConfig,
}
# How long, how often and where to save is RLlib's and Tune's business; the device follows num_gpus_per_learner.
NOT_HERE = {"steps", "evaluate_every", "checkpoint_every", "keep", "device"}
# The config's attribute -> where its value goes in DQNConfig.
FIELDS = {
    ALIASES.get(field.name, field.name): (part, field.name)
    for part, cls in PARTS.items()
    for field in dataclasses.fields(cls)
    if field.name not in NOT_HERE
}

# Settings of AlgorithmConfig (as `to_dict` names them) that mean here what they mean in RLlib.
HONOURED = {
    "env", "env_config", "num_cpus_per_env_runner", "num_cpus_per_learner", "num_gpus_per_learner",
    "num_cpus_for_main_process", "custom_resources_for_main_process", "placement_strategy",
    "evaluation_interval", "evaluation_config", "log_level", "log_sys_usage",
    "min_time_s_per_iteration", "min_train_timesteps_per_iteration", "min_sample_timesteps_per_iteration",
    "metrics_num_episodes_for_smoothing", "stats_cls_lookup", "callbacks",
}  # fmt: skip
EVENTS = ("algorithm_init", "train_result", "evaluate_start", "evaluate_end", "checkpoint_loaded")
HONOURED |= {f"callbacks_on_{event}" for event in EVENTS}

_NETWORK = "shape the network with training(channels=…, hidden=…, dueling=…)"
_NOT_PART = "not a part of this Ape-X; leave it out"
# What to do instead, where there is something to say.
INSTEAD = {
    "framework": "genray is PyTorch only",
    "model": _NETWORK,
    "_model_config": _NETWORK,
    "_rl_module_spec": _NETWORK,
    "hiddens": "use training(hidden=…)",
    "clip_rewards": "use training(reward_clip='clip', 'sign' or 'none')",
    "explore": "use training(epsilon=…), or evaluation(evaluation_config={'explore': False})",
    "evaluation_num_env_runners": "evaluation plays in the algorithm's own process",
    "evaluation_parallel_to_training": "evaluation waits for the iteration to end",
    "evaluation_duration_unit": "evaluation counts episodes",
    "num_gpus": "use learners(num_gpus_per_learner=1)",
    "num_gpus_per_env_runner": "collectors act on CPUs",
    "target_network_update_freq": "use training(target_period_updates=…), which counts updates, not steps",
    "replay_buffer_config": "use training(capacity=…, prioritized=…, alpha=…, beta=…)",
    "td_error_loss_fn": "use training(loss='huber' or 'squared')",
    "device": "use learners(num_gpus_per_learner=0 or 1)",
    "steps": "use Tune's stop={'num_env_steps_sampled_lifetime': …}",
    **dict.fromkeys(("tau", "num_atoms", "v_min", "v_max", "noisy", "sigma0", "lr_schedule", "burn_in_len"), _NOT_PART),
}


class ApexDQNConfig(AlgorithmConfig):
    """RLlib's fluent configuration over `genray.rl.config.DQNConfig`; `to_dqn` is the translation.

    The options of `DQNConfig`'s parts are flat attributes, so that Tune can search over each. Those of `EnvConfig` go
    into `environment(name, env_config={"sticky_actions": 0.25, …})`.
    """

    def __init__(self, algo_class: type | None = None):
        super().__init__(algo_class=algo_class or ApexDQN)
        defaults = DQNConfig()
        for name, (part, field) in FIELDS.items():
            setattr(self, name, getattr(getattr(defaults, part), field))
        self.evaluation_duration = 10  # as in RLlib
        self.min_sample_timesteps_per_iteration = 1_000
        self.num_cpus_for_main_process = 0  # it waits, and evaluates while the others wait
        # "auto": one CPU, or an even share of a machine that has fewer than collectors and learner together.
        self.num_cpus_per_env_runner: float | str = "auto"
        # "auto": one GPU where the cluster has any.
        self.num_gpus_per_learner: Any = "auto"

    # -- setting -------------------------------------------------------------------------------------------------------

    def training(self, **options: Unpack[TrainingOptions]) -> Self:
        """Set options of the algorithm. Raises ConfigError for an unknown one, with the nearest names."""
        for name, value in options.items():
            if name not in TrainingOptions.__annotations__:
                raise _no_such_option(f"training({name}=…)", name, TrainingOptions.__annotations__)
            setattr(self, ALIASES.get(name, name), value)
        return self

    def update_from_dict(self, config_dict: Any) -> Self:
        """Set attributes from Tune's dictionary; names are looked at by `validate`."""
        values = {name: value for name, value in config_dict.items() if not name.startswith("__")}
        # RLlib would hand these two to training(), as its own dictionaries of the same names.
        for name in ("model", "optimizer"):
            if name in values:
                setattr(self, name, values.pop(name))
        super().update_from_dict(values)
        return self

    @staticmethod
    def _translate_special_keys(key: str, warn_deprecated: bool = True) -> str:
        return AlgorithmConfig._translate_special_keys(ALIASES.get(key, key), warn_deprecated)

    # -- reading -------------------------------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ConfigError for an unknown or unsupported setting, or a value that makes no sense."""
        defaults = type(self)().to_dict()
        for name, value in self.to_dict().items():
            if name in HONOURED or name in FIELDS or name == "class":  # "class": left by AlgorithmConfig.from_state
                continue
            if name not in defaults:
                raise _no_such_option(name, name, [*FIELDS, *ALIASES, *defaults])
            if value != defaults[name]:
                advice = INSTEAD.get(name, f"genray does not use it; leave it at {defaults[name]!r}")
                raise ConfigError(f"{name}={value!r}: not supported; {advice}")
        self._validate_callbacks()
        if (self.evaluation_config or {}) not in ({}, {"explore": False}, {"explore": True}):
            raise ConfigError(
                f"evaluation_config={self.evaluation_config!r}: not supported; only {{'explore': False}} (greedy) is"
            )
        for name in ("num_cpus_per_env_runner", "num_cpus_per_learner"):
            value = getattr(self, name)
            if value != "auto" and not (isinstance(value, int | float) and value >= 0):
                raise ConfigError(f"{name}={value!r}: must be 'auto' or a number ≥ 0")
        if self.num_gpus_per_learner not in ("auto", 0, 1):
            raise ConfigError(f"num_gpus_per_learner={self.num_gpus_per_learner!r}: must be 'auto', 0 or 1")
        self.to_dqn().validate()

    def _validate_callbacks(self) -> None:
        never = {name for name in dir(RLlibCallback) if name.startswith("on_")} - {f"on_{event}" for event in EVENTS}
        for callback in force_list(self.callbacks_class):
            for name in never:
                if getattr(callback, name) is not getattr(RLlibCallback, name):
                    raise ConfigError(
                        f"callbacks({callback.__name__}.{name}): never called, because genray's collectors play, not "
                        f"RLlib's; there are {', '.join(f'on_{event}' for event in EVENTS)}"
                    )

    def to_dqn(self) -> DQNConfig:
        """What the engine runs on. Raises ConfigError for a value of the wrong type or an unknown env_config key."""
        if not isinstance(self.env, str):
            raise ConfigError(
                f"environment({self.env!r}): name an Atari game, e.g. 'ALE/Breakout-v5', or module:factory of an "
                "own environment (see genray/rl/env.py)"
            )
        own = ":" in self.env and not self.env.startswith("ale_py:")
        values: dict[str, Any] = {part: {} for part in PARTS}
        values["env"] = {**self.env_config, "env" if own else "game": self.env}
        # RLlib's own values for "off", "none given" and "in my process".
        absent = {"grad_clip": 0.0, "seed": 0}
        for name, (part, field) in FIELDS.items():
            value = getattr(self, name)
            values[part][field] = absent[name] if value is None and name in absent else value
        values["learner"]["learners"] = self.num_learners or 1
        values["run"]["device"] = {"auto": "auto", 0: "cpu", 1: "cuda"}[self.num_gpus_per_learner]
        if (self.evaluation_config or {}).get("explore") is False:
            values["run"]["evaluate_epsilon"] = 0.0
        return from_dict(DQNConfig, values)


def _no_such_option(what: str, name: str, names: Iterable[str]) -> ConfigError:
    near = difflib.get_close_matches(name, dict.fromkeys(names), n=3, cutoff=0.5)
    advice = INSTEAD.get(name) or (f"did you mean {', '.join(near)}?" if near else "see genray.rllib.TrainingOptions")
    return ConfigError(f"{what}: no such option; {advice}")


# A private Ray that `build_algo` had to start, as RLlib would have; it lives as long as the process.
_SESSION = contextlib.ExitStack()
atexit.register(_SESSION.close)


class ApexDQN(Algorithm):
    """RLlib's `Algorithm` around one `Coordinator`."""

    config: ApexDQNConfig

    @classmethod
    def get_default_config(cls) -> ApexDQNConfig:
        return ApexDQNConfig()

    @classmethod
    def default_resource_request(cls, config: Any) -> PlacementGroupFactory:
        """A bundle for this process, each collector and the learner; of even shares where the machine is small.

        Tune starts a trial when all its bundles are free, so parallel trials never share a core.
        """
        settings = cls.get_default_config().update_from_dict(config)
        settings.validate()
        dqn = settings.to_dqn()
        cluster = ray.cluster_resources() if ray.is_initialized() else {}
        places = sorted(node_cpus() if cluster else [float(os.cpu_count() or 1)])
        places[-1] -= settings.num_cpus_for_main_process
        share = even_share(dqn, places)

        def bundle(role: str, cpus: Any, gpus: float = 0) -> dict[str, float]:
            # Where nodes are marked by role (cluster.yaml), the actors ask for one unit of their role.
            marks = {f"genray_{role}": 1.0} if f"genray_{role}" in cluster else {}
            return {"CPU": share if cpus == "auto" else cpus, "GPU": gpus, **marks}

        gpus = settings.num_gpus_per_learner
        if gpus == "auto":
            gpus = 1 if cluster.get("GPU") else 0
        bundles = [{"CPU": settings.num_cpus_for_main_process, **settings.custom_resources_for_main_process}]
        bundles += [bundle("collector", settings.num_cpus_per_env_runner)] * dqn.collect.collectors
        bundles += [bundle("learner", settings.num_cpus_per_learner, gpus)] * dqn.learner.learners
        if "genray_replay" in cluster:
            bundles += [bundle("replay", 0)] * dqn.replay.shards
        if not any(sum(wanted.values()) for wanted in bundles):
            bundles[0] = {"CPU": 0.01}  # Tune refuses to reserve nothing at all
        return PlacementGroupFactory(bundles, strategy=settings.placement_strategy)

    def setup(self, config: AlgorithmConfig) -> None:
        """In place of RLlib's: no environment runners, no learner group, no replay; a coordinator."""
        if not ray.is_initialized():
            _SESSION.enter_context(ray_session(os.environ.get("RAY_ADDRESS")))
        if self.config.log_level:
            logging.getLogger("ray.rllib").setLevel(self.config.log_level)
        self._set_up_metrics()
        self.callbacks = [cls() for cls in force_list(self.config.callbacks_class)]
        self._progress = Progress()
        self._episodes: deque[Episode] = deque(maxlen=self.config.metrics_num_episodes_for_smoothing)
        self._num_episodes = 0
        self._engine = self._new_engine()
        self._worked = False
        self._tell("on_algorithm_init", metrics_logger=self.metrics)

    def _new_engine(self) -> Coordinator:
        settings, dqn = self.config, self.config.to_dqn()
        cpus_each = None if settings.num_cpus_per_env_runner == "auto" else float(settings.num_cpus_per_env_runner)
        threads = 0 if settings.num_cpus_per_learner == "auto" else int(settings.num_cpus_per_learner)
        trial = ray.util.get_current_placement_group()
        if trial:
            # Ray places the actors into the trial's bundles by itself (Tune sets placement_group_capture_child_tasks),
            # but only what fits into them: they must not ask for shares of the whole cluster.
            bundles = [dict(bundle) for bundle in trial.bundle_specs]
            mine = ray.get_runtime_context().get_assigned_resources().get("CPU", 0.0)
            bundles[0]["CPU"] = bundles[0].get("CPU", 0.0) - mine  # this process sits in the first
            cpus_each = even_share(dqn, [bundle.get("CPU", 0.0) for bundle in bundles])
            threads = max(1, threads)
            gpu = any(bundle.get("GPU") for bundle in bundles)
            dqn = dataclasses.replace(dqn, run=dataclasses.replace(dqn.run, device="cuda" if gpu else "cpu"))
        engine = Coordinator(dqn, learner_threads=threads or None, cpus_each=cpus_each)
        engine.network()  # the learner has its place (the bundle with the GPU) before collectors look for theirs
        return engine

    # -- work ----------------------------------------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        """One iteration: training steps until the configured minimum of time and steps is reached, then evaluation."""
        before, start = self._progress, time.monotonic()
        self._num_before, self._reports = self._num_episodes, list[Progress]()
        settings, batch_size = self.config, self.config.train_batch_size
        while True:
            self.training_step()
            done = (
                time.monotonic() - start >= (settings.min_time_s_per_iteration or 0),
                self._progress.steps - before.steps >= (settings.min_sample_timesteps_per_iteration or 0),
                (self._progress.updates - before.updates) * batch_size
                >= (settings.min_train_timesteps_per_iteration or 0),
            )
            if all(done):
                break
        results = self.metrics.compile() | self._results(before)  # what callbacks logged, and ours
        interval = settings.evaluation_interval
        if interval and (self.iteration + 1) % interval == 0:
            results["evaluation"] = self.evaluate()
        return results

    def training_step(self) -> None:
        """Let the engine work for a moment, and take in what it tells. It never drains: calls stay queued."""
        self._worked = True
        progress = self._engine.advance(sys.maxsize, WORK_S)
        for event in progress.events:
            logger.warning(event)
        self._episodes.extend(progress.episodes)
        self._num_episodes += len(progress.episodes)
        self._reports.append(progress)
        if not progress.updates:  # the learner has not reported since this process started
            progress.updates, progress.replay_size = self._progress.updates, self._progress.replay_size
        self._progress = progress

    def _results(self, before: Progress) -> dict[str, Any]:
        """RLlib's keys, as its DQN has them, and a few of our own at the top."""
        now, batch_size = self._progress, self.config.train_batch_size
        learned = [[p.loss, p.q_mean, p.grad_norm] for p in self._reports if p.loss is not None]
        loss, q_mean, grad_norm = np.mean(np.array(learned, float), axis=0).tolist() if learned else (math.nan,) * 3
        trained = now.updates * batch_size
        return {
            "env_runners": _episode_results(self._episodes)
            | {
                "num_episodes": self._num_episodes - self._num_before,
                "num_episodes_lifetime": self._num_episodes,
                "num_env_steps_sampled": now.steps - before.steps,
                "num_env_steps_sampled_lifetime": now.steps,
                "epsilon": now.epsilon,
            },
            "learners": {
                "default_policy": {
                    "total_loss": loss,
                    "qf_mean": q_mean,
                    "gradients_default_optimizer_global_norm": grad_norm,
                    "diff_num_grad_updates_vs_sampler_policy": now.weight_lag,
                    "num_grad_updates_lifetime": now.updates,
                },
                "__all_modules__": {
                    "num_env_steps_trained": (now.updates - before.updates) * batch_size,
                    "num_env_steps_trained_lifetime": trained,
                },
            },
            "replay_buffer": {"num_env_steps_stored": now.replay_size},
            "fault_tolerance": {
                "num_remote_worker_restarts": now.restarts,
                "num_transitions_lost": now.lost_transitions,
            },
            "num_env_steps_sampled_lifetime": now.steps,
            "num_env_steps_trained_lifetime": trained,
            "num_episodes_lifetime": self._num_episodes,
            "samples_per_insert": now.samples_per_insert,
            "weight_lag": now.weight_lag,
            "updates": now.updates,
        }

    def evaluate(self, parallel_train_future: Any = None) -> dict[str, Any]:
        """Play `evaluation_duration` whole episodes with the current network, here; the engine's queue runs dry."""
        self._tell("on_evaluate_start", metrics_logger=self.metrics)
        dqn = self.config.to_dqn()
        played = evaluate(
            self.network(),
            dqn.env,
            episodes=dqn.run.evaluate_episodes,
            epsilon=dqn.run.evaluate_epsilon,
            seed=dqn.run.seed + 10_000,
        )
        episodes = [Episode(score, steps, played.epsilon) for score, steps in zip(played.scores, played.steps)]
        counts = {"num_episodes": len(episodes), "num_env_steps_sampled": sum(played.steps)}
        results: dict[str, Any] = {"env_runners": _episode_results(episodes) | counts}
        if played.human_normalised is not None:
            results["human_normalised"] = played.human_normalised
        self._tell("on_evaluate_end", metrics_logger=self.metrics, evaluation_metrics=results)
        return results

    def network(self) -> QNetwork:
        """A copy of the current network, on the CPU: what RLlib's `get_module` is elsewhere."""
        return self._engine.network()

    def get_module(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("get_module: there is no RLModule here; algo.network() gives the PyTorch network")

    def get_policy(self, *args: Any, **kwargs: Any) -> Any:
        raise ConfigError("get_policy: there is no RLlib policy here; algo.network() gives the PyTorch network")

    def _tell(self, event: str, **kwargs: Any) -> None:
        functions = getattr(self.config, f"callbacks_{event}")
        make_callback(event, self.callbacks, functions, kwargs={"algorithm": self, **kwargs})

    # -- checkpoints: RLlib's files, and the engine's folder beside them -----------------------------------------------

    def save_to_path(
        self, path: Any = None, *, state: Any = None, filesystem: Any = None, use_msgpack: bool = False
    ) -> str:
        """Write everything needed to continue: networks, optimizer, *the replay's contents*, random states, counters.

        `path` is a local folder (Tune uploads what it saves by itself). The engine's part is replaced as a whole.
        """
        folder = _local(path or tempfile.mkdtemp(prefix="apex-dqn-"), filesystem)
        fresh = folder / f"engine.{os.getpid()}.tmp"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        try:
            self._engine.save(fresh)
            Checkpointable.save_to_path(self, str(folder), state=state, use_msgpack=use_msgpack)
            shutil.rmtree(folder / "engine", ignore_errors=True)
            fresh.rename(folder / "engine")
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return str(folder)

    def restore_from_path(self, path: Any, *, component: Any = None, filesystem: Any = None, **kwargs: Any) -> None:
        """Continue from what `save_to_path` wrote; the lanes begin new episodes.

        Raises CheckpointError when the folder is not such a checkpoint or does not fit this configuration.
        """
        folder = _local(path, filesystem)
        if component is not None:
            raise ConfigError(f"component={component!r}: a checkpoint is restored whole")
        if not (folder / "engine" / "state.json").exists():
            raise CheckpointError(f"{folder}: not a checkpoint of ApexDQN (no engine/state.json)")
        Checkpointable.restore_from_path(self, str(folder), **kwargs)
        if self._worked:  # a coordinator loads before its collectors start
            self._engine.close()
            self._engine, self._worked = self._new_engine(), False
        self._engine.load(folder / "engine")

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return []

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: Any) -> dict[str, Any]:
        """What is not the engine's: this face's own counters."""
        return {
            "training_iteration": self.training_iteration,
            "metrics_logger": self.metrics.get_state(),
            "progress": dataclasses.asdict(
                dataclasses.replace(self._progress, steps=self._engine.steps, episodes=[], events=[])
            ),
            "episodes": [dataclasses.astuple(episode) for episode in self._episodes],
            "num_episodes": self._num_episodes,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        self._iteration = state["training_iteration"]
        self.metrics.set_state(state["metrics_logger"])
        self._progress = Progress(**state["progress"])
        self._episodes.clear()
        self._episodes.extend(Episode(*values) for values in state["episodes"])
        self._num_episodes = state["num_episodes"]

    def cleanup(self) -> None:
        if hasattr(self, "_engine") and ray.is_initialized():
            self._engine.close()


def _episode_results(episodes: Iterable[Episode]) -> dict[str, float]:
    """NaN where no episode has ended yet, as schedulers expect the keys from the first result on."""
    scores = [episode.score for episode in episodes] or [math.nan]
    steps = [float(episode.steps) for episode in episodes] or [math.nan]
    return {
        "episode_return_mean": float(np.mean(scores)),
        "episode_return_min": float(np.min(scores)),
        "episode_return_max": float(np.max(scores)),
        "episode_len_mean": float(np.mean(steps)),
    }


def _local(path: Any, filesystem: Any) -> Path:
    if getattr(filesystem, "type_name", "local") != "local" or "://" in str(path):
        raise ConfigError(f"{path}: checkpoints go to a local folder; let Tune upload them (storage_path), or copy it")
    return Path(path).absolute()
