"""Implements the equations of value-based RL, each in a few lines of PyTorch.

Shapes: B batch, A actions, Z atoms. s is a transition's state, a its action, s' its next state, R
its n-step return, D its effective discount. w are the online network's weights, w⁻ the target
network's.

D is γᵏ while the episode continues *or was truncated*, with k ≤ n the number of rewards in R, and 0
after a termination. The equations therefore need no `done`. The functions that call `check_shapes`
raise ValueError for shapes that differ from the arguments' names, such as a [B, 1] target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from genray.shapes import check_shapes

if TYPE_CHECKING:  # replay shards use `priority` on arrays and run without PyTorch
    from torch import Tensor


ILLEGAL = -1e30
"""The Q-value of an illegal action. It is finite, because 0 · ∞ is not a number."""


def legal_only(q_BA: Tensor, legal_BA: Tensor | None) -> Tensor:
    """Return Q-values in which every illegal action has the value ILLEGAL, so that it is neither
    the largest nor has a probability above 0 in a soft policy. `legal_BA`: bool; None: all legal.
    """
    return q_BA if legal_BA is None else q_BA.masked_fill(~legal_BA, ILLEGAL)


def q_learning_target(return_B: Tensor, discount_B: Tensor, q_next_target_BA: Tensor) -> Tensor:
    """Return R + D · max_a Q(s', a; w⁻), the DQN target, float32 [B].  [Mnih 2015,
    https://doi.org/10.1038/nature14236]
    """
    check_shapes(return_B=return_B, discount_B=discount_B, q_next_target_BA=q_next_target_BA)
    return return_B + discount_B * q_next_target_BA.amax(dim=1)


def double_q_target(
    return_B: Tensor, discount_B: Tensor, q_next_online_BA: Tensor, q_next_target_BA: Tensor
) -> Tensor:
    """Return R + D · Q(s', argmax_a Q(s', a; w); w⁻), float32 [B]. The online network chooses the
    action, and the target network gives its value.

    [van Hasselt 2016, https://arxiv.org/abs/1509.06461]
    """
    check_shapes(
        return_B=return_B,
        discount_B=discount_B,
        q_next_online_BA=q_next_online_BA,
        q_next_target_BA=q_next_target_BA,
    )
    best_B1 = q_next_online_BA.argmax(dim=1, keepdim=True)
    return return_B + discount_B * q_next_target_BA.gather(1, best_B1).squeeze(1)


def categorical_projection(
    return_B: Tensor, discount_B: Tensor, p_next_BZ: Tensor, support_Z: Tensor
) -> Tensor:
    """Return the distribution of R + D · z with z ~ `p_next_BZ` on the support itself, float32
    [B, Z]. The probability of a value between two atoms is shared by its distances to them; values
    outside the support are moved to its ends.

    [Bellemare 2017, https://arxiv.org/abs/1707.06887, equation 7]
    """
    check_shapes(return_B=return_B, discount_B=discount_B, p_next_BZ=p_next_BZ, support_Z=support_Z)
    moved_BZ = return_B[:, None] + discount_B[:, None] * support_Z
    moved_BZ = moved_BZ.clamp(support_Z[0], support_Z[-1])
    distance_BZZ = (moved_BZ[:, None, :] - support_Z[:, None]).abs()
    share_BZZ = (1 - distance_BZZ / (support_Z[1] - support_Z[0])).clamp(min=0)
    return (share_BZZ @ p_next_BZ[:, :, None]).squeeze(-1)


def soft_policy(q_BA: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return π = softmax(Q / τ) and τ log π, both float32 [B, A]."""
    log_BA = (q_BA / temperature).log_softmax(dim=1)
    return log_BA.exp(), temperature * log_BA


def munchausen_reward(
    q_target_BA: Tensor, action_B: Tensor, scale: float, temperature: float, floor: float
) -> Tensor:
    """Return α · [τ log π(a|s)] clipped to floor … 0, which is added to the reward, float32 [B]. π
    is the soft policy of w⁻.  [Vieillard 2020, https://arxiv.org/abs/2007.14430]
    """
    check_shapes(q_target_BA=q_target_BA, action_B=action_B)
    log_BA = soft_policy(q_target_BA, temperature)[1]
    return scale * log_BA.gather(1, action_B.long().unsqueeze(1)).squeeze(1).clamp(floor, 0)


def quantile_huber(target_BN: Tensor, value_BZ: Tensor, tau_BZ: Tensor) -> Tensor:
    """Return Σ_i mean_j |τ_i − 1{δ_ij < 0}| · huber(δ_ij) with δ_ij = target_j − value_i, float32
    [B].  [Dabney 2018, https://arxiv.org/abs/1806.06923, equation 3]
    """
    check_shapes(target_BN=target_BN, value_BZ=value_BZ, tau_BZ=tau_BZ)
    delta_BZN = target_BN.detach()[:, None, :] - value_BZ[:, :, None]
    weight_BZN = (tau_BZ[:, :, None] - (delta_BZN.detach() < 0).to(tau_BZ)).abs()
    return (weight_BZN * huber(delta_BZN)).mean(dim=2).sum(dim=1)


RESCALING_EPSILON = 1e-3


def rescaled(x: Tensor) -> Tensor:
    """Return h(x) = sign(x) (√(|x| + 1) − 1) + ε x, which shrinks large returns.  [Pohlen 2018,
    https://arxiv.org/abs/1805.11593]
    """
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + RESCALING_EPSILON * x


def unrescaled(y: Tensor) -> Tensor:
    """Return h⁻¹(y), the inverse of `rescaled`."""
    e = RESCALING_EPSILON
    # With r = √(|x| + 1): ε r² + r − (|y| + 1 + ε) = 0. This form of its root loses no digits.
    c = y.abs() + 1 + e
    root = 2 * c / (1 + (1 + 4 * e * c).sqrt())
    return y.sign() * (root.square() - 1)


def td_error(q_BA: Tensor, action_B: Tensor, target_B: Tensor) -> Tensor:
    """Return the TD error δ = target − Q(s, a), float32 [B]. Its gradient goes through Q(s, a)
    only.
    """
    check_shapes(q_BA=q_BA, action_B=action_B, target_B=target_B)
    return target_B.detach() - q_BA.gather(1, action_B.long().unsqueeze(1)).squeeze(1)


def huber(delta_B: Tensor, threshold: float = 1.0) -> Tensor:
    """Return the Huber loss of each δ: δ²/2 if |δ| ≤ threshold, else linear in |δ|.

    The derivative is δ clipped to ±threshold, which the DQN paper calls error clipping.
    """
    quadratic = delta_B.abs().clamp(max=threshold)
    return quadratic * (delta_B.abs() - 0.5 * quadratic)


def squared(delta_B: Tensor) -> Tensor:
    """Return δ²/2, which equals the Huber loss if |δ| is at most the threshold."""
    return 0.5 * delta_B.square()


def importance_weights(probability_B: Tensor, size: int, beta: float) -> Tensor:
    """Return the importance weights (1/N · 1/P(i))^β, divided by the batch's largest weight, so
    that they are ≤ 1.

    `probability_B`: P(i) > 0, the probability of a draw over *all* shards; `size`: N, the number of
    transitions in all shards. One maximum is used for the batch, because dividing each shard's
    weights by their own maximum would change the ratios between shards. [Schaul 2016,
    https://arxiv.org/abs/1511.05952, section 3.4]
    """
    check_shapes(probability_B=probability_B)
    weight_B = (size * probability_B) ** -beta
    return weight_B / weight_B.max()


def priority(delta_abs_B, epsilon: float, alpha: float):
    """Return the priorities (|δ| + ε)^α, to which P(i) is proportional; for arrays or tensors.
    [Schaul 2016, https://arxiv.org/abs/1511.05952, section 3.3]
    """
    return (delta_abs_B + epsilon) ** alpha
