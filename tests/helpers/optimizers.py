"""A small network, its losses and a configuration for the tests of optimizers and `Updater`."""

import torch
from torch import Tensor, nn

from genray.gen.training.optimizers import OptimizerConfig

RATE, BETA1, BETA2, RHO, MU, EPS = 0.05, 0.8, 0.95, 0.9, 0.7, 1e-6
CONFIG = OptimizerConfig(
    learning_rate=RATE, beta1=BETA1, beta2=BETA2, rho=RHO, momentum=MU, epsilon=EPS
)


def config(**options) -> OptimizerConfig:
    return OptimizerConfig(**{**vars(CONFIG), **options})


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))


def batch(number: int, rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 2, generator=generator)


def loss_of(net: nn.Module, number: int, rows: slice = slice(None)) -> Tensor:
    x, y = batch(number)
    return (net(x[rows]) - y[rows]).square().mean()


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()])
