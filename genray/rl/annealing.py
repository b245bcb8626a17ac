"""Changes n, γ and the learning rate while a run goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genray.rl.collect import CollectConfig
    from genray.rl.learner_config import LearnerConfig


def returns_at(config: CollectConfig, clock: int) -> tuple[int, float]:
    """Return (n, γ) for draws `clock` updates after the start or after the last reset.

    Over `anneal_returns_updates`, n changes geometrically from `n_step` to `n_step_end` (rounded),
    and 1 − γ from that of `gamma` to that of `gamma_end`; an end of 0 keeps the start.
    [Schwarzer 2023, https://arxiv.org/abs/2305.19452, section 3]
    """
    share = min(1.0, clock / config.anneal_returns_updates)
    n = config.n_step * ((config.n_step_end or config.n_step) / config.n_step) ** share
    if not config.gamma_end:
        return round(n), config.gamma
    left = (1 - config.gamma) ** (1 - share) * (1 - config.gamma_end) ** share
    return round(n), 1 - left


def learning_rate_at(config: LearnerConfig, updates: int) -> float:
    """Return the learning rate of the update after `updates` updates. It falls linearly from
    `learning_rate` to `learning_rate_end` between the two numbers of updates of
    `learning_rate_fall`.
    """
    first, last = config.learning_rate_fall
    if not config.learning_rate_end:
        return config.learning_rate
    share = min(1.0, max(0.0, (updates - first) / max(1, last - first)))
    return config.learning_rate + (config.learning_rate_end - config.learning_rate) * share


def clock_at(config: LearnerConfig, updates: int) -> int:
    """Return the number of updates since the last reset, or since the start without resets."""
    return updates % config.reset_every if config.reset_every else updates
