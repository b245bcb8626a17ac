"""Tests of what all runs share: whole episodes, a clock without evaluations, and the table."""

import time

import gymnasium
import numpy as np
import pytest

from tests.bench.bench_environments import rows_of
from tests.bench.environments.protocol import TASKS, Run, play_episodes


def left(observations: np.ndarray) -> np.ndarray:
    return np.zeros(len(observations), np.int64)


def test_play_episodes_returns_the_first_whole_episode_of_each_lane():
    env, lengths = gymnasium.make("CartPole-v1"), []
    for seed in range(5, 35):
        env.reset(seed=seed)
        over, length = False, 0
        while not over:
            _, _, terminated, truncated, _ = env.step(0)
            over, length = terminated or truncated, length + 1
        lengths.append(length)
    env.close()
    assert max(lengths) - min(lengths) > 1  # so rewards of a lane that plays on would be seen
    assert play_episodes(left, "CartPole-v1", 30, seed=5) == lengths


def burn(cpu_s: float) -> list[float]:
    until_s = time.process_time() + cpu_s
    while time.process_time() < until_s:
        pass
    return [1.0, 3.0]


def test_run_clock_excludes_evaluations():
    run = Run(TASKS["cartpole"], seed=0, cpu_s=0.1)
    assert not run.over()
    run.score("schedule", 10, 1, lambda: burn(0.15))
    assert not run.over()
    burn(0.11)
    assert run.over()
    run.score("end", 20, 2, lambda: [4.0])
    assert run.moments["schedule"]["score"] == 2.0
    assert run.moments["schedule"]["lowest"] == 1.0
    assert run.moments["end"]["cpu_s"] == pytest.approx(0.1, abs=0.05)


def test_rows_count_the_seeds_that_reach_the_goal_at_each_moment():
    def moment(score: float) -> dict[str, float]:
        return {"steps": 10, "updates": 2, "cpu_s": 3.0, "score": score, "lowest": 0.0}

    runs = [{"schedule": moment(500.0), "end": moment(400.0)}, {"end": moment(495.0)}]
    rows = rows_of("cartpole", {"sb3": runs})
    assert [row[0] for row in rows] == ["Stable-Baselines3, at RL Zoo's steps", "Stable-Baselines3"]
    assert rows[0][4:] == ("500", "500", "1 of 1", "500")
    assert rows[1][4:] == ("447.5", "400", "1 of 2", "400, 495")
