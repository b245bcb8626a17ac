"""The least that must happen: environment, forward pass, update. `python -m
tests.bench.rivals.bare_loop`

No replay to fill, no tree, no n-step returns, no second process: batches are drawn uniformly
from a small array that random play filled beforehand. What a system needs beyond this is its
overhead; doing two things at once can make it faster. The update is genray's own (learner.py)
written plainly: the same passes, loss, clipping and Adam.

`--algorithm full`: dueling and double. `--algorithm sb3`: neither, which is Stable-Baselines3's
DQN.
"""

from itertools import count
from typing import Any, cast

import numpy as np
import torch
from ale_py.vector_env import AtariVectorEnv
from gymnasium.spaces import Discrete
from gymnasium.vector import AutoresetMode
from torch.nn.functional import smooth_l1_loss

from genray.rl.networks import NetworkConfig, QNetwork
from tests.bench.common import last_json_line
from tests.bench.rivals import workload

PREFILLED = 1_024


def prefill(env: AtariVectorEnv, num_actions: int, rng: np.random.Generator) -> list[torch.Tensor]:
    """(obs, action, reward, discount, next obs) of PREFILLED transitions of random play."""
    rows: list[tuple[np.ndarray, ...]] = []
    obs: Any = env.reset(seed=int(rng.integers(2**30)))[0].copy()
    for _ in range(PREFILLED // workload.NUM_ENVS):
        action = rng.integers(num_actions, size=workload.NUM_ENVS)
        next_obs, reward, terminated, _, _ = env.step(action)
        next_obs = next_obs.copy()
        discount = np.where(terminated, 0.0, workload.GAMMA).astype(np.float32)
        rows.append((obs, action, reward.astype(np.float32), discount, next_obs))
        obs = next_obs
    return [torch.from_numpy(np.concatenate(column)) for column in zip(*rows)]


def main() -> None:
    arguments = workload.parse_arguments(
        __doc__,
        lambda parser: parser.add_argument("--algorithm", choices=("full", "sb3"), default="full"),
    )
    full = arguments.algorithm == "full"
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    env = workload.make_atari(arguments.game, autoreset_mode=AutoresetMode.SAME_STEP)
    num_actions = int(cast(Discrete, env.single_action_space).n)
    memory = prefill(env, num_actions, rng)
    shape = NetworkConfig(
        channels=workload.NATURE_CHANNELS, hidden=workload.NATURE_HIDDEN, dueling=full
    )
    online, target = (
        QNetwork(shape, num_actions),
        QNetwork(shape, num_actions).requires_grad_(False),
    )
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=workload.LEARNING_RATE, eps=1.5e-4)

    def act(obs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            greedy = online(torch.from_numpy(obs)).argmax(dim=1).numpy()
        random = rng.integers(num_actions, size=workload.NUM_ENVS)
        return np.where(rng.random(workload.NUM_ENVS) < workload.EPSILON, random, greedy)

    def update() -> None:
        index = torch.from_numpy(rng.integers(PREFILLED, size=workload.BATCH_SIZE))
        obs, action, reward, discount, next_obs = (
            column.index_select(0, index) for column in memory
        )
        with torch.no_grad():
            q_next = target(next_obs)
            if full:
                best = online(next_obs).argmax(dim=1, keepdim=True)
                value = q_next.gather(1, best).squeeze(1)
            else:
                value = q_next.amax(dim=1)
        q = online(obs).gather(1, action.unsqueeze(1)).squeeze(1)
        loss = smooth_l1_loss(q, reward + discount * value)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(online.parameters(), 40.0)
        optimizer.step()
        loss.item()

    obs: Any = env.reset(seed=arguments.seed)[0]
    watch = workload.Stopwatch(arguments.seconds)
    for updates in count(1):
        obs = env.step(act(obs))[0]
        update()
        if updates % workload.TARGET_PERIOD_UPDATES == 0:
            target.load_state_dict(online.state_dict())
        if result := watch.tick(updates * workload.NUM_ENVS, updates):
            last_json_line(
                {"system": f"bare loop ({arguments.algorithm})", "threads": arguments.threads}
                | result
            )
            return


if __name__ == "__main__":
    main()
