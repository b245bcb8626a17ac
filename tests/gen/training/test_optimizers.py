"""Optimizers by name against the published rules in NumPy, and what `Updater` does around them."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from genray.errors import ConfigError
from genray.gen.training.optimizers import (
    OPTIMIZERS,
    OptimizerConfig,
    Updater,
    make_optimizer,
    optimizer_name,
)
from genray.gen.training.schedules import SCHEDULES, factor, needs_total
from genray.gen.training.world import World

GRADIENTS = np.array(
    [[0.1, -20.0, 0.3], [0.2, 10.0, -0.3], [-0.4, 5.0, 0.0], [0.3, -7.0, 0.1], [0.2, 1.0, 0.2]]
)
START = np.array([1.0, -2.0, 0.5])
RATE, BETA1, BETA2, RHO, MU, EPS = 0.05, 0.8, 0.95, 0.9, 0.7, 1e-6
CONFIG = OptimizerConfig(
    learning_rate=RATE, beta1=BETA1, beta2=BETA2, rho=RHO, momentum=MU, epsilon=EPS
)


def config(**options) -> OptimizerConfig:
    return OptimizerConfig(**{**vars(CONFIG), **options})


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Tanh(), nn.Linear(5, 2))


def batch(number: int, rows: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(number)
    return torch.randn(rows, 4, generator=generator), torch.randn(rows, 2, generator=generator)


def loss_of(net: nn.Module, number: int, rows: slice = slice(None)) -> Tensor:
    x, y = batch(number)
    return (net(x[rows]) - y[rows]).square().mean()


def weights(net: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten().clone() for parameter in net.parameters()])


# -- the rules -------------------------------------------------------------------------------------
# A rule: (gradient, state of one's own, number of the step from 1) → what is added to w.


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
    # both powers grow with t: the slides' β₁⁵ is a slip
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
def test_the_rule_is_the_published_one(name: str):
    w, state = START.copy(), {}
    parameter = nn.Parameter(torch.tensor(START))
    optimizer = make_optimizer([parameter], config(optimizer=name))
    for t, g in enumerate(GRADIENTS, start=1):
        w = w + RULES[name](g, state, t)
        parameter.grad = torch.tensor(g)
        optimizer.step()
        np.testing.assert_allclose(parameter.detach().numpy(), w, rtol=1e-9, err_msg=f"step {t}")


def test_adagrads_effective_rates():
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
def test_every_name_learns(name: str):
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


def test_names_are_forgiving_and_wrong_ones_get_neighbours():
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
def test_bad_values_name_their_option(bad: dict):
    with pytest.raises(ConfigError, match="^--"):
        config(**bad).validate()


# -- schedules -------------------------------------------------------------------------------------


def test_schedules_by_hand():
    def at(schedule: str, *updates: int, **options) -> list[float]:
        return [factor(schedule, update, 100, **options) for update in updates]

    assert at("constant", 0, 50, 1000) == [1, 1, 1]
    assert at("inverse-sqrt", 0, 3, 99) == [1, 1 / 2, 1 / 10]
    assert at("cosine", 0, 50, 100, 200) == pytest.approx([1, 0.5, 0, 0], abs=1e-15)
    assert at("linear", 0, 25, 100, 200) == [1, 0.75, 0, 0]
    assert at("step", 0, 33, 34, 66, 67, 500) == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    assert at("exponential", 0, 50, 100, 200, rate=0.01) == pytest.approx([1, 0.1, 0.01, 0.01])
    assert at("one-cycle", 0, 15, 30, 100) == pytest.approx([0.04, 0.52, 1, 4e-6])
    assert at("constant", 0, 1, 3, 4, warmup=4) == [0.25, 0.5, 1, 1]
    assert [factor("step", update, 3) for update in range(4)] == pytest.approx([1, 0.1, 0.01, 0.01])
    with pytest.raises(ValueError, match="no schedule 'steps'"):
        factor("steps", 0, 1)


@pytest.mark.parametrize(
    "name, theirs",
    [
        ("cosine", lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 60)),
        ("linear", lambda o: torch.optim.lr_scheduler.LinearLR(o, 1.0, 0.0, 60)),
        ("step", lambda o: torch.optim.lr_scheduler.StepLR(o, 20, 0.1)),
        ("exponential", lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.1 ** (1 / 60))),
        ("inverse-sqrt", lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: (t + 1) ** -0.5)),
        # Theirs counts to the last update, total − 1, where ours would stand at total.
        (
            "one-cycle",
            lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 1.0, 61, pct_start=19 / 61, cycle_momentum=False
            ),
        ),
    ],
)
def test_schedules_are_pytorchs(name: str, theirs):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs(optimizer)
    for update in range(60):
        assert factor(name, update, 60) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        ), update
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_updater_follows_the_schedule(schedule: str):
    net = network()
    updater = Updater(
        net.parameters(),
        config(optimizer="sgd", schedule=schedule, warmup_updates=2),
        total_updates=6,
    )
    for number in range(6):
        rate = RATE * factor(schedule, number, 6, warmup=2)
        assert updater.learning_rate == rate
        before = weights(net)
        updater.step(loss_of(net, number))
        gradient = torch.cat([p.grad.flatten() for p in net.parameters() if p.grad is not None])
        torch.testing.assert_close(weights(net), before - rate * gradient)


def test_a_schedule_that_needs_an_end_says_so():
    assert not needs_total("inverse-sqrt") and needs_total("cosine")
    with pytest.raises(ConfigError, match="--schedule cosine: needs to know the number of updates"):
        Updater(network().parameters(), config(schedule="cosine"))


# -- penalties, clipping, accumulation -------------------------------------------------------------


def one_step(**options) -> tuple[Tensor, Tensor, nn.Sequential]:
    """(weights before, after, the network) of one step."""
    net = network()
    before = weights(net)
    Updater(net.parameters(), config(**options)).step(loss_of(net, 0))
    return before, weights(net), net


@pytest.mark.parametrize("l1, l2", [(0.1, 0.0), (0.0, 0.3), (0.1, 0.3)])
def test_penalties_are_the_losss_on_weights_alone(l1: float, l2: float):
    net = network()
    matrices = [p for p in net.parameters() if p.ndim == 2]
    assert len(matrices) == 2
    loss = loss_of(net, 0) + sum(l1 * w.abs().sum() + l2 / 2 * w.square().sum() for w in matrices)
    Updater(net.parameters(), config(optimizer="momentum")).step(loss)
    torch.testing.assert_close(one_step(optimizer="momentum", l1=l1, l2=l2)[1], weights(net))


@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw"}, {"optimizer": "adam", "decoupled_l2": True}]
)
def test_decoupled_l2_is_adamws(options: dict):
    net = network()
    matrices = [p for p in net.parameters() if p.ndim == 2]
    rest = [p for p in net.parameters() if p.ndim < 2]
    theirs = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.3}, {"params": rest, "weight_decay": 0.0}],
        lr=RATE, betas=(BETA1, BETA2), eps=EPS,
    )  # fmt: skip
    mine = copy.deepcopy(net)
    updater = Updater(mine.parameters(), config(l2=0.3, **options))
    for number in range(5):
        theirs.zero_grad()
        loss_of(net, number).backward()
        theirs.step()
        updater.step(loss_of(mine, number))
    torch.testing.assert_close(weights(mine), weights(net))


def test_the_proximal_rules_spare_biases():
    before, after, net = one_step(optimizer="proximal-gradient-descent", learning_rate=1e-6, l1=1e6)
    assert all((p == 0).all() for p in net.parameters() if p.ndim == 2)
    assert (net[0].bias != 0).all()
    assert not torch.equal(before, after)


def test_clipping_bounds_the_norm_and_keeps_the_direction():
    before, free, _ = one_step(optimizer="sgd")
    _, clipped, _ = one_step(optimizer="sgd", grad_clip=0.1)
    step, bounded = (free - before) / RATE, (clipped - before) / RATE
    assert step.norm() > 0.2 and bounded.norm() == pytest.approx(0.1, rel=1e-3)
    torch.testing.assert_close(bounded / bounded.norm(), step / step.norm(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one_step(optimizer="sgd", grad_clip=100.0)[1], free)


@pytest.mark.parametrize("options", [{}, {"grad_clip": 0.1}, {"l2": 0.1, "l1": 0.01}])
def test_accumulation_is_the_larger_batch(options: dict):
    whole, parts = network(), network()
    one = Updater(whole.parameters(), config(optimizer="momentum", **options))
    three = Updater(parts.parameters(), config(optimizer="momentum", **options), accumulate=3)
    for number in range(4):
        one.step(loss_of(whole, number))
        for part in range(3):
            before = weights(parts)
            three.step(loss_of(parts, number, slice(2 * part, 2 * part + 2)))
            assert torch.equal(before, weights(parts)) == (part < 2)
        torch.testing.assert_close(weights(parts), weights(whole))
    assert three.updates == 4


def test_only_its_own_parameters_get_gradients():
    generator, discriminator = network(0), network(1)
    updater = Updater(generator[0].parameters(), CONFIG)
    x, _ = batch(0)
    updater.step(discriminator[0](x + generator(x).sum()).sum())
    assert all(p.grad is None for p in [*discriminator.parameters(), *generator[3].parameters()])
    assert all(p.grad is not None for p in generator[0].parameters())


def test_workers_take_the_mean_of_their_gradients(monkeypatch: pytest.MonkeyPatch):
    """Two workers in one process: the other's gradient is twice this one's."""
    alone, shared = network(), network()
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(3))  # g + 2g
    Updater(alone.parameters(), config(optimizer="sgd", learning_rate=1.5 * RATE)).step(
        loss_of(alone, 0)
    )
    Updater(shared.parameters(), config(optimizer="sgd"), world=World(0, 2)).step(
        loss_of(shared, 0)
    )
    torch.testing.assert_close(weights(shared), weights(alone))


def test_float16_is_refused_where_it_cannot_work():
    net = network()
    with pytest.raises(ConfigError, match="--amp float16: needs a GPU"):
        Updater(net.parameters(), CONFIG, amp="float16").step(loss_of(net, 0))


# -- keeping ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cut", [0, 3, 4])
def test_a_restored_updater_continues_bit_for_bit(name: str, cut: int, tmp_path):
    """Through a file, also inside an accumulation (3 is odd), with everything switched on."""
    penalties = {
        "l1": 1e-4,
        "l2": 1e-3,
        "grad_clip": 1.0,
        "schedule": "cosine",
        "warmup_updates": 2,
    }

    def make(net: nn.Module) -> Updater:
        return Updater(
            net.parameters(), config(optimizer=name, **penalties), total_updates=5, accumulate=2
        )

    net = network()
    updater = make(net)
    for number in range(8):
        if number == cut:
            torch.save((net.state_dict(), updater.state_dict()), tmp_path / "state.pt")
        updater.step(loss_of(net, number))

    state, kept = torch.load(tmp_path / "state.pt", weights_only=True)
    again = network(seed=9)
    again.load_state_dict(state)
    restored = make(again)
    restored.load_state_dict(kept)
    for number in range(cut, 8):
        restored.step(loss_of(again, number))
    assert torch.equal(weights(again), weights(net))


def test_a_foreign_state_is_refused():
    state = Updater(network()[0].parameters(), CONFIG).state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):
        Updater(network().parameters(), CONFIG).load_state_dict(state)


def test_the_state_of_another_optimizer_is_refused_and_one_without_a_name_taken():
    state = Updater(network().parameters(), config(optimizer="adam")).state_dict()
    other = Updater(network().parameters(), config(optimizer="rmsprop"))
    with pytest.raises(
        ValueError, match="--optimizer rmsprop: it was trained with adam.*; resume with adam"
    ):
        other.load_state_dict(state)
    del state["name"]
    Updater(network().parameters(), config(optimizer="adam")).load_state_dict(state)


@pytest.mark.gpu
def test_float16_scales_the_loss_and_skips_what_overflows():
    net = network().cuda()
    updater = Updater(net.parameters(), config(optimizer="sgd"), amp="float16")
    x = batch(0)[0].cuda()
    updater.step(net(x).square().mean())
    plain = copy.deepcopy(net)
    updater.step(net(x).square().mean() * math.inf)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), net.parameters()))
