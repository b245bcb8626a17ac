"""Copies the weights of a network, and moves them towards those of another one."""

import torch

from genray.rl.networks import QNetwork


@torch.no_grad()
def move_weights(network: QNetwork, towards: QNetwork, share: float) -> None:
    """Move all weights of `network` by `share` of their distance to those of `towards`."""
    torch._foreach_lerp_(list(network.parameters()), list(towards.parameters()), share)


def cpu_copy(network: QNetwork) -> dict[str, torch.Tensor]:
    """Return a copy of the network's weights and buffers on the CPU, by name."""
    return {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
