"""Trains a `Fit` with K data-parallel workers of Ray Train. Each worker has its own part of the
rows.

PyTorch averages the gradients (gloo on CPUs, NCCL on GPUs). Only worker 0 writes the run directory.
With several hosts, the directory has to be on storage that all hosts share. Each worker's batch
normalisation uses only its own rows.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from genray.config import from_dict, to_dict
from genray.console import escape_unprintable
from genray.distributed.waiting import waits_explained
from genray.errors import ResourceError, RunFault
from genray.gen.families import FAMILIES, open_fit
from genray.gen.training.run import FitRun, columns
from genray.gen.training.world import World
from genray.paths import absolute_paths
from genray.runs.live import Live
from genray.runs.rundir import RunDir


def train_with_workers(
    family: str,
    config: Any,
    run: RunDir,
    workers: int,
    *,
    resume_command: str,
    checkpoint: Path | None = None,
) -> None:
    """Train with `workers` processes in the run directory `run`, which must exist and not be
    locked.

    `family`, `config`: a name of `gen.families.FAMILIES` and its configuration. `checkpoint`: where
    to continue; None: start anew. Raises ResourceError when Ray has fewer CPUs (or GPUs, with
    --device cuda) than workers, and RunFault when a worker fails.
    """
    on_gpu = config.fit.device == "cuda"
    kind = "GPU" if on_gpu else "CPU"
    have = int(ray.cluster_resources().get(kind, 0))
    if have < workers:
        raise ResourceError(
            f"--workers {workers}: Ray has {have} {kind}s here; use at most --workers "
            f"{max(have, 1)}"
        )
    # Every worker builds the fit from these plain values, because it may be on another host.
    settings = {
        "family": family,
        "config": to_dict(absolute_paths(config)),
        "run": str(run.path.resolve()),
        "checkpoint": str(checkpoint.resolve()) if checkpoint else None,
        "resume_command": resume_command,
    }
    # Ray Train requires a storage path for its own files; genray uses the run directory instead.
    with tempfile.TemporaryDirectory(prefix="genray-train-") as storage:
        trainer = TorchTrainer(
            _train_as_worker,
            train_loop_config=settings,
            torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
            scaling_config=ScalingConfig(num_workers=workers, use_gpu=on_gpu),
            run_config=ray.train.RunConfig(storage_path=storage, name="fit"),
        )
        try:
            with waits_explained("--workers"):
                trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise RunFault(_reason(error, run, resume_command)) from error


def _reason(error: Exception, run: RunDir, resume_command: str) -> str:
    """Return one line with the error of a worker and, if there is a checkpoint, how to continue."""
    text = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The last line of a worker's traceback names the exception.
    named = [line for line in text if line.startswith("genray.errors.")] or text[-1:]
    reason = named[-1].partition(": ")[2] or named[-1]
    if resume_command in reason or "no checkpoint" in reason:
        return reason
    return (
        f"a worker failed ({reason}); continue with: {resume_command}"
        if run.list_checkpoints()
        else reason
    )


def _train_as_worker(settings: dict[str, Any]) -> None:
    escape_unprintable()  # Ray's log is UTF-8, but a file name may be something else
    context = ray.train.get_context()
    world = World(context.get_world_rank(), context.get_world_size())
    config: Any = from_dict(FAMILIES[settings["family"]].config, settings["config"])
    if not os.environ.get("OMP_NUM_THREADS"):  # Ray sets it to the CPUs that a worker reserved
        torch.set_num_threads(1)
    fit = open_fit(settings["family"], config, world)
    if settings["checkpoint"]:
        fit.load(Path(settings["checkpoint"]))
    if world.rank:
        for _ in fit:
            pass
        return
    run = RunDir(Path(settings["run"]))
    with run, Live(settings["family"], fit.planned_steps(), columns(fit)) as live:
        FitRun(fit, run, live, settings["resume_command"]).run()
