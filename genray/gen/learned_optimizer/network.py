"""The LSTM that computes updates; all coordinates share its weights.

Shapes: N coordinates, L layers, H units, I inputs. Each coordinate has its own state and does not
see the others, so one network minimises functions of any size. [Andrychowicz 2016,
https://arxiv.org/abs/1606.04474]
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from genray.gen.learned_optimizer.config import LearnedOptimizerModelConfig


def log_and_sign(gradient_N: Tensor, k: float) -> Tensor:
    """Return the two inputs of each coordinate's gradient g, float32 [2, N], in about −1..1.

    (log|g| / k, sign g) if |g| ≥ e^−k, else (−1, e^k·g): gradients of very different sizes give
    inputs of similar sizes. [Andrychowicz 2016, appendix A]
    """
    size_N = gradient_N.abs().clamp(min=math.exp(-k)).log() / k
    return torch.stack([size_N, (gradient_N * math.exp(k)).clamp(-1, 1)])


class LearnedRule(nn.Module):
    """An update rule with weights: reads gradients, and returns updates and its new state."""

    def __init__(self, config: LearnedOptimizerModelConfig):
        super().__init__()
        self.config = config
        units = config.lstm_units
        inputs = 2 if config.preprocessing == "log-and-sign" else 1
        bound = 1 / math.sqrt(units)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer in range(config.lstm_layers):
            columns = (units if layer else inputs) + units
            weight = torch.empty(4 * units, columns).uniform_(-bound, bound)
            weight[3 * units :] *= 2  # see `forward`
            # Gates in the order input, forget, output, candidate. The cell remembers at first.
            bias = torch.zeros(4 * units, 1)
            bias[units : 2 * units] = 1
            if config.memory:
                # A forget gate of 1 − 1/m forgets in m steps, and its bias is ln(m − 1). The input
                # gate gets the opposite bias. [Tallec 2018, https://arxiv.org/abs/1804.11188]
                memory_H1 = torch.linspace(2, config.memory, units)[:, None]
                bias[units : 2 * units] = (memory_H1 - 1).log()
                bias[:units] = -(memory_H1 - 1).log()
            self.weights.append(weight)
            self.biases.append(bias)
        self.output = nn.Parameter(torch.empty(1, units).uniform_(-bound, bound))
        self.output_bias = nn.Parameter(torch.zeros(1, 1))

    def begin(self, count: int) -> Tensor:
        """Return the state before the first step of `count` coordinates, float32 [L, 2, H, N]."""
        config = self.config
        return self.output.new_zeros(config.lstm_layers, 2, config.lstm_units, count)

    def forward(self, gradient_N: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Return the updates to add to the coordinates, [N], and the new state, [L, 2, H, N]."""
        config = self.config
        if config.preprocessing == "log-and-sign":
            x = log_and_sign(gradient_N, config.log_range)
        else:
            x = gradient_N[None]
        parts = []
        for weight, bias, (h_HN, c_HN) in zip(self.weights, self.biases, state):
            gates = torch.addmm(bias, weight, torch.cat([x, h_HN])).sigmoid()
            i_HN, f_HN, o_HN, g_HN = gates.chunk(4)
            # tanh(z) = 2σ(2z) − 1; the candidate's factor 2 is a part of its weights. PyTorch's
            # tanh on CPUs takes three times as long as its sigmoid.
            c_HN = f_HN * c_HN + i_HN * (2 * g_HN - 1)
            x = o_HN * (2 * torch.sigmoid(2 * c_HN) - 1)
            parts += [x, c_HN]
        update_1N = torch.addmm(self.output_bias, self.output, x)
        return config.output_scale * update_1N[0], torch.stack(parts).unflatten(0, (-1, 2))


def build_learned_optimizer(config: dict[str, Any]) -> LearnedRule:
    """Build the network that `config` (a model's config.json) describes; weights come later."""
    return LearnedRule(LearnedOptimizerModelConfig(**config["model"]))
