"""Defines the Q-network: the convolutions of the Nature DQN, dueling streams, and past actions.

Shapes: B batch, S stack, H height, W width, A actions, K past actions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.threads import FlopCount

# Factor of the initial weights of the output layers. He's variance is meant for layers before a
# ReLU. With it, the first Q-values would be about ±1, as large as the clipped rewards, and the
# first thousands of updates would only remove them.
OUTPUT_SCALE = 0.1


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of the Q-network."""

    channels: tuple[int, int, int] = (32, 64, 64)
    """Channels of the three convolutions (8x8 stride 4, 4x4 stride 2, 3x3 stride 1)."""
    hidden: int = bounded(512, min=1, example=512)
    """Units of the fully connected layer (of each stream, when dueling)."""
    dueling: bool = True
    """Two streams, V(s) and A(s, a), and Q = V + A − mean A."""
    past_actions: int = bounded(0, min=0, max=16, example=4)
    """Number of last actions that are added, one-hot, to the convolutions' features. They help
    where frames alone do not show a motion.
    """
    layer_norm: bool = False
    """Normalise the convolutions' features and the hidden layers, which makes short runs less
    dependent on the seed. [Ba 2016, https://arxiv.org/abs/1607.06450; in Q-learning: Gallici 2024,
    https://arxiv.org/abs/2407.04811]
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            min(self.channels) >= 1,
            f"--channels {self.channels}: every layer needs ≥ 1 channel, e.g. 32 64 64",
        )


class QNetwork(nn.Module):
    """Computes Q(s, ·) from a stack of frames.

    [Mnih 2015, https://doi.org/10.1038/nature14236; Wang 2016, https://arxiv.org/abs/1511.06581]
    Departures: He initialisation (normal, variance 2/fan_in) instead of a uniform one, with outputs
    that start near 0; optional past actions and layer norm.

    Args:
        config: the widths and options of the network.
        num_actions: A.
        stack: frames per observation.
        frame_shape: (H, W). Raises ConfigError below 36x36.
    """

    def __init__(
        self,
        config: NetworkConfig,
        num_actions: int,
        stack: int = 4,
        frame_shape: tuple[int, int] = (84, 84),
    ):
        super().__init__()
        self.config = config
        self.num_actions = num_actions
        self.frame_shape = frame_shape
        first, second, third = config.channels
        self.convolutions = nn.Sequential(
            nn.Conv2d(stack, first, 8, stride=4), nn.ReLU(),
            nn.Conv2d(first, second, 4, stride=2), nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        features = self._num_features(stack, frame_shape)
        if config.layer_norm:
            self.convolutions.append(nn.LayerNorm(features))
        features += config.past_actions * num_actions

        def stream(outputs: int) -> nn.Sequential:
            norm = [nn.LayerNorm(config.hidden)] if config.layer_norm else []
            return nn.Sequential(
                nn.Linear(features, config.hidden),
                *norm,
                nn.ReLU(),
                nn.Linear(config.hidden, outputs),
            )

        self.advantage = stream(num_actions)
        self.value = stream(1) if config.dueling else None
        self.apply(he_init)
        for head in (self.advantage, self.value):
            if head is not None:
                head[-1].weight.data.mul_(OUTPUT_SCALE)  # type: ignore[operator]
        self.to(memory_format=torch.channels_last)

    def _num_features(self, stack: int, frame_shape: tuple[int, int]) -> int:
        try:
            with torch.no_grad():
                return self.convolutions(torch.zeros(1, stack, *frame_shape)).shape[1]
        except RuntimeError as error:
            raise ConfigError(
                f"frames of {frame_shape} are too small for the convolutions; use at least 36x36"
            ) from error

    def forward(self, frames_BSHW: Tensor, past_BK: Tensor | None = None) -> Tensor:
        """Return Q-values, float32 [B, A].

        `frames_BSHW`: uint8, 0 to 255, oldest frame first. `past_BK`: the last K actions, newest
        first, −1 before the episode's first action; ignored, and may be None, if `past_actions` is
        0.
        """
        features = self.convolutions(to_floats(frames_BSHW))
        if self.config.past_actions:
            assert past_BK is not None, "this network was made with past_actions"
            one_hot_BKA = nn.functional.one_hot(past_BK.long() + 1, self.num_actions + 1)[..., 1:]
            features = torch.cat([features, one_hot_BKA.flatten(1).to(features)], dim=1)
        advantage_BA = _through(self.advantage, features)
        if self.value is None:
            return advantage_BA
        return (
            _through(self.value, features) + advantage_BA - advantage_BA.mean(dim=1, keepdim=True)
        )


def _through(stream: nn.Sequential, features_BF: Tensor) -> Tensor:
    """Return the stream's output. The last layer always computes in float32, because bfloat16 would
    lose small differences between actions (near 3, bfloat16 numbers are multiples of 1/64).
    """
    *layers, output = stream
    for layer in layers:
        features_BF = layer(features_BF)
    with torch.autocast(features_BF.device.type, enabled=False):
        return output(features_BF.float())


def to_floats(frames_BSHW: Tensor) -> Tensor:
    """Convert uint8 frames, 0 to 255, to float32, 0 to 1, with channels last in memory.

    With this memory format, the convolutions' backward pass on a CPU takes 2/3 of the time.
    """
    if frames_BSHW.device.type != "cpu":
        return frames_BSHW.to(torch.float32, memory_format=torch.channels_last).mul_(1.0 / 255.0)
    # Copy one frame of the stack at a time: in one call for all frames, PyTorch takes one and a
    # half to two times as long to change type and memory format.
    batch, stack, height, width = frames_BSHW.shape
    floats_BHWS = torch.empty(batch, height, width, stack)
    for index in range(stack):
        floats_BHWS[..., index].copy_(frames_BSHW[:, index])
    return floats_BHWS.mul_(1.0 / 255.0).permute(0, 3, 1, 2)


def he_init(module: nn.Module) -> None:
    """Initialise a convolution or linear layer: weights normal with variance 2/fan_in, biases 0.
    [He 2015, https://arxiv.org/abs/1502.01852]
    """
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        torch.nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def update_flop(card: dict[str, Any], batch_size: int) -> float:
    """Return the floating-point operations of a double-DQN update: 5 times those of a forward pass.

    There are three forward passes (the online network over s and over s', the target network over
    s') and one backward pass, which counts as two forward passes.
    """
    network = build_network(card)
    frames_BSHW = torch.zeros(1, card["stack"], *card["frame_shape"], dtype=torch.uint8)
    past_BK = (
        torch.zeros(1, card["past_actions"], dtype=torch.int64) if card["past_actions"] else None
    )
    with torch.no_grad(), FlopCount() as count:
        network(frames_BSHW, past_BK)
    return 5 * batch_size * count.flop


def build_network(card: dict[str, Any]) -> QNetwork:
    """Build the network that `card` (`rl.engine.network_card`) describes. The model store calls
    this function for models of kind "dqn".
    """
    first, second, third = card["channels"]
    shape = NetworkConfig(
        channels=(first, second, third),
        hidden=card["hidden"],
        dueling=card["dueling"],
        past_actions=card["past_actions"],
        layer_norm=card.get("layer_norm", False),  # absent in models of older versions
    )
    height, width = card["frame_shape"]
    return QNetwork(shape, card["num_actions"], card["stack"], (height, width))
