"""Stable-Baselines3's DQN with the hyperparameters of RL Zoo (hyperparams/dqn.yml).

The policy is scored at RL Zoo's number of steps, if the CPU time reaches so far, and when the CPU
time is used up. ε falls as fast as in RL Zoo, also when training goes on longer. The best policy of
SB3's own EvalCallback is scored too; its evaluations count as training.
"""

import tempfile
from pathlib import Path
from typing import Any

from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EvalCallback
from stable_baselines3.common.env_util import make_vec_env

from tests.bench.environments.protocol import Run

ZOO: dict[str, dict[str, Any]] = {
    "CartPole-v1": {
        "n_timesteps": 50_000,
        "learning_rate": 2.3e-3,
        "batch_size": 64,
        "buffer_size": 100_000,
        "learning_starts": 1_000,
        "gamma": 0.99,
        "target_update_interval": 10,
        "train_freq": 256,
        "gradient_steps": 128,
        "exploration_fraction": 0.16,
        "exploration_final_eps": 0.04,
    },
    "Acrobot-v1": {
        "n_timesteps": 100_000,
        "learning_rate": 6.3e-4,
        "batch_size": 128,
        "buffer_size": 50_000,
        "learning_starts": 0,
        "gamma": 0.99,
        "target_update_interval": 250,
        "train_freq": 4,
        "gradient_steps": -1,
        "exploration_fraction": 0.12,
        "exploration_final_eps": 0.1,
    },
}
EVALUATE_EVERY, EVALUATE_EPISODES = 2_000, 10
"""As genray's preset `cartpole`."""
LONGER = 20
"""Training is planned for this many times RL Zoo's steps; the clock ends it."""


class _Watch(BaseCallback):
    def __init__(self, run: Run, zoo_steps: int):
        super().__init__()
        self._run, self._zoo_steps = run, zoo_steps

    def _on_step(self) -> bool:
        if self.num_timesteps == self._zoo_steps:
            score(self._run, "schedule", self.model)
        return not self._run.over()


def score(run: Run, moment: str, model: Any) -> None:
    def play() -> list[float]:
        return run.play(lambda observations: model.predict(observations, deterministic=True)[0])

    run.score(moment, model.num_timesteps, model._n_updates, play)


def train(run: Run) -> None:
    options = dict(ZOO[run.task.env_id])
    steps = options.pop("n_timesteps")
    options["exploration_fraction"] /= LONGER
    model = DQN(
        "MlpPolicy",
        run.task.env_id,
        policy_kwargs={"net_arch": [256, 256]},
        seed=run.seed,
        device="cpu",
        **options,
    )
    watch = _Watch(run, steps)
    with tempfile.TemporaryDirectory() as folder:
        choose = EvalCallback(
            make_vec_env(run.task.env_id, seed=20_000 + run.seed),
            n_eval_episodes=EVALUATE_EPISODES,
            eval_freq=EVALUATE_EVERY,
            best_model_save_path=folder,
            verbose=0,
        )
        run.over()
        model.learn(LONGER * steps, callback=CallbackList([watch, choose]), log_interval=None)  # type: ignore[arg-type]
        score(run, "end", model)
        best = Path(folder) / "best_model.zip"
        if best.exists():
            score(run, "best", DQN.load(best, device="cpu"))
