"""Trains the model of one trial, for every family, and yields its evaluations. Does not use Ray.

The interface `Training` has two implementations: `FitTraining` runs a `Fit`, and `AgentTraining`
runs a DQN agent in one process. Neither uses test data during training: the test split of a fit is
sealed, and the agent's validation and test episodes start from different seeds.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from genray.errors import ConfigError, require
from genray.gen.families import FAMILIES, open_fit
from genray.gen.training.fit import evaluating
from genray.gen.training.run import save_export
from genray.rl import presets as agent_presets
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.evaluate import Evaluation, evaluate
from genray.rl.train import milestones, save_policy
from tuning.settings import changed

ModelFamily = Literal["ae", "vae", "gan", "pix2pix", "cyclegan", "classifier", "optimizer", "dqn"]
VALIDATION_EPISODES, TEST_EPISODES = 10_000, 20_000
"""Offsets from an agent's seed to the first seed of the validation episodes and of the test
episodes.
"""

UNMEASURED = "A trial of a search. It was chosen by validation data and not evaluated on test data."
"""Text of the model card for a model of a search that has not been measured on test data."""


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one evaluation during training."""

    step: int
    """Number of steps trained."""
    values: Mapping[str, float]
    """Means of the training metrics since the last evaluation, and the validation metrics as
    `validation_…`.
    """
    counts: bool
    """Whether the trial is compared by this evaluation: it has validation metrics, and it belongs
    to the last stage.
    """


class Training(Protocol):
    """Interface of the training of one model."""

    @property
    def planned_evaluations(self) -> int:
        """Number of evaluations that count, unless the training stops early."""

    def evaluations(self) -> Iterator[EvaluationResult]:
        """Train to the end, and yield every evaluation. Raises RunFault when a loss is no longer
        finite.
        """

    def is_finite(self) -> bool:
        """Whether every weight is finite."""

    def state_bytes_per_parameter(self) -> float | None:
        """Bytes of optimizer state for each learned parameter; None before the first step."""

    def save(self, folder: Path) -> None:
        """Save the complete state, so that training can continue bit for bit."""

    def load(self, folder: Path) -> None:
        """Continue from `save`, with the settings of this configuration."""

    def state(self) -> Iterable[torch.Tensor]:
        """Return every tensor that the next step depends on, in a fixed order: weights, optimizers,
        random state.
        """

    def measure_test(self) -> dict[str, float]:
        """Evaluate on the test data. Raises SealedError if the test data are sealed."""

    def export(self, folder: Path, origin: dict[str, Any], words: str) -> Path:
        """Save the model with its metrics on test data and a description of how it was chosen."""

    def save_model(self, folder: Path) -> None:
        """Save the current model in the Hugging Face layout, without metrics on test data."""

    def close(self) -> None:
        """Release the environments and threads of the training."""


def open_training(family: str, config: Any, *, sealed: bool = True) -> Training:
    """Create the training that `config` describes. Raises ConfigError for invalid options or
    data.
    """
    return AgentTraining(config) if family == "dqn" else FitTraining(family, config, sealed)


class FitTraining:
    """Trains a model of a generative family with its `Fit`.

    Args:
        family: name of the family, e.g. `vae`.
        config: the family's configuration.
        sealed: whether reading the test split raises SealedError.
    """

    def __init__(self, family: str, config: Any, sealed: bool):
        self.config = config
        self.fit = open_fit(family, config, sealed=sealed)

    @property
    def planned_evaluations(self) -> int:
        every = self.config.fit.validate_every or self.fit.steps_an_epoch()
        return math.ceil(self.fit.total_steps() / every)

    def evaluations(self) -> Iterator[EvaluationResult]:
        last = self.fit.task.stages[-1]
        for step in self.fit:
            if step.values or step.held_out:
                held_out = {f"validation_{name}": value for name, value in step.held_out.items()}
                yield EvaluationResult(
                    step.step, {**step.values, **held_out}, bool(held_out) and step.stage == last
                )

    def is_finite(self) -> bool:
        return _finite(self.fit.task.networks)

    def state_bytes_per_parameter(self) -> float | None:
        updaters = list(self.fit.task.updaters.values())
        learned = sum(parameter.numel() for updater in updaters for parameter in updater.parameters)
        return _state_bytes([updater.optimizer for updater in updaters], learned)

    def save(self, folder: Path) -> None:
        self.fit.save(folder)

    def load(self, folder: Path) -> None:
        self.fit.load(folder)

    def state(self) -> Iterable[torch.Tensor]:
        yield from _tensors(self.fit.task.networks.state_dict())
        if self.fit.done:  # No further step will depend on the other tensors.
            return
        updaters = [
            updater.state_dict()["optimizer"]["state"]
            for updater in self.fit.task.updaters.values()
        ]
        yield from _tensors(updaters)
        yield torch.get_rng_state()

    def measure_test(self) -> dict[str, float]:
        return self.fit.test()

    def export(self, folder: Path, origin: dict[str, Any], words: str) -> Path:
        return save_export(folder, self.fit, self.measure_test(), origin, words)

    def save_model(self, folder: Path) -> None:
        # `evaluating` restores the training state, so that saving does not change the training.
        with evaluating(self.fit.task, self.config.fit.seed):
            save_export(folder, self.fit, {}, words=UNMEASURED)

    def close(self) -> None:
        pass


class AgentTraining:
    """Trains a DQN agent in one process. Evaluation episodes have their own seeds.

    Args:
        config: the agent's configuration. Raises ConfigError if it cannot learn.
    """

    def __init__(self, config: DQNConfig):
        config.check_learns()
        self.config = config
        self.agent = LocalAgent(config)
        self._evaluated: Evaluation | None = None

    @property
    def _every(self) -> int:
        return self.config.run.evaluate_every or self.config.run.steps

    @property
    def planned_evaluations(self) -> int:
        return math.ceil(self.config.run.steps / self._every)

    def evaluations(self) -> Iterator[EvaluationResult]:
        evaluated_at, result = -1, None
        for until in milestones(self.agent.steps, self.config.run.steps, self._every):
            values: dict[str, float] = {}
            while self.agent.steps < until:
                progress = self.agent.advance(until, seconds=1.0)
                known = {
                    "loss": progress.loss,
                    "q_mean": progress.q_mean,
                    "epsilon": progress.epsilon,
                }
                values |= {name: value for name, value in known.items() if value is not None}
            # One chunk of training may pass several evaluation points, which then share a result.
            if result is None or self.agent.steps != evaluated_at:
                evaluated_at, result = self.agent.steps, self._evaluate(VALIDATION_EPISODES)
            self._evaluated = result
            yield EvaluationResult(
                self.agent.steps, {**values, "evaluation_return": result.mean}, counts=True
            )

    def _evaluate(self, first_seed: int) -> Evaluation:
        settings = self.config.run
        return evaluate(
            self.agent.network(),
            self.config.env,
            episodes=settings.evaluate_episodes,
            epsilon=settings.evaluate_epsilon,
            seed=settings.seed + first_seed,
        )

    def is_finite(self) -> bool:
        return _finite(self.agent.learner.online)

    def state_bytes_per_parameter(self) -> float | None:
        learned = sum(parameter.numel() for parameter in self.agent.learner.online.parameters())
        return _state_bytes([self.agent.learner.optimizer], learned)

    def save(self, folder: Path) -> None:
        self.agent.save(folder)

    def load(self, folder: Path) -> None:
        self.agent.load(folder)

    def state(self) -> Iterable[torch.Tensor]:
        yield from _tensors(self.agent.learner.state_dict())

    def measure_test(self) -> dict[str, float]:
        result = self._evaluate(TEST_EPISODES)
        return {"return": result.mean}

    def export(self, folder: Path, origin: dict[str, Any], words: str) -> Path:
        network, result = self.agent.network(), self._evaluate(TEST_EPISODES)
        return save_policy(folder, self.config, network, self.agent.steps, result, origin, words)

    def save_model(self, folder: Path) -> None:
        result = self._evaluated or self._evaluate(VALIDATION_EPISODES)
        save_policy(
            folder, self.config, self.agent.network(), self.agent.steps, result, words=UNMEASURED
        )

    def close(self) -> None:
        self.agent.close()


# -- configurations --------------------------------------------------------------------------------


def config_class(family: str) -> type:
    """Return the configuration class of a family."""
    return DQNConfig if family == "dqn" else FAMILIES[family].config


def preset(family: str, name: str, data: str) -> Any:
    """Return the configuration of a family's preset, with other data if `data` is given.

    `name`: empty for the first preset of the family, or Catch for dqn.

    Raises ConfigError with the nearest names for an unknown name.
    """
    if family != "dqn":
        return FAMILIES[family].preset(name or FAMILIES[family].first_for(data), data or None)
    require(not data, f"--data {data}: an agent has no data set; choose a game with --preset")
    return agent_presets.preset(name or "catch")


def with_seed(family: str, config: Any, seed: int) -> Any:
    """Return `config` with another seed."""
    return changed(config, {"run.seed" if family == "dqn" else "fit.seed": seed})


def with_budget(family: str, config: Any, steps: int, evaluations: int) -> Any:
    """Return `config` with a budget of `steps` steps (0: unchanged) and evenly spaced evaluations.

    There are fewer than `evaluations` evaluations if the steps cannot be divided into that many.
    """
    part = config.run if family == "dqn" else config.fit
    every = "evaluate_every" if family == "dqn" else "validate_every"
    steps = steps or part.steps
    # With a budget in epochs, the number of steps depends on the data and is not known here.
    if not steps:
        return config
    part = replace(part, **{"steps": steps, every: max(1, math.ceil(steps / evaluations))})
    return replace(config, **{"run" if family == "dqn" else "fit": part})


def planned_evaluations(family: str, config: Any) -> int:
    """Return the number of evaluations that count in a trial of full length.

    `config`: a configuration that `with_budget` returned.
    """
    if family == "dqn":
        return math.ceil(config.run.steps / (config.run.evaluate_every or config.run.steps))
    return math.ceil(config.fit.steps / config.fit.validate_every)


def on_cpu(family: str, config: Any) -> Any:
    """Return `config` for a CPU, for rehearsals and for trials without a GPU."""
    if family == "dqn":
        return changed(config, {"run.device": "cpu"})
    amp = "off" if config.fit.amp == "float16" else config.fit.amp
    return changed(config, {"fit.device": "cpu", "fit.amp": amp})


def rehearse(family: str, config: Any) -> set[str]:
    """Return the names of the metrics that trials of `config` report in evaluations that count.

    Trains each stage of a fit for one step, and an agent for none. Raises ConfigError if the
    configuration cannot be trained.
    """
    if family == "dqn":
        open_training(family, config).close()
        return {"evaluation_return", "loss", "q_mean", "epsilon"}
    fit = replace(config.fit, steps=1, epochs=1, validate_every=1, log_every=1, patience=0)
    training = open_training(family, on_cpu(family, replace(config, fit=fit)))
    names: set[str] = set()
    for result in training.evaluations():
        names = set(result.values) if result.counts else names
    if not names:
        raise ConfigError(
            "--set data.validation: these data have no validation rows, which a sweep needs; use "
            "e.g. data.validation=0.1"
        )
    return names


# -- tensors ---------------------------------------------------------------------------------------


def _finite(networks: torch.nn.Module) -> bool:
    return all(bool(torch.isfinite(tensor).all()) for tensor in networks.state_dict().values())


def _state_bytes(optimizers: list[torch.optim.Optimizer], learned: int) -> float | None:
    tensors = list(_tensors([optimizer.state_dict()["state"] for optimizer in optimizers]))
    if not learned:
        return None
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / learned


def _tensors(state: Any) -> Iterator[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        yield state
    elif isinstance(state, dict):
        for value in state.values():
            yield from _tensors(value)
    elif isinstance(state, list | tuple):
        for value in state:
            yield from _tensors(value)
