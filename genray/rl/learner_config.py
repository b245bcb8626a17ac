"""Defines the options of the learner."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class LearnerConfig:
    """Batch size, loss, optimizer and devices of the learner."""

    batch_size: int = bounded(32, min=1, example=32)
    """Transitions per update (512 in Ape-X)."""
    double: bool = True
    """w chooses the next action and w⁻ gives its value; otherwise w⁻ does both."""
    munchausen: float = bounded(0.0, min=0, max=1, note="(0: off)", example=0.9)
    """α of Munchausen: α · τ log π(a|s) is added to the reward, and the target is soft.
    [Vieillard 2020, https://arxiv.org/abs/2007.14430]
    """
    munchausen_temperature: float = bounded(0.03, above=0, example=0.03)
    """τ of the soft policy π = softmax(Q / τ)."""
    munchausen_floor: float = bounded(-1.0, max=0, example=-1)
    """The least value of τ log π(a|s)."""
    loss: Literal["huber", "squared"] = "huber"
    """huber: DQN's error clipping at ±1. squared: δ²/2."""
    optimizer: Literal["adam", "adamw", "rmsprop"] = "adam"
    """rmsprop: centred and with ε inside the root, as in DQN and Ape-X. adamw: Adam with
    --weight-decay. [Loshchilov 2019, https://arxiv.org/abs/1711.05101]
    """
    learning_rate: float = bounded(1e-4, above=0, example="1e-4")
    learning_rate_end: float = bounded(0.0, min=0, note="(0: constant)", example="1e-4")
    """The learning rate at the end of its linear fall; 0: it is constant."""
    learning_rate_fall: tuple[int, int] = (0, 0)
    """Numbers of updates at which the fall to --learning-rate-end begins and ends."""
    weight_decay: float = bounded(0.0, min=0, example=0.1)
    """Weight decay of adamw, per update and times the learning rate; biases do not decay."""
    average_updates: int = bounded(0, min=0, note="(0: off)", example=1000)
    """The policy that is evaluated and saved is the mean of w over about this many updates (an
    exponential average), which makes a short run's last policy less noisy; 0: w itself. Collectors
    use w, and w⁻ is a copy of w, never of the average.
    """
    optimizer_epsilon: float = bounded(1.5e-4, above=0, example="1.5e-4")
    """The optimizer's ε (1.5e-4 as in Rainbow and Ape-X, instead of PyTorch's 1e-8)."""
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    """Number format of the products in all layers but the last; weights, outputs, loss and
    optimizer are always float32. auto: bfloat16 if the device multiplies bfloat16 in hardware (a
    GPU since Ampere; a CPU with AVX512-BF16), otherwise float32.
    """
    max_grad_norm: float = bounded(40.0, min=0, note="(0: off)", example=40)
    """Longer gradients are scaled down to this norm (Ape-X); 0: never."""
    target_period_updates: int = bounded(2_500, min=1)
    """Updates between copies of w to w⁻."""
    target_tau: float = bounded(0.0, min=0, max=1, note="(0: copies)", example=0.005)
    """Soft target: w⁻ ← w⁻ + τ (w − w⁻) after every update; 0: copies as --target-period-updates
    says. [Lillicrap 2016, https://arxiv.org/abs/1509.02971]
    """
    acting_network: Literal["online", "target"] = "online"
    """The weights with which collectors act, and which are evaluated and saved (unless
    --average-updates is used): w or w⁻.
    """
    target_network: bool = True
    """Whether a target network gives the targets; off, w itself does. Only for comparisons."""
    importance_weighting: bool = True
    """Whether prioritized sampling is corrected by importance weights. Off only for comparisons."""
    shift: int = bounded(0, min=0, max=16, note="(0: off)", example=4)
    """Augmentation: observations are shifted by up to this many pixels in both directions.
    [Kostrikov 2020, https://arxiv.org/abs/2004.13649]
    """
    intensity: float = bounded(0.0, min=0, max=0.4, note="(0: off)", example=0.05)
    """Augmentation: observations are multiplied by 1 + intensity · N(0, 1)."""
    reset_every: int = bounded(0, min=0, note="(0: never)", example=20_000)
    """Updates between resets: the encoder moves towards new weights, all other layers and the
    optimizer begin anew, and the annealing of n and γ starts again. [Nikishin 2022,
    https://arxiv.org/abs/2205.07802; Schwarzer 2023, https://arxiv.org/abs/2305.19452]
    """
    reset_keep: float = bounded(0.5, min=0, max=1, example=0.5)
    """A reset replaces each weight of the encoder by keep · weight + (1 − keep) · new weight."""
    prediction_steps: int = bounded(0, min=0, max=32, note="(0: off)", example=5)
    """Self-prediction: the network also learns to predict its own representations of this many
    later observations. [Schwarzer 2021, https://arxiv.org/abs/2007.05929]
    """
    prediction_weight: float = bounded(5.0, above=0, example=5)
    """Factor on the loss of self-prediction."""
    frames_on: Literal["host", "device"] = "host"
    """Where batches are assembled. device: from a copy of the replay's frames in the memory of the
    learner's device (7 GB a million frames), to which each frame is sent once. Only uncompressed
    shards on the learner's node can be copied; batches of other shards are assembled on the host.
    """
    learners: int = bounded(1, min=1)
    """Learner processes, each with its own batch, and its own GPU if there are any. Gradients are
    averaged, so an update equals that of one learner with a batch this many times as large.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        first, last = self.learning_rate_fall
        require(
            0 <= first < last if self.learning_rate_end else first == last == 0,
            f"--learning-rate-fall {first} {last}: needs --learning-rate-end and two increasing "
            "numbers of updates, e.g. 10000 20000; leave both options out for a constant rate",
        )
        require(
            not (self.munchausen and self.double),
            f"--munchausen {self.munchausen}: its target has no greedy action that w could choose; "
            "use --no-double",
        )
        require(
            not self.weight_decay or self.optimizer == "adamw",
            f"--weight-decay {self.weight_decay}: only adamw decays weights; use --optimizer adamw",
        )
        require(
            self.target_network or (self.acting_network == "online" and not self.target_tau),
            "--no-target-network: there is no target network to act with or to move softly; leave "
            "--acting-network and --target-tau out",
        )
        require(
            self.frames_on in ("host", "device"),
            f"--frames-on {self.frames_on}: must be host (the replay's memory) or device (the "
            "GPU's)",
        )
