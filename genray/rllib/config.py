"""`ApexDQNConfig`: RLlib's fluent configuration, translated to genray's."""

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


class ApexDQNConfig(AlgorithmConfig):
    """RLlib's fluent configuration over `genray.rl.config.DQNConfig`; `to_dqn` is the translation.

    The options of `DQNConfig`'s parts are flat attributes, so that Tune can search over each.
    Those of `EnvConfig` go into `environment(name, env_config={"sticky_actions": 0.25, …})`.
    """

    def __init__(self, algo_class: type | None = None):
        from genray.rllib.algorithm import ApexDQN  # which needs this class for its own

        super().__init__(algo_class=algo_class or ApexDQN)
        defaults = DQNConfig()
        for name, (part, field) in FIELDS.items():
            setattr(self, name, getattr(getattr(defaults, part), field))
        self.evaluation_duration = 10  # as in RLlib
        self.min_sample_timesteps_per_iteration = 1_000
        self.num_cpus_for_main_process = 0  # it waits, and evaluates while the others wait
        # "auto": one CPU, or an even share of a machine that has fewer than collectors and learner
        # together.
        self.num_cpus_per_env_runner: float | str = "auto"
        # "auto": one GPU where the cluster has any.
        self.num_gpus_per_learner: Any = "auto"

    # -- setting -----------------------------------------------------------------------------------

    def training(self, **options: Unpack[TrainingOptions]) -> Self:
        """Set options of the algorithm. Raises ConfigError for an unknown one, with the nearest
        names.
        """
        for name, value in options.items():
            if name not in TrainingOptions.__annotations__:
                raise no_such_option(f"training({name}=…)", name, TrainingOptions.__annotations__)
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

    # -- reading -----------------------------------------------------------------------------------

    def validate(self) -> None:
        """Raise ConfigError for an unknown or unsupported setting, or a value that makes no
        sense.
        """
        defaults = type(self)().to_dict()
        for name, value in self.to_dict().items():
            # "class": left by AlgorithmConfig.from_state
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
                        f"RLlib's; there are {', '.join(f'on_{event}' for event in EVENTS)}"
                    )

    def to_dqn(self) -> DQNConfig:
        """What the engine runs on. Raises ConfigError for a value of the wrong type or an
        unknown env_config key.
        """
        if not isinstance(self.env, str):
            raise ConfigError(
                f"environment({self.env!r}): name an Atari game, e.g. 'ALE/Breakout-v5', or "
                "module:factory of an "
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
