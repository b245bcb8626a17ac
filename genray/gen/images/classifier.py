"""An image classifier, convolutional or dense. A convolutional one is also the feature extractor of
metrics, styles and dreams.

Shapes: B batch, K classes, F features, C channels, H height, W width.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Data, Split, need_images, need_labels
from genray.gen.evaluation.metrics import Extractor
from genray.gen.layers import activation_layer, fan_out
from genray.gen.training.fit import Batch, Export, Fit, FitConfig, Task
from genray.gen.training.optimizers import OptimizerConfig
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.runs.modelstore import load_model
from genray.shapes import check_shapes

Loss = Literal["cross_entropy", "squared_error"]


@dataclass(frozen=True, kw_only=True)
class ClassifierModelConfig:
    """The classifier's network: convolutions with max pooling, a layer of features, a softmax; or
    dense layers and a softmax.
    """

    network: Literal["conv", "dense"] = "conv"
    widths: tuple[int, ...] = bounded((500, 500), min=1, example=500)
    """dense: units of each hidden layer. The units of the last hidden layer are the features."""
    channels: tuple[int, ...] = (32, 64)
    """conv: channels of each block's convolutions; each block ends with max pooling to half the
    side.
    """
    convolutions: int = bounded(1, min=1, max=8, example=2)
    """conv: number of convolutions in each block, each followed by an activation."""
    kernel: int = 3
    """conv: side of the convolutions' kernels; must be odd, so that padding is symmetric."""
    features: int = bounded(64, min=1, example=64)
    """conv: units of the layer before the softmax. With a small number, a few hundred images
    suffice to estimate the covariance of the features.
    """
    activation: str = "relu"
    batch_norm: bool = False
    """Batch norm after each convolution (conv), or after each hidden layer's sum (dense)."""
    dropout: float = bounded(0.2, min=0, below=1, example=0.2)
    """Dropout probability in training: of the features (conv), or of each hidden layer (dense)."""

    def validate(self) -> None:
        """Raise ConfigError for invalid options."""
        require(
            len(self.channels) >= 1 and min(self.channels) >= 1,
            f"--channels {' '.join(map(str, self.channels)) or '(none)'}: one number ≥ 1 for each "
            "block, e.g. 32 64",
        )
        require(len(self.widths) >= 1, "--widths (none): give one layer or more, e.g. 500 500")
        check_bounds(self)
        require(
            self.kernel % 2 == 1 and self.kernel >= 1,
            f"--kernel {self.kernel}: must be odd, e.g. 3",
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Configuration of a classifier on labelled images."""

    data: DataConfig = field(default_factory=DataConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    model: ClassifierModelConfig = field(default_factory=ClassifierModelConfig)
    loss: Loss = "cross_entropy"
    """Training loss. squared_error is on the softmax's probabilities; its gradient vanishes when
    the network is wrong with certainty.
    """
    label_smoothing: float = bounded(0.0, min=0, below=1)
    """Share of the label that is distributed over all classes. [Szegedy 2016,
    https://arxiv.org/abs/1512.00567]
    """

    def validate(self) -> None:
        """Raise ConfigError for invalid options of any part."""
        for part in (self.data, self.fit, self.optimizer, self.model):
            part.validate()
        check_bounds(self)


def classification_loss(
    loss: str, logits_BK: Tensor, label_B: Tensor, smoothing: float = 0.0
) -> Tensor:
    """Return the loss of each image, [B]: the cross-entropy −Σ_k y_k log p_k in nats, or the
    squared error Σ_k (p_k − y_k)². p is the softmax, y the smoothed one-hot label.

    The cross-entropy's gradient with respect to the logits is p − y. The squared error's gradient
    is 2 J (p − y) with the softmax's Jacobian J = diag(p) − p pᵀ. J is 0 when one class has
    probability 1, so that a network that is wrong with certainty does not learn. [Golik 2013,
    https://www.isca-archive.org/interspeech_2013/golik13_interspeech.html]
    """
    check_shapes(logits_BK=logits_BK, label_B=label_B)
    if loss == "cross_entropy":
        return F.cross_entropy(logits_BK, label_B, label_smoothing=smoothing, reduction="none")
    classes = logits_BK.shape[1]
    target_BK = F.one_hot(label_B, classes) * (1 - smoothing) + smoothing / classes
    return (logits_BK.softmax(1) - target_BK).square().sum(1)


class Classifier(nn.Module):
    """Maps images, float32 [B, C, H, W] in low..high, to logits [B, K].

    The network consists of the convolutions conv0, conv1, …, a layer of features, and the logits.
    A dense network has hidden layers in place of the convolutions and the layer of features.

    Args:
        config: the network's options.
        shape: (C, H, W) of one image.
        num_classes: K, the number of classes.
        low, high: the range of the images' values.
    """

    def __init__(
        self,
        config: ClassifierModelConfig,
        shape: Sequence[int],
        num_classes: int,
        low: float,
        high: float,
    ):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.shape = cast(tuple[int, int, int], tuple(shape))
        self.low, self.high = low, high
        # Maps the name of a convolution to the index of its activation in `layers`.
        self._ends: dict[str, int] = {}
        dense = config.network == "dense"
        self.layers = nn.Sequential(*(self._dense() if dense else self._convolutional()))
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.widths[-1] if dense else config.features, num_classes)

    def _convolutional(self) -> list[nn.Module]:
        config, layers = self.config, list[nn.Module]()
        inputs, height, width = self.shape
        for outputs in config.channels:
            for _ in range(config.convolutions):
                wide = fan_out(config.activation, outputs)
                layers.append(nn.Conv2d(inputs, wide, config.kernel, padding=config.kernel // 2))
                if config.batch_norm:
                    layers.append(nn.BatchNorm2d(wide))
                self._ends[f"conv{len(self._ends)}"] = len(layers)
                layers.append(activation_layer(config.activation))
                inputs = outputs
            # With ceil_mode, the pooling includes the last row and column of odd sides.
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
            height, width = -(-height // 2), -(-width // 2)
        flat = config.channels[-1] * height * width
        layers += [nn.Flatten(), nn.Linear(flat, fan_out(config.activation, config.features))]
        return [*layers, activation_layer(config.activation)]

    def _dense(self) -> list[nn.Module]:
        """Return the hidden layers, with dropout between them; `forward` drops after the last."""
        config, layers = self.config, list[nn.Module]([nn.Flatten()])
        for inputs, outputs in zip((math.prod(self.shape), *config.widths), config.widths):
            if len(layers) > 1:
                layers.append(nn.Dropout(config.dropout))
            wide = fan_out(config.activation, outputs)
            layers.append(nn.Linear(inputs, wide))
            if config.batch_norm:
                layers.append(nn.BatchNorm1d(wide))
            layers.append(activation_layer(config.activation))
        return layers

    def features(self, x_BCHW: Tensor) -> Tensor:
        """Return the features, the last layer before the logits, [B, F]."""
        return self.layers(self._centred(x_BCHW))

    def _centred(self, x_BCHW: Tensor) -> Tensor:
        # The input is scaled to −1..1, so that the range of the data does not matter.
        middle, half = (self.high + self.low) / 2, (self.high - self.low) / 2
        return (x_BCHW - middle) / half

    @property
    def layer_names(self) -> tuple[str, ...]:
        """Names of the convolutions, shallow to deep, for `layer_outputs`."""
        return tuple(self._ends)

    def layer_outputs(self, x_BCHW: Tensor, names: Sequence[str]) -> dict[str, Tensor]:
        """Return each named convolution's output by name, [B, C', H', W'], after the activation
        and before any pooling.

        `x_BCHW`: in low..high with the channels of `shape`, of any size that the poolings allow.
        Gradients flow to x. Layers deeper than the named ones are not computed. Raises
        ConfigError, suggesting the most similar names, for an unknown layer.
        """
        require(
            self.config.network == "conv",
            "a dense classifier has no convolutions; use a classifier of --network conv",
        )
        for name in names:
            if name not in self._ends:
                near = (
                    difflib.get_close_matches(name, self._ends, n=3, cutoff=0.5) or self.layer_names
                )
                raise ConfigError(f"layer {name}: no such layer; did you mean {', '.join(near)}?")
        wanted = {self._ends[name]: name for name in names}
        found: dict[str, Tensor] = {}
        x = self._centred(x_BCHW)
        for number, layer in enumerate(self.layers[: max(wanted, default=-1) + 1]):
            x = layer(x)
            if number in wanted:
                found[wanted[number]] = x
        return {name: found[name] for name in names}

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Return the features as codes, [B, F]."""
        return self.features(x_BCHW).float()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Return the logits, [B, K]."""
        return self.head(self.dropout(self.features(x_BCHW)))


def build_classifier(config: dict[str, Any]) -> Classifier:
    """Build the classifier that a saved model's `config` describes, for the model store."""
    # The config of a model of an older version lacks some options, which have their defaults: one
    # convolution in each block (`convolutions`).
    values = {
        name: config[name] for name in ClassifierModelConfig.__dataclass_fields__ if name in config
    }
    for name in {"channels", "widths"} & values.keys():
        values[name] = tuple(values[name])
    model = ClassifierModelConfig(**values)
    return Classifier(model, config["shape"], config["num_classes"], config["low"], config["high"])


class ClassifierTask(Task):
    """Trains a classifier with the cross-entropy, or with the squared error of the softmax."""

    shown = ("loss", "accuracy")
    value_range = (0.0, 1.0)

    def __init__(
        self, config: ClassifierConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def classifier(self) -> Classifier:
        """The network in training."""
        return cast(Classifier, self.networks["classifier"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Check the data, and make the classifier and its updater."""
        config = self.config
        need_images(data, "a classifier")
        need_labels(data, "a classifier")
        assert data.train.label is not None
        num_classes = max(len(data.classes), int(data.train.label.max()) + 1)
        low, high = data.train.low, data.train.high
        self._check_batch_norm(data)
        self.networks["classifier"] = Classifier(
            config.model, data.shape, num_classes, low, high
        ).to(self.device)
        self.updaters["classifier"] = Updater(
            self.classifier.parameters(),
            config.optimizer,
            total_updates=total_updates,
            accumulate=config.fit.accumulate,
            amp=config.fit.amp,
            world=self.world,
        )
        self._classes = data.classes or tuple(map(str, range(num_classes)))
        return data

    def _check_batch_norm(self, data: Data) -> None:
        """Raise ConfigError if batch norm would get only one value of a channel, which has no
        variance.
        """
        model, rows = self.config.model, self.config.fit.batch_size // self.world.size
        halvings = len(model.channels) - 1
        # The number of pixels of each channel at the last convolution.
        pixels = math.prod(-(-side // 2**halvings) for side in data.shape[1:])
        if model.network == "dense":
            pixels = 1
        require(
            not model.batch_norm or rows * pixels >= 2,
            f"--batch-size {self.config.fit.batch_size}: --batch-norm needs 2 rows or more for "
            "each worker in a dense network, or if images shrink to one pixel; use "
            f"{2 * self.world.size} or more",
        )

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Train on one batch; returns its loss and accuracy."""
        assert batch.label is not None
        with self.autocast():
            logits_BK = self.classifier(batch.x).float()
        loss = classification_loss(
            self.config.loss, logits_BK, batch.label, self.config.label_smoothing
        ).mean()
        self.updaters["classifier"].step(loss)
        return {
            "loss": loss.detach(),
            "accuracy": (logits_BK.detach().argmax(1) == batch.label).float().mean(),
        }

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return the mean loss without label smoothing, and the accuracy; with the squared error,
        also the cross-entropy in nats.
        """
        loss = cross_entropy = right = 0.0
        for rows in torch.arange(len(split), device=self.device).split(1000):
            x_BCHW, label_B = split.take(rows)
            assert label_B is not None
            logits_BK = self.classifier(x_BCHW)
            loss += classification_loss(self.config.loss, logits_BK, label_B).sum().item()
            cross_entropy += F.cross_entropy(logits_BK, label_B, reduction="sum").item()
            right += (logits_BK.argmax(1) == label_B).sum().item()
        figures = {"loss": loss / len(split), "accuracy": right / len(split)}
        return figures | (
            {}
            if self.config.loss == "cross_entropy"
            else {"cross_entropy": cross_entropy / len(split)}
        )

    def export(self) -> Export:
        """Return the classifier with its config and card."""
        model = self.classifier
        config = {
            name: getattr(model.config, name) for name in ClassifierModelConfig.__dataclass_fields__
        }
        config |= {
            "channels": list(model.config.channels),
            "widths": list(model.config.widths),
            "shape": list(model.shape),
            "low": model.low,
        }
        config |= {"high": model.high, "num_classes": model.num_classes}
        if model.config.network == "dense":
            layers = f"hidden layers of {' and '.join(map(str, model.config.widths))} units"
        else:
            layers = (
                f"{len(model.layer_names)} convolutions of "
                f"{' and '.join(map(str, model.config.channels))} channels, "
                f"{model.config.features} features"
            )
        card = (
            f"# Image classifier\n\n{layers}, {model.num_classes} classes: "
            f"{', '.join(self._classes)}.\n"
        )
        return Export("classifier", config, dict(model.state_dict()), card)


# -- feature extractors for metrics ----------------------------------------------------------------


def load_extractor(folder: str, device: torch.device | str = "cpu") -> Extractor:
    """Load a classifier from the model directory `folder`, as a feature extractor for metrics.

    Raises CheckpointError if the directory has no classifier.
    """
    model, _ = load_model(Path(folder), {"classifier": build_classifier})
    return Extractor(model.to(device))


def train_extractor(data: Data, device: torch.device | str = "cpu", steps: int = 400) -> Extractor:
    """Train a small classifier on `data`'s training rows, as a feature extractor for metrics.

    `steps`: the number of batches of 100 images; 400 take a second or two for digits. The same
    data, steps, device and machine give the same weights, and so the same hash.
    """
    rows = min(100, len(data.train))
    config = ClassifierConfig(fit=FitConfig(steps=steps, batch_size=rows, validate_every=steps))
    # This function may be called during the evaluation of another task, so the random state is
    # restored afterwards, and gradients are enabled.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.enable_grad():
        task = ClassifierTask(config, device=device)
        for _ in Fit(task, data, config.fit):
            pass
    return Extractor(task.classifier)
