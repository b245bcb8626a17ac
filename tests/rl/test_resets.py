"""Tests resets: which tensors change, what begins again, and what stays."""

from dataclasses import replace

import torch

from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.resets import fresh_network, reset
from tests.helpers.batches import ACTIONS, SIDE, random_batch

SHAPE = NetworkConfig(
    channels=(4, 4, 4), hidden=8, head="c51", atoms=5, shared_hidden=True, median_frame=True,
    layer_norm=True,
)  # fmt: skip


def network(seed: int) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(SHAPE, ACTIONS, 1, (SIDE, SIDE))


def learner(config: LearnerConfig, seed: int = 3) -> Learner:
    return Learner(config, network(0), network(1), seed=seed)


def first_weight(network: QNetwork) -> torch.Tensor:
    return network.state_dict()["hidden.0.weight"]


def test_reset_changes_exactly_the_named_tensors():
    one, fresh = network(0), fresh_network(network(5), (1, 2))
    one.set_median(torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8))
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    reset(one, fresh, keep=0.8)
    new = fresh.state_dict()
    for name, tensor in one.state_dict().items():
        if name.startswith("convolutions."):
            expected = 0.8 * before[name] + 0.2 * new[name]
        elif name == "median_HW":
            expected = before[name]
        else:
            assert name.split(".")[0] in ("hidden", "advantage", "value")
            expected = new[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)


def test_reset_that_keeps_all_leaves_the_encoder():
    one = network(0)
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    reset(one, fresh_network(one, (1,)), keep=1.0)
    same = [name for name, tensor in one.state_dict().items() if torch.equal(before[name], tensor)]
    assert {name for name in before if name.startswith("convolutions.")} < set(same)
    assert not any(name.endswith("0.weight") for name in set(same) if "conv" not in name)


def test_fresh_network_depends_on_its_seed_alone():
    torch.manual_seed(9)
    expected = torch.rand(1)
    torch.manual_seed(9)
    one, again, other = (fresh_network(network(0), seed) for seed in ((1, 4), (1, 4), (1, 5)))
    torch.manual_seed(9)
    fresh_network(one, (8,))
    assert torch.rand(1) == expected  # the global random state did not change
    assert torch.equal(first_weight(one), first_weight(again))
    assert not torch.equal(first_weight(one), first_weight(other))


def test_learner_resets_every_period_before_the_next_update():
    """After the third update nothing is reset yet, so a run never ends with new weights."""
    config = LearnerConfig(reset_every=3, reset_keep=1.0, learning_rate=1e-3, average_updates=10)
    one, twin = learner(config), learner(replace(config, reset_every=0))
    for number in range(3):
        for each in (one, twin):
            each.update(random_batch(8, number), 8, 0.4)
    assert all(torch.equal(a, b) for a, b in zip(one.policy().values(), twin.policy().values()))
    one.update(random_batch(8, 3), 8, 0.4)
    fresh = fresh_network(one.online, (3, 4, 3))
    online_w, target_w, new_w = (first_weight(each) for each in (one.online, one.target, fresh))
    moved = (online_w - new_w).abs().max()
    assert 0 < moved <= 1.1e-3  # one step of Adam from the new weights
    # w⁻ was reset in the same way, the optimizer began anew, and so did the average.
    assert torch.equal(target_w, new_w)
    state = one.optimizer.state_dict()["state"]
    assert {int(each["step"]) for each in state.values()} == {1}
    assert one.average is not None
    assert all(torch.equal(a, b) for a, b in zip(one.average.parameters(), one.online.parameters()))


def test_soft_target_moves_by_tau_and_acts():
    config = LearnerConfig(target_tau=0.1, acting_network="target", learning_rate=1e-2)
    one = learner(config)
    slow = [p.detach().clone() for p in one.target.parameters()]
    for number in range(4):
        one.update(random_batch(8, number), 8, 0.4)
        slow = [old + 0.1 * (p.detach() - old) for old, p in zip(slow, one.online.parameters())]
    for mine, expected in zip(one.target.parameters(), slow):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-6)
    assert one.acting is one.target
    for weights in (one.weights(), one.policy()):
        assert torch.equal(
            weights["advantage.0.weight"], one.target.state_dict()["advantage.0.weight"]
        )
    # The median frame came from the first batch, and both networks have it.
    frames = random_batch(8, 0)
    both = torch.cat([torch.from_numpy(frames.obs_BSHW), torch.from_numpy(frames.next_obs_BSHW)])
    median = both.flatten(0, 1).median(0).values / 255
    for each in (one.online, one.target):
        torch.testing.assert_close(each.median_HW, median)


def test_adamw_decays_matrices_and_not_biases():
    """With gradients of 0, a step is w ← w − η λ w alone."""
    config = LearnerConfig(optimizer="adamw", weight_decay=0.5, learning_rate=0.1)
    one = learner(config)
    with torch.no_grad():
        for weight in one.online.parameters():
            weight.add_(1.0)
    before = [p.detach().clone() for p in one.online.parameters()]
    for weight in one.online.parameters():
        weight.grad = torch.zeros_like(weight)
    one.optimizer.step()
    for old, new in zip(before, one.online.parameters()):
        torch.testing.assert_close(new, old * (0.95 if old.ndim > 1 else 1.0))


def test_resumed_learner_decays_weights_by_its_own_option():
    config = LearnerConfig(optimizer="adamw", weight_decay=0.5)
    one, resumed = learner(config), learner(replace(config, weight_decay=0.1, learning_rate=1e-3))
    one.update(random_batch(8), 8, 0.4)
    resumed.load_state_dict(one.state_dict())
    groups = resumed.optimizer.param_groups
    assert [(group["weight_decay"], group["lr"]) for group in groups] == [(0.1, 1e-3), (0.0, 1e-3)]
