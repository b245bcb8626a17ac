"""Finds the environment that `--env` names."""

import difflib
import functools
import importlib
import importlib.metadata
import os
import re
import sys
from typing import Any

from genray.errors import ConfigError

OWN_MODULES = "GENRAY_OWN_MODULES"
"""Environment variable of Ray's workers: the directory in which the command was started."""
VERSIONED = re.compile(r"[\w./-]+-v\d+")
"""The form of registered names of Gymnasium."""
EXAMPLES = "e.g. CartPole-v1 or genray.rl.catch:Catch"


class Registered:
    """Makes one environment that is registered with Gymnasium.

    Args:
        name: the registered name, such as `CartPole-v1`.
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(self, **options: Any) -> Any:
        import gymnasium

        # genray checks every step by itself; Gymnasium's check warns about more, and only once.
        return gymnasium.make(self.name, disable_env_checker=True, **options)


class Pooled:
    """Makes the lanes of an environment of EnvPool, which plays them in threads.

    Args:
        name: EnvPool's name, such as `CartPole-v1`.
    """

    def __init__(self, name: str):
        self.name = name

    def __call__(self, num_envs: int, **options: Any) -> Any:
        import envpool
        from gymnasium.vector import VectorWrapper

        def make(seed: int) -> Any:
            return envpool.make_gymnasium(self.name, num_envs=num_envs, seed=seed, **options)

        class Seeded(VectorWrapper):
            """Makes the lanes anew for a seed, which EnvPool takes only when it makes them."""

            def reset(self, *, seed: Any = None, options: Any = None) -> Any:
                if seed is not None:
                    self.env.close()
                    self.env = make(seed)
                return self.env.reset(options=options)

        return Seeded(make(0))


def load_factory(name: str) -> Any:
    """Return the callable that `name` names: `module:attribute`, or a name that is registered with
    Gymnasium, such as `CartPole-v1`. `module:Name-v0` imports the module, which registers the name;
    `envpool:Name-v0` is an environment of EnvPool.

    A worker also finds modules in the directory in which the command was started. The directory
    comes last on the import path, so that no file there replaces an installed module.

    Raises ConfigError for another form of name, for a name that is not registered, and when the
    callable cannot be imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not colon and VERSIONED.fullmatch(name):
        return _registered(name, name)
    if not module_name or not attribute:
        raise ConfigError(
            f"--env {name}: write module:factory, e.g. genray.rl.catch:Catch, or a registered name "
            "of Gymnasium, e.g. CartPole-v1"
        )
    own = os.environ.get(OWN_MODULES)
    if own and own not in sys.path:
        sys.path.append(own)
    try:
        module = importlib.import_module(module_name)
        if module_name == "envpool":
            return Pooled(attribute)
        if VERSIONED.fullmatch(attribute) and not hasattr(module, attribute):
            _run_plugins(module_name)
            return _registered(name, attribute)
        factory = getattr(module, attribute)
    except (ImportError, AttributeError) as error:
        advice = "write module:factory, e.g. genray.rl.catch:Catch"
        if module_name == "envpool":
            advice = "pip install envpool"
        raise ConfigError(f"--env {name}: {error}; {advice}") from error
    if not callable(factory):
        raise ConfigError(
            f"--env {name}: {attribute} cannot be called; it must make an environment"
        )
    return factory


def _run_plugins(module_name: str) -> None:
    """Let a package register its environments by its entry points for Gymnasium, which Gymnasium
    itself no longer calls.
    """
    package = module_name.partition(".")[0]
    for entry in importlib.metadata.entry_points(group="gymnasium.envs"):
        if entry.module.partition(".")[0] == package:
            entry.load()()


@functools.cache
def _registered(name: str, registered: str) -> Registered:
    import gymnasium

    if registered not in gymnasium.registry:
        near = difflib.get_close_matches(registered, gymnasium.registry, n=3, cutoff=0.5)
        advice = f"did you mean {', '.join(near)}?" if near else EXAMPLES
        raise ConfigError(
            f"--env {name}: not registered with Gymnasium; {advice} (if a package registers it, "
            "write package:Name-v0; Atari games are --game)"
        )
    return Registered(registered)
