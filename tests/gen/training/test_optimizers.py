"""Optimizers by name against the published rules in NumPy, their names and their options."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from genray.errors import ConfigError
from genray.gen.training.optimizers import (
    OPTIMIZERS,
    OptimizerConfig,
    make_optimizer,
    optimizer_name,
)
from genray.gen.training.updater import Updater
from tests.helpers.optimizers import BETA1, BETA2, EPS, MU, RATE, RHO, config, loss_of, network

GRADIENTS = np.array(
    [[0.1, -20.0, 0.3], [0.2, 10.0, -0.3], [-0.4, 5.0, 0.0], [0.3, -7.0, 0.1], [0.2, 1.0, 0.2]]
)
START = np.array([1.0, -2.0, 0.5])


# -- the published rules ---------------------------------------------------------------------------


def sgd(g, s, t):
    return -RATE * g


def momentum(g, s, t):
    s["v"] = MU * s.get("v", 0) + g
    return -RATE * s["v"]


def nesterov(g, s, t):
    s["v"] = MU * s.get("v", 0) + g
    return -RATE * (g + MU * s["v"])


def adagrad(g, s, t):
    s["n"] = s.get("n", 0) + g**2
    return -RATE * g / (np.sqrt(s["n"]) + EPS)


def rmsprop(g, s, t):
    s["n"] = RHO * s.get("n", 0) + (1 - RHO) * g**2
    return -RATE * g / (np.sqrt(s["n"]) + EPS)


def rmsprop_centered(g, s, t):
    s["n"] = RHO * s.get("n", 0) + (1 - RHO) * g**2
    s["m"] = RHO * s.get("m", 0) + (1 - RHO) * g
    return -RATE * g / (np.sqrt(s["n"] - s["m"] ** 2) + EPS)


def adadelta(g, s, t):
    s["n"] = RHO * s.get("n", 0) + (1 - RHO) * g**2
    step = -np.sqrt(s.get("d", 0) + EPS) / np.sqrt(s["n"] + EPS) * g
    s["d"] = RHO * s.get("d", 0) + (1 - RHO) * step**2
    return RATE * step


def adam(g, s, t):
    s["m"] = BETA1 * s.get("m", 0) + (1 - BETA1) * g
    s["n"] = BETA2 * s.get("n", 0) + (1 - BETA2) * g**2
    # both powers grow with t
    m, n = s["m"] / (1 - BETA1**t), s["n"] / (1 - BETA2**t)
    return -RATE * m / (np.sqrt(n) + EPS)


def adamax(g, s, t):
    s["m"] = BETA1 * s.get("m", 0) + (1 - BETA1) * g
    s["u"] = np.maximum(BETA2 * s.get("u", 0), np.abs(g) + EPS)
    return -RATE / (1 - BETA1**t) * s["m"] / s["u"]


RULES = {
    "sgd": sgd,
    "momentum": momentum,
    "nesterov": nesterov,
    "adagrad": adagrad,
    "rmsprop": rmsprop,
    "rmsprop-centered": rmsprop_centered,
    "adadelta": adadelta,
    "adam": adam,
    "adamw": adam,
    "adamax": adamax,
}


@pytest.mark.parametrize("name", RULES)
def test_optimizers_follow_the_published_rules(name: str):
    w, state = START.copy(), {}
    parameter = nn.Parameter(torch.tensor(START))
    optimizer = make_optimizer([parameter], config(optimizer=name))
    for t, g in enumerate(GRADIENTS, start=1):
        w = w + RULES[name](g, state, t)
        parameter.grad = torch.tensor(g)
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-9, err_msg=f"step {t}")


def test_adagrad_has_the_effective_rates_worked_out_by_hand():
    """Histories (0.1, 0.2) and (20, 10) give η/0.22 and η/22: √(0.1² + 0.2²) = 0.2236, √(20² +
    10²) = 22.36.
    """
    parameter = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    optimizer = make_optimizer([parameter], config(optimizer="adagrad"))
    steps = []
    for g in ([0.1, 20.0], [0.2, 10.0]):
        before = parameter.detach().clone()
        parameter.grad = torch.tensor(g, dtype=torch.float64)
        optimizer.step()
        steps.append((before - parameter.detach()) / torch.tensor(g))
    np.testing.assert_allclose(steps[1].numpy(), [RATE / 0.2236068, RATE / 22.36068], rtol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_lowers_the_loss(name: str):
    rate = {"adadelta": 1.0, "adafactor": 0.1}.get(name, 0.02)
    net = network()
    updater = Updater(net.parameters(), OptimizerConfig(optimizer=name, learning_rate=rate))
    losses = []
    for _ in range(60):
        loss = loss_of(net, 0)
        losses.append(loss.item())
        updater.step(loss)
    assert losses[-1] < 0.7 * losses[0]
    assert updater.updates == 60


# -- names and options -----------------------------------------------------------------------------


def test_optimizer_name_ignores_case_and_suggests_similar_names():
    assert optimizer_name("AdamW") == "adamw"
    assert optimizer_name("ProximalAdagrad") == "proximal-adagrad"
    assert optimizer_name("AdagradDA") == optimizer_name("adagrad_da") == "adagrad-da"
    with pytest.raises(
        ConfigError, match=r"--optimizer adamm: no such optimizer; did you mean adam, "
    ):
        optimizer_name("adamm")
    with pytest.raises(ConfigError, match=r"there are sgd, momentum, "):
        config(optimizer="xyzzy").validate()


@pytest.mark.parametrize(
    "bad",
    [
        {"learning_rate": 0.0},
        {"learning_rate": -1.0},
        {"beta1": 1.0},
        {"beta2": -0.1},
        {"rho": 1.0},
        {"momentum": 1.0},
        {"l1": -1.0},
        {"l2": -1.0},
        {"grad_clip": -1.0},
        {"schedule_rate": 0.0},
        {"warmup_updates": -1},
        {"epsilon": -1.0},
        {"optimizer": "nesterov", "momentum": 0.0},
        {"optimizer": "ftrl", "decoupled_l2": True},
        {"learning_rate": math.nan},
        {"l1": math.nan},
    ],
)
def test_optimizer_config_names_the_option_of_a_bad_value(bad: dict):
    with pytest.raises(ConfigError, match="^--"):
        config(**bad).validate()
