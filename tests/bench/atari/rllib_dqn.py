"""RLlib's DQN (new API stack): double, dueling, prioritized, n-step returns of 5, 8 lanes.

The faster of the two forms in `rivals/rllib_dqn.py`: a module subclass keeps uint8 frames in the
replay, and a `sample` call makes 8 steps of all lanes, followed by 16 updates, which is one update
on 32 transitions for every 4 agent steps. The other settings are those of `sb3_dqn`, with dueling
streams of 256 units.
"""

import copy
import shutil
import tempfile
from typing import Any

import gymnasium
import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
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

from tests.bench.atari.protocol import Player, Trial, player_of
from tests.bench.rivals import rllib_dqn, workload

ENV = "genray_bench/AtariTable-v0"
STEPS_PER_UPDATE = 4


class LostLifeTerminates(rllib_dqn.ChannelsLast):
    """A lost life ends the return, as in Mnih 2015. RLlib takes the next observation for that of a
    reset, so it skips one transition of the game, which goes on.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv):
        super().__init__(env, floats=False)
        self._lives = np.zeros(self.num_envs, np.int64)

    def reset(self, **arguments: Any) -> Any:
        obs, info = self.env.reset(**arguments)
        self._lives = info["lives"].copy()
        return self._convert(obs), {}

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, info = self.env.step(np.asarray(actions, np.int64))
        lost = (info["lives"] < self._lives) & ~terminated & ~truncated
        self._lives = info["lives"].copy()
        return self._convert(obs), reward, terminated | lost, truncated, {}


def make_config(game: str, seed: int) -> Any:
    """Return the configuration of `rivals/rllib_dqn.py` with the settings of this table."""

    def make_vector_env(num_envs: int, **_: Any) -> gymnasium.vector.VectorEnv:
        return LostLifeTerminates(workload.make_atari(game, num_envs))

    gymnasium.register(ENV, vector_entry_point=make_vector_env)  # type: ignore[arg-type]
    return (
        rllib_dqn.make_config(game, seed, tuned=True)
        .environment(ENV)
        .env_runners(rollout_fragment_length=8)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=rllib_dqn.ByteFramesModule,
                model_config=DefaultModelConfig(
                    conv_filters=[[16, 8, 4, "valid"], [32, 4, 2, "valid"], [32, 3, 1, "valid"]],
                    conv_activation="relu",
                    head_fcnet_hiddens=[256],
                    head_fcnet_activation="relu",
                ),
            )
        )
        .training(
            lr=2.5e-4,
            n_step=5,
            epsilon=[[0, 1.0], [15_000, 0.02]],
            training_intensity=workload.BATCH_SIZE / STEPS_PER_UPDATE,
            num_steps_sampled_before_learning_starts=1_000,
            target_network_update_freq=500 * STEPS_PER_UPDATE,
            replay_buffer_config={
                "type": "PrioritizedEpisodeReplayBuffer",
                "capacity": 100_000,
                "alpha": 0.6,
                "beta": 0.4,
            },
        )
    )


def train(trial: Trial) -> None:
    """Train on the trial's game until the trial's time is over."""
    with tempfile.TemporaryDirectory(prefix="rllib", ignore_cleanup_errors=True) as folder:
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder
        )
        try:
            _train(trial)
        finally:
            ray.shutdown()


def _train(trial: Trial) -> None:
    algorithm = make_config(trial.game, trial.seed).build_algo()

    def copy_policy() -> Player:
        module = copy.deepcopy(algorithm.get_module(DEFAULT_MODULE_ID))

        def q_values(stack_ESHW: np.ndarray) -> np.ndarray:
            frames_EHWS = np.ascontiguousarray(stack_ESHW.transpose(0, 2, 3, 1))
            with torch.no_grad():
                found = module.compute_q_values({Columns.OBS: torch.from_numpy(frames_EHWS)})
            return found[QF_PREDS].numpy()

        return player_of(q_values)

    steps = updates = 0
    try:
        while trial.tick(steps, updates, copy_policy):
            report = algorithm.train()
            steps = int(report[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
            learner = report.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
            trained = int(learner.get(NUM_MODULE_STEPS_TRAINED_LIFETIME, 0))
            updates = trained // workload.BATCH_SIZE
    finally:
        algorithm.stop()
        shutil.rmtree(algorithm.logdir, ignore_errors=True)  # RLlib makes it in the home folder
