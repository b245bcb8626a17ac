"""RLlib's PrioritizedEpisodeReplayBuffer: episodes of whole stacks (its Atari examples stack in
the environment).

A sample is a list of episodes of one step; its batches are put together here as its learner's
connectors do. https://docs.ray.io
"""

import numpy as np
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.replay_buffers.prioritized_episode_buffer import PrioritizedEpisodeReplayBuffer

from tests.bench.rivals.replays import work


class Replay:
    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._buffer = PrioritizedEpisodeReplayBuffer(capacity=work.CAPACITY, alpha=work.ALPHA)

    def add(self, steps: work.Steps) -> None:
        """Episodes of the chunk's steps; observations of their own, as an environment makes
        them.
        """
        first, episodes = 0, []
        for end in [*np.flatnonzero(steps.done_T) + 1, len(steps.done_T)]:
            if first < end:
                episodes.append(
                    SingleAgentEpisode(
                        observations=[
                            *steps.obs_TSHW[first:end].copy(),
                            steps.next_obs_TSHW[end - 1].copy(),
                        ],
                        actions=list(steps.action_T[first:end]),
                        rewards=steps.reward_T[first:end].tolist(),
                        infos=[{}] * (end - first + 1),
                        terminated=bool(steps.done_T[end - 1]),
                        len_lookback_buffer=0,
                    )
                )
            first = end
        self._buffer.add(episodes)

    def draw(self, batch_size: int) -> None:
        episodes = self._buffer.sample(num_items=batch_size, beta=work.BETA, n_step=1)
        for name in ("get_observations", "get_actions", "get_rewards"):
            np.array([getattr(episode, name)(0) for episode in episodes])
        np.array([episode.get_observations(1) for episode in episodes])
        self._buffer.update_priorities(self._rng.random(batch_size))

    def nbytes(self) -> int:
        """The observations alone."""
        return sum(len(episode) + 1 for episode in self._buffer.episodes) * work.STACK * work.PIXELS
