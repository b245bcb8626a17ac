"""Implements noisy layers: linear layers whose weights are random, with learned spreads.

Shapes: I inputs, O outputs.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class NoisyLinear(nn.Linear):
    """Computes (w + σ_w ⊙ ε_w) x + b + σ_b ⊙ ε_b with factorised noise ε_w = f(ε_O) f(ε_I)ᵀ, ε_b =
    f(ε_O) and f(x) = sign(x) √|x|. Without noise in evaluation mode.

    [Fortunato 2017, https://arxiv.org/abs/1706.10295] Departure: w has He's initialisation, as all
    layers here. The caller draws the noise (`draw_noise`), so that runs can be repeated.

    Args:
        inputs, outputs: I and O.
        sigma: σ₀; the spreads start at σ₀ / √I.
    """

    def __init__(self, inputs: int, outputs: int, sigma: float):
        super().__init__(inputs, outputs)
        spread = sigma / math.sqrt(inputs)
        self.sigma_weight = nn.Parameter(torch.full((outputs, inputs), spread))
        self.sigma_bias = nn.Parameter(torch.full((outputs,), spread))
        self.noise_I: Tensor
        self.noise_O: Tensor
        self.register_buffer("noise_I", torch.zeros(inputs), persistent=False)
        self.register_buffer("noise_O", torch.zeros(outputs), persistent=False)

    def set_noise(self, normal: Tensor) -> None:
        """Set the noise from I + O numbers of a normal distribution."""
        shaped = (normal.sign() * normal.abs().sqrt()).to(self.noise_I.device)
        noise_I, noise_O = shaped.split([self.in_features, self.out_features])
        # New tensors, because a pass whose gradient is still to come may use the old ones.
        self.noise_I, self.noise_O = noise_I, noise_O

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        weight = self.weight + self.sigma_weight * torch.outer(self.noise_O, self.noise_I)
        return functional.linear(x, weight, self.bias + self.sigma_bias * self.noise_O)


def draw_noise(network: nn.Module, random: torch.Generator) -> None:
    """Draw new noise for all noisy layers of `network`."""
    for module in network.modules():
        if isinstance(module, NoisyLinear):
            count = module.in_features + module.out_features
            module.set_noise(torch.randn(count, generator=random))
