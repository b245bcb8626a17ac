"""Defines `ApexDQNConfig`, an RLlib configuration that is translated to genray's `DQNConfig`."""

import numbers
from typing import Any, Self, Unpack

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list

from genray.config import from_dict
from genray.errors import ConfigError
from genray.rl.config import DQNConfig
from genray.rllib.options import (
    ALIASES,
    EVENTS,
    FIELDS,
    HONOURED,
    INSTEAD,
    PARTS,
    TrainingOptions,
    no_such_option,
)
from genray.rllib.registered import env_values


class ApexDQNConfig(AlgorithmConfig):
    """Configures ApexDQN with RLlib's methods; `to_dqn` returns the `genray.rl.config.DQNConfig`.

    The options of `DQNConfig`'s parts are attributes of this class itself, so that Tune can search
    over each. Only the options of `EnvConfig` are given as a dictionary:
    `environment(name, env_config={"sticky_actions": 0.25, …})`. The name is that of an Atari game,
    of an environment registered with Gymnasium or Tune, or `module:attribute`; or it is a class.
    Keys of `env_config` that are no options of `EnvConfig` are arguments of the environment.
    """

    def __init__(self, algo_class: type | None = None):
        from genray.rllib.algorithm import ApexDQN  # that module imports this one

        super().__init__(algo_class=algo_class or ApexDQN)
        defaults = DQNConfig()
        for name, (part, field) in FIELDS.items():
            setattr(self, name, getattr(getattr(defaults, part), field))
        self.evaluation_duration = 10  # as in RLlib
        self.min_sample_timesteps_per_iteration = 1_000
        # The main process only waits, or evaluates while the actors wait.
        self.num_cpus_for_main_process = 0
        # "auto": one CPU, or an equal share if there are fewer CPUs than collectors and learners.
        self.num_cpus_per_env_runner: float | str = "auto"
        # "auto": one GPU if the cluster has any.
        self.num_gpus_per_learner: Any = "auto"

    # -- setting -----------------------------------------------------------------------------------

    def training(self, **options: Unpack[TrainingOptions]) -> Self:
        """Set options of the algorithm. Raises ConfigError for an unknown option; the message
        suggests similar names.
        """
        for name, value in options.items():
            if name not in TrainingOptions.__annotations__:
                raise no_such_option(f"training({name}=…)", name, TrainingOptions.__annotations__)
            setattr(self, ALIASES.get(name, name), value)
        return self

    def update_from_dict(self, config_dict: Any) -> Self:
        """Set attributes from Tune's dictionary; `validate` checks their names."""
        values = {name: value for name, value in config_dict.items() if not name.startswith("__")}
        # RLlib would pass these two names to training(), because it has dictionaries of these
        # names.
        for name in ("model", "optimizer"):
            if name in values:
                setattr(self, name, values.pop(name))
        super().update_from_dict(values)
        return self

    @staticmethod
    def _translate_special_keys(key: str, warn_deprecated: bool = True) -> str:
        return AlgorithmConfig._translate_special_keys(ALIASES.get(key, key), warn_deprecated)

    # -- reading -----------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ConfigError for an unknown or unsupported setting, or an invalid value."""
        defaults = type(self)().to_dict()
        for name, value in self.to_dict().items():
            # AlgorithmConfig.from_state leaves the entry "class".
            if name in HONOURED or name in FIELDS or name == "class":
                continue
            if name not in defaults:
                raise no_such_option(name, name, [*FIELDS, *ALIASES, *defaults])
            if value != defaults[name]:
                advice = INSTEAD.get(
                    name, f"genray does not use it; leave it at {defaults[name]!r}"
                )
                raise ConfigError(f"{name}={value!r}: not supported; {advice}")
        self._validate_callbacks()
        if (self.evaluation_config or {}) not in ({}, {"explore": False}, {"explore": True}):
            raise ConfigError(
                f"evaluation_config={self.evaluation_config!r}: not supported; only {{'explore': "
                f"False}} (greedy) is"
            )
        for name in ("num_cpus_per_env_runner", "num_cpus_per_learner"):
            value = getattr(self, name)
            if value != "auto" and not (isinstance(value, numbers.Real) and float(value) >= 0):
                raise ConfigError(f"{name}={value!r}: must be 'auto' or a number ≥ 0")
        if self.num_gpus_per_learner not in ("auto", 0, 1):
            raise ConfigError(
                f"num_gpus_per_learner={self.num_gpus_per_learner!r}: must be 'auto', 0 or 1"
            )
        self.to_dqn().validate()

    def _validate_callbacks(self) -> None:
        never = {name for name in dir(RLlibCallback) if name.startswith("on_")} - {
            f"on_{event}" for event in EVENTS
        }
        for callback in force_list(self.callbacks_class):
            for name in never:
                if getattr(callback, name) is not getattr(RLlibCallback, name):
                    raise ConfigError(
                        f"callbacks({callback.__name__}.{name}): never called, because genray's "
                        "collectors play, not "
                        f"RLlib's; use {', '.join(f'on_{event}' for event in EVENTS)}"
                    )

    def to_dqn(self) -> DQNConfig:
        """Return the engine's configuration.

        Raises ConfigError if `env` is neither a string nor a class, for a value of a wrong type,
        and for an unknown key of `env_config`.
        """
        values: dict[str, Any] = {part: {} for part in PARTS}
        values["env"] = env_values(self.env, self.env_config)
        # RLlib uses None for no clipping and for no seed; genray's values are these.
        absent = {"grad_clip": 0.0, "seed": 0}
        for name, (part, field) in FIELDS.items():
            value = getattr(self, name)
            values[part][field] = absent[name] if value is None and name in absent else value
        values["learner"]["learners"] = self.num_learners or 1
        values["run"]["device"] = {"auto": "auto", 0: "cpu", 1: "cuda"}[self.num_gpus_per_learner]
        if (self.evaluation_config or {}).get("explore") is False:
            values["run"]["evaluate_epsilon"] = 0.0
        return from_dict(DQNConfig, values)
