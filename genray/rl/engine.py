"""The interface of a training engine, local or on Ray, and what both report."""

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
    """Where a run stands. Counts are totals of the run; means are over what happened since the
    last report.
    """

    steps: int = 0
    updates: int = 0
    replay_size: int = 0
    samples_per_insert: float = 0.0
    epsilon: float | None = 1.0
    """Mean of the lanes; None: no collector has told it yet."""
    weight_lag: float = 0.0
    """Updates that the learner was ahead of the weights which chose the newest actions."""
    loss: float | None = None
    q_mean: float | None = None
    grad_norm: float | None = None
    lost_transitions: int = 0
    lost_updates: int = 0
    """Made, and gone with a learner that died."""
    refused_writes: int = 0
    """Of actors that were taken for dead, replaced, and came back."""
    restarts: int = 0
    recovering: bool = False
    """The learner is on its way back: that it stands still does not mean that it is done."""
    episodes: list[Episode] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    """Things to tell the user: a collector that died, lanes that begin new episodes."""


class Engine(Protocol):
    """A run in motion, in one process or on a cluster; what trains, whoever drives it."""

    def advance(self, until_step: int, seconds: float) -> Progress:
        """Work until `until_step` agent steps or for about `seconds`, whichever comes first."""

    def network(self) -> QNetwork:
        """A copy of the policy to evaluate and to keep, on the CPU."""

    def settle(self) -> int:
        """Let what is on its way arrive, so that nothing moves until the next `advance`; returns
        the steps made.
        """

    def save(self, place: Place) -> None:
        """Write everything needed to continue, as it is at one instant. On a cluster each actor
        writes its own part.
        """

    def load(self, place: Place) -> bool:
        """Continue from what `save` wrote; True when episodes go on as well, False when lanes
        begin new ones.
        """

    def close(self) -> None: ...


def network_card(
    config: DQNConfig, num_actions: int, frame_shape: tuple[int, int]
) -> dict[str, Any]:
    """What `build_network` needs to make the network again; JSON-able, stored with every model."""
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
    """`build_network` with weights that depend on `seed` alone; the global random state is left
    as it was.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(card)


def probe_env(config: EnvConfig) -> tuple[int, tuple[int, int]]:
    """(number of actions, frame shape) of the environment; makes and closes one lane.

    Raises ConfigError when an own environment does not keep the protocol.
    """
    env: FrameVectorEnv = make_env(config, 1, num_threads=1)
    try:
        if config.env:
            check_env(env, config.env)
        return env.num_actions, env.frame_shape
    finally:
        env.close()
