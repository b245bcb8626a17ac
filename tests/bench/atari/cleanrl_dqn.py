"""DQN as CleanRL's single-file `dqn_atari.py` does it: one environment, one loop, plain PyTorch.

The recipe is CleanRL's: Nature's network, Adam 1e-4, γ .99, batches of 32, one update for every 4
agent steps, mean squared error, a copy to the target network every 1,000 steps. Departures, because
its schedules are made for 10 million steps: learning begins after 1,000 steps (80,000), ε falls
from 1 to .01 over 15,000 steps (1 million), and the replay has 100,000 places (1 million).
"""

import copy

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from tests.bench.atari.one_game import OneGame
from tests.bench.atari.protocol import Player, Trial, linear, player_of

CAPACITY = 100_000
BATCH_SIZE = 32
GAMMA = 0.99
LEARNING_RATE = 1e-4
LEARNING_STARTS = 1_000
TRAIN_PERIOD_STEPS = 4
TARGET_PERIOD_STEPS = 1_000
EPSILON_STEPS = 15_000
EPSILON_END = 0.01


class QNetwork(nn.Module):
    """The network of Mnih 2015 with PyTorch's initialisation."""

    def __init__(self, num_actions: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(),
            nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * 7 * 7, 512), nn.ReLU(),
            nn.Linear(512, num_actions),
        )  # fmt: skip

    def forward(self, frames_BSHW: Tensor) -> Tensor:
        return self.layers(frames_BSHW / 255.0)


class Ring:
    """The newest CAPACITY transitions. The next observation of a transition is the observation of
    the place after it, so that each is stored once.
    """

    def __init__(self, rng: np.random.Generator):
        self._rng = rng
        self._obs = np.zeros((CAPACITY, 4, 84, 84), np.uint8)
        self._action = np.zeros(CAPACITY, np.int64)
        self._reward = np.zeros(CAPACITY, np.float32)
        self._discount = np.zeros(CAPACITY, np.float32)
        self._count = 0

    def add(
        self, obs: np.ndarray, action: int, reward: float, discount: float, next_obs: np.ndarray
    ) -> None:
        place, after = self._count % CAPACITY, (self._count + 1) % CAPACITY
        self._obs[place], self._obs[after] = obs, next_obs
        self._action[place], self._reward[place] = action, reward
        self._discount[place] = discount
        self._count += 1

    def sample(self) -> tuple[Tensor, ...]:
        # In a full ring, the oldest place has the newest next observation, so it is excluded.
        if self._count < CAPACITY:
            places = self._rng.integers(self._count, size=BATCH_SIZE)
        else:
            places = self._count + self._rng.integers(1, CAPACITY, size=BATCH_SIZE)
        places %= CAPACITY
        arrays = (
            self._obs[places],
            self._action[places],
            self._reward[places],
            self._discount[places],
            self._obs[(places + 1) % CAPACITY],
        )
        return tuple(torch.from_numpy(array) for array in arrays)


def train(trial: Trial) -> None:
    """Train on the trial's game until the trial's time is over."""
    torch.manual_seed(trial.seed)
    rng = np.random.default_rng(trial.seed)
    env = OneGame(trial.game, trial.seed)
    num_actions = int(env.action_space.n)  # type: ignore[attr-defined]
    online, target = QNetwork(num_actions), QNetwork(num_actions)
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=LEARNING_RATE)
    ring = Ring(rng)
    updates = steps = 0

    def copy_policy() -> Player:
        frozen = copy.deepcopy(online)

        def q_values(stack_ESHW: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return frozen(torch.from_numpy(stack_ESHW)).numpy()

        return player_of(q_values)

    obs, _ = env.reset()
    while trial.tick(steps, updates, copy_policy):
        if rng.random() < linear(1.0, EPSILON_END, steps / EPSILON_STEPS):
            action = int(rng.integers(num_actions))
        else:
            with torch.no_grad():
                action = int(online(torch.from_numpy(obs)[None]).argmax())
        next_obs, reward, terminated, truncated, _ = env.step(action)
        ring.add(obs, action, reward, 0.0 if terminated else GAMMA, next_obs)
        obs = env.reset()[0] if terminated or truncated else next_obs
        steps += 1
        if steps > LEARNING_STARTS and steps % TRAIN_PERIOD_STEPS == 0:
            obs_B, action_B, reward_B, discount_B, next_obs_B = ring.sample()
            with torch.no_grad():
                target_B = reward_B + discount_B * target(next_obs_B).amax(dim=1)
            q_B = online(obs_B).gather(1, action_B[:, None]).squeeze(1)
            optimizer.zero_grad()
            mse_loss(q_B, target_B).backward()
            optimizer.step()
            updates += 1
        if steps % TARGET_PERIOD_STEPS == 0:
            target.load_state_dict(online.state_dict())
    env.close()
