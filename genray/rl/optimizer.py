"""Makes the optimizer of a learner, and clips its gradients."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from genray.rl.learner_config import LearnerConfig


class CentredRMSprop(torch.optim.RMSprop):
    """RMSprop with w ← w − η g / √(E[g²] − E[g]² + ε), as in DQN and Ape-X: ε is inside the root,
    whereas PyTorch adds it outside.

    [Graves 2013, https://arxiv.org/abs/1308.0850, equations 38 to 40]
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:  # PyTorch requires "step" when it loads the state
                    zeros = {name: torch.zeros_like(weight) for name in ("grad_avg", "square_avg")}
                    self.state[weight] = {"step": torch.zeros(()), **zeros}
            means, squares = (
                [self.state[weight][name] for weight in weights]
                for name in ("grad_avg", "square_avg")
            )
            # Update E[g] and E[g²], then take the step.
            torch._foreach_lerp_(means, gradients, 1 - group["alpha"])
            torch._foreach_mul_(squares, group["alpha"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["alpha"])
            roots = torch._foreach_addcmul(squares, means, means, -1)
            # The difference of two nearly equal numbers may round to less than 0.
            torch._foreach_clamp_min_(roots, 0)
            torch._foreach_add_(roots, group["eps"])
            torch._foreach_sqrt_(roots)
            torch._foreach_addcdiv_(weights, gradients, roots, -group["lr"])


def make_optimizer(config: LearnerConfig, network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that `config` names, for the weights of `network`."""
    parameters = list(network.parameters())
    rates: dict[str, Any] = {"lr": config.learning_rate, "eps": config.optimizer_epsilon}
    if config.optimizer == "rmsprop":
        return CentredRMSprop(parameters, **rates, alpha=0.95, centered=True)
    if config.optimizer == "adam":
        return torch.optim.Adam(parameters, **rates, fused=True)
    groups: list[dict[str, Any]] = [
        {"params": [each for each in parameters if each.ndim > 1]},
        {"params": [each for each in parameters if each.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, **rates, weight_decay=config.weight_decay, fused=True)


def clip_gradients(parts: Sequence[nn.Module], limit: float) -> torch.Tensor:
    """Scale the gradients of each part to a norm of at most `limit` (0: any); return the mean of
    the parts' norms before, float32 [].
    """
    norms = [nn.utils.clip_grad_norm_(part.parameters(), limit or float("inf")) for part in parts]
    return torch.stack(norms).mean()
