"""Loads a learned optimizer by name, `learned:RUN`, and applies it to the parameters of a network.

Shapes: N coordinates of one parameter, L layers, H units.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import optim

from genray.errors import CheckpointError, ConfigError
from genray.gen.learned_optimizer.network import LearnedRule, build_learned_optimizer
from genray.runs.modelstore import load_model, model_folder, read_config

KIND = "learned_optimizer"
"""The kind of the model in the model store."""
CHUNK = 2**16
"""Coordinates that are updated at a time: the temporary values of 65,536 take 60 MB."""


def check_learned(name: str) -> None:
    """Raise ConfigError unless `name`, "learned:RUN", names a run or a model of a learned
    optimizer.
    """
    run = name.partition(":")[2]
    try:
        kind = read_config(model_folder(Path(run)))["kind"] if run else ""
    except CheckpointError as error:
        raise ConfigError(
            f"--optimizer {name}: no learned optimizer there ({error}); "
            "`genray train optimizer --out RUN` trains one"
        ) from error
    if kind != KIND:
        what = f"{run} has a model of kind {kind}" if run else "names no run"
        raise ConfigError(
            f"--optimizer {name}: {what}; write learned:RUN with a run of `genray train optimizer`"
        )


def load_learned(name: str) -> LearnedRule:
    """Load the update rule of "learned:RUN", on the CPU, without gradients.

    Raises ConfigError if RUN is not a learned optimizer, and CheckpointError if it is damaged.
    """
    check_learned(name)
    folder = model_folder(Path(name.partition(":")[2]))
    model, _ = load_model(folder, {KIND: build_learned_optimizer})
    return cast(LearnedRule, model.requires_grad_(False))


class LearnedOptimizer(optim.Optimizer):
    """Updates parameters by a learned rule. The state of a coordinate has 2·L·H numbers (80).

    Args:
        params: parameters or groups, as in all optimizers of PyTorch.
        rule: the learned rule; it is copied to each parameter's device when needed.
        scale: factor of the updates.
        lr: a schedule changes `lr` of the groups; the updates are multiplied by the quotient of the
            changed and this value.
    """

    def __init__(
        self,
        params: Iterable[Any],
        rule: LearnedRule,
        *,
        scale: float = 1.0,
        lr: float = 1.0,
    ):
        super().__init__(params, {"lr": lr, "scale": scale, "rule": fingerprint(rule)})
        self._rule = rule

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns the value of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            scale = group["scale"] * group["lr"] / self.defaults["lr"]
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, scale)
        return loss

    def _update(self, parameter: torch.Tensor, scale: float) -> None:
        assert parameter.grad is not None
        rule = self._rule.to(parameter.device)
        state = self.state[parameter]
        if not state:
            state["lstm"] = rule.begin(parameter.numel())
        gradient_N = parameter.grad.flatten().float()
        updates = []
        for start in range(0, len(gradient_N), CHUNK):
            part = slice(start, start + CHUNK)
            update, after = rule(gradient_N[part], state["lstm"][..., part])
            state["lstm"][..., part] = after
            updates.append(update)
        parameter.add_(torch.cat(updates).view_as(parameter), alpha=scale)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Restore the state. Raises ValueError if it is the state of another learned rule."""
        saved = state_dict["param_groups"][0].get("rule")
        if saved != self.defaults["rule"]:
            raise ValueError(
                f"--optimizer learned: the checkpoint has the state of another learned optimizer "
                f"(fingerprint {saved}, not {self.defaults['rule']})"
            )
        super().load_state_dict(dict(state_dict))


def fingerprint(rule: LearnedRule) -> str:
    """Return 16 hexadecimal digits that depend on all weights of a rule and on its options."""
    digest = hashlib.sha256(repr(rule.config).encode())
    for tensor in rule.state_dict().values():
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
