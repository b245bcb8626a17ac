"""The learned rule and the functions, against obvious code."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from genray.gen.learned_optimizer import use
from genray.gen.learned_optimizer.config import LearnedOptimizerModelConfig
from genray.gen.learned_optimizer.network import LearnedRule, log_and_sign
from genray.gen.learned_optimizer.problems import NetworkProblem, QuadraticProblem
from genray.gen.learned_optimizer.task import window_loss
from genray.gen.learned_optimizer.use import LearnedOptimizer


def new_rule(**options) -> LearnedRule:
    torch.manual_seed(0)
    return LearnedRule(LearnedOptimizerModelConfig(**{"lstm_units": 3, **options}))


def test_log_and_sign_by_hand():
    found = log_and_sign(torch.tensor([0.5, -2.0, -1e-4, 0.0]), k=5)
    size = [math.log(0.5) / 5, math.log(2) / 5, -1, -1]
    assert found[0].tolist() == pytest.approx(size, abs=1e-6)
    assert found[1].tolist() == pytest.approx([1, -1, -1e-4 * math.exp(5), 0], abs=1e-6)


@pytest.mark.parametrize("preprocessing", ["raw", "log-and-sign"])
def test_rule_steps_by_hand(preprocessing: str):
    """Two steps of two layers for single coordinates, in NumPy with the equations of an LSTM."""
    rule = new_rule(preprocessing=preprocessing, log_range=5.0, output_scale=0.25)

    def sigmoid(z):
        return 1 / (1 + np.exp(-z))

    gradients_TN = torch.tensor([[0.3, -2.0, 1e-5], [-0.1, 4.0, 0.7]])
    state, found = rule.begin(3), []
    for gradient_N in gradients_TN:
        update_N, state = rule(gradient_N, state)
        found.append(update_N.tolist())
    values = {name: tensor.double().numpy() for name, tensor in rule.state_dict().items()}
    for coordinate in range(3):
        h, c = np.zeros((2, 3)), np.zeros((2, 3))
        for step in range(2):
            gradient = gradients_TN[step, coordinate]
            x = np.array([gradient.item()])
            if preprocessing == "log-and-sign":
                x = log_and_sign(gradient[None], 5.0)[:, 0].numpy()
            for layer in range(2):
                z = values[f"weights.{layer}"] @ np.concatenate([x, h[layer]])
                i, f, o, g = np.split(z + values[f"biases.{layer}"][:, 0], 4)
                c[layer] = sigmoid(f) * c[layer] + sigmoid(i) * np.tanh(g / 2)
                x = h[layer] = sigmoid(o) * np.tanh(c[layer])
            update = 0.25 * (values["output"][0] @ x + values["output_bias"][0, 0])
            assert found[step][coordinate] == pytest.approx(update, abs=1e-6)


def test_rule_coordinates_share_weights_and_do_not_see_each_other():
    rule, order = new_rule(), torch.tensor([2, 0, 3, 1])
    gradients_TN = torch.randn(3, 4)
    state, permuted = rule.begin(4), rule.begin(4)
    for gradient_N in gradients_TN:
        update_N, state = rule(gradient_N, state)
        permuted_N, permuted = rule(gradient_N[order], permuted)
        torch.testing.assert_close(permuted_N, update_N[order])
    alone = rule.begin(1)
    for gradient_N in gradients_TN:
        last_1, alone = rule(gradient_N[1:2], alone)
    torch.testing.assert_close(last_1, update_N[1:2])


def network_problem(activation="sigmoid") -> NetworkProblem:
    images_MI, labels_M = torch.rand(7, 6), torch.tensor([0, 1, 2, 0, 1, 2, 2])
    return NetworkProblem(images_MI, labels_M, 3, 4, activation, batch=5)


@pytest.mark.parametrize("activation", ["sigmoid", "relu", "tanh"])
def test_network_gradient_equals_autograd(activation: str, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(1)
    problem = network_problem(activation)
    functions = problem.functions(torch.randn(2, sum(problem.sizes)))
    theta_PN = functions.start_PN
    # Each of the two networks draws the same images again.
    drawn_PB = torch.rand(2, 5)
    monkeypatch.setattr(functions._world, "uniform", lambda *shape, device: drawn_PB, False)
    value_P, gradient_PN = functions.gradient(theta_PN)
    for p in range(2):
        theta = theta_PN[p].clone().requires_grad_()
        W1, b1, W2, b2 = (
            part.view(shape) for part, shape in zip(theta.split(problem.sizes), problem.shapes)
        )
        rows = (drawn_PB[p] * 7).long()
        hidden = getattr(torch, activation)(problem.images_MI[rows] @ W1 + b1)
        loss = functional.cross_entropy(hidden @ W2 + b2, problem.labels_M[rows])
        loss.backward()
        torch.testing.assert_close(value_P[p], loss.detach())
        torch.testing.assert_close(gradient_PN[p], theta.grad)


def test_quadratic_gradient_and_value_by_autograd():
    problem = QuadraticProblem(3)
    functions = problem.functions(problem.draw(2, torch.Generator().manual_seed(0)))
    theta_PN = torch.randn(2, 3, requires_grad=True)
    value_P = functions.value(theta_PN)
    value_P.sum().backward()
    found_P, gradient_PN = functions.gradient(theta_PN.detach())
    torch.testing.assert_close(gradient_PN, theta_PN.grad)
    torch.testing.assert_close(found_P, value_P.detach())


def test_window_loss_has_the_gradient_of_the_mean_logarithm():
    """The sum of known gradients equals backpropagation through all steps of the window, with the
    gradients that the rule reads held constant.
    """
    rule, factor_PN = new_rule(preprocessing="raw"), torch.rand(4, 3) + 0.5
    problem = QuadraticProblem(3)
    functions = problem.functions(problem.draw(4, torch.Generator().manual_seed(0)))
    start_PN, begin = functions.start_PN, rule.begin(12)
    loss, end_PN, state, means_T = window_loss(rule, functions, start_PN, begin, 5, factor_PN)
    loss.backward()
    found = [parameter.grad.clone() for parameter in rule.parameters()]
    rule.zero_grad()
    theta_PN, after, logs = start_PN, begin, []
    for _ in range(5):
        gradient_PN = functions.gradient(theta_PN.detach())[1]
        update_N, after = rule((gradient_PN * factor_PN).flatten(), after)
        theta_PN = theta_PN + factor_PN * update_N.view(4, 3)
        logs.append(functions.value(theta_PN).mean().log())
    torch.stack(logs).mean().backward()
    for gradient, parameter in zip(found, rule.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad)
    torch.testing.assert_close(end_PN, theta_PN.detach())
    torch.testing.assert_close(means_T.log(), torch.stack(logs).detach())
    assert not state.requires_grad and torch.equal(state, after)


def test_learned_optimizer_steps_each_parameter_as_the_rule_does(monkeypatch):
    """In parts of CHUNK coordinates, with a scale and a changed learning rate."""
    monkeypatch.setattr(use, "CHUNK", 4)
    rule = new_rule().requires_grad_(False)
    parameters = [nn.Parameter(torch.randn(3, 2)), nn.Parameter(torch.randn(5))]
    starts = [parameter.detach().clone() for parameter in parameters]
    optimizer = LearnedOptimizer(parameters, rule, scale=2.0, lr=0.1)
    states = [rule.begin(6), rule.begin(5)]
    for rate in (0.1, 0.05):
        optimizer.param_groups[0]["lr"] = rate
        for number, parameter in enumerate(parameters):
            parameter.grad = torch.randn_like(parameter)
            update_N, states[number] = rule(parameter.grad.flatten(), states[number])
            starts[number] += 2.0 * rate / 0.1 * update_N.view_as(parameter)
        optimizer.step()
    for parameter, start in zip(parameters, starts):
        torch.testing.assert_close(parameter.detach(), start)
