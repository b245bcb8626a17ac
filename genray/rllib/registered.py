"""Finds the environment that `ApexDQNConfig.environment` names.

Classes, and the names of `ray.tune.registry.register_env`, are kept in Tune's registry, which every
process of a Ray job can read. `--env genray.rllib.registered:NAME` names such an entry: this
module returns it as its attribute NAME.
"""

import dataclasses
import inspect
import json
from collections.abc import Callable
from typing import Any

import gymnasium
from ray.rllib.env.env_context import EnvContext
from ray.tune.registry import ENV_CREATOR, _global_registry, register_env

from genray.errors import ConfigError
from genray.rl.env import EnvConfig
from genray.rl.games import resolve_game

OPTIONS = {field.name for field in dataclasses.fields(EnvConfig)} - {"game", "env", "env_config"}
"""Keys of `env_config` that are genray's own options; others are the environment's."""
_CLASS = "class "  # before the name of a class in the registry; names of users have no such start


def env_values(env: Any, env_config: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an EnvConfig for the arguments of `environment`.

    `env`: an Atari game, a name that is registered with Gymnasium or Tune, `module:attribute`, or a
    class. Raises ConfigError for something else, and for options that are not JSON values.
    """
    name = _name_of(env)
    if name is None:
        return {**env_config, "game": env}
    ours = {key: value for key, value in env_config.items() if key in OPTIONS}
    rest = {key: value for key, value in env_config.items() if key not in OPTIONS}
    try:
        return {**ours, "env": name, "env_config": json.dumps(rest) if rest else ""}
    except TypeError as error:
        raise ConfigError(
            f"environment(env_config={rest!r}): {error}; give JSON values, or put the object into "
            "a function and register it: ray.tune.registry.register_env"
        ) from error


def _name_of(env: Any) -> str | None:
    """Return the name of an environment for --env; None: an Atari game."""
    if isinstance(env, type):
        entry = f"{_CLASS}{env.__module__}.{env.__qualname__}"
        register_env(entry, env)
        return f"{__name__}:{entry}"
    if not isinstance(env, str):
        raise ConfigError(
            f"environment({env!r}): name an Atari game, e.g. 'ALE/Breakout-v5', an environment of "
            "Gymnasium, e.g. 'CartPole-v1', or module:factory of an own environment (see "
            "genray/rl/env.py), or give a class"
        )
    if _global_registry.contains(ENV_CREATOR, env):
        return f"{__name__}:{env}"
    if ":" in env and not env.startswith("ale_py:"):
        return env
    try:
        resolve_game(env)
    except ConfigError:
        return env if env in gymnasium.registry else None
    return None


def __getattr__(name: str) -> Any:
    if name.startswith("__") or not _global_registry.contains(ENV_CREATOR, name):
        raise AttributeError(f"{name} is not registered with ray.tune.registry.register_env")
    creator = _global_registry.get(ENV_CREATOR, name)
    own = isinstance(creator, type) and "num_lanes" in inspect.signature(creator).parameters
    return creator if own else _with_context(creator)


def _with_context(creator: Callable[..., Any]) -> Callable[[dict[str, Any]], Any]:
    """Return a function that makes an environment as RLlib does: the options are one argument.

    Departure: a class whose parameters are the options' names, or that has no required parameter
    where there are no options, gets them as keywords.
    """

    def make(config: dict[str, Any]) -> Any:
        if isinstance(creator, type):
            parameters = inspect.signature(creator).parameters
            required = any(
                each.default is each.empty and each.kind is not each.VAR_KEYWORD
                for each in parameters.values()
            )
            if config.keys() <= parameters.keys() and (config or not required):
                return creator(**config)
        return creator(EnvContext(config, worker_index=0))

    return make
