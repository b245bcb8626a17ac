"""A small Ape-X, and a way to let it run: what is tested here is the shell, not the learning."""

import time
from dataclasses import replace

from genray.rl import DQNConfig, presets
from genray.rl.engine import Progress


def tiny(**replay) -> DQNConfig:
    """Catch with a network of a few thousand weights."""
    config = presets.catch()
    return replace(
        config,
        network=replace(config.network, channels=(4, 4, 4), hidden=16),
        replay=replace(config.replay, capacity=4_000, min_size=200, shards=2, **replay),
    )


def run(engine, until_step: int, timeout_s: float = 240, within: float = 0.02) -> Progress:
    """Advance to a step and let the learner catch up; collect all events.

    `within` is the largest share of samples per insert that the learner may be behind: at least one
    round of batches of all learners, which the limiter admits as a whole.
    """
    events, stop = [], time.monotonic() + timeout_s
    while True:
        progress = engine.advance(until_step, seconds=1.0)
        events += progress.events
        wanted = (1 - within) * engine.config.replay.samples_per_insert
        behind = progress.samples_per_insert < wanted
        if progress.steps >= until_step and not behind:
            progress.events = events
            return progress
        assert time.monotonic() < stop, f"stuck at {progress}"
