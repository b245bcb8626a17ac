"""DQN put together from torchrl's parts, as its `sota-implementations/dqn` does for Atari.

Collector, replay buffer, ε-greedy module, loss and target updater are torchrl's; so are Nature's
network, Adam 2.5e-4, the squared loss, gradients cut at 10, and one update on 32 transitions for
every 4 agent steps. Departures, because that example's schedules are made for 10 million agent
steps: learning begins after 1,000 steps (50,000), ε falls from 1 to .01 over 15,000 steps (1
million), a copy goes to the target network every 500 updates (10,000), and the replay has 100,000
places (1 million). It stores frames as bytes, which the network scales; the example's running
normalisation of frames is left out.
"""

import copy

import numpy as np
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictSequential
from torch import Tensor, nn
from torchrl.collectors import Collector
from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer
from torchrl.envs import GymWrapper
from torchrl.modules import MLP, ConvNet, EGreedyModule, QValueActor
from torchrl.objectives import DQNLoss, HardUpdate

from tests.bench.atari.one_game import OneGame
from tests.bench.atari.protocol import Player, Trial, player_of

CAPACITY = 100_000
BATCH_SIZE = 32
FRAMES_PER_BATCH = 16
STEPS_PER_UPDATE = 4
LEARNING_STARTS = 1_000
EPSILON_STEPS = 15_000
TARGET_PERIOD_UPDATES = 500
ENDLESS = 10**9


class Scale(nn.Module):
    """Bytes to floats in [0, 1]."""

    def forward(self, frames: Tensor) -> Tensor:
        return frames.float() / 255.0


def make_actor(env: GymWrapper, num_actions: int) -> QValueActor:
    """Return torchrl's ConvNet and MLP with Nature's sizes, as a greedy actor."""
    convolutions = ConvNet(
        in_features=4,
        activation_class=nn.ReLU,
        num_cells=[32, 64, 64],
        kernel_sizes=[8, 4, 3],
        strides=[4, 2, 1],
    )
    head = MLP(
        in_features=64 * 7 * 7,
        activation_class=nn.ReLU,
        out_features=num_actions,
        num_cells=[512],
    )
    layers = nn.Sequential(Scale(), convolutions, head)
    return QValueActor(module=layers, spec=env.action_spec, in_keys=["observation"])


def train(trial: Trial) -> None:
    """Train on the trial's game until the trial's time is over."""
    torch.manual_seed(trial.seed)
    np.random.seed(trial.seed)
    game = OneGame(trial.game, trial.seed)
    env = GymWrapper(game, categorical_action_encoding=True)
    actor = make_actor(env, int(game.action_space.n))  # type: ignore[attr-defined]
    explore = EGreedyModule(
        spec=actor.spec, annealing_num_steps=EPSILON_STEPS, eps_init=1.0, eps_end=0.01
    )
    collector = Collector(
        env,
        TensorDictSequential(actor, explore),
        frames_per_batch=FRAMES_PER_BATCH,
        total_frames=ENDLESS,
        init_random_frames=LEARNING_STARTS,
        max_frames_per_traj=-1,
    )
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(CAPACITY), batch_size=BATCH_SIZE)
    loss = DQNLoss(actor, loss_function="l2", delay_value=True)
    loss.make_value_estimator(gamma=0.99)
    target = HardUpdate(loss, value_network_update_interval=TARGET_PERIOD_UPDATES)
    optimizer = torch.optim.Adam(loss.parameters(), lr=2.5e-4)
    steps = updates = 0

    def copy_policy() -> Player:
        network = copy.deepcopy(actor.module[0].module).eval()

        def q_values(stack_ESHW: np.ndarray) -> np.ndarray:
            with torch.no_grad():
                return network(torch.from_numpy(stack_ESHW)).numpy()

        return player_of(q_values)

    def update(batch: TensorDict) -> None:
        optimizer.zero_grad()
        loss(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(loss.parameters(), 10.0)
        optimizer.step()
        target.step()

    trial.tick(0, 0, copy_policy)
    for data in collector:
        buffer.extend(data.reshape(-1))
        steps += data.numel()
        explore.step(data.numel())
        while steps > LEARNING_STARTS and updates < (steps - LEARNING_STARTS) // STEPS_PER_UPDATE:
            update(buffer.sample())
            updates += 1
        if not trial.tick(steps, updates, copy_policy):
            break
    collector.shutdown()
