"""Makes Q-networks from configurations and from the cards of models."""

from dataclasses import fields
from typing import Any

import torch

from genray.rl.ensemble import EnsembleNetwork
from genray.rl.network_config import NetworkConfig
from genray.rl.networks import QNetwork
from genray.rl.observation import Observation
from genray.threads import FlopCount


def make_network(
    config: NetworkConfig,
    num_actions: int,
    stack: int = 4,
    frame_shape: tuple[int, int] = (84, 84),
    observation: Observation | None = None,
) -> QNetwork:
    """Make the network, or the ensemble of networks, that `config` describes."""
    kind = QNetwork if config.ensemble == 1 else EnsembleNetwork
    return kind(config, num_actions, stack, frame_shape, observation)


def update_flop(card: dict[str, Any], batch_size: int) -> float:
    """Return the floating-point operations of a double-DQN update: 5 times those of a forward pass.

    There are three forward passes (the online network over s and over s', the target network over
    s') and one backward pass, which counts as two forward passes.
    """
    network = build_network(card)
    frames_BSHW = torch.zeros(1, card["stack"], *card["frame_shape"], dtype=torch.uint8)
    past_BK = (
        torch.zeros(1, card["past_actions"], dtype=torch.int64) if card["past_actions"] else None
    )
    with torch.no_grad(), FlopCount() as count:
        if network.memory is None:
            network(frames_BSHW, past_BK)
        else:
            zero_1 = torch.zeros(1)
            network.step(frames_BSHW, zero_1, zero_1, torch.zeros(1, network.state_size))
    return 5 * batch_size * count.flop / network.config.ensemble


def build_network(card: dict[str, Any]) -> QNetwork:
    """Build the network that `card` (`rl.engine.network_card`) describes. The model store calls
    this function for models of kind "dqn".
    """
    # Models of older versions lack the newer options, which then have their defaults.
    known = {field.name: card[field.name] for field in fields(NetworkConfig) if field.name in card}
    first, second, third = card["channels"]
    shape = NetworkConfig(**known | {"channels": (first, second, third)})
    height, width = card["frame_shape"]
    records = card.get("observation")
    observation = None if records is None else Observation.from_card(records)
    return make_network(shape, card["num_actions"], card["stack"], (height, width), observation)
