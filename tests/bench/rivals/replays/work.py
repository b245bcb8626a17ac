"""The work that every replay does in `bench_dataplane`, and the clock that measures it.

Frames of real play (84x84, grey), 50,000 transitions, observations of 4 frames. A *draw* is:
sample a batch by priority with observation, next observation, action, reward, discount and
importance weight in memory of one piece each, and set new priorities for it. An *add* is 500
steps given at once. Peers get 1-step transitions, and whole stacks, made beforehand, where they
store those; genray and the limits work with n = 3, which reaches further.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

CAPACITY = 50_000
STACK = 4
PIXELS = 84 * 84
CHUNK = 500
CHUNKS = 8  # different ones, given again and again
EPISODE = 211  # steps
ALPHA, BETA, EPSILON = 0.6, 0.4, 1e-3
POLICY_EPSILON = 0.05  # of a run's policy: collectors explore, too


@dataclass(frozen=True)
class Steps:
    """500 steps of one game: what an environment hands out."""

    frame_THW: np.ndarray  # uint8
    obs_TSHW: np.ndarray  # uint8
    next_obs_TSHW: np.ndarray  # uint8
    action_T: np.ndarray  # int64
    reward_T: np.ndarray  # float32
    done_T: np.ndarray  # bool


class Replay(Protocol):
    """What is measured of a replay."""

    def add(self, steps: Steps) -> None: ...

    def draw(self, batch_size: int) -> None:
        """Sample and update."""

    def nbytes(self) -> int:
        """Bytes that it holds, priorities included."""


class Tree(Protocol):
    """A prioritized sampler alone."""

    def pair(self, batch_size: int) -> None:
        """Sample, and set new priorities."""


def played_frames(count: int, seed: int = 0, run: Path | None = None) -> np.ndarray:
    """`count` consecutive frames of Road Runner at random, or of a run's game by its policy;
    uint8 [count, 84, 84].
    """
    if run:
        return _frames_of_policy(count, seed, run)
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv("road_runner", 1, num_threads=1, stack_num=1)
    rng = np.random.default_rng(seed)
    env.reset(seed=seed)
    actions = rng.integers(18, size=(count, 1))
    frame_THW = np.stack([env.step(action)[0][0, 0].copy() for action in actions])
    env.close()
    return frame_THW


def _frames_of_policy(count: int, seed: int, run: Path) -> np.ndarray:
    from genray.rl.collect import Lanes
    from genray.rl.env import make_env
    from genray.rl.evaluate import greedy_policy
    from genray.rl.policy import load_policy

    network, config = load_policy(run)
    policy = greedy_policy(network, POLICY_EPSILON, np.random.default_rng(seed))
    env, one = make_env(config, 1, num_threads=1), np.ones(1, bool)
    lanes, over_E, frames = Lanes(env.reset(seed), config, network.config.past_actions), ~one, []
    while len(frames) < count:
        action_E = policy(lanes, one)
        step = env.step(action_E)
        lanes.push(step.frame_EHW, action_E, begins_E=over_E)
        over_E = step.terminated_E | step.truncated_E
        frames.append(step.frame_EHW[0])
    env.close()
    return np.stack(frames)


def played_steps(count: int = CHUNKS, seed: int = 0, run: Path | None = None) -> list[Steps]:
    """`count` chunks that follow one another."""
    rng = np.random.default_rng(seed)
    rows = count * CHUNK
    frame_THW = played_frames(rows + STACK, seed, run)
    stack_TSHW = np.lib.stride_tricks.sliding_window_view(frame_THW, STACK, axis=0).transpose(
        0, 3, 1, 2
    )
    done_T = np.arange(rows) % EPISODE == EPISODE - 1
    chunks = []
    for first in range(0, rows, CHUNK):
        here = slice(first, first + CHUNK)
        chunks.append(
            Steps(
                frame_THW=frame_THW[first + STACK - 1 : first + STACK - 1 + CHUNK].copy(),
                obs_TSHW=stack_TSHW[here].copy(),
                next_obs_TSHW=stack_TSHW[first + 1 : first + 1 + CHUNK].copy(),
                action_T=rng.integers(18, size=CHUNK),
                reward_T=rng.integers(-1, 2, size=CHUNK).astype(np.float32),
                done_T=done_T[here].copy(),
            )
        )
    return chunks


def cpu_rate(work: Callable[[], object], units: int, seconds: float) -> float:
    """`units` of each call of `work`, a CPU second of this process, over about `seconds`."""
    calls, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds:
        work()
        calls += 1
    return calls * units / spent


def in_turns(
    works: dict[str, tuple[Callable[[], object], int]], seconds: float, turns: int
) -> dict[str, list[float]]:
    """The rate of each work, measured `turns` times in turn: a busy spell of the machine meets
    all of them.
    """
    rates: dict[str, list[float]] = {name: [] for name in works}
    for work, _ in works.values():
        work()  # compiles, allocates, touches
    for _ in range(turns):
        for name, (work, units) in works.items():
            rates[name].append(cpu_rate(work, units, seconds))
    return rates


def measure_replay(replay: Replay, seconds: float, turns: int) -> dict[str, float]:
    """Fill it, then draw and add; medians."""
    chunks = played_steps()
    for index in range(CAPACITY // CHUNK + 2):
        replay.add(chunks[index % CHUNKS])
    turn = iter(range(10**9))
    rates = in_turns(
        {
            "sample_512": (lambda: replay.draw(512), 1),
            "sample_32": (lambda: replay.draw(32), 1),
            "adds": (lambda: replay.add(chunks[next(turn) % CHUNKS]), CHUNK),
        },
        seconds,
        turns,
    )
    return {name: median(values) for name, values in rates.items()} | {
        "bytes": replay.nbytes() / CAPACITY
    }
