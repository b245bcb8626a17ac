"""Learning through Ray: CartPole is learned, and the values of a real game, Pong, from its frames.

How well a policy plays a real game takes too long for a test:
`python -m tests.bench.bench_learning --preset road_runner_quick --steps 45000` measures it.

Shapes: B transitions.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.commands.train_dqn import LaunchConfig, open_engine
from genray.rl import DQNConfig, QNetwork, presets
from genray.rl.chunk import Sample
from genray.rl.collect import Collector
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.env import make_env
from genray.rl.evaluate import evaluate
from genray.rl.replay import ReplayShard

pytestmark = [
    pytest.mark.ray,
    pytest.mark.learn,
    pytest.mark.usefixtures("ray_here"),
    pytest.mark.timeout(900),
]


def networks(config: DQNConfig, steps: range) -> Iterator[tuple[int, QNetwork]]:
    """Train through Ray, and yield (agent steps, policy) at each number of steps."""
    with open_engine(config, LaunchConfig()) as engine:
        for step in steps:
            while engine.advance(step, seconds=5.0).steps < step:
                pass
            yield step, engine.network()


def test_cartpole_is_learned_through_ray():
    """The bound of test_gym.py, whose run in one process has the same preset. Collectors get new
    weights often, because the run makes few updates.
    """
    preset = presets.cartpole()
    config = replace(preset, run=replace(preset.run, publish_every=5))
    found = {}
    for step, network in networks(config, range(6_000, preset.run.steps + 1, 2_000)):
        found[step] = evaluate(network, config.env, episodes=20, epsilon=0.0, seed=1).mean
        if found[step] >= 195:
            print(f"\nCartPole, mean return by step: {found}")
            return
    pytest.fail(f"mean return by step: {found}")


def pong() -> DQNConfig:
    """The demo's preset on Pong, played at random and with a short horizon: 0.9¹⁰ = 0.35, so a
    value mostly says which points are won and lost within the next 10 steps.
    """
    preset = presets.road_runner_quick()
    return replace(
        preset,
        env=replace(preset.env, game="pong"),
        replay=replace(preset.replay, capacity=20_000, min_size=500),
        learner=replace(preset.learner, average_updates=0, target_period_updates=100),
        explore=replace(preset.explore, exploration="shared", epsilon=1.0),
        collect=replace(preset.collect, gamma=0.9),
    )


def other_games(config: DQNConfig) -> Sample:
    """Return 1,000 transitions, with returns of 10 steps, from games that the run does not play."""
    config = replace(
        config,
        replay=replace(config.replay, shards=1, capacity=2_000),
        collect=replace(config.collect, collectors=1),
    )
    interface = probe_env(config.env)
    [layout] = config.plan_shards(interface.frame_shape, interface.observation)
    shard = ReplayShard(config.replay, layout, seed=9)
    env = make_env(config.env, config.collect.envs_per_collector)
    network = initial_network(network_card(config, *interface), seed=5)  # its actions are random
    collector = Collector(env, network, config.env, config.collect, config.explore, seed=1234)
    while shard.size < 1_800:
        shard.add(collector.collect()[0])
    env.close()
    return shard.sample(1_000)


@torch.no_grad()
def foresight(network: QNetwork, seen: Sample) -> float:
    """Return the correlation of Q(s, a) with the return of the 10 steps from s, without the value
    after them.
    """
    chunks = [slice(at, at + 100) for at in range(0, len(seen.action_B), 100)]
    q_BA = torch.cat(
        [
            network(torch.from_numpy(seen.obs_BSHW[part]), torch.from_numpy(seen.past_BK[part]))
            for part in chunks
        ]
    ).numpy()
    q_B = np.take_along_axis(q_BA, seen.action_B[:, None].astype(np.int64), axis=1)[:, 0]
    return float(np.corrcoef(q_B, seen.return_B)[0, 1])


def test_values_of_pong_are_learned_through_ray():
    config = pong()
    seen = other_games(config)
    untrained = initial_network(network_card(config, *probe_env(config.env)), seed=0).eval()
    assert (seen.return_B != 0).mean() > 0.2 and foresight(untrained, seen) < 0.3
    found = {}
    for step, network in networks(config, range(3_000, 8_001, 1_000)):
        found[step] = foresight(network, seen)
        if found[step] >= 0.5:
            print(f"\nPong, correlation of value and return by step: {found}")
            return
    pytest.fail(f"correlation of value and return by step: {found}")
