"""Trains a model from start to end, reports progress, and writes pictures, checkpoints and a model.

All families (autoencoders, VAEs, GANs, classifiers, style models) use this module.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from genray.config import to_dict
from genray.errors import ConfigError, ResourceError, RunFault
from genray.gen.training.fit import Fit, Step
from genray.gen.training.progress import Progress
from genray.media import write_png
from genray.runs import modelstore
from genray.runs.live import Column, Live
from genray.runs.rundir import MetricsLog, RunDir
from genray.runs.stop import StopRequests
from genray.threads import FlopCount, choose_threads, own_threads, saved_threads, user_threads

EPOCH: Column = ("epoch", "epoch", "{:.1f}")
SPEED: Column = ("steps_per_s", "steps/s", "{:,.0f}")


def columns(fit: Fit) -> Sequence[Column]:
    """Return the columns of the live display for `fit`."""
    held_out: Column = ("validation_loss", "validation", "{:.4f}")
    return (
        EPOCH,
        *((name, name.replace("_", " "), "{:.4f}") for name in fit.task.shown),
        held_out,
        SPEED,
    )


class FitRun:
    """Runs one `Fit` in one run directory: logs metrics, draws pictures, writes checkpoints.

    Args:
        fit: the training loop.
        run: the run directory.
        live: the live display.
        resume_command: the shell command that resumes the run, for error messages.
    """

    def __init__(self, fit: Fit, run: RunDir, live: Live, resume_command: str):
        self._fit, self._run, self._live, self._resume_command = fit, run, live, resume_command
        self._log = MetricsLog(run, fit.step)
        self._saved_at = -1
        planned = fit.planned_steps()
        self._checkpoint_every = fit.config.checkpoint_every or max(1, planned // 10)
        self._draw_every, self._drawn_at = max(1, planned // 20), fit.step
        self._clock, self._clock_step = time.monotonic(), fit.step
        self._progress = Progress(fit, run)

    def run(self) -> dict[str, float]:
        """Train to the end; returns the metrics of the test split.

        During training, Ctrl-C, SIGTERM, SIGHUP or a closed output saves a checkpoint and raises
        KeyboardInterrupt; a second signal raises it at once, without a checkpoint.

        Raises RunFault if a loss or a weight is no longer finite, if a checkpoint, the metrics or
        the model cannot be written, or if an evaluation of the validation split failed in a run
        with one worker. If there is a checkpoint, the message contains the command that resumes the
        run. Other errors are raised unchanged.
        """
        fit = self._fit
        self._saved_at = fit.step if self._run.list_checkpoints() else -1
        try:
            # Train, and report each step. A request to stop saves a checkpoint first.
            with own_threads():
                with StopRequests(lambda: self._live.closed) as stop:
                    try:
                        # Draw the untrained model, to compare later pictures with.
                        if fit.step == 0:
                            self._draw()
                            self._progress.keep()
                        for step in self._steps():
                            self._after(step)
                            stop.check()
                    except KeyboardInterrupt:
                        # After a second signal, no checkpoint is saved.
                        if stop.count < 2:
                            self._live.say("stopping: writing a checkpoint …")
                            self._save(None)
                        raise
                # Evaluate the test split, and save the model.
                return self._finish()
        except (RunFault, OSError) as error:
            raise self._fault(error) from error
        except Exception as error:
            if not fit.evaluation_unfinished or fit.task.world.size > 1:
                raise
            # The evaluation failed, but not the training. Save a checkpoint, so that the resumed
            # run evaluates again.
            self._save(None)
            reason = (str(error).strip().splitlines() or [""])[0]
            fault = RunFault(f"the evaluation failed ({type(error).__name__}: {reason})")
            raise self._fault(fault) from error
        finally:
            self._log.close()

    def _steps(self) -> Iterator[Step]:
        """Yield the fit's steps.

        On a CPU, the number of threads is chosen after the first step. A resumed run keeps the
        number of its checkpoint.
        """
        steps = iter(self._fit)
        # PyTorch's default of one thread for each core makes small networks slower.
        if self._fit.task.device.type == "cpu":
            if not self._fit.threads and not self._fit.done:
                # Count the first step's floating-point operations, and choose the number of
                # threads from the count. Counting does not change the step's result.
                most = torch.get_num_threads()
                torch.set_num_threads(user_threads() or 1)
                with FlopCount() as count:
                    first = next(steps)
                self._fit.threads = choose_threads(count.flop, most)
                torch.set_num_threads(self._fit.threads)
                yield first
            elif self._fit.threads:
                torch.set_num_threads(saved_threads(self._fit.threads))
        yield from steps

    def _after(self, step: Step) -> None:
        # Log and display the metrics, if this step reports any.
        if step.values:
            seconds = time.monotonic() - self._clock
            speed = (step.step - self._clock_step) / seconds
            self._clock, self._clock_step = time.monotonic(), step.step
            values: dict[str, float | int | None] = {
                "epoch": step.epoch,
                **step.values,
                "steps_per_s": speed,
            }
            values |= {f"validation_{name}": value for name, value in step.held_out.items()}
            # With several stages, each stage's metrics have the stage's name as a prefix.
            prefix = f"{step.stage}/" if len(self._fit.task.stages) > 1 else ""
            self._log.write(step.step, {prefix + name: value for name, value in values.items()})
            self._live.update(values, step.step)
        # Announce the end of a stage.
        if step.last_of_stage and len(self._fit.task.stages) > 1:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in step.held_out.items())
            self._live.say(f"step {step.step:,}: {step.stage} is trained ({figures})")
        # Write a checkpoint. Its score is −loss, because the highest score marks the best one.
        if step.step % self._checkpoint_every == 0 or step.last_of_stage:
            self._save(-step.held_out["loss"] if step.held_out else None)
        # Pictures come after the checkpoint: if they fail, the run can be resumed from here.
        if step.held_out and (step.step - self._drawn_at >= self._draw_every or step.last_of_stage):
            self._draw_or_say(self._draw)
        if self._progress.is_due(step.epoch, step.last_of_stage):
            self._draw_or_say(self._draw_progress)

    def _draw_progress(self) -> None:
        self._progress.keep()
        self._progress.draw()

    def _draw_or_say(self, draw: Callable[[], None]) -> None:
        try:
            draw()
        except Exception as error:
            # An error of the disk, such as a full disk, ends the run, which can be resumed.
            if isinstance(error, OSError):
                raise
            if isinstance(error, ResourceError):
                raise RunFault(str(error)) from error
            reason = (str(error).strip().splitlines() or [""])[0]
            self._log.write(self._fit.step, {"pictures_failed": 1})
            self._live.say(
                f"step {self._fit.step:,}: the pictures failed ({type(error).__name__}: {reason}); "
                "training continues"
            )

    def _draw(self) -> None:
        for name, picture in self._fit.pictures().items():
            write_png(self._run.pictures / f"{name}-{self._fit.step:06d}.png", picture)
            # Copy the newest picture to a fixed name.
            write_png(self._run.pictures / f"{name}.png", picture)
        self._drawn_at = self._clock_step = self._fit.step
        self._clock = time.monotonic()

    def _save(self, score: float | None) -> None:
        if self._fit.step != self._saved_at:
            self._run.write_checkpoint(
                self._fit.step, self._fit.save, keep=self._fit.config.keep, score=score
            )
            self._saved_at = self._fit.step
            # This model has no test metrics; `_finish` adds them at the end.
            save_export(self._run.model, self._fit, {})

    def _finish(self) -> dict[str, float]:
        fit = self._fit
        self._live.say("evaluating the test split …")
        try:
            figures = fit.test()
        except Exception:
            # Keep the model although its test metrics are missing.
            save_export(self._run.model, fit, {})
            raise
        self._log.write(fit.step, {f"test_{name}": value for name, value in figures.items()})
        self._draw()
        self._progress.draw(now=True)
        save_export(self._run.model, fit, figures)
        self._live.say(
            "test: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        )
        if fit.task.remark:
            self._live.say(fit.task.remark)
        return figures

    def _fault(self, error: BaseException) -> RunFault:
        folders = self._run.list_checkpoints()
        if folders:
            advice = f"last good checkpoint: {folders[-1]}; continue with: {self._resume_command}"
        else:
            advice = "no checkpoint had been written yet; start again with another --out"
        return RunFault(f"{str(error).splitlines()[0]}; {advice}")


def save_export(
    folder: Path,
    fit: Fit,
    figures: dict[str, float],
    origin: dict[str, Any] | None = None,
    words: str = "",
) -> Path:
    """Save the task's model, with a description of its data and its test metrics.

    Args:
        folder: the model directory, which is returned.
        fit: the training loop, whose task exports the model.
        figures: metrics of the test split, by name.
        origin: how the model was selected from several models, JSON-serialisable, for the model's
            config.
        words: the content of `origin` as text, for the model card.

    Raises:
        ConfigError: the exported config uses a key that is reserved for the run.
        OSError: the directory cannot be written.
    """
    export = fit.task.export()
    data = fit.whole_data
    # Describe the data and the training in the model's config.
    about = {
        "data": {
            "name": data.name,
            "licence": data.licence,
            "classes": list(data.classes),
            "low": data.train.low,
            "high": data.train.high,
            "options": to_dict(fit.task.config.data),
            "recipe": data.about,
        },
        "step": fit.step,
        "test": figures,
        **({"origin": origin} if origin else {}),
    }
    # Write the model card.
    table = "\n".join(f"| {name} | {value:.5g} |" for name, value in figures.items())
    licence = data.licence or "not stated"
    card = f"{export.card.rstrip()}\n\nData: {data.name}. Licence of the data: {licence}.\n"
    card += f"\n{words}\n" if words else ""
    card += f"\n| on the test split | |\n|---|---|\n{table}\n"
    card += f"\n{fit.task.remark}\n" if fit.task.remark else ""
    clash = about.keys() & export.config.keys()
    if clash:
        raise ConfigError(f"a model's config has {', '.join(clash)}, which only the run may write")
    return modelstore.save_model(
        folder, export.kind, {**export.config, **about}, export.tensors, card
    )
