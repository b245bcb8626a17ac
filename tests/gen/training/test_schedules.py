"""Learning-rate schedules, by hand, against PyTorch's, and as `Updater` follows them."""

import pytest
import torch

from genray.errors import ConfigError
from genray.gen.training.schedules import SCHEDULES, factor, needs_total
from genray.gen.training.updater import Updater
from tests.helpers.optimizers import RATE, config, loss_of, network, weights


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
        # PyTorch's schedule ends at the last update, total − 1; `factor` ends at total.
        (
            "one-cycle",
            lambda o: torch.optim.lr_scheduler.OneCycleLR(
                o, 1.0, 61, pct_start=19 / 61, cycle_momentum=False
            ),
        ),
    ],
)
def test_schedules_equal_pytorchs(name: str, theirs):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = theirs(optimizer)
    for update in range(60):
        assert factor(name, update, 60) == pytest.approx(
            optimizer.param_groups[0]["lr"], abs=1e-9
        ), update
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_updater_follows_the_schedule(schedule: str):
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


def test_updater_refuses_a_schedule_without_a_number_of_updates():
    assert not needs_total("inverse-sqrt") and needs_total("cosine")
    with pytest.raises(ConfigError, match="--schedule cosine: needs the number of updates"):
        Updater(network().parameters(), config(schedule="cosine"))
