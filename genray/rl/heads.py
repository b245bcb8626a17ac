"""Defines the heads of a Q-network: how outputs give Q-values, and what their loss is.

Shapes: B batch, A actions, Z outputs per action (atoms or quantiles).

A head turns the outputs of the last layer into Q-values. From the outputs for s and s' it computes
the TD error δ, which becomes the priority, and the loss. The same |δ| is used for all heads, so
that priorities of the learner and of collectors, which know only Q-values, have one unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from genray.rl import targets

if TYPE_CHECKING:
    from genray.rl.learner_config import LearnerConfig
    from genray.rl.networks import NetworkConfig
    from genray.rl.transfer import DeviceBatch


class Outputs(NamedTuple):
    """The outputs of the networks for a batch, [B, A] or [B, A, Z]."""

    now: Tensor  # of w for s, with gradient
    next_target: Tensor  # of w⁻ for s'
    next_online: Tensor | None  # of w for s', with double Q-learning
    now_target: Tensor | None  # of w⁻ for s, with Munchausen
    tau_BZ: Tensor | None  # the quantiles' probabilities of `now`
    legal_BA: Tensor | None = None  # bool: the actions that are legal in s; None: all
    next_legal_BA: Tensor | None = None  # bool: the actions that are legal in s'


class Loss(NamedTuple):
    """The errors and losses of a batch."""

    delta_B: Tensor  # δ, without gradient
    loss_B: Tensor  # with gradient
    q_taken_B: Tensor  # Q(s, a), without gradient


class ScalarHead(nn.Module):
    """One output per action: Q(s, a) itself.

    Args:
        rescale: whether outputs are h(Q) (`targets.rescaled`).
    """

    outputs_per_action = 1

    def __init__(self, rescale: bool = False):
        super().__init__()
        self.rescale = rescale

    def q(self, q_BA: Tensor) -> Tensor:
        """Return the Q-values, float32 [B, A]."""
        return q_BA

    def loss(self, batch: DeviceBatch, out: Outputs, config: LearnerConfig) -> Loss:
        """Return the errors and losses of a batch."""
        q_next_BA = targets.unrescaled(out.next_target) if self.rescale else out.next_target
        q_next_BA = targets.legal_only(q_next_BA, out.next_legal_BA)
        if out.now_target is not None:
            q_BA = targets.unrescaled(out.now_target) if self.rescale else out.now_target
            q_BA = targets.legal_only(q_BA, out.legal_BA)
            target_B = munchausen_target(batch, q_BA, q_next_BA.unsqueeze(-1), config).squeeze(-1)
        elif out.next_online is not None:
            chooser_BA = targets.legal_only(out.next_online, out.next_legal_BA)
            target_B = targets.double_q_target(
                batch.return_B, batch.discount_B, chooser_BA, q_next_BA
            )
        else:
            target_B = targets.q_learning_target(batch.return_B, batch.discount_B, q_next_BA)
        target_B = targets.rescaled(target_B) if self.rescale else target_B
        delta_B = targets.td_error(out.now, batch.action_B, target_B)
        huber = config.loss == "huber"
        loss_B = targets.huber(delta_B) if huber else targets.squared(delta_B)
        delta_B = delta_B.detach()
        return Loss(delta_B, loss_B, target_B - delta_B)


class C51Head(nn.Module):
    """The logits of Z atoms per action: a distribution of returns on a fixed support.

    [Bellemare 2017, https://arxiv.org/abs/1707.06887] Departure: the priority is |δ|, the error of
    the mean, instead of the loss (Rainbow).

    Args:
        atoms: Z.
        limit: the support is −limit … limit.
    """

    def __init__(self, atoms: int, limit: float):
        super().__init__()
        self.outputs_per_action = atoms
        self.support_Z: Tensor
        self.register_buffer("support_Z", torch.linspace(-limit, limit, atoms), persistent=False)

    def q(self, logits_BAZ: Tensor) -> Tensor:
        """Return the means of the distributions, float32 [B, A]."""
        return logits_BAZ.softmax(-1) @ self.support_Z

    def loss(self, batch: DeviceBatch, out: Outputs, config: LearnerConfig) -> Loss:
        """Return the errors, and the cross-entropies with the projected distributions of the
        target.
        """
        chooser_BAZ = out.next_target if out.next_online is None else out.next_online
        q_BA = targets.legal_only(self.q(chooser_BAZ), out.next_legal_BA)
        p_next_BZ = _of_actions(out.next_target, q_BA.argmax(1)).softmax(-1)
        target_BZ = targets.categorical_projection(
            batch.return_B, batch.discount_B, p_next_BZ.detach(), self.support_Z
        )
        log_p_BZ = _of_actions(out.now, batch.action_B.long()).log_softmax(-1)
        q_taken_B = log_p_BZ.detach().exp() @ self.support_Z
        loss_B = -(target_BZ * log_p_BZ).sum(-1)
        return Loss(target_BZ @ self.support_Z - q_taken_B, loss_B, q_taken_B)


class IQNHead(nn.Module):
    """The returns of Z quantiles per action, whose probabilities τ are inputs of the network.

    [Dabney 2018, https://arxiv.org/abs/1806.06923] Departures: collectors, evaluation, the choice
    of w in double Q-learning, and the policy π(a|s) of Munchausen use the midpoints τ = (i + ½) / Z
    instead of random ones; the numbers of quantiles of s and s' are equal.

    Args:
        quantiles: Z.
        rescale: whether outputs are h(return) (`targets.rescaled`).
    """

    outputs_per_action = 1  # per quantile; the streams process each quantile as a row

    def __init__(self, quantiles: int, rescale: bool = False):
        super().__init__()
        self.rescale = rescale
        self.middle_Z: Tensor
        middle_Z = (torch.arange(quantiles) + 0.5) / quantiles
        self.register_buffer("middle_Z", middle_Z, persistent=False)

    def draw(self, batch: int, random: torch.Generator) -> Tensor:
        """Draw τ for each row of a batch, uniform, float32 [B, Z]."""
        tau_BZ = torch.rand(batch, len(self.middle_Z), generator=random)
        return tau_BZ.to(self.middle_Z.device)

    def q(self, value_BAZ: Tensor) -> Tensor:
        """Return the means over the quantiles, float32 [B, A]."""
        return value_BAZ.mean(-1)

    def loss(self, batch: DeviceBatch, out: Outputs, config: LearnerConfig) -> Loss:
        """Return the errors of the means, and the quantile Huber losses."""
        next_BAZ = targets.unrescaled(out.next_target) if self.rescale else out.next_target
        if out.now_target is not None:
            now_BAZ = targets.unrescaled(out.now_target) if self.rescale else out.now_target
            q_BA = targets.legal_only(now_BAZ.mean(-1), out.legal_BA)
            target_BZ = munchausen_target(batch, q_BA, next_BAZ, config, out.next_legal_BA)
        else:
            chooser_BAZ = out.next_target if out.next_online is None else out.next_online
            q_BA = targets.legal_only(self.q(chooser_BAZ), out.next_legal_BA)
            next_BZ = _of_actions(next_BAZ, q_BA.argmax(1))
            target_BZ = batch.return_B[:, None] + batch.discount_B[:, None] * next_BZ
        target_BZ = targets.rescaled(target_BZ) if self.rescale else target_BZ
        value_BZ = _of_actions(out.now, batch.action_B.long())
        assert out.tau_BZ is not None
        loss_B = targets.quantile_huber(target_BZ.detach(), value_BZ, out.tau_BZ)
        q_taken_B = value_BZ.detach().mean(-1)
        return Loss(target_BZ.detach().mean(-1) - q_taken_B, loss_B, q_taken_B)


Head = ScalarHead | C51Head | IQNHead


def make_head(config: NetworkConfig) -> Head:
    """Return the head that `config.head` names."""
    if config.head == "c51":
        return C51Head(config.atoms, config.value_limit)
    if config.head == "iqn":
        return IQNHead(config.quantiles, config.value_rescaling)
    return ScalarHead(config.value_rescaling)


def munchausen_target(
    batch: DeviceBatch,
    q_BA: Tensor,
    next_BAZ: Tensor,
    config: LearnerConfig,
    next_legal_BA: Tensor | None = None,
) -> Tensor:
    """Return R + α [τ log π(a|s)] + D Σ_a' π(a'|s') (Z(s', a') − τ log π(a'|s')), float32 [B, Z],
    all by w⁻. [Vieillard 2020, https://arxiv.org/abs/2007.14430] Departure: with n > 1 the added
    reward is that of the first step alone.
    """
    temperature = config.munchausen_temperature
    added_B = targets.munchausen_reward(
        q_BA, batch.action_B, config.munchausen, temperature, config.munchausen_floor
    )
    q_next_BA = targets.legal_only(next_BAZ.mean(-1), next_legal_BA)
    pi_BA, log_BA = targets.soft_policy(q_next_BA, temperature)
    soft_BZ = (pi_BA[..., None] * (next_BAZ - log_BA[..., None])).sum(1)
    return (batch.return_B + added_B)[:, None] + batch.discount_B[:, None] * soft_BZ


def _of_actions(output_BAZ: Tensor, action_B: Tensor) -> Tensor:
    """Return the outputs of one action of each row, [B, Z]."""
    return output_BAZ[torch.arange(len(output_BAZ), device=output_BAZ.device), action_B]
