"""Tests the equations against known numbers, and their gradients against analytical derivatives."""

import numpy as np
import pytest
import torch
from torch import tensor

from genray.rl import targets

# Two transitions, three actions. w prefers action 2, then 0; w⁻ prefers 1, then 1.
Q_ONLINE = tensor([[1.0, 2.0, 3.0], [9.0, 8.0, 7.0]])
Q_TARGET = tensor([[10.0, 50.0, 30.0], [1.0, 4.0, 2.0]])
RETURN, DISCOUNT = tensor([1.0, -1.0]), tensor([0.5, 0.25])


def test_q_learning_takes_the_largest_value_of_the_target_network():
    assert targets.q_learning_target(RETURN, DISCOUNT, Q_TARGET).tolist() == [
        1 + 0.5 * 50,
        -1 + 0.25 * 4,
    ]


def test_double_q_lets_w_choose_and_w_minus_judge():
    found = targets.double_q_target(RETURN, DISCOUNT, Q_ONLINE, Q_TARGET).tolist()
    assert found == [1 + 0.5 * 30, -1 + 0.25 * 1]
    swapped = targets.double_q_target(RETURN, DISCOUNT, Q_TARGET, Q_ONLINE).tolist()
    assert swapped == [1 + 0.5 * 2, -1 + 0.25 * 8]


def test_update_with_discount_0_does_not_bootstrap():
    nothing = torch.zeros(2)
    assert targets.q_learning_target(RETURN, nothing, Q_TARGET).tolist() == RETURN.tolist()
    assert targets.double_q_target(RETURN, nothing, Q_ONLINE, Q_TARGET).tolist() == RETURN.tolist()


def test_td_error_is_target_minus_value_with_gradient_to_the_value():
    q_BA = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    target_B = tensor([5.0, 5.0], requires_grad=True)
    delta_B = targets.td_error(q_BA, tensor([1, 0], dtype=torch.uint8), target_B)
    assert delta_B.tolist() == [3.0, 2.0]
    delta_B.sum().backward()
    assert q_BA.grad is not None and q_BA.grad.tolist() == [[0.0, -1.0], [-1.0, 0.0]]
    assert target_B.grad is None


def test_huber_by_hand():
    delta_B = tensor([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0], requires_grad=True)
    loss_B = targets.huber(delta_B)
    assert loss_B.tolist() == [2.5, 0.5, 0.125, 0.0, 0.125, 0.5, 2.5]  # δ²/2, then |δ| − 1/2
    loss_B.sum().backward()
    assert delta_B.grad is not None and delta_B.grad.tolist() == [
        -1.0,
        -1.0,
        -0.5,
        0.0,
        0.5,
        1.0,
        1.0,
    ]  # clip(δ, ±1)


def test_huber_is_pytorchs():
    delta_B = torch.linspace(-5, 5, 101)
    for threshold in (0.5, 1.0, 2.0):
        theirs = torch.nn.functional.huber_loss(
            delta_B, torch.zeros(101), reduction="none", delta=threshold
        )
        torch.testing.assert_close(targets.huber(delta_B, threshold), theirs)


def test_squared_by_hand():
    delta_B = tensor([-3.0, 0.5], requires_grad=True)
    loss_B = targets.squared(delta_B)
    assert loss_B.tolist() == [4.5, 0.125]
    loss_B.sum().backward()
    assert delta_B.grad is not None and delta_B.grad.tolist() == [-3.0, 0.5]  # δ itself, unclipped


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_importance_weights_follow_the_formula(beta: float):
    """With N = 10, a draw with P = 1/10 has raw weight 1. A draw with twice that P has 2^−β, and
    with half of it 2^β.
    """
    weight_B = targets.importance_weights(tensor([0.1, 0.2, 0.05], dtype=torch.float64), 10, beta)
    raw = np.array([1.0, 2.0**-beta, 2.0**beta])
    np.testing.assert_allclose(weight_B.numpy(), raw / raw.max(), rtol=1e-12)
    assert float(weight_B.max()) == 1.0


def test_priority_by_hand():
    assert targets.priority(3.0, 1.0, 0.5) == 2.0  # √(3 + 1)
    # ε: never impossible to draw
    assert targets.priority(np.array([0.0]), 1e-3, 1.0).tolist() == [1e-3]
    # α = 0: uniform
    assert targets.priority(np.array([0.0, 7.0]), 1e-3, 0.0).tolist() == [1.0, 1.0]


COLUMN = RETURN[:, None]  # [B, 1] where [B] is needed: broadcasting would make it [B, B]


@pytest.mark.parametrize(
    "call",
    [
        lambda: targets.q_learning_target(COLUMN, DISCOUNT, Q_TARGET),
        lambda: targets.q_learning_target(RETURN, DISCOUNT[:, None], Q_TARGET),
        lambda: targets.q_learning_target(RETURN, DISCOUNT, Q_TARGET[:1]),
        lambda: targets.double_q_target(COLUMN, DISCOUNT, Q_ONLINE, Q_TARGET),
        lambda: targets.double_q_target(RETURN, DISCOUNT, Q_ONLINE, Q_TARGET[:, :2]),
        lambda: targets.td_error(Q_ONLINE, tensor([0, 1]), COLUMN),
        lambda: targets.td_error(Q_ONLINE, tensor([[0], [1]]), RETURN),
        lambda: targets.importance_weights(torch.full((2, 1), 0.5), 100, 0.4),
    ],
)
def test_targets_refuse_shapes_that_would_broadcast(call):
    with pytest.raises(ValueError, match="its shape does not fit its name"):
        call()
