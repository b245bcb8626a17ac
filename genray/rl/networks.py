"""Defines the Q-network: an encoder, dueling streams, a head, and past actions.

Shapes: B batch, S stack, H height, W width, A actions, K past actions, Z outputs per action, F
features.
"""

import torch
from torch import Tensor, nn

from genray.errors import ConfigError, require
from genray.rl.encoders import he_init as he_init
from genray.rl.encoders import make_encoder, normalise_residuals
from genray.rl.encoders import to_floats as to_floats
from genray.rl.heads import IQNHead, make_head
from genray.rl.network_config import NetworkConfig as NetworkConfig
from genray.rl.noisy import NoisyLinear
from genray.rl.observation import Observation
from genray.rl.record_encoder import RecordEncoder
from genray.rl.recurrent import Memory
from genray.rl.targets import legal_only

# Factor of the initial weights of the output layers. He's variance is meant for layers before a
# ReLU. With it, the first Q-values would be about ±1, as large as the clipped rewards, and the
# first thousands of updates would only remove them.
OUTPUT_SCALE = 0.1
COSINES = 64
"""Cosines that embed a quantile's probability. [Dabney 2018]"""


class QNetwork(nn.Module):
    """Computes Q(s, ·) from a stack of frames, or the outputs from which a head computes Q(s, ·).

    [Mnih 2015, https://doi.org/10.1038/nature14236; Wang 2016, https://arxiv.org/abs/1511.06581]
    Departures: He initialisation (normal, variance 2/fan_in) instead of a uniform one, with outputs
    that start near 0; optional past actions and layer norm.

    Args:
        config: the widths and options of the network.
        num_actions: A.
        stack: frames per observation.
        frame_shape: (H, W). Raises ConfigError below 36x36.
        observation: describes packed records, whose frame shape is (1, bytes); None: grey frames.
    """

    def __init__(
        self,
        config: NetworkConfig,
        num_actions: int,
        stack: int = 4,
        frame_shape: tuple[int, int] = (84, 84),
        observation: Observation | None = None,
    ):
        super().__init__()
        self.config = config
        self.num_actions = num_actions
        self.stack = stack
        self.frame_shape = frame_shape
        self.observation = observation
        self.head = make_head(config)
        self.median_HW: Tensor | None
        self.register_buffer("median_HW", torch.zeros(frame_shape) if config.median_frame else None)
        if observation is None:
            self.convolutions = make_encoder(config, stack)
            features = self._num_features(stack, frame_shape)
        else:
            encoder = RecordEncoder(config, observation, stack)
            self.convolutions, features = nn.Sequential(encoder), encoder.features
        if config.layer_norm:
            self.convolutions.append(nn.LayerNorm(features))
        self.memory = (
            Memory(features, num_actions, config.lstm_units) if config.lstm_units else None
        )
        features = config.lstm_units or features + config.past_actions * num_actions

        def linear(inputs: int, outputs: int) -> nn.Linear:
            if config.noisy:
                return NoisyLinear(inputs, outputs, config.noisy)
            return nn.Linear(inputs, outputs)

        def hidden() -> list[nn.Module]:
            norm = [nn.LayerNorm(config.hidden)] if config.layer_norm else []
            return [linear(features, config.hidden), *norm, nn.ReLU()]

        def stream(outputs: int) -> nn.Sequential:
            own = [] if config.shared_hidden else hidden()
            return nn.Sequential(
                *own, linear(config.hidden, outputs * self.head.outputs_per_action)
            )

        self.hidden = nn.Sequential(*hidden()) if config.shared_hidden else None
        self.advantage = stream(num_actions)
        self.value = stream(1) if config.dueling else None
        self.cosines = nn.Linear(COSINES, features) if config.head == "iqn" else None
        self.apply(he_init)
        for last in (self.advantage, self.value):
            if last is not None:
                last[-1].weight.data.mul_(OUTPUT_SCALE)  # type: ignore[operator]
        if config.spectral_norm:
            normalise_residuals(self.convolutions)
        self.to(memory_format=torch.channels_last)

    def _num_features(self, stack: int, frame_shape: tuple[int, int]) -> int:
        try:
            with torch.no_grad():
                return self.convolutions(torch.zeros(1, stack, *frame_shape)).shape[1]
        except RuntimeError as error:
            raise ConfigError(
                f"frames of {frame_shape} are too small for the convolutions; use at least 36x36"
            ) from error

    def forward(
        self,
        frames_BSHW: Tensor,
        past_BK: Tensor | None = None,
        raw: bool = False,
        tau_BZ: Tensor | None = None,
        features_BF: Tensor | None = None,
    ) -> Tensor:
        """Return Q-values, float32 [B, A], or if `raw` the outputs from which `head` computes them
        (logits of `c51` or quantiles of `iqn`, [B, A, Z]).

        `frames_BSHW`: uint8, 0 to 255, oldest frame first, or what `inputs` returned. `past_BK`:
        the last K actions, newest first, −1 before the episode's first action; ignored, and may be
        None, if `past_actions` is 0. `tau_BZ`: the probabilities of the quantiles of `iqn`; None:
        midpoints. `features_BF`: what `convolutions` returned for these frames, if it is known.

        Raises ConfigError for a network with an LSTM, which needs its state: use `step`.
        """
        check_stateless(self)
        legal_BA = self.legal(frames_BSHW)
        if features_BF is None:
            features_BF = self.convolutions(self.inputs(frames_BSHW))
        if raw:
            return self.outputs(features_BF, past_BK, tau_BZ, legal_BA)
        return self.q_of_features(features_BF, past_BK, tau_BZ, legal_BA)

    def q_of_features(
        self,
        features_BF: Tensor,
        past_BK: Tensor | None = None,
        tau_BZ: Tensor | None = None,
        legal_BA: Tensor | None = None,
    ) -> Tensor:
        """Return the Q-values, float32 [B, A], of observations that `convolutions` encoded.
        `legal_BA`: which actions are legal, bool; None: all are.
        """
        outputs = self.outputs(features_BF, past_BK, tau_BZ, legal_BA)
        return legal_only(self.head.q(outputs), legal_BA)

    @property
    def state_size(self) -> int:
        """Numbers in the recurrent state of one lane; 0 without an LSTM."""
        return self.memory.state_size if self.memory else 0

    def step(
        self, frames_BSHW: Tensor, last_action_B: Tensor, last_reward_B: Tensor, state_BS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return (Q-values [B, A], state after the step) of a network with an LSTM, both float32.

        At an episode's start, the state is zero, the last action −1 and the last reward 0. The
        reward is the game's own.
        """
        assert self.memory is not None, "a network without lstm_units has no state"
        features_B1F = self.convolutions(self.inputs(frames_BSHW))[:, None]
        before = last_action_B[:, None], last_reward_B[:, None]
        never_B1 = torch.zeros_like(before[0], dtype=torch.bool)
        hidden_B1U, state_BS = self.memory(features_B1F, *before, state_BS, never_B1)
        return self.q_of_features(hidden_B1U[:, 0], legal_BA=self.legal(frames_BSHW)), state_BS

    @property
    def separate(self) -> "list[QNetwork]":
        """The parts whose gradients have nothing to do with each other."""
        return [self]

    @property
    def statistics(self) -> list[Tensor]:
        """The mean and the standard deviation of vectors that `observe` changes; empty if vectors
        are not normalised.
        """
        encoder = self.convolutions[0]
        return encoder.statistics if isinstance(encoder, RecordEncoder) else []

    def observe(self, frames_BSHW: Tensor) -> None:
        """Add the vectors of a batch of observations to their mean and standard deviation."""
        encoder = self.convolutions[0]
        assert isinstance(encoder, RecordEncoder)
        encoder.observe(frames_BSHW)

    def legal(self, frames_BSHW: Tensor) -> Tensor | None:
        """Return which actions are legal in observations, bool [B, A]; None: all are."""
        if self.observation is None or self.observation.mask is None:
            return None
        return frames_BSHW[:, -1, 0, self.observation.slice_of(self.observation.mask)] != 0

    def inputs(self, frames_BSHW: Tensor) -> Tensor:
        """Return the encoder's input, float32 [B, S, H, W]: pixels from 0 to 1, minus the median
        frame, times the gain. Floats and packed records are returned as they are.
        """
        if frames_BSHW.is_floating_point() or self.observation is not None:
            return frames_BSHW
        floats_BSHW = to_floats(frames_BSHW)
        if self.median_HW is not None:
            floats_BSHW -= self.median_HW
        if self.config.input_gain != 1:
            floats_BSHW *= self.config.input_gain
        return floats_BSHW

    def outputs(
        self,
        features: Tensor,
        past_BK: Tensor | None,
        tau_BZ: Tensor | None,
        legal_BA: Tensor | None,
    ) -> Tensor:
        """Return the outputs from which `head` computes Q-values, from the encoder's features or
        the LSTM's hidden values.
        """
        if self.config.past_actions:
            assert past_BK is not None, "this network was made with past_actions"
            one_hot_BKA = past_BK[..., None] == torch.arange(
                self.num_actions, device=past_BK.device
            )
            features = torch.cat([features, one_hot_BKA.flatten(1).to(features)], dim=1)
        if self.cosines is not None:
            features = self._at_quantiles(features, tau_BZ)
        if self.hidden is not None:
            features = self.hidden(features)
        advantage_BA = self._per_action(_through(self.advantage, features))
        if self.value is not None:
            value_B1 = self._per_action(_through(self.value, features))
            advantage_BA = value_B1 + advantage_BA - _mean_of_legal(advantage_BA, legal_BA)
        if self.cosines is None:
            return advantage_BA
        return advantage_BA.unflatten(0, (-1, self.config.quantiles)).transpose(1, 2)

    def _at_quantiles(self, features_BF: Tensor, tau_BZ: Tensor | None) -> Tensor:
        """Return the features times an embedding of each quantile's τ, [B · Z, F]:
        ReLU(linear(cos(π i τ))), i = 0 … 63.
        """
        assert self.cosines is not None and isinstance(self.head, IQNHead)
        if tau_BZ is None:
            tau_BZ = self.head.middle_Z.expand(features_BF.shape[0], -1)
        angle_BZI = torch.pi * tau_BZ[..., None] * torch.arange(COSINES, device=tau_BZ.device)
        embedding_BZF = torch.relu(self.cosines(angle_BZI.cos()))
        return (features_BF[:, None] * embedding_BZF).flatten(0, 1)

    def _per_action(self, outputs_BN: Tensor) -> Tensor:
        """Return outputs [B, A · Z] as [B, A, Z] if Z > 1."""
        per_action = self.head.outputs_per_action
        return outputs_BN if per_action == 1 else outputs_BN.unflatten(1, (-1, per_action))

    def set_median(self, frames_NHW: Tensor) -> None:
        """Set the median frame from N frames, uint8."""
        assert self.median_HW is not None, "this network was made without median_frame"
        median_HW = frames_NHW.median(dim=0).values
        self.median_HW.copy_(median_HW.to(self.median_HW) / 255.0)


def _mean_of_legal(advantage_BA: Tensor, legal_BA: Tensor | None) -> Tensor:
    """Return the mean over the legal actions, [B, 1] or [B, 1, Z]. Rows may be repeated for the
    quantiles of `iqn`.
    """
    if legal_BA is None:
        return advantage_BA.mean(dim=1, keepdim=True)
    legal_BA = legal_BA.repeat_interleave(advantage_BA.shape[0] // legal_BA.shape[0], dim=0)
    share_BA = legal_BA / legal_BA.sum(dim=1, keepdim=True)
    share = share_BA if advantage_BA.ndim == 2 else share_BA[..., None]
    return (advantage_BA * share).sum(dim=1, keepdim=True)


def _through(stream: nn.Sequential, features_BF: Tensor) -> Tensor:
    """Return the stream's output. The last layer always computes in float32, because bfloat16 would
    lose small differences between actions (near 3, bfloat16 numbers are multiples of 1/64).
    """
    *layers, output = stream
    for layer in layers:
        features_BF = layer(features_BF)
    with torch.autocast(features_BF.device.type, enabled=False):
        return output(features_BF.float())


def check_stateless(network: QNetwork) -> None:
    """Raise ConfigError for a network with an LSTM, where states are not supported."""
    units = network.config.lstm_units
    require(
        not units,
        f"--lstm-units {units}: this policy carries a state from step to step, which is not kept "
        "here; use `QNetwork.step`, or a policy without an LSTM",
    )
