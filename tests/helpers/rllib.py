"""A small ApexDQN configuration for the tests of genray.rllib."""

from genray.rllib import ApexDQNConfig

SMALL = {
    "channels": (8, 16, 16),
    "hidden": 32,
    "capacity": 2_000,
    "min_size": 100,
    "shards": 1,
    "samples_per_insert": 4.0,
    "train_batch_size": 16,
    "rollout_fragment_length": 4,
    "num_envs_per_env_runner": 4,
}


def small(env: str = "genray.rl.catch:Catch", steps: int = 300) -> ApexDQNConfig:
    config = ApexDQNConfig().environment(env).reporting(min_sample_timesteps_per_iteration=steps)
    return config.update_from_dict(SMALL).debugging(seed=1)
