"""Builds the results of an iteration, with the keys of RLlib's DQN."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from genray.rl.collect import Episode
from genray.rl.engine import Progress


def iteration_results(
    before: Progress,
    now: Progress,
    reports: Sequence[Progress],
    episodes: Iterable[Episode],
    num_episodes: tuple[int, int],
    batch_size: int,
) -> dict[str, Any]:
    """Return the results of an iteration, which began at `before` and ended at `now`, with RLlib's
    keys and, at the top level, a few keys of genray.

    `reports`: the progress reports of the iteration. `episodes`: the newest episodes, over which
    means are taken. `num_episodes`: the numbers of episodes that had ended before and at `now`.
    """
    num_before, num_after = num_episodes
    # Losses are means over the reports that contain updates; NaN if none does.
    learned = [[p.loss, p.q_mean, p.grad_norm] for p in reports if p.loss is not None]
    loss, q_mean, grad_norm = (
        np.mean(np.array(learned, float), axis=0).tolist() if learned else (math.nan,) * 3
    )
    trained = now.updates * batch_size
    return {
        "env_runners": episode_results(episodes)
        | {
            "num_episodes": num_after - num_before,
            "num_episodes_lifetime": num_after,
            "num_env_steps_sampled": now.steps - before.steps,
            "num_env_steps_sampled_lifetime": now.steps,
            "epsilon": math.nan if now.epsilon is None else now.epsilon,
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
        "num_episodes_lifetime": num_after,
        "samples_per_insert": now.samples_per_insert,
        "weight_lag": now.weight_lag,
        "updates": now.updates,
    }


def episode_results(episodes: Iterable[Episode]) -> dict[str, float]:
    """Return means and extremes of the episodes' scores and lengths.

    Without episodes the values are NaN, because schedulers expect the keys in every result.
    """
    scores = [episode.score for episode in episodes] or [math.nan]
    steps = [float(episode.steps) for episode in episodes] or [math.nan]
    return {
        "episode_return_mean": float(np.mean(scores)),
        "episode_return_min": float(np.min(scores)),
        "episode_return_max": float(np.max(scores)),
        "episode_len_mean": float(np.mean(steps)),
    }
