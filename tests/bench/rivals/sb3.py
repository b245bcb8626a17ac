"""Stable-Baselines3's DQN. `python -m tests.bench.rivals.sb3 speed|learn --seconds … --seed …`

speed: its own algorithm (uniform replay, 1 step, neither double nor dueling) and NatureCNN at
`workload.py`'s work. learn: Road Runner in wall time with genray's protocol and widths and SB3's
n-step replay; scored by `evaluation.py`.

Its environment is ALE's vector environment behind SB3's VecEnv instead of the Atari wrappers
that SB3 comes with, which work in Python, one game after the other; infos are empty but at an
episode's end. What SB3 does its own way stays: one coin for *all* lanes decides between
exploring and acting greedily (so 5% of its steps need no forward pass).
"""

import time
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from gymnasium.vector import AutoresetMode
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor, nn

from genray.rl.collect import Lanes
from genray.rl.env import EnvConfig
from genray.rl.evaluate import play_out
from tests.bench.common import last_json_line
from tests.bench.rivals import workload

ENDLESS = 10**9  # steps; callbacks end the runs
ANNEAL_STEPS = 15_000


class AtariVecEnv(VecEnv):
    """ALE's vector environment as SB3 wants it: the step that ends an episode returns the next
    one's first observation, and the last observation in `infos[lane]["terminal_observation"]`.
    `life_loss`: a lost life is reported as an end too, and the game goes on.
    """

    def __init__(self, game: str, num_envs: int, seed: int, life_loss: bool = False):
        self._life_loss, self._lives = life_loss, np.zeros(num_envs, np.int64)
        self._env = workload.make_atari(game, num_envs, autoreset_mode=AutoresetMode.SAME_STEP)
        self._seed = seed
        self._actions = np.zeros(num_envs, np.int64)
        self.render_mode = None
        super().__init__(
            num_envs, self._env.single_observation_space, self._env.single_action_space
        )

    def reset(self) -> np.ndarray:
        return self._env.reset(seed=self._seed)[0]

    def step_async(self, actions: np.ndarray) -> None:
        self._env.send(np.asarray(actions, np.int64))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        obs, reward, terminated, truncated, info = self._env.recv()
        done = terminated | truncated
        life_lost = (
            (info["lives"] < self._lives) & ~done if self._life_loss else np.zeros_like(done)
        )
        self._lives = info["lives"].copy()
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for lane in np.flatnonzero(done):
            infos[lane]["terminal_observation"] = info["final_obs"][lane]
            infos[lane]["TimeLimit.truncated"] = bool(truncated[lane] and not terminated[lane])
        for lane in np.flatnonzero(life_lost):
            infos[lane]["terminal_observation"] = obs[lane]
            infos[lane]["TimeLimit.truncated"] = False
        return obs, reward.astype(np.float32), done | life_lost, infos

    def close(self) -> None:
        self._env.close()

    # The rest of VecEnv's face; DQN asks for the render mode alone.
    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name, None)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError

    def env_method(
        self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any
    ) -> list[Any]:
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


class NarrowCNN(BaseFeaturesExtractor):
    """SB3's NatureCNN with convolutions of 16, 32 and 32 channels and 256 units; SB3 scales the
    frames before it.
    """

    def __init__(self, observation_space: Box):
        super().__init__(observation_space, features_dim=256)
        self.network = nn.Sequential(
            nn.Conv2d(observation_space.shape[0], 16, 8, stride=4), nn.ReLU(),
            nn.Conv2d(16, 32, 4, stride=2), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=1), nn.ReLU(),
            nn.Flatten(), nn.Linear(32 * 7 * 7, 256), nn.ReLU(),
        )  # fmt: skip

    def forward(self, observations: Tensor) -> Tensor:
        return self.network(observations)


class MeasureSpeed(BaseCallback):
    """Ends training when the window is over."""

    def __init__(self, seconds: float):
        super().__init__()
        self._watch = workload.Stopwatch(seconds)
        self.result: dict[str, float] | None = None

    def _on_step(self) -> bool:
        self.result = self._watch.tick(self.num_timesteps, self.model._n_updates)
        return self.result is None


class StopAfter(BaseCallback):
    """Ends training `seconds` of wall time after it began."""

    def __init__(self, seconds: float):
        super().__init__()
        self._seconds = seconds

    def _on_training_start(self) -> None:
        self._stop = time.monotonic() + self._seconds

    def _on_step(self) -> bool:
        return time.monotonic() < self._stop


def measure_speed(game: str, seconds: float, seed: int, compact: bool) -> dict[str, float]:
    """Agent steps/s of SB3's DQN at the common work. `compact`: each observation stored once
    instead of twice.
    """
    model = DQN(
        "CnnPolicy",
        AtariVecEnv(game, workload.NUM_ENVS, seed),
        learning_rate=workload.LEARNING_RATE,
        buffer_size=workload.CAPACITY,
        learning_starts=workload.LEARNING_STARTS,
        batch_size=workload.BATCH_SIZE,
        gamma=workload.GAMMA,
        train_freq=1,  # steps of all lanes: 8 agent steps
        gradient_steps=1,
        target_update_interval=workload.TARGET_PERIOD_UPDATES * workload.STEPS_PER_UPDATE,
        exploration_initial_eps=workload.EPSILON,
        exploration_final_eps=workload.EPSILON,
        optimize_memory_usage=compact,
        replay_buffer_kwargs={"handle_timeout_termination": not compact},
        seed=seed,
        device="cpu",
    )
    measure = MeasureSpeed(seconds)
    model.learn(ENDLESS, callback=measure, log_interval=None)  # type: ignore[arg-type]
    assert measure.result is not None
    return measure.result


def quick_dqn(game: str, seed: int, capacity: int, adam_epsilon: float) -> DQN:
    """SB3's DQN with settings for runs of minutes: 8 lanes, n-step returns of 5, a narrow network,
    an update on 32 transitions for every 4 agent steps, ε from 1 to .02 over 15,000 steps.
    """
    return DQN(
        "CnnPolicy",
        AtariVecEnv(game, workload.NUM_ENVS, seed, life_loss=True),
        learning_rate=2.5e-4,
        buffer_size=capacity,
        learning_starts=1_000,
        batch_size=32,
        gamma=0.99,
        train_freq=1,  # a step of all lanes: 8 agent steps
        gradient_steps=2,  # so one update for every 4 agent steps
        n_steps=5,
        target_update_interval=500 * 4,  # agent steps: every 500 updates
        exploration_initial_eps=1.0,
        exploration_final_eps=0.02,
        exploration_fraction=ANNEAL_STEPS / ENDLESS,
        policy_kwargs={
            "features_extractor_class": NarrowCNN,
            "net_arch": [],
            "optimizer_kwargs": {"eps": adam_epsilon},
        },
        seed=seed,
        device="cpu",
    )


def train_and_score(
    game: str, seconds: float, seed: int, capacity: int, adam_epsilon: float, episodes: int
) -> dict[str, Any]:
    """Train for `seconds` of wall time, then play `episodes` games."""
    model = quick_dqn(game, seed, capacity, adam_epsilon)
    model.learn(ENDLESS, callback=StopAfter(seconds), log_interval=None)  # type: ignore[arg-type]
    rng = np.random.default_rng(10_000 + seed)

    def policy(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        greedy_E = model.predict(lanes.stack_ESHW, deterministic=True)[0]
        return np.where(
            rng.random(len(greedy_E)) < 0.001,
            rng.integers(model.action_space.n, size=len(greedy_E)),
            greedy_E,
        )

    result = play_out(
        policy, EnvConfig(game=game), episodes=episodes, epsilon=0.001, seed=10_000 + seed
    )
    return {
        "score": result.mean,
        "score_median": result.median,
        "scores": result.scores,
        "steps": model.num_timesteps,
        "updates": model._n_updates,
    }


def main() -> None:
    def add(parser: Any) -> None:
        parser.add_argument("what", choices=("speed", "learn"))
        parser.add_argument(
            "--twice",
            action="store_true",
            help="speed: store next observations too (SB3's default)",
        )
        parser.add_argument("--capacity", type=int, default=100_000, help="learn: transitions kept")
        parser.add_argument(
            "--adam-epsilon",
            type=float,
            default=1e-8,
            help="learn: SB3's default, and the preset's",
        )
        parser.add_argument(
            "--episodes", type=int, default=30, help="learn: games of the evaluation"
        )

    arguments = workload.parse_arguments(__doc__, add)
    if arguments.what == "speed":
        result: dict[str, Any] = measure_speed(
            arguments.game, arguments.seconds, arguments.seed, compact=not arguments.twice
        )
    else:
        result = train_and_score(
            arguments.game,
            arguments.seconds,
            arguments.seed,
            arguments.capacity,
            arguments.adam_epsilon,
            arguments.episodes,
        )
    last_json_line(
        {"system": "Stable-Baselines3", "threads": torch.get_num_threads(), "seed": arguments.seed}
        | result
    )


if __name__ == "__main__":
    main()
