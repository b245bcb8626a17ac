"""Four update rules that PyTorch lacks: dual averaging, follow the (proximally) regularised
leader, two proximal ones.

All treat L1 and L2 as part of the problem that each step solves exactly, λ₁‖w‖₁ + λ₂/2·‖w‖²,
instead of as a gradient: so L1 gives weights that are exactly 0. Every coordinate is a problem
of its own, solved by a soft threshold.

The papers start at w = 0, where a network would stay (its units would all be the same). Here the
two rules that pull towards their start, AdagradDA and FTRL, pull towards the initial weights w₀
instead; at w₀ = 0 they are the papers'.

Symbols: η learning rate, g gradient, H the curvature that AdaGrad gathers.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


def soft_threshold(x: Tensor, threshold: Tensor | float) -> Tensor:
    """sign(x)·max(|x| − threshold, 0): argmin over w of ½(w − x)² + threshold·|w|."""
    return x.sign() * (x.abs() - threshold).clamp_(min=0)


class _Rule(Optimizer):
    """Walks over the parameters; a rule says what state one has and how it moves."""

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
        """Fill `state` before the first step of `w`."""

    def move(self, w: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        """One step of `w`, in place."""
        raise NotImplementedError


class ProximalGradientDescent(_Rule):
    """w ← argmin of ½‖w − (w_t − η·g)‖² + η·(λ₁‖w‖₁ + λ₂/2·‖w‖²): forward-backward splitting, ISTA.

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
    """Forward-backward splitting with AdaGrad's rate of each coordinate, η/(δ + √Σg²), in the
    step and in the threshold.

    Composite mirror descent with AdaGrad's H.  [Duchi 2011,
    https://jmlr.org/papers/v12/duchi11a.html, equation 4] `eps` is the paper's δ; L2 beside L1
    is ours.
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
        # A coordinate that never had a gradient has H = δ: its rate is huge, but so it stands in
        # the paper's problem; with δ at its smallest such a coordinate goes to 0 at once under L1
        # or L2.
        rate = group["lr"] / (group["eps"] + state["sum_squares"].sqrt())
        w.copy_(soft_threshold(w - rate * g, rate * group["l1"]) / (1 + rate * group["l2"]))


class AdagradDA(_Rule):
    """Dual averaging: all gradients so far, weighted alike, against AdaGrad's H = δ + √Σg²
    around the initial weights.

    w ← argmin of ⟨Σg, w⟩ + t·(λ₁‖w‖₁ + λ₂/2·‖w‖²) + (1/2η)·⟨w − w₀, H (w − w₀)⟩.
    [Duchi 2011, https://jmlr.org/papers/v12/duchi11a.html, equation 3; departures: w₀, see
    above, and L2 beside L1]
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
    """FTRL-Proximal: all gradients so far, against a pull towards every earlier w_s.

    w ← argmin of ⟨Σg, w⟩ + λ₁‖w‖₁ + λ₂/2·‖w‖² + ½ Σ_s σ_s (w − w_s)²  with  Σ_s σ_s = (β +
    √Σg²)/η, by coordinate. [McMahan 2013, https://doi.org/10.1145/2487575.2488200, algorithm 1]
    Unlike dual averaging it is AdaGrad exactly (with ε = β) while λ₁ = λ₂ = 0. Departure: the
    pull β/η goes to w₀. A learning rate that changes is met by σ_t = H_t/η_t − H_{t−1}/η_{t−1},
    so that this stays true.
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
