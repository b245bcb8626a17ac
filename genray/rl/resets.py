"""Resets a network in part: the encoder shrinks towards new weights, and the rest begins anew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from genray.rl.building import make_network
from genray.rl.networks import QNetwork


def fresh_network(network: QNetwork, seed: Sequence[int]) -> QNetwork:
    """Return a network of the same shape on the CPU, with new weights that depend only on `seed`.
    PyTorch's global random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0]))
        return make_network(
            network.config,
            network.num_actions,
            network.stack,
            network.frame_shape,
            network.observation,
        )


@torch.no_grad()
def reset(network: QNetwork, fresh: QNetwork, keep: float) -> None:
    """Replace each weight of the encoder by keep · weight + (1 − keep) · new weight ("shrink and
    perturb"), and all other weights by new ones. Buffers, such as the median frame, stay.

    [Ash 2020, https://arxiv.org/abs/1910.08475; Nikishin 2022, https://arxiv.org/abs/2205.07802;
    Schwarzer 2023, https://arxiv.org/abs/2305.19452]
    """
    new = dict(fresh.named_parameters())
    for name, weight in network.named_parameters():
        share = 1 - keep if "convolutions." in name else 1.0
        weight.lerp_(new[name].to(weight.device), share)
