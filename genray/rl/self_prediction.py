"""Self-predictive representations (SPR): the network learns to predict its own later latent states.

A latent state is the encoder's output. From that of s and from the actions that followed, a
transition model predicts the latent states of the next J observations. Each prediction is compared
with the latent state that w⁻ computes from the observation itself. The loss changes the encoder,
which then also learns from steps without rewards.

Shapes: B batch, S stack, H height, W width, C channels, J later steps, A actions, P projected.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import Conv2d, functional

from genray.rl.augment import augmented_frames
from genray.rl.networks import QNetwork, he_init

if TYPE_CHECKING:
    from collections.abc import Sequence

    from genray.rl.learner_config import LearnerConfig
    from genray.rl.transfer import DeviceBatch


class SelfPrediction(nn.Module):
    """The transition model and the predictor, which only training uses.

    [Schwarzer 2021, https://arxiv.org/abs/2007.05929; sizes and loss as in Schwarzer 2023,
    https://arxiv.org/abs/2305.19452] The transition model has two 3x3 convolutions, whose input is
    a latent state and one plane per action. The projection of w and w⁻ is their first fully
    connected layer, and the predictor is one more layer. Departures: latent states are normalised
    here only, not before the Q-values; layers begin with He's initialisation.

    Args:
        network: a network of the shape of w, whose latent states are predicted.
        config: the steps, their weight, and the augmentation.
        seed: what the initial weights depend on. PyTorch's global random state does not change.
    """

    def __init__(self, network: QNetwork, config: LearnerConfig, seed: Sequence[int]):
        super().__init__()
        self._num_actions = network.num_actions
        self._config = config
        convolutions = [each for each in network.convolutions.modules() if isinstance(each, Conv2d)]
        channels = convolutions[-1].out_channels
        width = network.config.hidden * len(first_layers(network))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(np.random.SeedSequence(seed).generate_state(1, np.uint32)[0]))
            self.transition = nn.Sequential(
                Conv2d(channels + self._num_actions, channels, 3, padding=1), nn.ReLU(),
                Conv2d(channels, channels, 3, padding=1), nn.ReLU(),
            )  # fmt: skip
            self.predictor = nn.Linear(width, width)
            self.apply(he_init)
        device = next(network.parameters()).device
        self.to(device).to(memory_format=torch.channels_last)

    def loss(
        self,
        latent_BCHW: Tensor,
        batch: DeviceBatch,
        online: QNetwork,
        target: QNetwork,
        random: torch.Generator | None,
    ) -> Tensor:
        """Return the weighted loss of each transition, float32 [B].

        `latent_BCHW`: the latent states of s by w, through which the gradient flows. `batch`: the
        transitions with their later frames and actions. `random`: for augmentation.
        """
        later_NSHW = later_observations(batch.obs_BSHW, online, self._config, random)
        target_JBP = prediction_targets(target, later_NSHW, self._config.prediction_steps)
        prediction_JBP = self.predict(latent_BCHW, batch.later_BJ, online)
        loss_B = prediction_loss(prediction_JBP, target_JBP, batch.later_BJ >= 0)
        return self._config.prediction_weight * loss_B

    def predict(self, latent_BCHW: Tensor, later_BJ: Tensor, online: QNetwork) -> Tensor:
        """Return the predictions of the projected latent states, float32 [J, B, P], from the latent
        states of s and the actions `later_BJ` from s on (−1 counts as action 0).
        """
        state_BCHW, states = normalised(latent_BCHW), []
        for action_B in later_BJ.long().unbind(1):
            one_hot_BA = functional.one_hot(action_B.clamp(min=0), self._num_actions)
            planes_BAHW = one_hot_BA[..., None, None].expand(-1, -1, *state_BCHW.shape[2:])
            input_BCHW = torch.cat([state_BCHW, planes_BAHW.to(state_BCHW)], dim=1)
            state_BCHW = normalised(self.transition(input_BCHW))
            states.append(state_BCHW)
        prediction_NP = self.predictor(project(online, torch.cat(states)))
        return prediction_NP.unflatten(0, (len(states), -1))

    @torch.no_grad()
    def reset(self, network: QNetwork, seed: Sequence[int]) -> None:
        """Move the transition model towards new weights, as `resets.reset` moves the encoder, and
        begin the predictor anew.
        """
        new = dict(SelfPrediction(network, self._config, seed).named_parameters())
        for name, weight in self.named_parameters():
            share = 1 - self._config.reset_keep if name.startswith("transition.") else 1.0
            weight.lerp_(new[name], share)


def latent(network: QNetwork, frames_BSHW: Tensor) -> tuple[Tensor, Tensor]:
    """Return the latent states, float32 [B, C, H, W], and the features to which `convolutions`
    flattens them, float32 [B, F].
    """
    before, after = _layers(network)
    latent_BCHW = _through(before, network.inputs(frames_BSHW))
    return latent_BCHW, _through(after, latent_BCHW)


def project(network: QNetwork, latent_BCHW: Tensor) -> Tensor:
    """Return the outputs of the first fully connected layers for latent states, float32 [B, P]."""
    features_BF = _through(_layers(network)[1], latent_BCHW)
    return torch.cat([layer(features_BF) for layer in first_layers(network)], dim=1)


def first_layers(network: QNetwork) -> list[nn.Module]:
    """Return the first fully connected layer, or that of each stream."""
    streams = [network.advantage, network.value] if network.hidden is None else [network.hidden]
    return [stream[0] for stream in streams if stream is not None]


def _layers(network: QNetwork) -> tuple[list[nn.Module], list[nn.Module]]:
    """Return the encoder's layers before its flattening layer, and the layers from there on."""
    layers = list(network.convolutions)
    flatten = next(i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten))
    return layers[:flatten], layers[flatten:]


def _through(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def later_observations(
    block_BTHW: Tensor,
    network: QNetwork,
    config: LearnerConfig,
    random: torch.Generator | None,
) -> Tensor:
    """Return the observations after s as inputs of `network`, float32 [J · B, S, H, W], first those
    one step later. Each is augmented with draws of its own.

    `block_BTHW`: the frames of s and of the J later rows, uint8 [B, S + J, H, W]. Within an
    episode, the observation j steps later is its frames j … j + S − 1.
    """
    stack = network.stack
    later = [block_BTHW[:, j : j + stack] for j in range(1, block_BTHW.shape[1] - stack + 1)]
    frames_NSHW = torch.cat(later)
    if not (config.shift or config.intensity):
        return network.inputs(frames_NSHW)
    assert random is not None
    return augmented_frames(frames_NSHW, network, config.shift, config.intensity, random)


@torch.no_grad()
def prediction_targets(target: QNetwork, later_NSHW: Tensor, steps: int) -> Tensor:
    """Return the projected latent states of the later observations by w⁻, float32 [J, B, P]."""
    state_NCHW = normalised(latent(target, later_NSHW)[0])
    return project(target, state_NCHW).unflatten(0, (steps, -1))


def prediction_loss(prediction_JBP: Tensor, target_JBP: Tensor, known_BJ: Tensor) -> Tensor:
    """Return the mean over j of |p_j/|p_j| − t_j/|t_j||² = 2 − 2 cos(p_j, t_j), float32 [B].

    Steps after the end of the episode (`known_BJ` False) count 0. The targets have no gradient.
    """
    cosine_JB = functional.cosine_similarity(
        prediction_JBP.float(), target_JBP.detach().float(), dim=-1
    )
    return ((2 - 2 * cosine_JB) * known_BJ.T).mean(dim=0)


def normalised(latent_BCHW: Tensor) -> Tensor:
    """Return each latent state of the batch scaled to the range 0 … 1."""
    low_B111, high_B111 = (
        edge(latent_BCHW, dim=(1, 2, 3), keepdim=True) for edge in (torch.amin, torch.amax)
    )
    return (latent_BCHW - low_B111) / (high_B111 - low_B111 + 1e-5)
