"""Tests feature extractors: calibration, gradients, models of the store, VGG-19 without network."""

import socket
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.gen.autoencoder.model import AEModelConfig, Autoencoder
from genray.gen.images import vgg
from genray.gen.images.classifier import Classifier, ClassifierModelConfig
from genray.gen.images.features import (
    ConvStack,
    ModelFeatures,
    build_stack,
    clouds,
    open_features,
    untrained,
)


def pictures(num: int = 2, side: int = 48, seed: int = 0) -> list[Tensor]:
    return list(clouds(side, num, generator=torch.Generator().manual_seed(seed)).split(1))


def test_untrained_channels_have_mean_0_and_variance_1_on_the_calibration_pictures():
    shown = pictures(2, 64)
    stack = untrained(3, shown)
    hidden = (torch.cat(shown) - stack.mean) / stack.std
    for index, conv in enumerate(stack.convs):
        before = conv(stack.before(index, hidden))
        # Measured on evenly spaced pixels, hence not exactly.
        assert before.mean((0, 2, 3)).abs().max() < 0.05, stack.layers[index]
        assert (before.std((0, 2, 3)) - 1).abs().max() < 0.05, stack.layers[index]
        hidden = F.relu(before)
        assert torch.equal(
            stack(torch.cat(shown), [stack.layers[index]])[stack.layers[index]], hidden
        )


def test_untrained_layers_have_the_sizes_of_a_half_width_vgg():
    stack = untrained(0, pictures())
    found = stack(torch.rand(2, 3, 37, 50), stack.layers)
    assert list(found) == [f"conv{index}" for index in range(9)]
    assert found["conv0"].shape == (2, 32, 37, 50) and found["conv2"].shape == (2, 64, 18, 25)
    assert found["conv6"].shape == (2, 128, 9, 12) and found["conv8"].shape == (2, 256, 4, 6)
    assert stack.width_of("conv7") == 256 and stack.min_side == 16


def test_untrained_depends_on_its_seed_and_not_on_the_global_generator():
    state = torch.get_rng_state()
    x = pictures(1, seed=5)[0]
    a, b, c = (untrained(seed, pictures())(x, ["conv4"])["conv4"] for seed in (1, 1, 2))
    assert torch.equal(a, b) and not torch.allclose(a, c)
    assert torch.equal(state, torch.get_rng_state())
    # Without pictures it is calibrated on its own clouds.
    assert untrained(1)(x, ["conv7"])["conv7"].std() > 0.1


def test_conv_stack_gradients_reach_the_picture_and_not_the_weights():
    stack = untrained(0, pictures())
    stack.train()  # as a part of something that trains
    assert not stack.training and not any(each.requires_grad for each in stack.parameters())
    x = pictures(1)[0].requires_grad_()
    stack(x, ["conv7"])["conv7"].square().mean().backward()
    assert x.grad is not None and x.grad.abs().sum() > 0


def test_untrained_palette_gives_foreign_colours_more_weight():
    grey = pictures(1)[0].mean(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()
    plain, strict = untrained(0, [grey]), untrained(0, [grey], [grey])
    brighter, redder = grey + 0.05, grey + torch.tensor([0.05, -0.05, 0.0])[:, None, None]

    def cost(stack: ConvStack, other: Tensor) -> float:
        return F.mse_loss(stack(other, ["conv2"])["conv2"], stack(grey, ["conv2"])["conv2"]).item()

    assert cost(strict, redder) / cost(strict, brighter) > 3 * cost(plain, redder) / cost(
        plain, brighter
    )


def test_build_stack_restores_a_stack_from_config_and_weights():
    stack = untrained(0, pictures(), pictures(1, seed=4))
    again = build_stack(stack.config())
    again.load_state_dict(stack.state_dict())
    x = pictures(1, seed=9)[0]
    assert torch.equal(again(x, ["conv7"])["conv7"], stack(x, ["conv7"])["conv7"])
    assert (
        again.about == stack.about and "not semantics" in again.about["note"] and not again.trained
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_model_features_of_a_classifier_equal_its_activations(channels: int):
    torch.manual_seed(0)
    model = Classifier(ClassifierModelConfig(channels=(6, 9)), (channels, 16, 16), 4, -1.0, 1.0)
    features = ModelFeatures(model, "own", {})
    assert features.layers == ("conv0", "conv1") and features.trained
    x = torch.rand(2, 3, 16, 16)
    own = (
        x
        if channels == 3
        else (x * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(1, keepdim=True)
    )
    after_pool = F.max_pool2d(features(x, ["conv1"])["conv1"], 2, ceil_mode=True)
    flat = torch.nn.Sequential(*list(model.layers)[-3:])(after_pool)
    assert torch.allclose(flat, model.features(own * 2 - 1), atol=1e-6)
    assert features(torch.rand(1, 3, 41, 23), ["conv1"])["conv1"].shape == (1, 9, 21, 12)


def test_model_features_of_an_autoencoder_equal_its_encoder():
    torch.manual_seed(0)
    config = AEModelConfig(kind="conv", code=4, widths=(5, 7))
    model = Autoencoder(config, (3, 16, 16))
    features = ModelFeatures(model, "own", {})
    x = torch.rand(2, 3, 16, 16)
    assert features.layers == ("conv0", "conv1")
    hidden, _ = model.encode_layers(x, last=2)
    assert torch.allclose(F.max_pool2d(features(x, ["conv1"])["conv1"], 2), hidden, atol=1e-6)


# -- VGG-19 ----------------------------------------------------------------------------------------


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in (
        "http_proxy",
        "https_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub" / "checkpoints"


def state(seed: int = 0) -> dict[str, Tensor]:
    """Return random weights of VGG-19's shapes, under torchvision's names."""
    generator, before, found = torch.Generator().manual_seed(seed), 3, {}
    outputs = [width for count, width in zip(vgg.COUNTS, vgg.WIDTHS) for _ in range(count)]
    for index, wide in zip(vgg.INDICES, outputs):
        found[f"features.{index}.weight"] = (
            torch.randn(wide, before, 3, 3, generator=generator) * (2 / before / 9) ** 0.5
        )
        found[f"features.{index}.bias"] = torch.zeros(wide)
        before = wide
    return found


def test_vgg_file_is_that_of_torchvision():
    assert vgg.weights_url().endswith("/" + vgg.FILE)


def test_open_features_auto_is_lite0_without_a_cached_file(empty_cache: Path):
    assert open_features("auto", calibrate=pictures()).name == "lite0"


def test_open_features_auto_is_untrained_without_trained_features(empty_cache: Path, monkeypatch):
    monkeypatch.setattr("genray.gen.images.features.weights_file", lambda: None)
    said: list[str] = []
    assert open_features("auto", calibrate=pictures(), say=said.append).name == "untrained"
    assert len(said) == 1 and "using untrained features" in said[0]


def test_open_features_auto_uses_a_cached_file(empty_cache: Path, monkeypatch):
    monkeypatch.setattr(vgg, "download", lambda url, path: pytest.fail("used the network"))
    empty_cache.mkdir(parents=True)
    weights = state()
    torch.save(weights, empty_cache / vgg.FILE)
    said: list[str] = []
    features = open_features("auto", say=said.append)
    assert features.name == "vgg19" and features.trained and str(empty_cache) in said[0]
    assert features.style_layers == ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
    x = torch.rand(1, 3, 32, 32)
    mean, std = torch.tensor(vgg.MEAN)[:, None, None], torch.tensor(vgg.STD)[:, None, None]
    by_hand = F.conv2d(
        F.pad((x - mean) / std, (1, 1, 1, 1), mode="reflect"),
        weights["features.0.weight"],
        weights["features.0.bias"],
    )
    found = features(x, ["conv1_1", "conv5_1"])
    assert torch.allclose(found["conv1_1"], F.relu(by_hand), atol=1e-5) and found[
        "conv5_1"
    ].shape == (1, 512, 2, 2)


@pytest.mark.parametrize("kind", ["text", "another network", "short"])
def test_vgg19_refuses_a_file_of_another_network(kind: str, empty_cache: Path):
    empty_cache.mkdir(parents=True)
    path = empty_cache / vgg.FILE
    if kind == "text":
        path.write_text("not weights")
    else:
        torch.save(
            {"a": torch.zeros(1)}
            if kind == "another network"
            else {n: v[:4] for n, v in state().items()},
            path,
        )
    with pytest.raises(CheckpointError, match="not VGG-19's weights.*--features untrained"):
        open_features("vgg19")


def test_vgg19_without_network_ends_in_one_line(empty_cache: Path, monkeypatch):
    def no_network(*words):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    said: list[str] = []
    with pytest.raises(
        ResourceError, match="--features vgg19: .*Temporary failure.*--features untrained"
    ) as caught:
        open_features("vgg19", say=said.append)
    assert (
        "\n" not in str(caught.value)
        and "downloading" in said[0]
        and not list(empty_cache.glob("*"))
    )


def test_vgg_download_ends_when_a_name_server_does_not_answer(empty_cache: Path, monkeypatch):
    monkeypatch.setattr(vgg, "PATIENCE_S", 0.2)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words: time.sleep(3))
    start = time.monotonic()
    with pytest.raises(ResourceError, match="was not resolved"):
        open_features("vgg19")
    assert time.monotonic() - start < 2.5


def test_vgg_download_ends_when_a_server_does_not_answer(tmp_path: Path, monkeypatch):
    """The server accepts the connection and never answers."""
    monkeypatch.setattr(vgg, "PATIENCE_S", 0.3)
    # Names are not resolved and no proxy is used: only the server's silence is tested.
    monkeypatch.setattr(vgg, "_look_up", lambda host: None)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        start = time.monotonic()
        with pytest.raises(ResourceError, match="timed out"):
            vgg.download(
                f"http://127.0.0.1:{server.getsockname()[1]}/x-00.pth", tmp_path / "x-00.pth"
            )
    assert time.monotonic() - start < 30, "Python alone would wait without a limit"
    assert not list(tmp_path.iterdir())


def test_vgg_download_keeps_only_a_file_with_the_right_hash(tmp_path: Path):
    import hashlib

    source = tmp_path / "source"
    source.write_bytes(b"weights")
    digits = hashlib.sha256(b"weights").hexdigest()[:8]
    target = tmp_path / "cache" / f"net-{digits}.pth"
    vgg.download(source.as_uri().replace("file:///", "file://localhost/"), target)
    assert target.read_bytes() == b"weights"
    wrong = tmp_path / "cache" / "net-00000000.pth"
    with pytest.raises(ResourceError, match="another hash"):
        vgg.download(source.as_uri().replace("file:///", "file://localhost/"), wrong)
    assert [path.name for path in wrong.parent.iterdir()] == [target.name]


def test_open_features_reports_bad_input_in_one_line(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"--features vgg16: .* use auto, untrained, vgg19"):
        open_features("vgg16")
    with pytest.raises(ConfigError, match="--features model:"):
        open_features("model:")
    with pytest.raises(CheckpointError, match="not a model"):
        open_features(f"model:{tmp_path}")
    stack = untrained(0, pictures())
    with pytest.raises(
        ConfigError, match=r"layer xyz: untrained has no such layer; there are conv0, .*conv8"
    ):
        stack(torch.rand(1, 3, 32, 32), ["xyz"])
    with pytest.raises(ConfigError, match=r"conv7 .* short side of at least 16"):
        stack(torch.rand(1, 3, 15, 90), ["conv7"])
    assert stack(torch.rand(1, 3, 15, 90), ["conv4"])["conv4"].shape == (1, 128, 3, 22)
