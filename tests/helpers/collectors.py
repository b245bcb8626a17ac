"""Small collectors and an environment of endless reward, for the tests of collecting."""

import numpy as np
import torch

from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import EnvConfig, FrameVectorEnv, Step
from genray.rl.exploration import ExploreConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.replay import ReplayConfig, ReplayShard, plan_shards

LANES = 2


CONFIG = CollectConfig(collectors=1, envs_per_collector=LANES, chunk_rows=64)


SMALL = NetworkConfig(channels=(4, 4, 4), hidden=16)


PONG = EnvConfig(game="pong", max_episode_frames=200)  # up to 50 steps, then cut


def make(
    env: FrameVectorEnv,
    env_config: EnvConfig = PONG,
    config: CollectConfig = CONFIG,
    explore: ExploreConfig = ExploreConfig(),  # noqa: B008 - frozen
    network: NetworkConfig = SMALL,
    seed: int = 0,
) -> Collector:
    torch.manual_seed(seed)
    net = QNetwork(network, env.num_actions, env_config.stack, env.frame_shape)
    return Collector(env, net, env_config, config, explore, seed=seed)


def shard_for(
    env_config: EnvConfig, config: CollectConfig = CONFIG, past_actions: int = 0
) -> ReplayShard:
    replay = ReplayConfig(capacity=LANES * 400, min_size=1)
    [layout] = plan_shards(
        replay,
        collectors=1,
        lanes=LANES,
        frame_shape=(84, 84),
        stack=env_config.stack,
        stack_start=env_config.stack_start,
        past_actions=past_actions,
        n_step=config.n_step,
        chunk_rows=config.chunk_rows,
    )
    return ReplayShard(replay, layout)


class Endless:
    """An environment of one grey picture with reward 1 for each action, truncated after 4 steps.
    Its value is 1 + γ + γ² + … = 1/(1 − γ).
    """

    num_actions = 2
    frame_shape = (36, 36)

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        self._age = 0

    def reset(self, seed: int) -> np.ndarray:
        self._age = 0
        return np.full((self.num_lanes, 36, 36), 128, np.uint8)

    def step(self, action_E: np.ndarray) -> Step:
        begins = self._age == 4
        self._age = 0 if begins else self._age + 1
        none_E = np.zeros(self.num_lanes, bool)
        reward_E = np.full(self.num_lanes, 0.0 if begins else 1.0, np.float32)
        return Step(
            np.full((self.num_lanes, 36, 36), 128, np.uint8),
            reward_E,
            none_E,
            none_E | (self._age == 4),
            none_E,
        )

    def close(self) -> None:
        pass
