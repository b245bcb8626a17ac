"""The four optimizers that PyTorch lacks: each step equals a brute-force solution."""

import math

import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from genray.gen.training.extra_optimizers import (
    FTRL,
    AdagradDA,
    ProximalAdagrad,
    ProximalGradientDescent,
    soft_threshold,
)

START = [0.7, -0.3, 0.0, 1.5]
GRADIENTS = [
    [0.5, -1.0, 0.2, 0.0],
    [0.1, 2.0, -0.4, 0.0],
    [-0.7, 0.3, 0.1, 0.3],
    [0.2, -0.2, 0.6, -0.9],
]
RATE, L1, L2, DELTA = 0.3, 0.15, 0.4, 0.25


def walk(rule, **options) -> list[list[float]]:
    """Return the weights after each step over GRADIENTS, in float64."""
    w = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
    optimizer = rule([w], lr=RATE, **options)
    path = []
    for gradient in GRADIENTS:
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        path.append(w.tolist())
    return path


def argmin(problem) -> float:
    """Minimise by bracketing and Brent, without derivatives or soft thresholds, and try 0 too."""
    found = minimize_scalar(problem, bracket=(-3, 3), tol=1e-14).x
    return 0.0 if problem(0.0) <= problem(found) else float(found)


def penalty(x: float) -> float:
    return L1 * abs(x) + L2 / 2 * x * x


def curvature(step: int, coordinate: int) -> float:
    return math.sqrt(sum(g[coordinate] ** 2 for g in GRADIENTS[: step + 1]))


def the_same(found: list[list[float]], expected: list[list[float]]) -> None:
    # Brent finds a minimum to about √(machine epsilon).
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=0, atol=2e-7)


def test_soft_threshold_by_hand():
    x = torch.tensor([3.0, -3.0, 0.5, -0.5, 0.0])
    assert soft_threshold(x, 1.0).tolist() == [2.0, -2.0, 0.0, 0.0, 0.0]


def test_proximal_gradient_descent_solves_its_problem():
    w, expected = START, []
    for gradient in GRADIENTS:
        w = [
            argmin(lambda x, w=w, g=g: (x - (w - RATE * g)) ** 2 / 2 + RATE * penalty(x))
            for w, g in zip(w, gradient)
        ]
        expected.append(w)
    the_same(walk(ProximalGradientDescent, l1=L1, l2=L2), expected)


def test_proximal_adagrad_solves_its_problem():
    w, expected = START, []
    for t, gradient in enumerate(GRADIENTS):
        rates = [RATE / (DELTA + curvature(t, i)) for i in range(4)]
        w = [
            argmin(lambda x, w=w, g=g, rate=rate: (x - (w - rate * g)) ** 2 / 2 + rate * penalty(x))
            for w, g, rate in zip(w, gradient, rates)
        ]
        expected.append(w)
    the_same(walk(ProximalAdagrad, l1=L1, l2=L2, eps=DELTA), expected)


def test_dual_averaging_solves_its_problem():
    expected = []
    for t in range(len(GRADIENTS)):
        row = []
        for i, start in enumerate(START):
            total, h = sum(g[i] for g in GRADIENTS[: t + 1]), DELTA + curvature(t, i)
            row.append(
                argmin(
                    lambda x, total=total, h=h, start=start: (
                        total * x + (t + 1) * penalty(x) + h * (x - start) ** 2 / (2 * RATE)  # noqa: B023
                    )
                )
            )
        expected.append(row)
    the_same(walk(AdagradDA, l1=L1, l2=L2, eps=DELTA), expected)


def test_ftrl_solves_its_problem():
    """The test stores all earlier weights, as the paper defines; FTRL stores two numbers."""
    beta, expected, points = 0.5, [], [START]
    for t in range(len(GRADIENTS)):
        row = []
        for i, start in enumerate(START):
            total = sum(g[i] for g in GRADIENTS[: t + 1])
            pulls = [(beta / RATE, start)]
            before = 0.0
            for s in range(t + 1):
                pulls.append(((curvature(s, i) - before) / RATE, points[s][i]))
                before = curvature(s, i)
            row.append(
                argmin(
                    lambda x, total=total, pulls=pulls: (
                        total * x
                        + penalty(x)
                        + sum(sigma * (x - at) ** 2 / 2 for sigma, at in pulls)
                    )
                )
            )
        expected.append(row)
        points.append(row)
    the_same(walk(FTRL, l1=L1, l2=L2, beta=beta), expected)


def test_proximal_gradient_descent_without_penalties_is_sgd():
    the_same(walk(ProximalGradientDescent), walk(torch.optim.SGD))


@pytest.mark.parametrize("rule", [ProximalAdagrad, FTRL])
def test_proximal_adagrad_and_ftrl_without_penalties_are_adagrad(rule):
    found = walk(rule, **{"beta" if rule is FTRL else "eps": 0.1})
    the_same(found, walk(torch.optim.Adagrad, eps=0.1))


def test_ftrl_equals_adagrad_while_the_rate_changes():
    def path(rule, **options) -> Tensor:
        w = torch.nn.Parameter(torch.tensor(START, dtype=torch.float64))
        optimizer = rule([w], lr=RATE, **options)
        for number, gradient in enumerate(GRADIENTS):
            optimizer.param_groups[0]["lr"] = RATE / math.sqrt(number + 1)
            w.grad = torch.tensor(gradient, dtype=torch.float64)
            optimizer.step()
        return w.detach()

    torch.testing.assert_close(path(FTRL, beta=0.1), path(torch.optim.Adagrad, eps=0.1))


def test_dual_averaging_from_zero_equals_the_papers_formula():
    """Section 1.3 has the closed form x_i = −sign(ḡ_i)·η·t/H_i·max(|ḡ_i| − λ, 0), where ḡ is the
    mean gradient.
    """
    w = torch.nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = AdagradDA([w], lr=RATE, eps=DELTA, l1=L1)
    for t, gradient in enumerate(GRADIENTS, start=1):
        w.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        so_far = torch.tensor(GRADIENTS[:t], dtype=torch.float64)
        mean, h = so_far.mean(0), DELTA + so_far.square().sum(0).sqrt()
        torch.testing.assert_close(
            w.detach(), -mean.sign() * RATE * t / h * (mean.abs() - L1).clamp(min=0)
        )


@pytest.mark.parametrize("rule", [ProximalGradientDescent, ProximalAdagrad, AdagradDA, FTRL])
def test_l1_makes_irrelevant_weights_exactly_zero(rule):
    """y = 2·x₀ − x₁ depends on two of ten inputs: the other weights become exactly 0, and these two
    have the right signs.
    """
    torch.manual_seed(0)
    x, w = torch.randn(200, 10), torch.nn.Parameter(torch.full((10,), 0.5))
    y = 2 * x[:, 0] - x[:, 1]
    optimizer = rule(
        [w],
        lr=0.1 if rule is ProximalGradientDescent else 1.0,
        l1=0.3 if rule is not FTRL else 30.0,
    )
    for _ in range(300):
        w.grad = torch.autograd.grad((x @ w - y).square().mean() / 2, w)[0]
        optimizer.step()
    assert w[0] > 1 and w[1] < -0.3
    assert (w[2:] == 0).all()


@pytest.mark.parametrize("rule", [ProximalGradientDescent, ProximalAdagrad, AdagradDA, FTRL])
def test_extra_optimizers_refuse_negative_options(rule):
    w = torch.nn.Parameter(torch.zeros(1))
    for options in ({"lr": 0.0}, {"lr": 0.1, "l1": -1.0}, {"lr": 0.1, "l2": -1.0}):
        with pytest.raises(ValueError, match="must be"):
            rule([w], **options)
