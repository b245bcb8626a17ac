"""The ablations of `bbf_lite`: the preset less one of its switches, or with one more.

`bench_atari` takes each as a system, `bbf_lite-SWITCH` or `bbf_lite+SWITCH`; nothing else differs.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from genray.errors import ConfigError
from genray.rl.config import DQNConfig
from genray.rl.presets import preset

Change = Mapping[str, Mapping[str, Any]]
"""Part of the configuration: its changed options."""

ONE: Change = {
    "network": {"ensemble": 1},
    "learner": {"batch_size": 32},
    "replay": {"samples_per_insert": 32.0},
}
"""One network, with the updates that each of three had."""
LESS: dict[str, Change] = {
    "ensemble": ONE,
    "c51": {"network": {"head": "scalar"}},
    "dueling": {"network": {"dueling": False, "shared_hidden": False}},
    "median_frame": {"network": {"median_frame": False, "input_gain": 1.0}},
    "double": {"learner": {"double": False}},
    "prioritized": {"replay": {"prioritized": False}},
    "augmentation": {"learner": {"shift": 0, "intensity": 0.0}},
    # 0.005 moves w⁻ by half of the distance in 140 updates.
    "soft_target": {
        "learner": {"target_tau": 0.0, "target_period_updates": 200, "acting_network": "online"}
    },
    "weight_decay": {"learner": {"weight_decay": 0.0}},
    "falling_rate": {"learner": {"learning_rate_end": 0.0, "learning_rate_fall": (0, 0)}},
    "annealed_returns": {"collect": {"n_step": 3, "n_step_end": 0, "gamma": 0.995, "gamma_end": 0}},
    "root_rewards": {"collect": {"reward_clip": "clip", "reward_scale": 1.0}},
    "held_actions": {"explore": {"persistence": 0.0}},
}
"""Switch: the options without it."""

MORE: dict[str, Change] = {
    # An ensemble has no self-prediction.
    "self_prediction": {
        **ONE,
        "learner": {"batch_size": 32, "prediction_steps": 3, "prediction_weight": 2.0},
    },
    "resets": {"learner": {"reset_every": 10_000}},
}
"""Switch: the options with it; `self_prediction` is to be compared with `bbf_lite-ensemble`."""

NAMES = [f"bbf_lite-{name}" for name in LESS] + [f"bbf_lite+{name}" for name in MORE]


def configuration(system: str, game: str | None = None) -> DQNConfig:
    """Return the configuration of a system: a preset's name, or one of `NAMES`.

    Raises ConfigError for a name that is neither.
    """
    base, name, changes = _parts(system)
    config = preset(base, game)
    if not changes:
        return config
    if name not in changes:
        raise ConfigError(f"{system}: no such switch; choose from {', '.join(changes)}")
    for part, options in changes[name].items():
        config = replace(config, **{part: replace(getattr(config, part), **options)})
    return config


def _parts(system: str) -> tuple[str, str, Mapping[str, Change]]:
    for sign, changes in (("-", LESS), ("+", MORE)):
        if system.startswith(f"bbf_lite{sign}"):
            return "bbf_lite", system.removeprefix(f"bbf_lite{sign}"), changes
    return system, "", {}
