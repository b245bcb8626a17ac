"""RLlib's DQN (new API stack) with the options of its tuned example for CartPole, which are also
used for Acrobot: double, dueling, prioritized, n from 2 to 5, one update of 32 per step.

Environment, replay and learner are in one process. The CPU time of Ray's own processes does not
count, which is to RLlib's advantage.
"""

import shutil
import tempfile
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.dqn import DQNConfig
from ray.rllib.algorithms.dqn.default_dqn_rl_module import QF_PREDS
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_MODULE_STEPS_TRAINED_LIFETIME,
)

from tests.bench.environments.protocol import Run

BATCH_SIZE = 32


def make_config(env_id: str, seed: int) -> DQNConfig:
    """Return the options of rllib/tuned_examples/dqn/cartpole_dqn.py."""
    return (
        DQNConfig()
        .environment(env_id)
        .env_runners(num_env_runners=0)
        .learners(num_learners=0)
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[256],
                fcnet_activation="tanh",
                fcnet_bias_initializer="zeros_",
                head_fcnet_bias_initializer="zeros_",
                head_fcnet_hiddens=[256],
            )
        )
        .training(
            lr=5e-4,
            train_batch_size_per_learner=BATCH_SIZE,
            replay_buffer_config={
                "type": "PrioritizedEpisodeReplayBuffer",
                "capacity": 50_000,
                "alpha": 0.6,
                "beta": 0.4,
            },
            n_step=(2, 5),
            double_q=True,
            dueling=True,
            epsilon=[(0, 1.0), (10_000, 0.02)],
        )
        .debugging(seed=seed, log_level="ERROR")
    )


def train(run: Run) -> None:
    with tempfile.TemporaryDirectory(prefix="rllib", ignore_cleanup_errors=True) as folder:
        try:
            _start_ray(folder)
            _train(run)
        finally:
            ray.shutdown()


def _start_ray(folder: str) -> None:
    """Start a Ray of this process, at the third try if the machine is busy: Ray's own wait for its
    daemons is fixed at 30 s.
    """
    for last in (False, False, True):
        try:
            ray.init(
                "local", num_cpus=1, include_dashboard=False, log_to_driver=False, _temp_dir=folder
            )
            return
        except Exception:
            ray.shutdown()
            if last:
                raise


def _train(run: Run) -> None:
    algorithm = make_config(run.task.env_id, run.seed).build_algo()

    def act(observations: np.ndarray) -> np.ndarray:
        module: Any = algorithm.get_module(DEFAULT_MODULE_ID)
        with torch.no_grad():
            found = module.compute_q_values({Columns.OBS: torch.from_numpy(observations)})
        return found[QF_PREDS].argmax(1).numpy()

    steps = updates = 0
    try:
        while not run.over():
            report = algorithm.train()
            steps = int(report[ENV_RUNNER_RESULTS][NUM_ENV_STEPS_SAMPLED_LIFETIME])
            learner = report.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
            updates = int(learner.get(NUM_MODULE_STEPS_TRAINED_LIFETIME, 0)) // BATCH_SIZE
        run.score("end", steps, updates, lambda: run.play(act))
    finally:
        algorithm.stop()
        shutil.rmtree(algorithm.logdir, ignore_errors=True)  # RLlib makes it in the home folder
