"""Four optimizers that PyTorch lacks: AdaGrad dual averaging, FTRL-Proximal, proximal gradient
descent and proximal AdaGrad.

Each step solves a small minimisation problem exactly, and the penalty λ₁‖w‖₁ + λ₂/2·‖w‖² is part of
the problem. In most of PyTorch's optimizers, a penalty is part of the gradient instead. With L1,
weights of the exact solution can be exactly 0. The problem separates into coordinates, and a soft
threshold solves each coordinate.

Departure: the papers start at w = 0. A network cannot train from w = 0, because all units of a
layer would stay equal. AdagradDA and FTRL, whose problems contain the starting point, therefore use
the initial weights w₀. With w₀ = 0 they equal the papers' rules.

Symbols: w weights, t number of updates, w_t weights after t updates, g gradient, Σg and Σg² sums
over all updates, η learning rate, λ₁ and λ₂ factors of the penalties, H AdaGrad's curvature.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """Return sign(x)·max(|x| − threshold, 0), the argmin over w of ½(w − x)² + threshold·|w|."""
    return x.sign() * (x.abs() - threshold).clamp_(min=0)


class _Rule(Optimizer):
    """Base class: `step` calls `move` for every parameter that has a gradient.

    A parameter that has no state yet is first passed to `begin`.

    Args:
        params: parameters or groups of parameters, as for PyTorch's optimizers.
        lr: the learning rate η.
        l1, l2: the factors λ₁ and λ₂ of the penalties.
        more: further options of the rule.

    Raises:
        ValueError: `lr` is not above 0, or another option is negative.
    """

    def __init__(self, params: Iterable[Any], lr: float, l1: float, l2: float, **more: float):
        for name, value in {"l1": l1, "l2": l2, **more}.items():
            if value < 0:
                raise ValueError(f"{name} must be ≥ 0, not {value}")
        if lr <= 0:
            raise ValueError(f"lr must be > 0, not {lr}")
        super().__init__(params, {"lr": lr, "l1": l1, "l2": l2, **more})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    state = self.state[parameter]
                    if not state:
                        self.begin(parameter, state, group)
                    self.move(parameter, parameter.grad, state, group)
        return loss

    def begin(self, w: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Fill `state` before the first step of the parameter `w`."""

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """Update the parameter `w` in place, given its gradient `g`."""
        raise NotImplementedError


class ProximalGradientDescent(_Rule):
    """Takes a gradient step, and then minimises the penalty near the result of this step
    (forward-backward splitting, also called ISTA).

    w ← argmin of ½‖w − (w_t − η·g)‖² + η·(λ₁‖w‖₁ + λ₂/2·‖w‖²).
    [Duchi & Singer 2009, https://jmlr.org/papers/v10/duchi09a.html]
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, *, l1: float = 0.0, l2: float = 0.0
    ):
        super().__init__(params, lr, l1, l2)

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        rate = group["lr"]
        w.copy_(soft_threshold(w - rate * g, rate * group["l1"]) / (1 + rate * group["l2"]))


class ProximalAdagrad(_Rule):
    """Proximal gradient descent with AdaGrad's learning rate for each coordinate, η/(δ + √Σg²).

    The gradient step and the threshold use the same rate. The paper calls the rule composite
    mirror descent with AdaGrad's H.  [Duchi 2011, https://jmlr.org/papers/v12/duchi11a.html,
    equation 4] `eps` is the paper's δ. Departure: L2 in addition to L1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        *,
        eps: float = 1e-10,
        l1: float = 0.0,
        l2: float = 0.0,
    ):
        super().__init__(params, lr, l1, l2, eps=eps)

    def begin(self, w: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["sum_squares"] = torch.zeros_like(w)

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["sum_squares"].addcmul_(g, g)
        # A coordinate that never had a gradient has H = δ, so its rate is huge, as in the paper.
        # With a very small δ, L1 or L2 sets such a coordinate to 0 in one step.
        rate = group["lr"] / (group["eps"] + state["sum_squares"].sqrt())
        w.copy_(soft_threshold(w - rate * g, rate * group["l1"]) / (1 + rate * group["l2"]))


class AdagradDA(_Rule):
    """Dual averaging with AdaGrad's curvature H = δ + √Σg² around the initial weights w₀.

    w ← argmin of ⟨Σg, w⟩ + t·(λ₁‖w‖₁ + λ₂/2·‖w‖²) + (1/2η)·⟨w − w₀, H (w − w₀)⟩.
    Old and new gradients count equally in the sum Σg.
    [Duchi 2011, https://jmlr.org/papers/v12/duchi11a.html, equation 3] `eps` is the paper's δ.
    Departures: w₀ (see the module's docstring), and L2 in addition to L1.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        *,
        eps: float = 1e-10,
        l1: float = 0.0,
        l2: float = 0.0,
    ):
        super().__init__(params, lr, l1, l2, eps=eps)

    def begin(self, w: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["updates"] = 0
        state["start"] = w.clone()
        state["sum"] = torch.zeros_like(w)
        state["sum_squares"] = torch.zeros_like(w)

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["updates"] += 1
        state["sum"].add_(g)
        state["sum_squares"].addcmul_(g, g)
        curvature = (group["eps"] + state["sum_squares"].sqrt()) / group["lr"]
        pulled = curvature * state["start"] - state["sum"]
        updates = state["updates"]
        w.copy_(soft_threshold(pulled, updates * group["l1"]) / (curvature + updates * group["l2"]))


class FTRL(_Rule):
    """FTRL-Proximal: uses the sum of all gradients so far, and a quadratic penalty on the distance
    to all earlier weights w_s.

    For each coordinate, w ← argmin of ⟨Σg, w⟩ + λ₁‖w‖₁ + λ₂/2·‖w‖² + ½ Σ_s σ_s (w − w_s)²  with
    Σ_s σ_s = (β + √Σg²)/η. [McMahan 2013, https://doi.org/10.1145/2487575.2488200, algorithm 1]
    With λ₁ = λ₂ = 0, FTRL equals AdaGrad with ε = β; dual averaging does not. Departures: the
    penalty includes the distance to w₀, with the factor β/η. If the learning rate changes,
    σ_t = H_t/η_t − H_{t−1}/η_{t−1} with H_t = β + √Σg², so that FTRL remains equal to AdaGrad.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        *,
        beta: float = 1.0,
        l1: float = 0.0,
        l2: float = 0.0,
    ):
        super().__init__(params, lr, l1, l2, beta=beta)

    def begin(self, w: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["sum_squares"] = torch.zeros_like(w)
        state["curvature"] = torch.full_like(w, group["beta"] / group["lr"])
        state["z"] = -state["curvature"] * w  # Σg − Σσ_s·w_s

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        state["sum_squares"].addcmul_(g, g)
        curvature = (group["beta"] + state["sum_squares"].sqrt()) / group["lr"]
        state["z"].add_(g).addcmul_(curvature - state["curvature"], w, value=-1)
        state["curvature"] = curvature
        w.copy_(soft_threshold(-state["z"], group["l1"]) / (curvature + group["l2"]))
