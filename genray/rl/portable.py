"""Prepares a Q-network for programs that know neither genray nor PyTorch.

Shapes: B batch, S stack, H height, W width, K past actions, A actions, C channels, U units of an
LSTM, F features.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from genray.rl.encoders import POOLED
from genray.rl.networks import QNetwork
from genray.rl.observation import Field
from genray.rl.record_encoder import TORCH_DTYPES
from genray.rl.recurrent import LSTMCell


class PortableNetwork(nn.Module):
    """Computes the Q-values of a network, and the next state of an LSTM, by operations that
    exporters know.

    The network is copied to the CPU. The copy is in evaluation mode, in which noisy layers have no
    noise. Weights divided by a spectral norm become constants.

    Args:
        network: the network. It does not change.
    """

    def __init__(self, network: QNetwork):
        super().__init__()
        self.network = copy.deepcopy(network).cpu().requires_grad_(False)
        self.eval()
        for module in list(self.network.modules()):
            for name, child in list(module.named_children()):
                if isinstance(child, nn.AdaptiveMaxPool2d):
                    setattr(module, name, WindowMaxPool(POOLED))
                elif isinstance(child, nn.Conv2d) and parametrize.is_parametrized(child, "weight"):
                    setattr(module, name, _plain(child))
        self.cell: LSTMCell | None = None
        if (memory := self.network.memory) is not None:
            self.cell = LSTMCell(memory.lstm.input_size, memory.lstm.hidden_size)
            self.cell.copy_from(memory.lstm).requires_grad_(False)

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Return the Q-values, float32 [B, A]; with an LSTM also the next state, float32 [B, 2U].

        Inputs of a network for grey frames: `frames`, uint8 [B, S, H, W], oldest first. Of others:
        the arrays of an observation in the environment's own dtypes, as `input_names` lists them:
        images [B, S, *shape], oldest first, and all others [B, *shape]; a mask is uint8 [B, A].
        Then `past_actions`, int64 [B, K], newest first, −1 before the episode's first action, if
        the network has `past_actions`. With an LSTM: `last_action`, int64 [B], `last_reward`,
        float32 [B], and `lstm_state`, float32 [B, 2U]; −1, 0 and zeros at an episode's start.
        """
        network = self.network
        if network.memory is None:
            q_values = [self._q_values(each, inputs) for each in network.separate]
            return q_values[0] if len(q_values) == 1 else torch.stack(q_values).mean(dim=0)
        features_BF, legal_BA = self._features(network, inputs)
        assert self.cell is not None
        action_B, reward_B, state_BS = inputs[-3:]
        input_B1I = network.memory.inputs(
            features_BF[:, None], action_B[:, None], reward_B[:, None]
        )
        hidden_BU, cell_BU = self.cell(input_B1I[:, 0], *state_BS.chunk(2, dim=1))
        q_BA = network.q_of_features(hidden_BU, legal_BA=legal_BA)
        return q_BA, torch.cat([hidden_BU, cell_BU], dim=1)

    def _q_values(self, network: QNetwork, inputs: tuple[Tensor, ...]) -> Tensor:
        features_BF, legal_BA = self._features(network, inputs)
        past_BK = inputs[-1] if network.config.past_actions else None
        return network.q_of_features(features_BF, past_BK, legal_BA=legal_BA)

    def _features(
        self, network: QNetwork, inputs: tuple[Tensor, ...]
    ) -> tuple[Tensor, Tensor | None]:
        """Return the features [B, F] of the arrays of an observation, and the legal actions."""
        observation = network.observation
        if observation is None:
            return network.convolutions(self.network.inputs(inputs[0])), None
        arrays = {
            field.name: _from_zero(field, array) for field, array in zip(observation.fields, inputs)
        }
        mask = observation.mask
        legal_BA = None if mask is None else arrays[mask.name] != 0
        encoder, *layers = network.convolutions
        features_BF = encoder.encode(arrays)  # type: ignore[operator]
        for layer in layers:
            features_BF = layer(features_BF)
        return features_BF, legal_BA

    def example(self, count: int = 2) -> tuple[Tensor, ...]:
        """Return inputs of the right shapes and dtypes: zeros, with all actions legal."""
        network, observation = self.network, self.network.observation
        if observation is None:
            shape = (count, network.stack, *network.frame_shape)
            inputs = [torch.zeros(shape, dtype=torch.uint8)]
        else:
            inputs = [_example(field, count, network.stack) for field in observation.fields]
        if network.config.past_actions:
            inputs.append(torch.full((count, network.config.past_actions), -1))
        if network.state_size:
            inputs += [torch.full((count,), -1), torch.zeros(count)]
            inputs.append(torch.zeros(count, network.state_size))
        return tuple(inputs)

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs in an exported file."""
        observation = self.network.observation
        names = ["frames"]
        if observation is not None:
            names = [field.name or "observation" for field in observation.fields]
        if self.network.state_size:
            names += ["last_action", "last_reward", "lstm_state"]
        return [*names, *["past_actions"] * bool(self.network.config.past_actions)]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs in an exported file."""
        return ["q_values", *["next_lstm_state"] * bool(self.network.state_size)]


def _example(field: Field, count: int, stack: int) -> Tensor:
    lengths = (count, stack) if field.kind == "image" else (count,)
    if field.kind == "classes":
        smallest = torch.tensor([start for start, _ in field.classes])
        return smallest.reshape(field.shape).expand(*lengths, *field.shape).contiguous()
    fill = 1 if field.kind == "mask" else 0
    dtype = TORCH_DTYPES[field.dtype]
    return torch.full((*lengths, *field.shape), fill, dtype=dtype)


def _from_zero(field: Field, array: Tensor) -> Tensor:
    """Return classes as numbers from 0, as records store them; other arrays unchanged."""
    if field.kind != "classes":
        return array
    smallest = torch.tensor([start for start, _ in field.classes])
    return array - smallest.reshape(field.shape)


def _plain(layer: nn.Conv2d) -> nn.Conv2d:
    """Return a convolution whose weight is the computed weight of a parametrized one.

    PyTorch's `remove_parametrizations` would also change the layer of which `layer` is a copy.
    """
    plain = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # type: ignore[arg-type]
        layer.stride,  # type: ignore[arg-type]
        layer.padding,  # type: ignore[arg-type]
    ).requires_grad_(False)
    plain.weight.copy_(layer.weight)
    if plain.bias is not None and layer.bias is not None:
        plain.bias.copy_(layer.bias)
    return plain


class WindowMaxPool(nn.Module):
    """Computes `nn.AdaptiveMaxPool2d`, which ONNX lacks, as maxima over slices.

    Args:
        side: height and width of the output.
    """

    def __init__(self, side: int):
        super().__init__()
        self.side = side

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the maxima, float32 [B, C, side, side]."""
        for dim in (2, 3):
            size = x_BCHW.shape[dim]
            # Windows overlap if `size` is not a multiple of `side`.
            starts = [i * size // self.side for i in range(self.side)]
            ends = [-(-(i + 1) * size // self.side) for i in range(self.side)]
            windows = [
                x_BCHW.narrow(dim, start, end - start).amax(dim) for start, end in zip(starts, ends)
            ]
            x_BCHW = torch.stack(windows, dim)
        return x_BCHW
