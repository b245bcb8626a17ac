"""The one way in which every learner is scored: whole games, no-op starts, the game's own points.

Shapes: E lanes (one a scored episode), S stack, H height, W width.
"""

from collections.abc import Callable

import numpy as np

from genray.rl.collect import Lanes
from genray.rl.env import AtariLanes, EnvConfig

Act = Callable[[np.ndarray], np.ndarray]
"""uint8 stacks [E, S, H, W] → greedy actions int [E]."""


def play_episodes(
    act: Act,
    game: str,
    *,
    episodes: int = 30,
    epsilon: float = 0.001,
    seed: int = 10_000,
    max_episode_frames: int = 108_000,
) -> np.ndarray:
    """Raw scores of `episodes` games, each begun with up to 30 random no-ops, without sticky actions; float64 [E].

    Every lane plays exactly one game: taking the first games to *end* out of a stream would favour short ones.
    """
    config = EnvConfig(game=game, max_episode_frames=max_episode_frames)
    env = AtariLanes(config, episodes)
    rng = np.random.default_rng(seed)
    score_E = np.zeros(episodes)
    playing_E = np.ones(episodes, bool)
    try:
        lanes = Lanes(env.reset(seed), config, past_actions=0)
        over_E = np.zeros(episodes, bool)
        while playing_E.any():
            explore_E = rng.random(episodes) < epsilon
            action_E = np.where(explore_E, rng.integers(env.num_actions, size=episodes), act(lanes.stack_ESHW))
            step = env.step(action_E)
            score_E += step.reward_E * playing_E
            lanes.push(step.frame_EHW, action_E, begins_E=over_E)
            over_E = step.terminated_E | step.truncated_E
            playing_E &= ~over_E
    finally:
        env.close()
    return score_E
