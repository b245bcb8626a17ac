"""A training run from start to end: drive a `Fit`, report, draw, checkpoint, and leave a model.

One file for every family; it cannot tell an autoencoder from a GAN.
"""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from genray.config import to_dict
from genray.errors import ConfigError, ResourceError, RunFault
from genray.gen.training.fit import Fit, Step
from genray.media import write_png
from genray.runs import modelstore
from genray.runs.live import Column, Live
from genray.runs.rundir import MetricsLog, RunDir
from genray.runs.stop import StopRequests
from genray.threads import FlopCount, choose_threads, own_threads, saved_threads, user_threads

EPOCH: Column = ("epoch", "epoch", "{:.1f}")
SPEED: Column = ("steps_per_s", "steps/s", "{:,.0f}")


def columns(fit: Fit) -> Sequence[Column]:
    """What is shown while `fit` trains."""
    held_out: Column = ("validation_loss", "validation", "{:.4f}")
    return (
        EPOCH,
        *((name, name.replace("_", " "), "{:.4f}") for name in fit.task.shown),
        held_out,
        SPEED,
    )


class FitRun:
    """One run of one `Fit` in one run directory. `resume_command` is what a person types to go
    on.
    """

    def __init__(self, fit: Fit, run: RunDir, live: Live, resume_command: str):
        self._fit, self._run, self._live, self._resume_command = fit, run, live, resume_command
        self._log = MetricsLog(run, fit.step)
        self._saved_at = -1
        planned = fit.planned_steps()
        self._checkpoint_every = fit.config.checkpoint_every or max(1, planned // 10)
        self._draw_every, self._drawn_at = max(1, planned // 20), fit.step
        self._clock, self._clock_step = time.monotonic(), fit.step

    def run(self) -> dict[str, float]:
        """Train to the end; returns the figures on the test split.

        Ctrl-C, SIGTERM, SIGHUP or a closed output saves and raises KeyboardInterrupt; a fault
        raises RunFault with the command that resumes.
        """
        fit = self._fit
        self._saved_at = fit.step if self._run.list_checkpoints() else -1
        try:
            with own_threads():
                with StopRequests(lambda: self._live.closed) as stop:
                    try:
                        if fit.step == 0:
                            # before anything is learnt: what every later picture is compared with
                            self._draw()
                        for step in self._steps():
                            self._after(step)
                            stop.check()
                    except KeyboardInterrupt:
                        if stop.count < 2:
                            self._live.say("stopping: writing a checkpoint …")
                            self._save(None)
                        raise
                return self._finish()
        except (RunFault, OSError) as error:
            raise self._fault(error) from error
        except Exception as error:
            if not fit.looking or fit.task.world.size > 1:
                raise
            # The steps are made: keep them, and evaluate again when the run is resumed.
            self._save(None)
            reason = (str(error).strip().splitlines() or [""])[0]
            fault = RunFault(f"the evaluation failed ({type(error).__name__}: {reason})")
            raise self._fault(fault) from error
        finally:
            self._log.close()

    def _steps(self) -> Iterator[Step]:
        """The fit's steps, on as many threads of a CPU as they are worth, or as the run had
        before.
        """
        steps = iter(self._fit)
        if self._fit.task.device.type == "cpu":
            if not self._fit.threads and not self._fit.done:
                # The first step shows how much a step computes. Counting does not change its
                # result.
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
            # A stage's curve stands under its own name, where there are several.
            prefix = f"{step.stage}/" if len(self._fit.task.stages) > 1 else ""
            self._log.write(step.step, {prefix + name: value for name, value in values.items()})
            self._live.update(values, step.step)
        if step.last_of_stage and len(self._fit.task.stages) > 1:
            figures = ", ".join(f"{name} {value:.4f}" for name, value in step.held_out.items())
            self._live.say(f"step {step.step:,}: {step.stage} is trained ({figures})")
        if step.step % self._checkpoint_every == 0 or step.last_of_stage:
            self._save(-step.held_out["loss"] if step.held_out else None)
        # After the checkpoint: whatever the pictures come to, the run can be resumed from here.
        if step.held_out and (step.step - self._drawn_at >= self._draw_every or step.last_of_stage):
            self._draw_or_say()

    def _draw_or_say(self) -> None:
        try:
            self._draw()
        except Exception as error:
            if isinstance(error, OSError | ResourceError):  # a full disk ends the run, resumable
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            self._log.write(self._fit.step, {"pictures_failed": 1})
            self._live.say(
                f"step {self._fit.step:,}: the pictures failed ({type(error).__name__}: {reason}); "
                "training goes on"
            )

    def _draw(self) -> None:
        for name, picture in self._fit.pictures().items():
            write_png(self._run.pictures / f"{name}-{self._fit.step:06d}.png", picture)
            # the newest, where people look first
            write_png(self._run.pictures / f"{name}.png", picture)
        self._drawn_at = self._clock_step = self._fit.step
        self._clock = time.monotonic()

    def _save(self, score: float | None) -> None:
        if self._fit.step != self._saved_at:
            self._run.write_checkpoint(
                self._fit.step, self._fit.save, keep=self._fit.config.keep, score=score
            )
            self._saved_at = self._fit.step
            save_export(self._run.model, self._fit, {})  # its figures come at the end

    def _finish(self) -> dict[str, float]:
        fit = self._fit
        self._live.say("measuring on the test split …")
        try:
            figures = fit.measure()
        except Exception:
            save_export(self._run.model, fit, {})  # a model without figures is better than none
            raise
        self._log.write(fit.step, {f"test_{name}": value for name, value in figures.items()})
        self._draw()
        save_export(self._run.model, fit, figures)
        self._live.say(
            "test: " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        )
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
    """Leave the task's model in the store, with what it was trained on and how well it does on
    the test split.

    `origin`, JSON-able, and `words` for the card: how the model came to be chosen, where it was
    one of many.
    """
    export = fit.task.export()
    data = fit.whole_data
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
    table = "\n".join(f"| {name} | {value:.5g} |" for name, value in figures.items())
    licence = data.licence or "not stated"
    card = f"{export.card.rstrip()}\n\nData: {data.name}. Licence of the data: {licence}.\n"
    card += f"\n{words}\n" if words else ""
    card += f"\n| on the test split | |\n|---|---|\n{table}\n"
    clash = about.keys() & export.config.keys()
    if clash:
        raise ConfigError(f"a model's config holds {', '.join(clash)}, which the run writes itself")
    return modelstore.save_model(
        folder, export.kind, {**export.config, **about}, export.tensors, card
    )
