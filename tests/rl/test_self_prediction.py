"""Tests self-prediction: its loss on fixed vectors, its states against a slow loop, its updates."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional

from genray.errors import ConfigError
from genray.rl import presets
from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.self_prediction import (
    SelfPrediction,
    first_layers,
    latent,
    later_observations,
    normalised,
    prediction_loss,
    prediction_targets,
    project,
)
from tests.helpers.batches import ACTIONS, SIDE, random_batch

SHAPE = NetworkConfig(channels=(4, 4, 16), hidden=6)
STEPS = 3
CONFIG = LearnerConfig(
    double=False, max_grad_norm=0, prediction_steps=STEPS, prediction_weight=2.0, target_tau=0.5
)


def network(seed: int, shape: NetworkConfig = SHAPE) -> QNetwork:
    torch.manual_seed(seed)
    return QNetwork(shape, ACTIONS, 1, (SIDE, SIDE))


def learner(config: LearnerConfig = CONFIG, shape: NetworkConfig = SHAPE) -> Learner:
    """A learner whose w differs from its w⁻."""
    one = Learner(config, network(0, shape), network(1, shape), seed=3)
    one.online.load_state_dict(network(7, shape).state_dict())
    return one


def test_prediction_loss_by_hand():
    """cos((3, 4), (4, 3)) = 24/25, cos((1, 0), (0, 2)) = 0, cos((1, 1), (−2, −2)) = −1."""
    prediction_JBP = torch.tensor([[[3.0, 4], [1, 0]], [[1, 1], [5, 5]]], requires_grad=True)
    target_JBP = torch.tensor([[[4.0, 3], [0, 2]], [[-2, -2], [1, 0]]], requires_grad=True)
    known_BJ = torch.tensor([[True, True], [True, False]])
    loss_B = prediction_loss(prediction_JBP, target_JBP, known_BJ)
    torch.testing.assert_close(loss_B.detach(), torch.tensor([(0.08 + 4) / 2, (2 + 0) / 2]))
    loss_B.sum().backward()
    # The loss pulls the predictions alone, and none after the end of an episode. The gradient of
    # 2 − 2 cos for p = (1, 0) and t = (0, 2) is −2 (t/|t| − cos p/|p|) / |p|, divided by J = 2.
    assert target_JBP.grad is None and prediction_JBP.grad is not None
    torch.testing.assert_close(prediction_JBP.grad[0, 1], torch.tensor([0.0, -1.0]))
    assert not prediction_JBP.grad[1, 1].any()


def test_later_observations_are_the_stacks_of_the_next_steps():
    torch.manual_seed(0)
    net = QNetwork(NetworkConfig(channels=(2, 2, 2), hidden=4), ACTIONS, 4, (SIDE, SIDE))
    number_BT = torch.tensor([[0, 1, 2, 3, 4, 5], [10, 11, 12, 13, 14, 15]], dtype=torch.uint8)
    block_BTHW = number_BT[..., None, None].expand(-1, -1, SIDE, SIDE).contiguous()
    found = later_observations(block_BTHW, net, LearnerConfig(), None)
    expected = [[1, 2, 3, 4], [11, 12, 13, 14], [2, 3, 4, 5], [12, 13, 14, 15]]
    torch.testing.assert_close(found[:, :, 5, 9] * 255, torch.tensor(expected).float())
    # Augmented, each later observation has draws of its own.
    config, random = LearnerConfig(intensity=0.1), torch.Generator().manual_seed(1)
    ratio_NS = later_observations(block_BTHW, net, config, random)[:, :, 0, 0] / found[:, :, 0, 0]
    torch.testing.assert_close(ratio_NS, ratio_NS[:, :1].expand(-1, 4))
    assert len(set(ratio_NS[:, 0].tolist())) == 4


def slow_state(net: QNetwork, frames: np.ndarray) -> torch.Tensor:
    """The normalised latent state of one observation, [1, C, H, W]."""
    x = torch.from_numpy(frames)[None] / 255
    for layer in list(net.convolutions)[:-1]:
        x = layer(x)
    return (x - x.min()) / (x.max() - x.min() + 1e-5)


def slow_projection(net: QNetwork, state: torch.Tensor) -> torch.Tensor:
    assert net.value is not None
    layers = (net.advantage[0], net.value[0])
    return torch.cat([functional.linear(state.flatten(), f.weight, f.bias) for f in layers])


def slow_losses(one: Learner, batch) -> list[float]:
    """The loss of each transition, one step of one transition at a time."""
    losses = []
    assert one.prediction is not None
    first, _, second, _ = one.prediction.transition
    for i in range(batch.size):
        state, total = slow_state(one.online, batch.obs_BSHW[i, :1]), 0.0
        for j, action in enumerate(batch.later_BJ[i].tolist()):
            if action < 0:
                break
            planes = torch.zeros(1, ACTIONS, *state.shape[2:])
            planes[:, action] = 1
            x = torch.cat([state, planes], dim=1)
            x = functional.conv2d(x, first.weight, first.bias, padding=1).relu()
            x = functional.conv2d(x, second.weight, second.bias, padding=1).relu()
            state = (x - x.min()) / (x.max() - x.min() + 1e-5)
            p = one.prediction.predictor(slow_projection(one.online, state))
            t = slow_projection(
                one.target, slow_state(one.target, batch.obs_BSHW[i, j + 1 : j + 2])
            )
            total += float((p / p.norm() - t / t.norm()).square().sum())
        losses.append(total / STEPS)
    return losses


@pytest.mark.parametrize("weighting", [False, True])
def test_update_adds_the_loss_of_the_slow_loop_and_keeps_delta(weighting: bool):
    """The loss is that of Q-learning plus weight · self-prediction, both times the importance
    weights; δ, and so the priorities, are those without self-prediction.
    """
    batch = random_batch(
        9, later=STEPS, probability_B=np.linspace(0.01, 0.2, 9) if weighting else None
    )
    one = learner()
    plain = learner(replace(CONFIG, prediction_steps=0))
    with torch.no_grad():
        expected_B = 2.0 * np.array(slow_losses(one, batch))
    weight_B = (9 * batch.probability_B) ** -0.5
    expected = float((expected_B * weight_B / weight_B.max()).mean())
    with_prediction = one.update(batch, 9, 0.5)
    without = plain.update(random_batch(9, probability_B=batch.probability_B), 9, 0.5)
    np.testing.assert_allclose(with_prediction.delta_B, without.delta_B, rtol=1e-6)
    assert with_prediction.loss - without.loss == pytest.approx(expected, rel=1e-4)
    assert expected > 0.1


def test_gradient_reaches_w_and_the_prediction_but_not_the_targets():
    one, batch = learner(), random_batch(6, later=STEPS)
    assert one.prediction is not None
    block, later_BJ = torch.from_numpy(batch.obs_BSHW), torch.from_numpy(batch.later_BJ)
    later = later_observations(block, one.online, CONFIG, None)
    targets = prediction_targets(one.online, later, STEPS)  # even w itself gets no gradient here
    assert not targets.requires_grad

    def loss() -> torch.Tensor:
        assert one.prediction is not None
        states = latent(one.online, block[:, :1])[0]
        prediction = one.prediction.predict(states, later_BJ, one.online)
        return prediction_loss(prediction, targets, later_BJ >= 0).sum()

    loss().backward()
    for name, weight in one.trained.named_parameters():
        reached = weight.grad is not None and bool(weight.grad.any())
        in_output_layer = ".advantage.2." in name or ".value.2." in name
        assert reached != in_output_layer, name
    # The gradient is that of the predictions alone: the targets are constants.
    before = one.prediction.predictor.bias
    assert before.grad is not None
    step = 1e-3
    with torch.no_grad():
        base = loss()
        before -= step * before.grad
        drop = float(base - loss())
    assert drop == pytest.approx(step * float(before.grad.square().sum()), rel=0.05)


def test_self_prediction_learns_a_rule_of_motion():
    """A dot moves by the action's number of pixels: the loss of new transitions falls."""
    config = replace(CONFIG, learning_rate=2e-3, prediction_weight=1.0, target_tau=0.05)
    one = learner(config, replace(SHAPE, channels=(8, 8, 8), hidden=32))

    def moving(seed: int):
        batch, rng = random_batch(32, seed, later=STEPS), np.random.default_rng(seed)
        place_BT = np.zeros((32, 1 + STEPS), int)
        later_BJ = rng.integers(0, ACTIONS, (32, STEPS)).astype(np.int16)
        place_BT[:, 0] = rng.integers(0, 12, 32)
        place_BT[:, 1:] = place_BT[:, :1] + 3 * later_BJ.cumsum(axis=1)
        obs_BTHW = np.zeros_like(batch.obs_BSHW)
        for b, t in np.ndindex(*place_BT.shape):
            obs_BTHW[b, t, 12:24, place_BT[b, t] : place_BT[b, t] + 6] = 255
        still = {name: np.zeros(32, np.float32) for name in ("return_B", "discount_B")}
        return replace(batch, obs_BSHW=obs_BTHW, later_BJ=later_BJ, **still)

    def shuffled_loss(batch, order) -> float:
        """The loss of `batch` with the actions of other transitions."""
        assert one.prediction is not None
        block = torch.from_numpy(batch.obs_BSHW)
        later = later_observations(block, one.online, config, None)
        targets = prediction_targets(one.target, later, STEPS)
        actions = torch.from_numpy(batch.later_BJ)[order]
        with torch.no_grad():
            states = latent(one.online, block[:, :1])[0]
            predictions = one.prediction.predict(states, actions, one.online)
            return float(prediction_loss(predictions, targets, actions >= 0).mean())

    for number in range(150):
        one.update(moving(number), 32, 0.4)
    batch = moving(1_000)
    right, wrong = (
        shuffled_loss(batch, torch.arange(32)),
        shuffled_loss(batch, torch.arange(32) - 1),
    )
    assert right < 0.5 * wrong, (right, wrong)


def test_prediction_resets_with_the_network():
    config = replace(CONFIG, reset_every=2, reset_keep=0.75)
    one = SelfPrediction(network(0), config, (1,))
    before = {name: w.detach().clone() for name, w in one.named_parameters()}
    one.reset(network(0), (2,))
    new = dict(SelfPrediction(network(5), config, (2,)).named_parameters())
    for name, weight in one.named_parameters():
        share = 0.75 if name.startswith("transition.") else 0.0
        torch.testing.assert_close(weight, share * before[name] + (1 - share) * new[name])
    learner_of_resets = learner(config)
    for number in range(3):
        learner_of_resets.update(random_batch(8, number, later=STEPS), 8, 0.4)
    assert learner_of_resets.prediction is not None
    fresh = SelfPrediction(network(0), config, (3, 5, 2)).predictor.weight
    moved = (learner_of_resets.prediction.predictor.weight - fresh).abs().max()
    assert 0 < moved <= 1.1 * CONFIG.learning_rate


@pytest.mark.parametrize(
    "shape",
    [
        SHAPE,
        replace(SHAPE, shared_hidden=True, layer_norm=True, head="c51", atoms=5),
        replace(SHAPE, dueling=False, head="iqn", quantiles=4, noisy=0.5),
        NetworkConfig(encoder="impala", impala_width=0.25, spectral_norm=True, hidden=6),
        NetworkConfig(pooling="average", hidden=6),
    ],
)
def test_latent_gives_the_same_outputs_as_frames(shape: NetworkConfig):
    net = network(0, shape).eval()
    frames = torch.from_numpy(random_batch(5).obs_BSHW)
    latent_BCHW, features_BF = latent(net, frames)
    assert torch.equal(net(frames), net(frames, features_BF=features_BF))
    assert project(net, latent_BCHW).shape == (5, shape.hidden * len(first_layers(net)))
    prediction = SelfPrediction(net, CONFIG, (0,))
    state_BCHW = normalised(latent_BCHW)
    assert prediction.transition[2].out_channels == state_BCHW.shape[1]
    low, high = state_BCHW.flatten(1).amin(1), state_BCHW.flatten(1).amax(1)
    torch.testing.assert_close(low, torch.zeros(5))
    assert ((high > 0.99) | (state_BCHW.flatten(1).amax(1) == 0)).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_step": 4, "n_step_end": 0}, "--prediction-steps 5: a transition is drawn with at "),
        ({"past_actions": 2}, "--prediction-steps 5: latent states contain no --past-actions"),
    ],
)
def test_prediction_contradictions_are_refused(change: dict[str, int], words: str):
    config = presets.bbf()
    config = replace(config, learner=replace(config.learner, prediction_steps=5))
    config.validate()
    if "past_actions" in change:
        config = replace(config, network=replace(config.network, **change))
    else:
        config = replace(config, collect=replace(config.collect, **change))
    with pytest.raises(ConfigError, match=f"^{words}"):
        config.validate()
