"""Small learners, and a slow computation of δ, for the tests of the learner."""

import numpy as np
import torch

from genray.rl.chunk import Sample
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.helpers.batches import ACTIONS, SIDE

PLAIN = LearnerConfig(double=False, loss="squared", max_grad_norm=0)


def network(seed: int, dueling: bool = False) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(
        NetworkConfig(channels=(4, 4, 4), hidden=16, dueling=dueling), ACTIONS, 1, (SIDE, SIDE)
    )


def learner(
    config: LearnerConfig = PLAIN, seed: int = 0, dueling: bool = False, threads: int = 0
) -> Learner:
    return Learner(config, network(seed, dueling), network(seed + 1, dueling), threads=threads)


def q(net: QNetwork, frames: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(frames)).numpy()


def slow_delta(w: QNetwork, w_minus: QNetwork, batch: Sample, double: bool) -> np.ndarray:
    """Return δ of each transition, computed one at a time."""
    q_BA, next_w_BA, next_minus_BA = (
        q(w, batch.obs_BSHW),
        q(w, batch.next_obs_BSHW),
        q(w_minus, batch.next_obs_BSHW),
    )
    deltas = []
    for i in range(batch.size):
        best = int(np.argmax(next_w_BA[i] if double else next_minus_BA[i]))
        target = batch.return_B[i] + batch.discount_B[i] * next_minus_BA[i][best]
        deltas.append(target - q_BA[i][batch.action_B[i]])
    return np.array(deltas)


def separated(config: LearnerConfig, dueling: bool = False, seed: int = 0) -> Learner:
    """Return a learner whose w differs from its w⁻."""
    one = learner(config, seed, dueling)
    one.online.load_state_dict(network(seed + 7, dueling).state_dict())
    return one


def equal(a: QNetwork, b: QNetwork) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def flat(weights: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([tensor.flatten() for tensor in weights.values()])
