"""Defines the options of the Q-network."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The shape of the Q-network."""

    encoder: Literal["nature", "der", "impala"] = "nature"
    """nature: three convolutions; der: two with stride 5, which take a third of the time; impala:
    three stages with residual blocks.
    """
    channels: tuple[int, int, int] = (32, 64, 64)
    """Channels of the three convolutions of `nature` (8x8 stride 4, 4x4 stride 2, 3x3 stride 1)."""
    impala_width: float = bounded(1.0, above=0, max=16, example=2)
    """Factor on the channels of `impala`: 16, 32, 32."""
    pooling: Literal["none", "max", "average"] = "none"
    """What follows the encoder: max: adaptive max pooling to 6x6; average: the mean over all
    places. [Clark 2024, https://arxiv.org/abs/2411.03820; Sokar 2025,
    https://arxiv.org/abs/2505.17749]
    """
    spectral_norm: bool = False
    """Divide the weights of the residual convolutions of `impala` by their largest singular
    value.
    """
    head: Literal["scalar", "c51", "iqn"] = "scalar"
    """scalar: Q-values. c51: distributions of returns on a fixed support. iqn: quantiles of
    returns. [Bellemare 2017, https://arxiv.org/abs/1707.06887; Dabney 2018,
    https://arxiv.org/abs/1806.06923]
    """
    atoms: int = bounded(51, min=2, example=51)
    """Atoms of a distribution of `c51`."""
    value_limit: float = bounded(10.0, above=0, example=10)
    """The support of `c51` is −value_limit … value_limit; returns outside are moved to its ends."""
    quantiles: int = bounded(8, min=1, max=200, example=8)
    """Quantiles of `iqn`."""
    value_rescaling: bool = False
    """The network's values are h(return) with h(x) = sign(x) (√(|x| + 1) − 1) + x / 1,000, which
    allows unclipped rewards. [Pohlen 2018, https://arxiv.org/abs/1805.11593]
    """
    noisy: float = bounded(0.0, min=0, max=2, note="(0: off)", example=0.5)
    """σ₀ of noisy layers, which replace the fully connected layers and explore. [Fortunato 2017,
    https://arxiv.org/abs/1706.10295]
    """
    hidden: int = bounded(512, min=1, example=512)
    """Units of the fully connected layer (of each stream, when dueling)."""
    dueling: bool = True
    """Two streams, V(s) and A(s, a), and Q = V + A − mean A."""
    shared_hidden: bool = False
    """The dueling streams share their fully connected layer, which saves time."""
    median_frame: bool = False
    """Subtract the per-pixel median of the first batch's frames from every frame, so that a static
    background becomes 0. The median is stored in the model.
    """
    input_gain: float = bounded(1.0, above=0, example=4)
    """Factor on the network's input (pixels from 0 to 1, minus the median frame)."""
    past_actions: int = bounded(0, min=0, max=16, example=4)
    """Number of last actions that are added, one-hot, to the convolutions' features. They help
    where frames alone do not show a motion.
    """
    lstm_units: int = bounded(0, min=0, max=4096, note="(0: off)", example=512)
    """Units of an LSTM between the encoder and the streams, so that the network remembers; it also
    gets the last action and reward. Learns from sequences (R2D2). [Kapturowski 2019,
    https://openreview.net/forum?id=r1lyTjAqYX]
    """
    ensemble: int = bounded(1, min=1, max=16, note="(1: one network)", example=3)
    """Networks that learn from one replay, each from its own part of each batch, and act by their
    mean Q-values. [Anschel 2017, https://arxiv.org/abs/1611.01929]
    """
    normalise: bool = False
    """Subtract from each vector of an observation the mean of those that were learned from, and
    divide by their standard deviation. Both are kept in the model.
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
        require(
            not self.spectral_norm or self.encoder == "impala",
            f"--spectral-norm: --encoder {self.encoder} has no residual convolutions; use "
            "--encoder impala",
        )
        require(
            not self.value_rescaling or self.head != "c51",
            "--value-rescaling: the support of c51 is fixed; use --head scalar or iqn",
        )
        require(
            not self.lstm_units or self.ensemble == 1,
            f"--lstm-units {self.lstm_units}: not with --ensemble {self.ensemble}; use --ensemble "
            "1",
        )
        require(
            not self.lstm_units or not self.past_actions,
            f"--lstm-units {self.lstm_units}: the LSTM gets the last action anyway; use "
            "--past-actions 0",
        )
