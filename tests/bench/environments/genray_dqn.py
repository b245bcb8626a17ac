"""genray's presets, in one process with one thread, as `genray train dqn --local` runs them.
Training ends at the preset's steps, or when its CPU time is used up; evaluations on the way, by
which some presets choose their policy, count as training.
"""

import contextlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.evaluate import evaluate
from genray.rl.policy import open_policy
from genray.rl.train import Trainer
from genray.runs.live import Live
from genray.runs.rundir import RunDir
from tests.bench.environments.protocol import Run, Task


def configure(task: Task, seed: int) -> DQNConfig:
    """Return the preset of a task."""
    config = presets.PRESETS[task.name]()
    return replace(config, run=replace(config.run, seed=seed, device="cpu"))


class _Clocked(Trainer):
    """Training that also ends when its CPU time is used up."""

    clock: Run

    def _time_is_up(self) -> bool:
        return self.clock.over()


def train(run: Run) -> None:
    config = configure(run.task, run.seed)
    agent = LocalAgent(config, threads=1)
    try:
        with tempfile.TemporaryDirectory() as folder, RunDir.create(Path(folder) / "run") as place:
            trainer = _Clocked(config, agent, place, Live(run.task.name, config.run.steps, ()))
            trainer.clock = run
            with contextlib.redirect_stdout(sys.stderr):
                trainer.run()
            policy = open_policy(place.model)

        def play() -> list[float]:
            result = evaluate(
                policy.network,
                config.env,
                episodes=run.episodes,
                epsilon=0.0,
                seed=10_000 + run.seed,
            )
            return result.scores

        run.score("end", agent.steps, agent.learner.updates, play)
    finally:
        agent.close()
