"""Lists the options of `ApexDQNConfig.training`, the field of `DQNConfig` that each option sets,
and the settings of RLlib that are supported.
"""

import dataclasses
import difflib
from collections.abc import Iterable
from typing import Literal, TypedDict

from genray.errors import ConfigError
from genray.rl.collect import CollectConfig
from genray.rl.config import RunConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig
from genray.rl.sequences import SequenceConfig


class TrainingOptions(TypedDict, total=False):
    """The arguments of `ApexDQNConfig.training`.

    They are fields of genray's dataclasses, which document them. Some fields have a second name,
    which RLlib's DQNConfig uses. A value may also be one of Tune's search spaces.
    """

    # genray.rl.collect.CollectConfig, genray.rl.exploration.ExploreConfig
    gamma: float
    n_step: int
    n_step_end: int
    gamma_end: float
    anneal_returns_updates: int
    chunk_rows: int
    reward_clip: Literal["clip", "sign", "sqrt", "none"]
    reward_scale: float
    exploration: Literal["ladder", "shared"]
    epsilon: float
    epsilon_power: float
    persistence: float
    max_held_steps: int
    max_held_steps_end: int
    random_steps: int
    anneal_steps: int
    # genray.rl.networks.NetworkConfig
    encoder: Literal["nature", "der", "impala"]
    channels: tuple[int, int, int]
    impala_width: float
    pooling: Literal["none", "max", "average"]
    spectral_norm: bool
    head: Literal["scalar", "c51", "iqn"]
    atoms: int
    value_limit: float
    quantiles: int
    value_rescaling: bool
    noisy: float
    hidden: int
    dueling: bool
    shared_hidden: bool
    median_frame: bool
    input_gain: float
    past_actions: int
    lstm_units: int
    ensemble: int
    normalise: bool
    layer_norm: bool
    # genray.rl.learner.LearnerConfig
    lr: float
    learning_rate: float
    average_updates: int
    precision: Literal["float32", "bfloat16", "auto"]
    frames_on: Literal["host", "device"]
    train_batch_size: int
    train_batch_size_per_learner: int
    batch_size: int
    double: bool
    double_q: bool
    munchausen: float
    munchausen_temperature: float
    munchausen_floor: float
    loss: Literal["huber", "squared"]
    optimizer: Literal["adam", "adamw", "rmsprop"]
    learning_rate_end: float
    learning_rate_fall: tuple[int, int]
    weight_decay: float
    optimizer_epsilon: float
    adam_epsilon: float
    grad_clip: float | None
    max_grad_norm: float
    target_period_updates: int
    target_tau: float
    acting_network: Literal["online", "target"]
    target_network: bool
    importance_weighting: bool
    shift: int
    intensity: float
    prediction_steps: int
    prediction_weight: float
    reset_every: int
    reset_keep: float
    # genray.rl.replay_config.ReplayConfig
    capacity: int
    replay_store: Literal["raw", "lz4"]
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
    # genray.rl.sequences.SequenceConfig
    sequence_length: int
    sequence_overlap: int
    burn_in: int
    priority_eta: float
    stored_state: bool
    # genray.rl.config.RunConfig
    evaluate_epsilon: float
    publish_every: int
    learner_snapshot_s: float
    checkpoint_replay: bool
    store_buffer_in_checkpoints: bool


# Second name of an option -> attribute of ApexDQNConfig. The attribute has RLlib's name if
# AlgorithmConfig has such an attribute, else genray's.
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
    "sequences": SequenceConfig,
}
# Fields that are no options here. RLlib and Tune decide how long to train, and how often and where
# to save; num_gpus_per_learner decides the device.
NOT_HERE = {
    "steps", "max_minutes", "evaluate_every", "checkpoint_every", "keep", "saved_policy", "device",
}  # fmt: skip
# Attribute of ApexDQNConfig -> (part, field) of DQNConfig that the attribute sets.
FIELDS = {
    ALIASES.get(field.name, field.name): (part, field.name)
    for part, cls in PARTS.items()
    for field in dataclasses.fields(cls)
    if field.name not in NOT_HERE
}

# Settings of AlgorithmConfig, with the names of `to_dict`, that mean the same here as in RLlib.
HONOURED = {
    "env",
    "env_config",
    "num_cpus_per_env_runner",
    "num_cpus_per_learner",
    "num_gpus_per_learner",
    "num_cpus_for_main_process",
    "custom_resources_for_main_process",
    "placement_strategy",
    "evaluation_interval",
    "evaluation_config",
    "log_level",
    "log_sys_usage",
    "min_time_s_per_iteration",
    "min_train_timesteps_per_iteration",
    "min_sample_timesteps_per_iteration",
    "metrics_num_episodes_for_smoothing",
    "stats_cls_lookup",
    "callbacks",
}
EVENTS = ("algorithm_init", "train_result", "evaluate_start", "evaluate_end", "checkpoint_loaded")
HONOURED |= {f"callbacks_on_{event}" for event in EVENTS}

_NETWORK = "shape the network with training(channels=…, hidden=…, dueling=…)"
_NOT_PART = "not a part of this Ape-X; leave it out"
# Advice for unsupported settings: what to use instead.
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
    "target_network_update_freq": (
        "use training(target_period_updates=…), which counts updates, not steps"
    ),
    "replay_buffer_config": "use training(capacity=…, prioritized=…, alpha=…, beta=…)",
    "td_error_loss_fn": "use training(loss='huber' or 'squared')",
    "sigma0": "use training(noisy=…)",
    "tau": "use training(target_tau=…)",
    "num_atoms": "use training(head='c51', atoms=…); 1 atom is head='scalar'",
    "v_min": "use training(value_limit=…); the support of c51 is symmetric",
    "v_max": "use training(value_limit=…); the support of c51 is symmetric",
    "lr_schedule": "use training(learning_rate_end=…, learning_rate_fall=…)",
    "device": "use learners(num_gpus_per_learner=0 or 1)",
    "steps": "use Tune's stop={'num_env_steps_sampled_lifetime': …}",
    **dict.fromkeys(
        ("burn_in_len",),
        _NOT_PART,
    ),
}


def no_such_option(what: str, name: str, names: Iterable[str]) -> ConfigError:
    """Return a ConfigError for the unknown option `name`, with advice or the nearest of `names`.

    `what` describes the option at the start of the message.
    """
    near = difflib.get_close_matches(name, dict.fromkeys(names), n=3, cutoff=0.5)
    advice = INSTEAD.get(name) or (
        f"did you mean {', '.join(near)}?" if near else "see genray.rllib.TrainingOptions"
    )
    return ConfigError(f"{what}: no such option; {advice}")
