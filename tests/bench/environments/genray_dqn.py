"""genray's presets, in one process with one thread. Training ends at the preset's steps, or when
its CPU time is used up.
"""

from dataclasses import replace

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.evaluate import evaluate
from tests.bench.environments.protocol import Run, Task

SLICE_STEPS = 500


def configure(task: Task, seed: int) -> DQNConfig:
    """Return the preset of a task."""
    config = presets.PRESETS[task.name]()
    if task.env_config:
        config = replace(config, env=replace(config.env, env_config=task.env_config))
    return replace(config, run=replace(config.run, seed=seed, device="cpu"))


def train(run: Run) -> None:
    config = configure(run.task, run.seed)
    agent = LocalAgent(config, threads=1)
    try:
        while agent.steps < config.run.steps and not run.over():
            until = min(agent.steps + SLICE_STEPS, config.run.steps)
            agent.advance(until, seconds=3_600.0)

        def play() -> list[float]:
            result = evaluate(
                agent.network(),
                config.env,
                episodes=run.episodes,
                epsilon=0.0,
                seed=10_000 + run.seed,
            )
            return result.scores

        run.score("end", agent.steps, agent.learner.updates, play)
    finally:
        agent.close()
