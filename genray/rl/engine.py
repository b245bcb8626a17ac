"""Defines the interface of a training engine, which is local or on Ray, and its progress report."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import torch

from genray.config import to_dict
from genray.errors import require
from genray.rl.building import build_network
from genray.rl.collect import Episode
from genray.rl.config import DQNConfig
from genray.rl.env import EnvConfig, FrameVectorEnv, check_env, make_env
from genray.rl.networks import QNetwork
from genray.rl.observation import Observation, observation_of, stack_of
from genray.runs.storage import Place


@dataclass
class Progress:
    """The state of a run. Steps and updates are totals of the run, including the time before a
    resume. Loss, Q-value and gradient norm are means since the last report.
    """

    steps: int = 0
    updates: int = 0
    replay_size: int = 0
    samples_per_insert: float = 0.0
    epsilon: float | None = 1.0
    """Mean ε of the lanes; None: no collector has reported its ε yet."""
    weight_lag: float = 0.0
    """Mean number of updates by which the weights that chose the newest actions are older than
    the learner's weights.
    """
    loss: float | None = None
    q_mean: float | None = None
    grad_norm: float | None = None
    lost_transitions: int = 0
    lost_updates: int = 0
    """Updates lost with a learner that died."""
    refused_writes: int = 0
    """Refused writes of actors that had been replaced as dead but still run."""
    restarts: int = 0
    recovering: bool = False
    """Whether the learner is being restarted. If so, a report without new updates does not mean
    that the learner has finished.
    """
    episodes: list[Episode] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Messages for the user, e.g. that a collector died, or that lanes begin new episodes."""


class Engine(Protocol):
    """A run in progress, in one process or on a cluster."""

    def advance(self, until_step: int, seconds: float) -> Progress:
        """Collect and learn until `until_step` agent steps are made or about `seconds` have passed,
        whichever comes first; return the progress.
        """

    def network(self) -> QNetwork:
        """Return a copy of the policy on the CPU, for evaluation and for the model directory."""

    def settle(self) -> int:
        """Wait until all collected data are stored, so that nothing changes until the next
        `advance`; return the agent steps made.
        """

    def save(self, place: Place) -> None:
        """Write a checkpoint of the current state into `place`. On a cluster each actor writes its
        own part.
        """

    def load(self, place: Place) -> bool:
        """Continue from a checkpoint that `save` wrote; return True if the episodes continue, False
        if new episodes begin.
        """

    def close(self) -> None: ...


def network_card(
    config: DQNConfig,
    num_actions: int,
    frame_shape: tuple[int, int],
    observation: Observation | None = None,
) -> dict[str, Any]:
    """Return the argument of `build_network`: JSON values, which are stored with every model.

    `observation` describes packed records; None: grey frames.
    """
    records = {}
    if observation is not None:
        records = {"observation": observation.card()}
        _check_records(config, observation)
    return {
        "num_actions": num_actions,
        "frame_shape": list(frame_shape),
        "stack": stack_of(config.env.stack, observation),
        **records,
        **to_dict(config.network),
    }


def _check_records(config: DQNConfig, observation: Observation) -> None:
    """Raise ConfigError for options that packed records do not have."""
    title, learner = config.env.title, config.learner
    for name, used in (
        ("--shift", learner.shift),
        ("--prediction-steps", learner.prediction_steps),
        ("--intensity", learner.intensity),
        ("--median-frame", config.network.median_frame),
    ):
        require(
            not used,
            f"{name}: for grey frames only, which --env {title} does not return; leave it out",
        )
    require(
        observation.mask is None or config.env.stack_start != "wait" or not observation.has_image,
        f"--stack-start wait: not with action masks, which --env {title} gives; use blank or "
        "repeat",
    )


def initial_network(card: dict[str, Any], seed: int) -> QNetwork:
    """Build the network of `card` with initial weights that depend only on `seed`. PyTorch's global
    random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(card)


class Interface(NamedTuple):
    """What an agent needs to know of an environment."""

    num_actions: int
    frame_shape: tuple[int, int]
    observation: Observation | None
    """Describes packed records; None: grey frames."""


def probe_env(config: EnvConfig) -> Interface:
    """Make the environment with one lane, close it, and return its interface.

    Raises ConfigError when a user's environment cannot be made or breaks the protocol.
    """
    env: FrameVectorEnv = make_env(config, 1, num_threads=1)
    try:
        if config.env:
            check_env(env, config.env)
        return Interface(env.num_actions, env.frame_shape, observation_of(env))
    finally:
        env.close()
