"""Losses of autoencoders: reconstruction errors and penalties; and L-BFGS for small networks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim
from torch.nn import functional

from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.shapes import check_equal_shapes, check_shapes


def reconstruction_loss(kind: str, rebuilt: Tensor, target: Tensor) -> Tensor:
    """Return the reconstruction loss, a scalar.

    The mean is over rows and values for mse and bce (nats), over rows for cosine (1 − cos).
    `rebuilt` and `target` are [B, …]; raises ValueError unless their shapes are equal.
    """
    check_equal_shapes(rebuilt=rebuilt, target=target)
    if kind == "cosine":
        return (
            1 - functional.cosine_similarity(rebuilt.flatten(1), target.flatten(1), dim=1)
        ).mean()
    if kind == "bce":
        return functional.binary_cross_entropy(rebuilt, target)
    return functional.mse_loss(rebuilt, target)


def sparsity(h: Tensor, activation: str, target: float) -> Tensor:
    """Return the sparsity penalty of activations h, a scalar.

    Sigmoid units: the sum over units of KL(target ‖ mean activity) [Ng 2011, CS294A notes], with
    the mean over the worker's own rows. Other units: the mean of |h|.
    """
    if activation != "sigmoid":
        return h.abs().mean()
    mean = h.flatten(1).mean(0).clamp(1e-6, 1 - 1e-6)
    return (target * (target / mean).log() + (1 - target) * ((1 - target) / (1 - mean)).log()).sum()


def contraction(h: Tensor, x: Tensor, world: World = ALONE) -> Tensor:
    """Return the contractive penalty ‖∂h/∂x‖²_F, the mean over rows.
    [Rifai 2011, https://icml.cc/2011/papers/455_icmlpaper.pdf]

    `h` and `x` are [B, …] with equal B; raises ValueError otherwise.

    Departure: an unbiased estimate, E‖vᵀJ‖² with one v ~ N(0, I) for each row. The estimate
    costs one backward pass for any size of the code.
    """
    check_shapes(h_BZ=h.flatten(1), x_BD=x.flatten(1))
    v = world.normal(len(h), *h.shape[1:], device=h.device)
    (product,) = torch.autograd.grad((h.float() * v).sum(), x, create_graph=True)
    return product.flatten(1).square().sum(1).mean()


class LBFGSUpdater(Updater):
    """Minimises a loss over all rows by L-BFGS with strong Wolfe line search, one iteration for
    each call.  [Liu 1989, doi:10.1007/BF01589116]

    The parameters are those of `Updater`.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._name = "lbfgs"
        # The tolerances are 0, so that only the number of steps ends training. PyTorch also ignores
        # a direction with y·s ≤ 1e-10: see `scale` in `minimise`.
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
        """Run one iteration on `values()["loss"]`; returns the values before it, as float32.

        The line search calls `values` several times, always with the same random numbers. All
        calls of `minimise` use these numbers too: L-BFGS measures curvature between steps, so
        all steps need the same corruption. `scale` multiplies the loss, so that y·s of a mean of
        squares stays above PyTorch's threshold of 1e-10.
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
        with self._doubled():  # PyTorch casts a loaded state to the parameters' dtype
            super().load_state_dict(state)

    @contextmanager
    def _doubled(self) -> Iterator[None]:
        """Context in which the parameters are float64.

        In float32, rounding errors end the line search before training has converged.
        """
        for parameter in self.parameters:
            parameter.data = parameter.data.double()
        yield
        for parameter in self.parameters:
            parameter.grad = None
            parameter.data = parameter.data.float()
