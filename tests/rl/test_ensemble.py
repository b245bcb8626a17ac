"""Tests ensembles: who acts, who learns from what, resets, export and errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl import presets
from genray.rl.building import make_network, update_flop
from genray.rl.engine import network_card
from genray.rl.ensemble import EnsembleNetwork
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.observation import Field, Observation
from genray.rl.portable import PortableNetwork
from genray.rl.resets import fresh_network, reset
from tests.helpers.batches import ACTIONS, SIDE, random_batch
from tests.helpers.efficient import TINY_BBF

MEMBERS = 3
SHAPE = NetworkConfig(
    channels=(4, 4, 4), hidden=8, head="c51", atoms=5, shared_hidden=True, median_frame=True,
    input_gain=4.0, ensemble=MEMBERS,
)  # fmt: skip
SINGLE = replace(SHAPE, ensemble=1)
LEARNS = LearnerConfig(
    optimizer="adamw", weight_decay=0.1, learning_rate=1e-2, max_grad_norm=0.05, target_tau=0.3,
    acting_network="target",
)  # fmt: skip


def network(seed: int, shape: NetworkConfig = SHAPE) -> QNetwork:
    torch.manual_seed(seed)
    made = make_network(shape, ACTIONS, 1, (SIDE, SIDE))
    for each in made.separate:  # large Q-values, which differ between members and actions
        each.advantage[-1].weight.data.mul_(20)
    return made


def frames(count: int) -> torch.Tensor:
    return torch.from_numpy(random_batch(count, seed=7).obs_BSHW)


def alone(ensemble: QNetwork, index: int) -> QNetwork:
    """Return member `index` as a network of its own, with the median frame and the gain."""
    one = QNetwork(SINGLE, ACTIONS, 1, (SIDE, SIDE))
    one.load_state_dict({"median_HW": ensemble.median_HW, **ensemble.separate[index].state_dict()})
    return one


def rows_of(index: int, size: int):
    """Return the part of a batch of `size` from which member `index` learns."""
    batch = random_batch(size, seed=3, spread=3.0)
    return replace(batch, **{name: array[index::MEMBERS] for name, array in vars(batch).items()})


def test_the_mean_of_the_q_values_acts():
    ensemble = network(0)
    ensemble.set_median(frames(5).flatten(0, 1))
    assert isinstance(ensemble, EnsembleNetwork)
    expected = sum(alone(ensemble, index)(frames(6)) for index in range(MEMBERS)) / MEMBERS
    torch.testing.assert_close(ensemble(frames(6)), expected)
    assert (alone(ensemble, 0)(frames(6)) - expected).abs().max() > 0.1


def test_a_row_has_the_outputs_of_the_member_that_learns_from_it():
    ensemble = network(0)
    found = ensemble(frames(7 * MEMBERS), raw=True)
    for row, outputs in enumerate(found):
        one = alone(ensemble, row % MEMBERS)
        expected = one(frames(7 * MEMBERS)[row : row + 1], raw=True)[0]
        torch.testing.assert_close(outputs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("double", [True, False])
def test_an_update_is_that_of_each_member_alone(double):
    """The members are as after updates of their own, with gradients clipped one by one."""
    config, size = replace(LEARNS, double=double), 4 * MEMBERS
    together = Learner(config, network(0), network(1))
    apart = [
        Learner(config, alone(together.online, index), alone(together.online, index))
        for index in range(MEMBERS)
    ]
    for one in apart:  # the median frame is that of the whole batch
        one.find_median(random_batch(size, seed=3, spread=3.0))
    for _ in range(3):
        found = together.update(random_batch(size, seed=3, spread=3.0), size, beta=0.5)
        updates = [
            one.update(rows_of(index, size), size, beta=0.5) for index, one in enumerate(apart)
        ]
    assert max(update.grad_norm for update in updates) > config.max_grad_norm
    for index, (one, update) in enumerate(zip(apart, updates)):
        np.testing.assert_allclose(found.delta_B[index::MEMBERS], update.delta_B, rtol=1e-3)
        for net, whole in ((one.online, together.online), (one.target, together.target)):
            for name, tensor in alone(whole, index).state_dict().items():
                torch.testing.assert_close(
                    tensor, net.state_dict()[name], rtol=1e-4, atol=2e-5, msg=name
                )
    assert found.grad_norm == pytest.approx(np.mean([each.grad_norm for each in updates]), rel=1e-3)


def test_images_of_records_keep_their_gain():
    """Packed records reach the members as they are."""
    image = Field(name="map", kind="image", shape=(12, 12, 1), dtype="uint8", channels="last")
    of_maps = Observation(fields=(image,))
    shape = replace(SHAPE, median_frame=False, encoder="nature")
    torch.manual_seed(0)
    ensemble = make_network(shape, ACTIONS, 1, of_maps.frame_shape, of_maps)
    maps = np.random.default_rng(0).integers(0, 256, (6, 12, 12, 1), np.uint8)
    records = torch.from_numpy(of_maps.pack({"map": maps})[:, None])
    expected = []
    for member in ensemble.separate:
        one = make_network(replace(shape, ensemble=1), ACTIONS, 1, of_maps.frame_shape, of_maps)
        one.load_state_dict(member.state_dict())
        expected.append(one(records))
    torch.testing.assert_close(ensemble(records), torch.stack(expected).mean(0))


def test_members_begin_with_different_weights():
    ensemble = network(0)
    first, second, third = (member.state_dict() for member in ensemble.separate)
    for name in first:
        if name.endswith("weight"):
            assert not torch.equal(first[name], second[name])
            assert not torch.equal(second[name], third[name])


def test_a_reset_shrinks_every_encoder_and_renews_all_else():
    one, fresh = network(0), fresh_network(network(5), (1, 2))
    one.set_median(frames(3).flatten(0, 1))
    before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
    reset(one, fresh, keep=0.8)
    new = fresh.state_dict()
    for name, tensor in one.state_dict().items():
        expected = new[name]
        if ".convolutions." in name:
            expected = 0.8 * before[name] + 0.2 * new[name]
        elif name == "median_HW":
            expected = before[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-6, atol=1e-7)


def test_the_exported_network_computes_the_same_q_values():
    ensemble = network(0).eval()
    ensemble.set_median(frames(5).flatten(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(
            PortableNetwork(ensemble)(frames(6)), ensemble(frames(6)), rtol=1e-5, atol=1e-5
        )


def test_an_update_costs_that_of_one_network_on_the_whole_batch():
    config = replace(TINY_BBF, network=SHAPE)
    whole = update_flop(network_card(config, ACTIONS, (84, 84)), 96)
    one = update_flop(network_card(replace(config, network=SINGLE), ACTIONS, (84, 84)), 96)
    assert whole == pytest.approx(one)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"network": {"ensemble": 3}}, "--ensemble 3: every network needs an equal part"),
        ({"network": {"ensemble": 17}}, "--ensemble 17: must lie in 1..16"),
        (
            {"network": {"ensemble": 2}, "learner": {"prediction_steps": 2}},
            "--prediction-steps 2: not with --ensemble 2; use --ensemble 1",
        ),
        ({"network": {"ensemble": 2, "lstm_units": 8}}, "--lstm-units 8: not with --ensemble 2"),
    ],
)
def test_what_does_not_go_together_is_refused(options, words):
    config = presets.bbf_lite()
    config = replace(config, learner=replace(config.learner, batch_size=32))
    for part, changes in options.items():
        config = replace(config, **{part: replace(getattr(config, part), **changes)})
    with pytest.raises(ConfigError, match=f"^{words}"):
        config.validate()
