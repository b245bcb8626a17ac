"""The functions that optimizers minimise, many at once, with hand-written gradients.

Shapes: P functions, N coordinates of each function, B images of a step, I pixels, H hidden units, K
classes. All tensors are float32.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from genray.gen.learned_optimizer.config import Activation
from genray.gen.training.world import ALONE, World

START_STD = 0.01
"""Standard deviation of the coordinates before the first step."""


class Functions(Protocol):
    """P functions with N coordinates each."""

    start_PN: Tensor
    """The coordinates before the first step."""

    def gradient(self, theta_PN: Tensor) -> tuple[Tensor, Tensor]:
        """Return the values [P] and the gradients [P, N]; networks draw images for it."""

    def value(self, theta_PN: Tensor) -> Tensor:
        """Return the values [P], of networks on all images."""


class Problem(Protocol):
    """A distribution of functions. A function is a row of numbers."""

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        """Draw functions; returns one row for each on the CPU, [count, …]."""

    def functions(self, rows_PD: Tensor, world: World = ALONE) -> Functions:
        """Return the functions of the rows."""


class QuadraticFunctions:
    """f(θ) = ‖Wθ − y‖² with P matrices W_PNN and vectors y_PN."""

    def __init__(self, W_PNN: Tensor, y_PN: Tensor, start_PN: Tensor):
        self._W_PNN, self._y_PN, self.start_PN = W_PNN, y_PN, start_PN

    def gradient(self, theta_PN: Tensor) -> tuple[Tensor, Tensor]:
        error_PN = self._error(theta_PN)
        gradient_PN = 2 * torch.bmm(error_PN[:, None], self._W_PNN)[:, 0]  # 2Wᵀ(Wθ − y)
        return error_PN.square().sum(1), gradient_PN

    def value(self, theta_PN: Tensor) -> Tensor:
        return self._error(theta_PN).square().sum(1)

    def _error(self, theta_PN: Tensor) -> Tensor:
        return torch.bmm(self._W_PNN, theta_PN[..., None])[..., 0] - self._y_PN


class QuadraticProblem:
    """Random quadratics: W and y are uniform in 0..1, or normal.

    A row has W (N·N numbers), y (N) and the start (N).
    """

    def __init__(self, dimensions: int = 10, normal: bool = False):
        self._dimensions, self._normal = dimensions, normal

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        size = self._dimensions
        draw = torch.randn if self._normal else torch.rand
        numbers = draw(count, size * size + size, generator=random)
        start = START_STD * torch.randn(count, size, generator=random)
        return torch.cat([numbers, start], 1)

    def functions(self, rows_PD: Tensor, world: World = ALONE) -> QuadraticFunctions:
        size = self._dimensions
        W_PM, y_PN, start_PN = rows_PD.split([size * size, size, size], 1)
        return QuadraticFunctions(W_PM.unflatten(1, (size, size)), y_PN, start_PN)


class NetworkProblem:
    """Networks with one hidden layer on the same images; they differ by their initial weights.

    A row has the weights and biases of both layers: I·H, H, H·K and K numbers.

    Args:
        images_MI: the images, flat, in 0..1.
        labels_M: int64, the classes.
        classes: K.
        units: H.
        activation: of the hidden layer.
        batch: images of one step, drawn with replacement for each network.
    """

    def __init__(
        self,
        images_MI: Tensor,
        labels_M: Tensor,
        classes: int,
        units: int = 20,
        activation: Activation = "sigmoid",
        batch: int = 128,
    ):
        self.images_MI, self.labels_M, self.activation = images_MI, labels_M, activation
        self.batch = batch
        self.shapes = ((images_MI.shape[1], units), (units,), (units, classes), (classes,))
        self.sizes = [torch.Size(shape).numel() for shape in self.shapes]

    def draw(self, count: int, random: torch.Generator) -> Tensor:
        return START_STD * torch.randn(count, sum(self.sizes), generator=random)

    def functions(self, rows_PD: Tensor, world: World = ALONE) -> "NetworkFunctions":
        return NetworkFunctions(self, rows_PD, world)


class NetworkFunctions:
    """The mean cross-entropy, in nats, of P networks."""

    def __init__(self, problem: NetworkProblem, start_PN: Tensor, world: World):
        self._problem, self.start_PN, self._world = problem, start_PN, world

    def gradient(self, theta_PN: Tensor) -> tuple[Tensor, Tensor]:
        problem = self._problem
        rows_PB = self._world.uniform(len(theta_PN), problem.batch, device=theta_PN.device)
        rows_PB = (rows_PB * len(problem.images_MI)).long()
        x_PBI, labels_PB = problem.images_MI[rows_PB], problem.labels_M[rows_PB]
        W1_PIH, b1_PH, W2_PHK, b2_PK = self._parts(theta_PN)
        h_PBH, slope_PBH = self._hidden(torch.baddbmm(b1_PH[:, None], x_PBI, W1_PIH))
        log_p_PBK = torch.baddbmm(b2_PK[:, None], h_PBH, W2_PHK).log_softmax(2)
        loss_P = -log_p_PBK.gather(2, labels_PB[..., None]).mean((1, 2))
        # Backwards: ∂loss/∂logits = (p − one-hot) / B.
        one_hot_PBK = functional.one_hot(labels_PB, log_p_PBK.shape[2])
        d_logits_PBK = (log_p_PBK.exp() - one_hot_PBK) / problem.batch
        d_hidden_PBH = torch.bmm(d_logits_PBK, W2_PHK.mT) * slope_PBH
        parts = (
            torch.bmm(x_PBI.mT, d_hidden_PBH),
            d_hidden_PBH.sum(1),
            torch.bmm(h_PBH.mT, d_logits_PBK),
            d_logits_PBK.sum(1),
        )
        return loss_P, torch.cat([part.flatten(1) for part in parts], 1)

    def value(self, theta_PN: Tensor) -> Tensor:
        problem = self._problem
        W1_PIH, b1_PH, W2_PHK, b2_PK = self._parts(theta_PN)
        h_PMH, _ = self._hidden(problem.images_MI @ W1_PIH + b1_PH[:, None])
        log_p_PMK = torch.baddbmm(b2_PK[:, None], h_PMH, W2_PHK).log_softmax(2)
        labels_PM1 = problem.labels_M.expand(len(theta_PN), -1)[..., None]
        return -log_p_PMK.gather(2, labels_PM1).mean((1, 2))

    def _parts(self, theta_PN: Tensor) -> list[Tensor]:
        parts = theta_PN.split(self._problem.sizes, 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, self._problem.shapes)]

    def _hidden(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Return the activations of `z` and their derivatives."""
        if self._problem.activation == "relu":
            return z.relu(), (z > 0).to(z.dtype)
        if self._problem.activation == "tanh":
            h = z.tanh()
            return h, 1 - h * h
        h = z.sigmoid()
        return h, h * (1 - h)
