"""Defines the heads of a Q-network: how outputs give Q-values, and what their loss is.

Shapes: B batch, A actions, Z atoms of a distribution.

A head turns the outputs of the last layer into Q-values. From the outputs for s and s' it computes
the TD error δ, which becomes the priority, and the loss. The same |δ| is used for all heads, so
that priorities of the learner and of collectors, which know only Q-values, have one unit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn

from genray.rl import targets

if TYPE_CHECKING:
    from genray.rl.networks import NetworkConfig
    from genray.rl.transfer import DeviceBatch


class Loss(NamedTuple):
    """The errors and losses of a batch."""

    delta_B: Tensor  # δ, without gradient
    loss_B: Tensor  # with gradient
    q_taken_B: Tensor  # Q(s, a), without gradient


class ScalarHead(nn.Module):
    """One output per action: Q(s, a) itself."""

    outputs_per_action = 1

    def q(self, q_BA: Tensor) -> Tensor:
        """Return the Q-values, float32 [B, A]."""
        return q_BA

    def loss(
        self,
        batch: DeviceBatch,
        q_BA: Tensor,
        q_next_target_BA: Tensor,
        q_next_online_BA: Tensor | None,
        kind: Literal["huber", "squared"],
    ) -> Loss:
        """Return the errors and losses from the outputs for s by w, for s' by w⁻, and for s' by w
        (None without double Q-learning).
        """
        reward_terms = (batch.return_B, batch.discount_B)
        if q_next_online_BA is not None:
            target_B = targets.double_q_target(*reward_terms, q_next_online_BA, q_next_target_BA)
        else:
            target_B = targets.q_learning_target(*reward_terms, q_next_target_BA)
        delta_B = targets.td_error(q_BA, batch.action_B, target_B)
        loss_B = targets.huber(delta_B) if kind == "huber" else targets.squared(delta_B)
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

    def loss(
        self,
        batch: DeviceBatch,
        logits_BAZ: Tensor,
        next_target_BAZ: Tensor,
        next_online_BAZ: Tensor | None,
        kind: Literal["huber", "squared"],
    ) -> Loss:
        """Return the errors, and the cross-entropies with the projected distributions of the
        target; see ScalarHead. `kind` is ignored.
        """
        chooser_BAZ = next_target_BAZ if next_online_BAZ is None else next_online_BAZ
        p_next_BZ = _of_actions(next_target_BAZ, self.q(chooser_BAZ).argmax(1)).softmax(-1)
        target_BZ = targets.categorical_projection(
            batch.return_B, batch.discount_B, p_next_BZ.detach(), self.support_Z
        )
        log_p_BZ = _of_actions(logits_BAZ, batch.action_B.long()).log_softmax(-1)
        q_taken_B = log_p_BZ.detach().exp() @ self.support_Z
        loss_B = -(target_BZ * log_p_BZ).sum(-1)
        return Loss(target_BZ @ self.support_Z - q_taken_B, loss_B, q_taken_B)


Head = ScalarHead | C51Head


def make_head(config: NetworkConfig) -> Head:
    """Return the head that `config.head` names."""
    if config.head == "c51":
        return C51Head(config.atoms, config.value_limit)
    return ScalarHead()


def _of_actions(output_BAZ: Tensor, action_B: Tensor) -> Tensor:
    """Return the outputs of one action of each row, [B, Z]."""
    return output_BAZ[torch.arange(len(output_BAZ), device=output_BAZ.device), action_B]
