"""Options of a learned optimizer: the functions, the LSTM, and how it is trained."""

from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.gen.data.config import DataConfig
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig
from genray.paths import DataName

QUADRATICS = ("quadratics", "quadratics-normal")
Activation = Literal["sigmoid", "relu", "tanh"]
Preprocessing = Literal["raw", "log-and-sign"]


@dataclass(frozen=True, kw_only=True)
class FunctionsConfig(DataConfig):
    """The functions that the optimizer minimises: quadratics, or losses of small networks."""

    data: DataName = "quadratics"
    """quadratics: ‖Wθ − y‖² with W and y uniform in 0..1; quadratics-normal: W and y from N(0, 1);
    or images with classes, such as digits, mnist5k or folder:PATH: the cross-entropy of a network
    with one hidden layer.
    """
    dimensions: int = bounded(10, min=1, max=1000, example=10)
    """Of quadratics: the number of coordinates of θ."""
    hidden_units: int = bounded(20, min=1, example=20)
    """Of networks: units of the hidden layer."""
    activation: Activation = "sigmoid"
    """Of networks: the activation of the hidden layer."""
    minibatch: int = bounded(128, min=1, example=128)
    """Of networks: images of one step."""
    functions: int = bounded(12_800, min=1, example=12_800)
    """Number of training functions."""
    held_out: int = bounded(128, min=1, example=128)
    """Number of functions of the validation split, and of the test split."""

    @property
    def is_quadratic(self) -> bool:
        """Whether the functions are quadratics, which need no data set."""
        return self.data in QUADRATICS

    def validate(self) -> None:
        """Raise ConfigError for an unknown kind of function, or a value outside its bounds."""
        if self.is_quadratic:
            check_bounds(self)
            for name in ("size", "grey", "without", "augment"):
                require(
                    not getattr(self, name),
                    f"--{name}: not for {self.data}, which have no images; leave it out",
                )
            return
        try:
            super().validate()
        except ConfigError as error:
            known = f"{', '.join(QUADRATICS)}, or a data set of images"
            raise ConfigError(f"{error} (for a learned optimizer: {known})") from error
        require(
            not self.is_text and not self.augment,
            f"--data {self.data}: a learned optimizer trains on images, without --augment; use "
            "e.g. --data digits",
        )


@dataclass(frozen=True, kw_only=True)
class LearnedOptimizerModelConfig:
    """The LSTM, which computes a coordinate's update from the coordinate's gradients."""

    lstm_units: int = bounded(20, min=1, example=20)
    """Units of each layer."""
    lstm_layers: int = bounded(2, min=1, example=2)
    memory: float = bounded(0.0, min=0, max=1000, note="(0: all units alike)", example=50)
    """Longest memory of a new LSTM, in steps. The units of a layer begin with memories from 2 steps
    to this number; 0: all units begin with the bias 1 of the forget gate.
    """
    preprocessing: Preprocessing = "log-and-sign"
    """What the LSTM reads of a gradient g. raw: g; log-and-sign: log|g| / k and the sign, and e^k·g
    for |g| below e^−k.
    """
    log_range: float = bounded(10.0, above=0, max=20, example=10)
    """The k of log-and-sign."""
    output_scale: float = bounded(0.01, above=0, example=0.01)
    """Factor of the LSTM's output in the update."""

    def validate(self) -> None:
        check_bounds(self)
        require(
            not 0 < self.memory < 2,
            f"--memory {self.memory:g}: must be ≥ 2, or 0: all units alike",
        )


@dataclass(frozen=True, kw_only=True)
class LearnedOptimizerConfig:
    """Configuration of a learned optimizer."""

    data: FunctionsConfig = field(default_factory=FunctionsConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: LearnedOptimizerModelConfig = field(default_factory=LearnedOptimizerModelConfig)
    horizon: int = bounded(100, min=1, example=100)
    """Steps that the optimizer makes on each function."""
    window: int = bounded(20, min=1, example=20)
    """Steps of truncated backpropagation; each window is one update of the LSTM. Must divide
    --horizon.
    """
    random_scaling: float = bounded(0.0, min=0, max=10, example=1)
    """Each coordinate of a training function is multiplied by exp(u), u uniform in −S..S; 0: none.
    """
    ema: float = bounded(0.95, min=0, below=1, example=0.95)
    """Decay of the moving average of the weights, which is evaluated and saved; 0: none."""
    rule_trials: int = bounded(16, min=0, note="(0: no comparison)")
    """Settings tried for each of the known rules in the comparison at the end of a run."""

    def validate(self) -> None:
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)
        require(
            self.horizon % self.window == 0,
            f"--window {self.window}: must divide --horizon {self.horizon}; use e.g. "
            f"--horizon {-(-self.horizon // self.window) * self.window}",
        )
        require(self.fit.amp == "off", f"--amp {self.fit.amp}: not for optimizer; leave it out")
