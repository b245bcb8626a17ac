"""L-BFGS for small networks: each step uses all rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, optim

from genray.gen.training.updater import Updater


class LBFGSUpdater(Updater):
    """Minimises a loss over all rows by L-BFGS with strong Wolfe line search, one iteration for
    each call of `minimise`.  [Liu 1989, https://doi.org/10.1007/BF01589116]

    Takes the arguments of `Updater`, of which `minimise` uses only the parameters.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        self._name = "lbfgs"
        # The tolerances are 0, so that only the number of steps ends training. PyTorch also does
        # not use an iteration for its curvature estimate if y·s ≤ 1e-10, where y is the change of
        # the gradient and s is the change of the parameters; see `scale` in `minimise`.
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
        """Run one iteration on `values()["loss"]`; returns the values before the iteration.

        The returned values are float32.

        The line search calls `values` several times, always with the same random numbers. All
        calls of `minimise` use the same random numbers, too: L-BFGS estimates curvature from
        several steps, so these steps need the same corruption.

        Args:
            values: function that computes the loss and its parts, by name.
            scale: factor of the loss. With 1e4, y·s of a mean of squares stays above PyTorch's
                threshold of 1e-10 (see `__init__`).
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
        # PyTorch casts a loaded state to the parameters' dtype, which must be float64 here.
        with self._doubled():
            super().load_state_dict(state)

    @contextmanager
    def _doubled(self) -> Iterator[None]:
        """Convert the parameters to float64 inside the context.

        In float32, rounding errors end the line search before training has converged.
        """
        for parameter in self.parameters:
            parameter.data = parameter.data.double()
        try:
            yield
        finally:
            for parameter in self.parameters:
                parameter.grad = None
                parameter.data = parameter.data.float()
