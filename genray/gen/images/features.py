"""Feature extractors with a common interface, for style transfer and dreams.

    vgg19        ImageNet's VGG-19 with torchvision's weights: semantic features
    untrained    orthogonal weights, channels normalised on a few pictures: colour and texture
    model:PATH   a classifier or convolutional autoencoder from the model store
    auto         vgg19 if its file is cached, else untrained

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genray.errors import ConfigError, require
from genray.gen.autoencoder.blocks import ConvBlock
from genray.gen.autoencoder.model import Autoencoder, build_autoencoder
from genray.gen.images import vgg
from genray.gen.images.classifier import Classifier, build_classifier
from genray.runs.modelstore import load_model, model_folder

UNTRAINED = "untrained features: colour and texture, not semantics"
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, by ITU-R BT.601."""


class Features(nn.Module):
    """Base class: maps pictures in 0..1 to the activations of named layers.

    `layers`: names of the layers, shallow to deep. `style_layers`, `content_layers`: the default
    layers of the two losses. `about`: a JSON-serialisable description for the metadata of results.
    Weights are frozen; gradients flow to the picture.
    """

    name: str
    trained: bool
    about: dict[str, Any]
    layers: tuple[str, ...]
    style_layers: tuple[str, ...]
    content_layers: tuple[str, ...]
    min_side = 1
    """The shortest side, in pixels, that the default layers support."""

    def forward(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Return activations by layer, after the nonlinearity, of float32 [B, 3, H, W] in 0..1.

        Raises ConfigError for an unknown layer, or a picture that is too small for a layer.
        """
        self.check_layers(layers)
        return self.activations(x_BCHW, layers)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        raise NotImplementedError

    def check_layers(self, layers: Sequence[str], option: str = "layer") -> None:
        """Raise ConfigError, listing the available names, for an unknown layer."""
        for layer in layers:
            require(
                layer in self.layers,
                f"{option} {layer}: {self.name} has no such layer; there are "
                f"{', '.join(self.layers)}",
            )

    def freeze(self) -> None:
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Features":
        """Stay in evaluation mode, also as part of a module in training: statistics are fixed."""
        return super().train(False)


class ConvStack(Features):
    """A network like VGG: blocks of 3x3 convolutions with ReLU, and 2x2 average pooling between
    the blocks.

    Departures from VGG: average pooling instead of maximum, which gives smoother pictures
    [Gatys 2016, https://doi.org/10.1109/CVPR.2016.265]; reflection padding instead of zeros, which
    would give the result a visible border.
    """

    def __init__(
        self,
        name: str,
        layers: Sequence[str],
        counts: Sequence[int],
        widths: Sequence[int],
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.25, 0.25, 0.25),
    ):
        """Each block has `counts` convolutions of `widths` channels; `mean` and `std` normalise
        the pictures.
        """
        super().__init__()
        self.name, self.layers = name, tuple(layers)
        self.counts, self.widths = tuple(counts), tuple(widths)
        assert len(self.layers) == sum(counts)
        self.mean: Tensor
        self.std: Tensor
        inputs, self.convs = 3, nn.ModuleList()
        self._pools: list[bool] = []  # whether a pooling precedes the convolution
        for block, (count, width) in enumerate(zip(counts, widths)):
            for number in range(count):
                # Initial weights would be overwritten; drawing them takes time and changes the
                # global random state.
                conv = nn.utils.skip_init(
                    nn.Conv2d, inputs, width, 3, padding=1, padding_mode="reflect"
                )
                self.convs.append(conv)
                self._pools.append(block > 0 and number == 0)
                inputs = width
        self.register_buffer("mean", torch.tensor(tuple(mean))[:, None, None])
        self.register_buffer("std", torch.tensor(tuple(std))[:, None, None])
        self.freeze()

    @property
    def min_side(self) -> int:  # type: ignore[override]
        used = max(self.layers.index(layer) for layer in (*self.style_layers, *self.content_layers))
        return 2 << sum(self._pools[: used + 1])  # reflection needs two pixels

    def width_of(self, layer: str) -> int:
        """Return a layer's number of channels."""
        return self.convs[self.layers.index(layer)].out_channels  # type: ignore[return-value]

    def before(self, index: int, h_BCHW: Tensor) -> Tensor:
        """Return the input of convolution `index`, given the activations before it."""
        if not self._pools[index]:
            return h_BCHW
        if min(h_BCHW.shape[-2:]) < 4:
            raise ConfigError(
                f"a picture of too few pixels: layer {self.layers[index]} of {self.name} needs a "
                "short side of at "
                f"least {2 << sum(self._pools[: index + 1])}; choose a larger --size, or shallower "
                "layers"
            )
        return F.avg_pool2d(h_BCHW, 2)

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        h_BCHW = (x_BCHW - self.mean) / self.std
        for index, (layer, conv) in enumerate(zip(self.layers, self.convs)):
            if len(found) == len(set(layers)):
                break
            h_BCHW = F.relu(conv(self.before(index, h_BCHW)))
            if layer in layers:
                found[layer] = h_BCHW
        return found

    # -- as part of a style model ------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Return what `build_stack` needs to rebuild this stack, JSON-serialisable, no weights."""
        return {
            "name": self.name,
            "trained": self.trained,
            "about": self.about,
            "layers": list(self.layers),
            "style_layers": list(self.style_layers),
            "content_layers": list(self.content_layers),
            "counts": list(self.counts),
            "widths": list(self.widths),
        }


def build_stack(config: Mapping[str, Any]) -> ConvStack:
    """Build the stack that `ConvStack.config` describes. A state dict must then be loaded, which
    has the weights and the normalisation.
    """
    stack = ConvStack(config["name"], config["layers"], config["counts"], config["widths"])
    stack.trained, stack.about = bool(config["trained"]), dict(config["about"])
    stack.style_layers, stack.content_layers = (
        tuple(config["style_layers"]),
        tuple(config["content_layers"]),
    )
    return stack


# -- untrained -------------------------------------------------------------------------------------

UNTRAINED_COUNTS, UNTRAINED_WIDTHS = (2, 2, 3, 2), (32, 64, 128, 256)


@torch.no_grad()
def untrained(
    seed: int = 0, calibrate: Sequence[Tensor] = (), palette: Sequence[Tensor] = ()
) -> ConvStack:
    """Return a VGG of half the width with orthogonal random weights, normalised on `calibrate`:
    before each ReLU, the channels have mean 0 and variance 1.

    `calibrate`: pictures [B, 3, H, W] in 0..1 of any size, all with the same weight; by default,
    random clouds with a photograph's spectrum. Random weights suffice for textures if all channels
    have the same scale. Without normalisation (He's normal), a few channels dominate and the
    result is noise. The normalisation is folded into the weights and biases.

    `palette`: pictures whose colours define the weights of colour differences. A direction in
    which their colours vary little has more weight (by variance^-¼, halfway to whitening), so that
    an optimised picture keeps to their colours and has no speckle.
    [Saxe 2014, https://arxiv.org/abs/1312.6120; He 2016, https://arxiv.org/abs/1606.04801]
    """
    generator = torch.Generator().manual_seed(seed)
    names = [f"conv{index}" for index in range(sum(UNTRAINED_COUNTS))]
    pictures = [picture.detach().float().cpu() for picture in calibrate] or [
        clouds(generator=generator)
    ]
    weigh = _weighing(palette) if palette else torch.eye(3)
    # Normalised over all calibration pictures, so that dark and pale pictures also get variance 1.
    pixels = torch.cat([_even(picture) for picture in pictures], dim=1)
    mean, std = pixels.mean(1), (weigh @ pixels).std().clamp(min=0.05).expand(3)
    stack = ConvStack(
        "untrained", names, UNTRAINED_COUNTS, UNTRAINED_WIDTHS, mean=mean.tolist(), std=std.tolist()
    )
    stack.style_layers, stack.content_layers = (
        ("conv0", "conv2", "conv4", "conv7"),
        ("conv2", "conv4"),
    )
    stack.trained, stack.about = False, {"features": "untrained", "note": UNTRAINED, "seed": seed}
    hidden = [
        torch.einsum("ij,bjhw->bihw", weigh, (picture - stack.mean) / stack.std)
        for picture in pictures
    ]
    for index, conv in enumerate(stack.convs):
        assert isinstance(conv, nn.Conv2d) and conv.bias is not None
        nn.init.orthogonal_(conv.weight, generator=generator)
        conv.bias.zero_()
        hidden = [conv(stack.before(index, h_BCHW)) for h_BCHW in hidden]
        sample = torch.cat([_even(h_BCHW) for h_BCHW in hidden], dim=1)
        # The minimum keeps a nearly constant channel from being amplified to variance 1.
        spread_C = sample.std(1)
        spread_C = spread_C.clamp(min=float(spread_C.median()) / 100 + 1e-6)
        shift_C = sample.mean(1)
        conv.weight.div_(spread_C[:, None, None, None])
        conv.bias.copy_(-shift_C / spread_C)
        hidden = [F.relu((h - shift_C[:, None, None]) / spread_C[:, None, None]) for h in hidden]
    first = stack.convs[0]
    assert isinstance(first, nn.Conv2d)
    first.weight.copy_(torch.einsum("ojhw,ji->oihw", first.weight, weigh))
    return stack


def _weighing(palette: Sequence[Tensor]) -> Tensor:
    """Return the colours' covariance to the power −¼, relative to its largest direction: [3, 3]."""
    pixels = torch.cat([_even(picture.detach().float().cpu()) for picture in palette], dim=1)
    # A minimum deviation of 4% of the range limits the weight of colours that the palette lacks.
    value_3, vector_33 = torch.linalg.eigh(torch.cov(pixels) + 0.04**2 * torch.eye(3))
    return vector_33 @ torch.diag((value_3 / value_3.max()) ** -0.25) @ vector_33.T


def _even(h_BCHW: Tensor, most: int = 1 << 12) -> Tensor:
    """Return the same number of evenly spaced pixels of every picture, [C, most], so that all
    pictures have the same weight.
    """
    flat = h_BCHW.movedim(1, 0).flatten(1)
    return flat[:, torch.linspace(0, flat.shape[1] - 1, most).round().long()]


def clouds(side: int = 128, num: int = 4, *, generator: torch.Generator) -> Tensor:
    """Draw coloured noise of amplitude 1/frequency, the spectrum of photographs.

    Returns [num, 3, side, side] in 0..1.
    """
    frequency = torch.fft.fftfreq(side)[:, None].square() + torch.fft.rfftfreq(side)[None].square()
    amplitude = frequency.clamp(min=1 / side**2).rsqrt()
    noise = torch.fft.rfft2(torch.randn(num, 3, side, side, generator=generator))
    picture = torch.fft.irfft2(noise * amplitude, s=(side, side))
    # photographs vary more in lightness than in colour
    picture = picture + picture.mean(1, keepdim=True)
    return (0.5 + 0.25 * picture / picture.std(dim=(1, 2, 3), keepdim=True)).clamp(0, 1)


# -- trained ---------------------------------------------------------------------------------------


def vgg19(say: Callable[[str], None] = lambda text: None) -> ConvStack:
    """Load ImageNet's VGG-19 up to conv5_1, with the style and content layers of Gatys.

    Uses torchvision's cached file, or downloads it; `say` is called with a message about either.
    Raises ResourceError, within seconds, when neither is possible; CheckpointError for a damaged
    file. [Simonyan 2015, https://arxiv.org/abs/1409.1556]
    """
    path, weights = vgg.open_weights(say)
    names = [
        f"conv{block}_{number}"
        for block, count in enumerate(vgg.COUNTS, 1)
        for number in range(1, count + 1)
    ]
    stack = ConvStack("vgg19", names, vgg.COUNTS, vgg.WIDTHS, mean=vgg.MEAN, std=vgg.STD)
    for conv, (weight, bias) in zip(stack.convs, weights):
        conv.load_state_dict({"weight": weight, "bias": bias})
    stack.trained = True
    stack.style_layers = tuple(f"conv{block}_1" for block in range(1, 6))
    stack.content_layers = ("conv4_2",)
    stack.about = {
        "features": "vgg19",
        "note": "VGG-19 trained on ImageNet, torchvision's weights",
        "file": path.name,
    }
    return stack


class ModelFeatures(Features):
    """The convolutions "conv0", "conv1", … of a trained classifier or autoencoder.

    Pictures may have any size. They are scaled to the model's range, and converted to grey for a
    model of grey images.
    """

    def __init__(self, model: Classifier | Autoencoder, name: str, about: Mapping[str, Any]):
        super().__init__()
        self.model, self.name, self.trained = model, name, True
        self.low, self.high, self.grey = float(model.low), float(model.high), model.shape[0] == 1
        self._blocks = list(_stages(model))
        self.layers = tuple(f"conv{index}" for index in range(len(self._blocks)))
        self.style_layers, self.content_layers = self.layers, self.layers[-1:]
        # Each block has one pooling; a classifier's block has one or several convolutions.
        poolings = len(model.config.channels) if isinstance(model, Classifier) else len(self.layers)
        self.about, self.min_side = dict(about), 1 << poolings
        self.freeze()

    def activations(self, x_BCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        require(
            min(x_BCHW.shape[-2:]) >= self.min_side,
            f"a picture of {min(x_BCHW.shape[-2:])} pixels: {self.name} needs a short side of ≥ "
            f"{self.min_side}",
        )
        found: dict[str, Tensor] = {}
        h_BCHW = self.low + x_BCHW * (self.high - self.low)
        if self.grey:
            h_BCHW = (h_BCHW * h_BCHW.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
        if isinstance(self.model, Classifier):  # a classifier centres its input
            h_BCHW = (h_BCHW - (self.high + self.low) / 2) / ((self.high - self.low) / 2)
        for layer, stage in zip(self.layers, self._blocks):
            if len(found) == len(set(layers)):
                break
            activation, pooled = stage(h_BCHW)
            if layer in layers:
                found[layer] = activation
            h_BCHW = pooled
        return found


Stage = Callable[[Tensor], tuple[Tensor, Tensor]]
"""Function of activations that returns the next activations before and after pooling."""


def _stages(model: Classifier | Autoencoder) -> list[Stage]:
    """Return the convolutional stages, in order."""
    stages: list[Stage] = []
    if isinstance(model, Autoencoder):
        for block in model.blocks:
            if isinstance(block, ConvBlock):
                stages.append(partial(_encoded, block))
        return stages
    # A stage for each convolution, as the classifier itself counts them; a block may have several
    # before it pools.
    groups: list[list[nn.Module]] = []
    for layer in model.layers:
        if isinstance(layer, nn.Flatten):
            break
        if isinstance(layer, nn.Conv2d):
            groups.append([])
        groups[-1].append(layer)
    for group in groups:
        pool = group.pop() if isinstance(group[-1], nn.MaxPool2d) else nn.Identity()
        stages.append(partial(_pooled, nn.Sequential(*group), pool))
    return stages


def _pooled(body: nn.Module, pool: nn.Module, h_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    activation = body(h_BCHW)
    return activation, pool(activation)


def _encoded(block: ConvBlock, h_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    activation = block.activations(h_BCHW)
    return activation, F.max_pool2d(activation, 2)


def model_features(path: Path) -> ModelFeatures:
    """Load a trained model as a feature extractor.

    Raises CheckpointError for a path that is not a model, ConfigError for one without
    convolutions.
    """
    folder = model_folder(path)
    model, config = load_model(
        folder, {"classifier": build_classifier, "autoencoder": build_autoencoder}
    )
    assert isinstance(model, Classifier | Autoencoder)
    data = config.get("data", {}).get("name", "")
    about = {
        "features": "model",
        "kind": config["kind"],
        "note": f"an own {config['kind']} trained on {data or 'data'}",
    }
    channels = model.shape[0] if len(model.shape) == 3 else 0
    require(
        channels in (1, 3) and len(_stages(model)) > 0,
        f"--features model:{path}: no convolutions over grey or RGB pictures; use a classifier or "
        "a convolutional ae",
    )
    return ModelFeatures(model, f"model:{path}", about)


# -- by name ---------------------------------------------------------------------------------------


def open_features(
    name: str = "auto",
    *,
    seed: int = 0,
    calibrate: Sequence[Tensor] = (),
    palette: Sequence[Tensor] = (),
    say: Callable[[str], None] = lambda text: None,
) -> Features:
    """Open the feature extractor "auto", "vgg19", "untrained" or "model:PATH".

    `seed`, `calibrate` and `palette` (pictures [B, 3, H, W] in 0..1): see `untrained`. `say`:
    called with a message about a download. Raises ConfigError for another name, and the errors of
    `vgg19` and `model_features`.
    """
    kind, _, path = name.partition(":")
    if name == "auto":
        name = "vgg19" if vgg.cached_file().exists() else "untrained"
    if name == "vgg19":
        return vgg19(say)
    if name == "untrained":
        return untrained(seed, calibrate, palette)
    require(
        kind == "model" and bool(path),
        f"--features {name}: no such features; use auto, untrained, vgg19 or model:PATH (of a "
        "trained classifier)",
    )
    return model_features(Path(path))
