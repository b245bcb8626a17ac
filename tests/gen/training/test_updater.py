"""`Updater`: penalties, clipping, accumulation, workers, mixed precision and its saved state."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from genray.errors import ConfigError
from genray.gen.training.optimizers import OPTIMIZERS
from genray.gen.training.updater import Updater
from genray.gen.training.world import World
from tests.helpers.optimizers import (
    BETA1,
    BETA2,
    CONFIG,
    EPS,
    RATE,
    batch,
    config,
    loss_of,
    network,
    weights,
)


def one_step(**options) -> tuple[Tensor, Tensor, nn.Sequential]:
    """Make one step; returns the weights before and after, and the network."""
    net = network()
    before = weights(net)
    Updater(net.parameters(), config(**options)).step(loss_of(net, 0))
    return before, weights(net), net


@pytest.mark.parametrize("l1, l2", [(0.1, 0.0), (0.0, 0.3), (0.1, 0.3)])
def test_updater_penalises_weights_and_not_biases(l1: float, l2: float):
    net = network()
    matrices = [p for p in net.parameters() if p.ndim == 2]
    assert len(matrices) == 2
    loss = loss_of(net, 0) + sum(l1 * w.abs().sum() + l2 / 2 * w.square().sum() for w in matrices)
    Updater(net.parameters(), config(optimizer="momentum")).step(loss)
    torch.testing.assert_close(one_step(optimizer="momentum", l1=l1, l2=l2)[1], weights(net))


@pytest.mark.parametrize(
    "options", [{"optimizer": "adamw"}, {"optimizer": "adam", "decoupled_l2": True}]
)
def test_decoupled_l2_equals_adamw_of_pytorch(options: dict):
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


def test_proximal_optimizers_do_not_penalise_biases():
    before, after, net = one_step(optimizer="proximal-gradient-descent", learning_rate=1e-6, l1=1e6)
    assert all((p == 0).all() for p in net.parameters() if p.ndim == 2)
    assert (net[0].bias != 0).all()
    assert not torch.equal(before, after)


def test_updater_clips_the_norm_and_keeps_the_direction():
    before, free, _ = one_step(optimizer="sgd")
    _, clipped, _ = one_step(optimizer="sgd", grad_clip=0.1)
    step, bounded = (free - before) / RATE, (clipped - before) / RATE
    assert step.norm() > 0.2 and bounded.norm() == pytest.approx(0.1, rel=1e-3)
    torch.testing.assert_close(bounded / bounded.norm(), step / step.norm(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(one_step(optimizer="sgd", grad_clip=100.0)[1], free)


@pytest.mark.parametrize("options", [{}, {"grad_clip": 0.1}, {"l2": 0.1, "l1": 0.01}])
def test_updater_with_accumulation_equals_a_larger_batch(options: dict):
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


def test_updater_gives_gradients_to_its_own_parameters_only():
    generator, discriminator = network(0), network(1)
    updater = Updater(generator[0].parameters(), CONFIG)
    x, _ = batch(0)
    updater.step(discriminator[0](x + generator(x).sum()).sum())
    assert all(p.grad is None for p in [*discriminator.parameters(), *generator[3].parameters()])
    assert all(p.grad is not None for p in generator[0].parameters())


def test_updater_averages_gradients_over_workers(monkeypatch: pytest.MonkeyPatch):
    """One process simulates two workers: the second worker's gradient is twice the first's."""
    alone, shared = network(), network()
    monkeypatch.setattr("torch.distributed.all_reduce", lambda tensor: tensor.mul_(3))  # g + 2g
    Updater(alone.parameters(), config(optimizer="sgd", learning_rate=1.5 * RATE)).step(
        loss_of(alone, 0)
    )
    Updater(shared.parameters(), config(optimizer="sgd"), world=World(0, 2)).step(
        loss_of(shared, 0)
    )
    torch.testing.assert_close(weights(shared), weights(alone))


def test_updater_refuses_float16_without_a_gpu():
    net = network()
    with pytest.raises(ConfigError, match="--amp float16: needs a GPU"):
        Updater(net.parameters(), CONFIG, amp="float16").step(loss_of(net, 0))


@pytest.mark.gpu
def test_updater_with_float16_scales_the_loss_and_skips_an_overflow():
    net = network().cuda()
    updater = Updater(net.parameters(), config(optimizer="sgd"), amp="float16")
    x = batch(0)[0].cuda()
    updater.step(net(x).square().mean())
    plain = copy.deepcopy(net)
    updater.step(net(x).square().mean() * math.inf)
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), net.parameters()))


# -- saved state -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("cut", [0, 3, 4])
def test_updater_resumes_bit_exactly(name: str, cut: int, tmp_path):
    """The state goes through a file, also within an accumulation (3 is odd), with all options."""
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


def test_updater_refuses_the_state_of_other_parameters():
    state = Updater(network()[0].parameters(), CONFIG).state_dict()
    with pytest.raises(ValueError, match="doesn't match the size"):
        Updater(network().parameters(), CONFIG).load_state_dict(state)


def test_updater_refuses_the_state_of_another_optimizer_and_takes_one_without_a_name():
    state = Updater(network().parameters(), config(optimizer="adam")).state_dict()
    other = Updater(network().parameters(), config(optimizer="rmsprop"))
    with pytest.raises(
        ValueError,
        match="--optimizer rmsprop: the checkpoint has the state of adam.*; resume with --optim",
    ):
        other.load_state_dict(state)
    del state["name"]
    Updater(network().parameters(), config(optimizer="adam")).load_state_dict(state)
