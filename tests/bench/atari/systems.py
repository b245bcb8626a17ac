"""The systems of `bench_atari` by name: presets of genray, ablations of `bbf_lite`, and rivals by
the package they need.
"""

import hashlib
import importlib
import importlib.util
import json
from typing import NamedTuple

from genray.config import to_dict
from genray.rl.config import DQNConfig
from tests.bench.atari import genray_dqn
from tests.bench.atari.ablations import configuration
from tests.bench.atari.protocol import Trial


class Rival(NamedTuple):
    """A module with `train(trial)`, and the package that it imports."""

    title: str
    module: str
    package: str


RIVALS = {
    "sb3": Rival("Stable-Baselines3 DQN", "tests.bench.atari.sb3_dqn", "stable_baselines3"),
    "rllib": Rival("RLlib DQN", "tests.bench.atari.rllib_dqn", "ray"),
    "cleanrl": Rival("CleanRL's DQN recipe", "tests.bench.atari.cleanrl_dqn", "torch"),
    "torchrl": Rival("torchrl DQN", "tests.bench.atari.torchrl_dqn", "torchrl"),
}


def title(system: str) -> str:
    """Return the system's name for tables and pictures."""
    return RIVALS[system].title if system in RIVALS else f"genray, {system}"


def check(system: str) -> None:
    """Raise ConfigError (a GenrayError) for a name that is neither a rival's nor a preset's nor
    an ablation's.
    """
    if system not in RIVALS:
        configuration(system)


def identity(system: str, game: str) -> dict[str, str]:
    """Return what a record of one of genray's systems must agree with: a digest of the options that
    differ from DQNConfig's, because presets change. Empty for rivals.
    """
    if system in RIVALS:
        return {}
    options, usual = to_dict(configuration(system, game)), to_dict(DQNConfig())
    changed = {
        f"{part}.{name}": value
        for part, values in options.items()
        for name, value in values.items()
        if value != usual[part][name]
    }
    text = json.dumps(changed, sort_keys=True, default=str)
    return {"options": hashlib.sha256(text.encode()).hexdigest()[:12]}


def is_installed(system: str) -> bool:
    """Whether the package of a rival can be imported; True for genray's own systems."""
    return system not in RIVALS or importlib.util.find_spec(RIVALS[system].package) is not None


def train(system: str, trial: Trial) -> None:
    """Train a system until the trial's time is over."""
    if system in RIVALS:
        importlib.import_module(RIVALS[system].module).train(trial)
    else:
        genray_dqn.train(trial, system)
