"""Defines the interface of a training engine, which is local or on Ray, and its progress report."""

from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from genray.rl.collect import Episode
from genray.rl.config import DQNConfig
from genray.rl.env import EnvConfig, FrameVectorEnv, check_env, make_env
from genray.rl.networks import QNetwork, build_network
from genray.runs.storage import Place


@dataclass
class Progress:
    """The state of a run. Counts are totals of the run; means are over the time since the last
    report.
    """

    steps: int = 0
    updates: int = 0
    replay_size: int = 0
    samples_per_insert: float = 0.0
    epsilon: float | None = 1.0
    """Mean ε of the lanes; None: no collector has reported it yet."""
    weight_lag: float = 0.0
    """Mean number of updates that the learner was ahead of the weights that chose the newest
    actions.
    """
    loss: float | None = None
    q_mean: float | None = None
    grad_norm: float | None = None
    lost_transitions: int = 0
    lost_updates: int = 0
    """Updates lost with a learner that died."""
    refused_writes: int = 0
    """Refused writes of actors that were replaced as dead and came back."""
    restarts: int = 0
    recovering: bool = False
    """Whether the learner is restarting: without new updates, the run is then not finished."""
    episodes: list[Episode] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Messages for the user, e.g. that a collector died, or that lanes begin new episodes."""


class Engine(Protocol):
    """A run in progress, in one process or on a cluster."""

    def advance(self, until_step: int, seconds: float) -> Progress:
        """Work until `until_step` agent steps or for about `seconds`, whichever comes first."""

    def network(self) -> QNetwork:
        """Return a copy of the policy on the CPU, for evaluation and for the model directory."""

    def settle(self) -> int:
        """Wait for all data in flight, so that nothing moves until the next `advance`; return the
        steps made.
        """

    def save(self, place: Place) -> None:
        """Write the state at one instant, complete enough to continue from. On a cluster each
        actor writes its own part.
        """

    def load(self, place: Place) -> bool:
        """Continue from what `save` wrote; return whether the episodes continue as well, instead
        of new ones.
        """

    def close(self) -> None: ...


def network_card(
    config: DQNConfig, num_actions: int, frame_shape: tuple[int, int]
) -> dict[str, Any]:
    """Return the arguments of `build_network` as JSON values; stored with every model."""
    return {
        "num_actions": num_actions,
        "frame_shape": list(frame_shape),
        "stack": config.env.stack,
        "channels": list(config.network.channels),
        "hidden": config.network.hidden,
        "dueling": config.network.dueling,
        "past_actions": config.network.past_actions,
        "layer_norm": config.network.layer_norm,
    }


def initial_network(card: dict[str, Any], seed: int) -> QNetwork:
    """Build the network with weights that depend only on `seed`; the global random state does not
    change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(card)


def probe_env(config: EnvConfig) -> tuple[int, tuple[int, int]]:
    """Return (number of actions, frame shape) of the environment; makes and closes one lane.

    Raises ConfigError when a user's environment breaks the protocol.
    """
    env: FrameVectorEnv = make_env(config, 1, num_threads=1)
    try:
        if config.env:
            check_env(env, config.env)
        return env.num_actions, env.frame_shape
    finally:
        env.close()
