"""What autoencoders minimise: reconstruction errors and penalties; and L-BFGS for those small
enough to be solved.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim
from torch.nn import functional

from genray.gen.training.optimizers import Updater
from genray.gen.training.world import ALONE, World


def reconstruction_loss(kind: str, rebuilt: Tensor, target: Tensor) -> Tensor:
    """Mean over rows and values (mse, bce in nats), or over rows (cosine: 1 − cos)."""
    if kind == "cosine":
        return (
            1 - functional.cosine_similarity(rebuilt.flatten(1), target.flatten(1), dim=1)
        ).mean()
    if kind == "bce":
        return functional.binary_cross_entropy(rebuilt, target)
    return functional.mse_loss(rebuilt, target)


def sparsity(h: Tensor, activation: str, target: float) -> Tensor:
    """Σ over units of KL(target ‖ mean activity) for sigmoid units, else the mean of |h|.  [Ng
    2011, CS294A notes]

    The mean activity is that of the worker's own rows.
    """
    if activation != "sigmoid":
        return h.abs().mean()
    mean = h.flatten(1).mean(0).clamp(1e-6, 1 - 1e-6)
    return (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).sum()


def contraction(h: Tensor, x: Tensor, world: World = ALONE) -> Tensor:
    """‖∂h/∂x‖²_F, mean over rows.  [Rifai 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf]

    Departure: an unbiased estimate E‖vᵀJ‖² with one v ~ N(0, I) a row, which costs one backward
    pass at any code size.
    """
    v = world.normal(len(h), *h.shape[1:], device=h.device)
    (product,) = torch.autograd.grad((h.float() * v).sum(), x, create_graph=True)
    return product.flatten(1).square().sum(1).mean()


class LBFGSUpdater(Updater):
    """L-BFGS with strong Wolfe line search on all rows: one iteration a call.  [Liu 1989,
    doi:10.1007/BF01589116]
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._name = "lbfgs"
        # PyTorch forgets a direction whose y·s ≤ 1e-10 and stops at small changes: here the number
        # of steps decides.
        self._optimizer = optim.LBFGS(
            self.parameters,
            max_iter=1,
            max_eval=25,
            tolerance_grad=0.0,
            tolerance_change=0.0,
            history_size=50,
            line_search_fn="strong_wolfe",
        )

    def minimise(
        self, values: Callable[[], dict[str, Tensor]], scale: float = 1e4
    ) -> dict[str, Tensor]:
        """One iteration on `values()["loss"]`, evaluated as often as the line search asks under
        the same random numbers, which stay the same from call to call: curvature is measured
        between steps, so all must see one corruption.

        `scale` multiplies the loss inside, so that y·s of a mean of squares stays above the
        threshold named above.
        """
        first: list[dict[str, Tensor]] = []

        def closure() -> Tensor:
            for parameter in self.parameters:
                parameter.grad = None
            with torch.random.fork_rng():
                torch.manual_seed(0)
                found = values()
            first.append({key: value.detach() for key, value in found.items()})
            loss = found["loss"] * scale
            loss.backward(inputs=self.parameters)
            return loss

        with self._doubled():
            self.optimizer.step(closure)  # type: ignore[arg-type]
        self.updates += 1
        return {key: value.float() for key, value in first[0].items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._doubled():  # PyTorch casts what it loads to the parameters' dtype
            super().load_state_dict(state)

    @contextmanager
    def _doubled(self) -> Iterator[None]:
        """The parameters in float64 inside: float32's rounding ends the line search before the
        subspace has turned.
        """
        for parameter in self.parameters:
            parameter.data = parameter.data.double()
        yield
        for parameter in self.parameters:
            parameter.grad = None
            parameter.data = parameter.data.float()
