"""RLlib's DQN (new API stack): double, dueling, prioritized. `python -m
tests.bench.rivals.rllib_dqn`

In both forms: environment, replay and learner in one process (on two cores every hop costs more
than it gains, and `training_step` waits for its runners anyway), ALE's vector environment
through gymnasium's vector entry point, Nature's network with two streams of 512, as genray's.

As it comes (the default here): RLlib's own module, whose convolutions take floats, so that
frames are scaled to floats in the environment, which is what RLlib's Atari wrapper does; one
step of all lanes a `sample` call, DQN's default. `--tuned`: what a patient user could make of
it: a module subclass that keeps uint8 frames in the replay, and four steps of all lanes a call,
followed by as many updates, which spreads RLlib's fixed costs.
"""

import shutil
import tempfile
from typing import Any

import gymnasium
import numpy as np
import ray
from gymnasium.spaces import Box
from gymnasium.vector import VectorWrapper
from gymnasium.vector.utils import batch_space
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)

from tests.bench.common import last_json_line
from tests.bench.rivals import workload

VECTOR_ENV = "genray_bench/Atari-v0"


class ChannelsLast(VectorWrapper):
    """Stacks as [E, H, W, S], the order of RLlib's convolutions, and no infos for RLlib to take
    apart.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv, *, floats: bool):
        super().__init__(env)
        self._floats = floats
        high, dtype = (1.0, np.float32) if floats else (255, np.uint8)
        self.single_observation_space = Box(0, high, (84, 84, 4), dtype)  # type: ignore[arg-type]
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)

    def reset(self, **arguments: Any) -> Any:
        obs, _ = self.env.reset(**arguments)
        return self._convert(obs), {}

    def step(self, actions: Any) -> Any:
        # ALE restarts episodes one step late, as RLlib's runner expects.
        obs, reward, terminated, truncated, _ = self.env.step(np.asarray(actions, np.int64))
        return self._convert(obs), reward, terminated, truncated, {}

    def _convert(self, obs: np.ndarray) -> np.ndarray:
        obs = np.ascontiguousarray(obs.transpose(0, 2, 3, 1))
        return obs.astype(np.float32) / 255.0 if self._floats else obs


class ByteFramesModule(DefaultDQNTorchRLModule):
    """RLlib's own module on uint8 frames."""

    def _qf_forward_helper(self, batch: dict[str, Any], encoder: Any, head: Any) -> dict[str, Any]:
        batch = {Columns.OBS: batch[Columns.OBS].float() * (1.0 / 255.0)}
        return super()._qf_forward_helper(batch, encoder, head)


def make_config(game: str, seed: int, tuned: bool) -> DQNConfig:
    """One update on 32 transitions for every 8 agent steps."""

    def make_vector_env(num_envs: int, **_: Any) -> gymnasium.vector.VectorEnv:
        return ChannelsLast(workload.make_atari(game, num_envs), floats=not tuned)

    gymnasium.register(VECTOR_ENV, vector_entry_point=make_vector_env)  # type: ignore[arg-type]
    first, second, third = workload.NATURE_CHANNELS
    return (
        DQNConfig()
        .environment(VECTOR_ENV)
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=workload.NUM_ENVS,
            gym_env_vectorize_mode="vector_entry_point",
            rollout_fragment_length=4 if tuned else 1,
        )
        .learners(num_learners=0)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ByteFramesModule if tuned else DefaultDQNTorchRLModule,
                model_config=DefaultModelConfig(
                    conv_filters=[
                        [first, 8, 4, "valid"],
                        [second, 4, 2, "valid"],
                        [third, 3, 1, "valid"],
                    ],
                    conv_activation="relu",
                    head_fcnet_hiddens=[workload.NATURE_HIDDEN],
                    head_fcnet_activation="relu",
                ),
            )
        )
        .training(
            lr=workload.LEARNING_RATE,
            gamma=workload.GAMMA,
            epsilon=workload.EPSILON,
            double_q=True,
            dueling=True,
            train_batch_size=workload.BATCH_SIZE,
            training_intensity=workload.BATCH_SIZE / workload.STEPS_PER_UPDATE,
            num_steps_sampled_before_learning_starts=workload.LEARNING_STARTS,
            target_network_update_freq=workload.TARGET_PERIOD_UPDATES * workload.STEPS_PER_UPDATE,
            replay_buffer_config={
                "type": "PrioritizedEpisodeReplayBuffer",
                "capacity": workload.CAPACITY,
                "alpha": 0.6,
                "beta": 0.4,
            },
        )
        .reporting(min_sample_timesteps_per_iteration=100)
        .debugging(seed=seed, log_level="ERROR")
    )


def measure(config: DQNConfig, seconds: float) -> dict[str, float]:
    algorithm = config.build_algo()
    watch = workload.Stopwatch(seconds)
    try:
        while True:
            report = algorithm.train()
            steps = int(report[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
            trained = (
                report.get(LEARNER_RESULTS, {})
                .get(DEFAULT_MODULE_ID, {})
                .get(NUM_MODULE_STEPS_TRAINED_LIFETIME, 0)
            )
            if result := watch.tick(steps, int(trained) // workload.BATCH_SIZE):
                return result
    finally:
        algorithm.stop()
        shutil.rmtree(algorithm.logdir, ignore_errors=True)  # RLlib makes it in the home folder


def main() -> None:
    arguments = workload.parse_arguments(
        __doc__,
        lambda parser: parser.add_argument("--tuned", action="store_true", help="see above"),
    )
    config = make_config(arguments.game, arguments.seed, arguments.tuned)
    with tempfile.TemporaryDirectory(prefix="rllib", ignore_cleanup_errors=True) as folder:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
        try:
            result = measure(config, arguments.seconds)
        finally:
            ray.shutdown()
    last_json_line(
        {"system": "RLlib DQN", "threads": arguments.threads, "tuned": arguments.tuned} | result
    )


if __name__ == "__main__":
    main()
