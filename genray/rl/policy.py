"""Finds and loads policies on disk: the newest policy of a run, or the policy of a given step.

A run has one policy in `model/`, which is written with each checkpoint and each evaluation, and one
in each checkpoint. Commands use the newest policy by default, or the best one of a run with
`--saved-policy best`; `--step` selects another one.
"""

import pickle
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch

from genray.config import from_dict, load_yaml
from genray.errors import CheckpointError, ConfigError
from genray.rl.best_policy import best_score
from genray.rl.building import build_network
from genray.rl.config import DQNConfig
from genray.rl.engine import network_card, probe_env
from genray.rl.env import EnvConfig
from genray.rl.networks import QNetwork
from genray.runs import modelstore
from genray.runs.rundir import RunDir, verify_checkpoint


class LoadedPolicy(NamedTuple):
    """A policy, its training environment, and its source."""

    network: QNetwork
    env: EnvConfig
    step: int | None
    """Agent steps of the policy's training; None if the model does not record them."""
    source: Path
    """The model directory or the checkpoint from which the policy was loaded."""

    def __str__(self) -> str:
        step = "of an unknown step" if self.step is None else f"of step {self.step:,}"
        return f"policy {step}: {self.source}"


def open_policy(path: Path, step: int | None = None) -> LoadedPolicy:
    """Load the policy of a run, the newest or the best one, or the one of `step`; `path` may also
    be a model directory.

    Raises CheckpointError if there is no policy or if it is damaged. Raises ConfigError, which
    lists the available steps, if there is no policy of `step`.
    """
    is_run = (path / "config.yaml").exists()
    model = path / "model" if is_run or (path / "model").is_dir() else path
    checkpoints = (
        {int(folder.name): folder for folder in RunDir(path).list_checkpoints()} if is_run else {}
    )
    if step is None and (not checkpoints or best_score(model) is not None):
        return _from_model(model)
    at_model = _model_step(model)
    steps = sorted({*checkpoints, *([] if at_model is None else [at_model])})
    wanted = steps[-1] if step is None and steps else step
    if wanted == at_model:
        return _from_model(model)
    if wanted in checkpoints:
        return _from_checkpoint(path, checkpoints[wanted], wanted)
    have = ", ".join(map(str, steps)) or "none"
    raise ConfigError(f"--step {step}: {path} has no policy of this step; there are: {have}")


def load_policy(path: Path) -> tuple[QNetwork, EnvConfig]:
    """Return (network, environment) of the newest policy of a run, or of a model directory."""
    policy = open_policy(path)
    return policy.network, policy.env


def _model_step(model: Path) -> int | None:
    try:
        step = modelstore.read_config(model).get("step")
    except CheckpointError:
        return None
    return step if isinstance(step, int) else None


def _from_model(model: Path) -> LoadedPolicy:
    network, config = modelstore.load_model(model, {"dqn": build_network})
    env = from_dict(EnvConfig, config["env"], "env.")
    return LoadedPolicy(cast(QNetwork, network), env, config.get("step"), model)


def _from_checkpoint(run: Path, folder: Path, step: int) -> LoadedPolicy:
    config = load_yaml(DQNConfig, run / "config.yaml")
    verify_checkpoint(folder, only="learner.pt")  # the replay, which may be gigabytes, is not read
    network = build_network(network_card(config, *probe_env(config.env)))
    try:
        state: dict[str, Any] = torch.load(
            folder / "learner.pt", map_location="cpu", weights_only=True
        )
        average = state.get("average") if config.learner.average_updates else None
        network.load_state_dict(average or state[config.learner.acting_network])
    except (
        OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, EOFError,
        pickle.UnpicklingError,
    ) as error:  # fmt: skip
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(
            f"{folder}: contains no policy of this run ({reason}); choose another --step"
        ) from error
    return LoadedPolicy(network.eval(), config.env, step, folder)
