"""Controls a training run: lets an engine work, reports progress, evaluates the policy, and writes
checkpoints and the model.

The engine is `LocalAgent` or the Ray `Coordinator`; this module uses both in the same way.
"""

import json
import math
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from genray import machine
from genray.console import shell_command
from genray.errors import GenrayError, ResourceError, RunFault
from genray.rl.best_policy import BestPolicy
from genray.rl.card import save_policy as save_policy
from genray.rl.columns import COLUMNS, columns_of
from genray.rl.config import DQNConfig
from genray.rl.engine import Engine, Progress, probe_env
from genray.rl.evaluate import Evaluation, evaluate
from genray.rl.evaluation import EvaluationProgress, EvaluationStopped
from genray.rl.networks import QNetwork
from genray.runs.live import Live
from genray.runs.rundir import MetricsLog, RunDir, require_disk
from genray.runs.stop import StopRequests

# Bytes of a transition without its frame: 21 for action, return, priority … (see replay.py), and 23
# as a margin.
BYTES_BESIDE_FRAME = 44
REPORT_SEED, CHOICE_SEED = 10_000, 20_000
"""Added to a run's seed: of the reported evaluations, and of those that choose the best policy."""


class Trainer:
    """Trains with one engine in one run directory: reports, evaluates, and saves checkpoints.

    Args:
        config: the configuration of the run.
        engine: collects and learns.
        run: the run directory.
        live: shows progress.
        resume_command: the command that resumes the run, for error messages; "": `genray train dqn
            --resume RUN`.
    """

    def __init__(
        self, config: DQNConfig, engine: Engine, run: RunDir, live: Live, resume_command: str = ""
    ):
        self._resume_command = resume_command or shell_command(
            "genray", "train", "dqn", "--resume", run.place
        )
        self._config, self._engine, self._run, self._live = config, engine, run, live
        self._returns: deque[float] = deque(maxlen=100)
        self._progress = Progress()
        self._last_evaluation = ""
        self._saved_at = -1
        self._deadline = math.inf
        """When `max_minutes` are over, by time.monotonic()."""
        self._stop = StopRequests()
        several = config.run.saved_policy == "best" and config.run.evaluate_every
        self._best = BestPolicy(run, config) if several else None

    def run(self, start_step: int | None = None) -> Evaluation:
        """Train to the configured number of steps, from `start_step` when resumed; return the last
        evaluation.

        After Ctrl-C, SIGTERM, SIGHUP or a closed output, a checkpoint is saved and
        KeyboardInterrupt raised; after a second signal, no checkpoint is saved. A RunFault or
        OSError is raised as RunFault, whose message names the last checkpoint and the command that
        resumes the run.
        """
        self._saved_at = -1 if start_step is None else start_step
        self._progress.steps = start_step or 0
        self._log = MetricsLog(self._run, start_step or 0)
        with StopRequests(lambda: self._live.closed) as self._stop:
            try:
                return self._train(self._progress.steps)
            except KeyboardInterrupt:
                if self._stop.count < 2:
                    if self._progress.steps != self._saved_at:
                        self._live.say("stopping: writing a checkpoint …")
                    self._save_or_fault()
                raise
            except (RunFault, OSError) as error:
                raise self._fault(error) from error
            finally:
                self._log.close()

    def _train(self, start_step: int) -> Evaluation:
        """Train from milestone to milestone; save at each, and evaluate if an evaluation is due."""
        settings = self._config.run
        result: Evaluation | None = None
        reached = start_step
        if settings.max_minutes:
            self._deadline = time.monotonic() + 60 * settings.max_minutes
        if start_step and self._missed_evaluation():
            result = self._evaluate(last=False)
        for step in milestones(
            start_step, settings.steps, settings.evaluate_every, settings.checkpoint_every
        ):
            before = reached
            if step <= before and step < settings.steps:
                continue  # a chunk has already passed this milestone together with an earlier one
            self._train_until(step)
            # The checkpoint comes first, so that the run can be resumed from here even if the
            # evaluation fails. The checkpoint includes the data that were in flight.
            self._save()
            reached = self._progress.steps
            last = max(step, reached) >= settings.steps or self._time_is_up()
            if last or self._passed(settings.evaluate_every, before):
                result = self._evaluate(last)
            if last:
                break
        assert result is not None
        return result

    def _missed_evaluation(self) -> bool:
        """Whether the run ended after a checkpoint, before the evaluation that was due there."""
        steps = [0]
        with (self._run.path / "metrics.jsonl").open(encoding="utf-8") as lines:
            for line in lines:
                if '"evaluation_' in line:
                    steps.append(json.loads(line)["step"])
        return self._passed(self._config.run.evaluate_every, steps[-1])

    def _passed(self, period: int, before: int) -> bool:
        """Whether the steps since `before` include a multiple of `period`; False for 0."""
        return bool(period) and self._progress.steps // period > before // period

    def _train_until(self, step: int) -> None:
        while (self._progress.steps < step or self._learner_behind()) and not self._time_is_up():
            before, start = self._progress, time.monotonic()
            # Let the engine work for a second, then report its progress.
            progress = self._engine.advance(step, seconds=1.0)
            self._stop.check()
            seconds = time.monotonic() - start
            for event in progress.events:
                self._live.say(event)
            self._returns.extend(episode.score for episode in progress.episodes)
            values = self._values(progress, before, seconds)
            if progress.updates != before.updates or progress.steps != before.steps:
                self._log.write(progress.steps, values)
            self._live.update(values, progress.steps)
            # Stop waiting for a learner that makes no updates, unless it is being restarted.
            stalled = (
                progress.steps >= step
                and progress.updates == before.updates
                and not progress.recovering
            )
            self._progress = progress
            if stalled:
                return

    def _time_is_up(self) -> bool:
        return time.monotonic() >= self._deadline

    def _learner_behind(self) -> bool:
        """Whether the learner has drawn clearly fewer samples per insert than configured."""
        ratio = self._config.replay.samples_per_insert
        return (
            bool(ratio)
            and self._progress.updates > 0
            and self._progress.samples_per_insert < 0.98 * ratio
        )

    def _values(
        self, now: Progress, before: Progress, seconds: float
    ) -> dict[str, float | int | None]:
        learner = self._config.learner
        every = learner.reset_every
        ratio: dict[str, float | int | None] = {}
        if columns_of(self._config) != COLUMNS:
            samples = learner.batch_size * learner.learners
            ratio["replay_ratio"] = (
                now.samples_per_insert / samples / self._config.transitions_per_sample
            )
            # A reset begins the update after each multiple of the period.
            ratio["next_reset"] = -(-max(1, now.updates) // every) * every if every else None
        return {
            "frames": now.steps * (1 if self._config.env.env else self._config.env.frame_skip),
            "agent_steps_per_s": (now.steps - before.steps) / seconds,
            "updates": now.updates,
            # None if the last report had no updates: the updates before a resume would count.
            "updates_per_s": max(0, now.updates - before.updates) / seconds
            if before.updates
            else None,
            "samples_per_insert": now.samples_per_insert,
            "weight_lag_updates": now.weight_lag,
            "epsilon": now.epsilon,
            "episode_return": float(np.mean(self._returns)) if self._returns else None,
            "loss": now.loss,
            "q_mean": now.q_mean,
            "grad_norm": now.grad_norm,
            "replay_size": now.replay_size,
            "lost_transitions": now.lost_transitions,
            "lost_updates": now.lost_updates,
            "refused_writes": now.refused_writes,
            "restarts": now.restarts,
            **ratio,
        }

    def _evaluate(self, last: bool) -> Evaluation | None:
        """Evaluate the policy, and write it with its score as the run's model; return the result.

        If only the best policy is saved, this is done if the policy is the best one so far, and the
        best one is evaluated once more if `last`.
        """
        settings = self._config.run
        if last and not self._progress.updates:
            self._live.say("warning: no update was made; the evaluated network is untrained")
        network, step = self._engine.network(), self._progress.steps
        seed = settings.seed + REPORT_SEED
        if self._best:
            chosen = self._play(network, step, settings.seed + CHOICE_SEED, False)
            if chosen is not None:
                if not self._best.offer(network, step, chosen):
                    self._live.say(f"the best policy so far has {self._best.score:,.1f}")
                self._run.note_score(step, chosen.mean, keep=settings.keep)
            if not last:
                return chosen
            if self._best.score is not None:
                network, step = self._best.load()
                self._live.say(f"the run's policy is that of step {step:,}")
        result = self._play(network, step, seed, last)
        if result is not None and self._best:
            self._best.save(network, step, result)
        elif result is not None:
            save_policy(self._run.model, self._config, network, step, result)
            self._run.note_score(step, result.mean, keep=settings.keep)
        return result

    def _play(self, network: QNetwork, step: int, seed: int, last: bool) -> Evaluation | None:
        """Evaluate the policy of `step`, and log the result.

        If the evaluation fails, the failure is logged. Then the method returns None, or raises
        RunFault if `last`.
        """
        settings = self._config.run
        episodes = settings.evaluate_episodes if last else math.ceil(settings.evaluate_episodes / 3)
        self._live.say(f"evaluating: {episodes} episodes …")
        try:
            result = evaluate(
                network,
                self._config.env,
                episodes=episodes,
                epsilon=settings.evaluate_epsilon,
                seed=seed,
                progress=EvaluationProgress(self._config.env, self._live.say, self._stop.check),
            )
        except EvaluationStopped as stopped:
            self._live.say(f"step {step:,}: {stopped.result.summary()}")
            raise
        except Exception as error:  # the environment's own code may raise anything
            reason = f"the evaluation failed ({_described(error)})"
            self._log.write(self._progress.steps, {"evaluation_failed": 1})
            if last:
                raise RunFault(reason) from error
            self._live.say(f"step {step:,}: {reason}; training continues")
            return None
        self._log.write(
            self._progress.steps,
            {
                "evaluation_mean": result.mean,
                "evaluation_median": result.median,
                "evaluation_ci95": result.ci95,
                "evaluation_episodes": len(result.scores),
            },
        )
        self._last_evaluation = f"step {step:,}: {result.summary()}"
        self._live.say(self._last_evaluation)
        return result

    def _save(self) -> None:
        if self._progress.steps == self._saved_at:
            return
        start = time.monotonic()
        # `settle` also counts the chunks that were in flight, which the checkpoint contains.
        step = self._engine.settle()
        self._run.write_checkpoint(step, self._engine.save, keep=self._config.run.keep)
        self._saved_at = self._progress.steps = step
        self._live.say(
            f"step {step:,}: checkpoint; the run paused for {time.monotonic() - start:.1f} s"
        )
        if self._best and self._best.score is not None:
            return
        # The policy of this step has no score yet. If an evaluation follows, it writes the model
        # again with its score.
        earlier = (
            f"Its last evaluation, at {self._last_evaluation}" if self._last_evaluation else ""
        )
        save_policy(
            self._run.model, self._config, self._engine.network(), step, None, words=earlier
        )

    def _save_or_fault(self) -> None:
        try:
            self._save()
        except (RunFault, OSError) as error:
            raise self._fault(error) from error

    def _fault(self, error: BaseException) -> RunFault:
        folders = self._run.list_checkpoints()
        if folders:
            advice = f"last checkpoint: {folders[-1]}; continue with: {self._resume_command}"
        else:
            advice = "no checkpoint had been written yet; start again with another --out"
        return RunFault(f"{str(error).splitlines()[0]}; {advice}")


def _described(error: Exception) -> str:
    text = str(error).strip().splitlines()
    if isinstance(error, GenrayError):
        return text[0]
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def milestones(start: int, end: int, *periods: int) -> Iterator[int]:
    """Yield in order the steps between `start` and `end` that are multiples of a period, and `end`.
    A period of 0 is ignored.
    """
    due = {end}
    for period in filter(None, periods):
        due.update(range((start // period + 1) * period, end, period))
    yield from sorted(step for step in due if step > start or step == end)


def transition_bytes(config: DQNConfig) -> int:
    """Return the bytes of a transition in a checkpoint, or in memory if frames are uncompressed."""
    height, width = probe_env(config.env).frame_shape
    return height * width + bytes_beside_frame(config)


def bytes_beside_frame(config: DQNConfig) -> int:
    """Return the bytes of a transition without its frame. Sequences also need rewards, errors and
    states (`sequences.SequenceStore`).
    """
    sequence = config.sequence_layout
    return BYTES_BESIDE_FRAME + (8 + 4 * sequence.state_size // sequence.period if sequence else 0)


def memory_bytes(config: DQNConfig) -> int:
    """Return the bytes of a transition in memory.

    How much LZ4 compresses frames depends on the game: in Road Runner to a tenth. To be safe, a
    sixth is assumed, and 12 bytes for a frame's address and length.
    """
    height, width = probe_env(config.env).frame_shape
    if config.replay.replay_store == "lz4":
        return height * width // 6 + bytes_beside_frame(config) + 12
    return transition_bytes(config)


def check_disk(config: DQNConfig, out: Path) -> None:
    """Raise ResourceError if the checkpoints with their replays will not fit on the disk: the
    newest `keep` ones, the best one, and the one being written.
    """
    if config.run.checkpoint_replay:
        replay = min(config.replay.capacity, config.run.steps) * transition_bytes(config)
        require_disk(
            out,
            replay * (config.run.keep + 2),
            f"{config.run.keep} checkpoints, the best one, and the one being written",
        )


def check_memory(config: DQNConfig) -> None:
    """Raise ResourceError if the replay is larger than this machine's available memory."""
    available = machine.available_memory(Path("/"))
    each = memory_bytes(config)
    needed = config.replay.capacity * each
    if available and needed > available:
        fits = int(0.8 * available / each)
        raise ResourceError(
            f"--capacity {config.replay.capacity}: needs {needed / 1e9:.1f} GB, "
            f"{available / 1e9:.1f} GB are available "
            f"here; use at most --capacity {fits}"
        )
