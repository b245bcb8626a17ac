"""The learner beside a bare PyTorch loop, the collector beside a bare play loop. `python -m
tests.bench.rivals.bare_update`

The bare update is genray's own written plainly, with the same network, fused Adam, memory format
and allocator settings: what the learner needs beyond it is overhead. The bare play loop steps
ALE's vector environment, which stacks for itself, and asks the same network for actions; it
keeps nothing.
"""

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch
from torch.nn.functional import smooth_l1_loss

from genray.machine import keep_freed_memory
from genray.rl.chunk import Sample
from genray.rl.collect import CollectConfig, Collector
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from tests.bench.common import last_json_line
from tests.bench.rivals import workload
from tests.bench.rivals.replays.work import in_turns, played_frames

ACTIONS = 18
BETA = 0.4


def network() -> QNetwork:
    torch.manual_seed(0)
    return QNetwork(
        NetworkConfig(channels=workload.NATURE_CHANNELS, hidden=workload.NATURE_HIDDEN), ACTIONS
    )


def batch_of(size: int) -> Sample:
    rng = np.random.default_rng(0)
    frame_THW = played_frames(1_000)
    first_B = rng.integers(len(frame_THW) - 7, size=size)[:, None]
    return Sample(
        obs_BSHW=frame_THW[first_B + np.arange(4)],
        next_obs_BSHW=frame_THW[first_B + np.arange(3, 7)],
        past_BK=np.zeros((size, 0), np.int16),
        next_past_BK=np.zeros((size, 0), np.int16),
        action_B=rng.integers(ACTIONS, size=size).astype(np.uint8),
        return_B=rng.normal(size=size).astype(np.float32),
        discount_B=np.full(size, 0.97, np.float32),
        key_B=np.arange(size),
        probability_B=rng.random(size) / 1000,
        later_BJ=np.zeros((size, 0), np.int16),
        steps_BTF=np.zeros((size, 0, 7), np.float32),
        state_BS=np.zeros((size, 0), np.float32),
    )


def bare_update(batch: Sample) -> Callable[[], np.ndarray]:
    """A function that makes one update and returns the new |δ|."""
    online, target = network(), network().requires_grad_(False)
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-4, eps=1.5e-4, fused=True)

    def update() -> np.ndarray:
        obs, next_obs = torch.from_numpy(batch.obs_BSHW), torch.from_numpy(batch.next_obs_BSHW)
        action = torch.from_numpy(batch.action_B).long()[:, None]
        with torch.no_grad():
            best = online(next_obs).argmax(dim=1, keepdim=True)
            value = target(next_obs).gather(1, best).squeeze(1)
            wanted = torch.from_numpy(batch.return_B) + torch.from_numpy(batch.discount_B) * value
            weight = (50_000 * torch.from_numpy(batch.probability_B)).pow(-BETA)
            weight = (weight / weight.max()).float()
        q = online(obs).gather(1, action).squeeze(1)
        loss = (weight * smooth_l1_loss(q, wanted, reduction="none")).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(online.parameters(), 40.0)
        optimizer.step()
        loss.item()
        return (wanted - q.detach()).abs().numpy()

    return update


def learner_of_bare(size: int, seconds: float, turns: int) -> dict[str, float]:
    """CPU-ms of an update, ours and bare, and the ratio of their rates, the median over the
    turns.
    """
    batch = batch_of(size)
    learner = Learner(LearnerConfig(batch_size=size), network(), network())
    rates = in_turns(
        {"ours": (lambda: learner.update(batch, 50_000, BETA), 1), "bare": (bare_update(batch), 1)},
        seconds,
        turns,
    )
    return compared(rates)


def bare_play() -> Callable[[], Any]:
    """A function that steps 8 games once."""
    env = workload.make_atari(num_envs=workload.NUM_ENVS, num_threads=1)
    online, rng = network(), np.random.default_rng(0)
    obs: Any = env.reset(seed=0)[0]

    def step() -> None:
        nonlocal obs
        with torch.inference_mode():
            greedy_E = online(torch.from_numpy(obs)).argmax(dim=1).numpy()
        random_E = rng.integers(ACTIONS, size=workload.NUM_ENVS)
        obs = env.step(
            np.where(rng.random(workload.NUM_ENVS) < workload.EPSILON, random_E, greedy_E)
        )[0]

    return step


def collector_of_bare(seconds: float, turns: int) -> dict[str, float]:
    """As `learner_of_bare`, a step of 8 games."""
    env_config = EnvConfig(game=workload.GAME)
    config = CollectConfig(collectors=1, envs_per_collector=workload.NUM_ENVS)
    explore = ExploreConfig(epsilon=workload.EPSILON)
    collector = Collector(
        AtariLanes(env_config, workload.NUM_ENVS, 1), network(), env_config, config, explore
    )
    bare = bare_play()

    def bare_chunk() -> None:
        for _ in range(config.chunk_rows):
            bare()

    rates = in_turns(
        {"ours": (collector.collect, config.chunk_rows), "bare": (bare_chunk, config.chunk_rows)},
        seconds,
        turns,
    )
    return compared(rates)


def compared(rates: dict[str, list[float]]) -> dict[str, float]:
    """Return the milliseconds of both, and the median ratio of their rates."""
    ours, bare = (np.array(rates[name]) for name in ("ours", "bare"))
    return {
        "ms": 1e3 / median(ours),
        "bare_ms": 1e3 / median(bare),
        "of_bare": float(np.median(ours / bare)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("learner", "collector"))
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--seconds", type=float, default=2.0, help="CPU seconds of each measured stretch"
    )
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    if arguments.what == "learner":
        last_json_line(learner_of_bare(arguments.batch_size, arguments.seconds, arguments.turns))
    else:
        last_json_line(collector_of_bare(arguments.seconds, arguments.turns))


if __name__ == "__main__":
    main()
