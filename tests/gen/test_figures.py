"""Tests the numbers of each figure, and that the files are pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError, ResourceError
from genray.gen.figures import FIGURES, main_figures
from genray.gen.figures.depth import depth_curve
from genray.gen.figures.gradients import gradients_by_depth
from genray.gen.figures.losses import loss_curve, loss_gradients
from genray.gen.figures.valley import (
    VALLEY,
    VALLEY_MORE_STEPS,
    VALLEY_RATES,
    VALLEY_START,
    VALLEY_STEPS,
    valley_path,
)
from genray.gen.layers import ACTIVATIONS
from genray.gen.training.optimizers import OPTIMIZERS


def height(point_XY: np.ndarray) -> float:
    return float((np.array(VALLEY) * point_XY**2).sum() / 2)


def crossings(path: np.ndarray) -> int:
    """Return how often the path crosses the valley's floor, without points closer than 1e-3."""
    steep = path[np.abs(path[:, 1]) > 1e-3, 1]
    return int((np.sign(steep[1:]) != np.sign(steep[:-1])).sum())


def test_valley_path_of_sgd_is_the_closed_form():
    """On a quadratic, each step multiplies a coordinate by (1 − η·a), which is negative for the
    steep one.
    """
    path = valley_path("sgd", 0.06, steps=20)
    rates = 1 - 0.06 * np.array(VALLEY)
    expected = np.array(VALLEY_START) * rates ** np.arange(21)[:, None]
    np.testing.assert_allclose(path, expected, rtol=1e-12)
    assert rates[1] < 0 and crossings(path) > 10


def test_valley_path_of_nesterov_and_adam_crosses_half_as_often_as_sgd():
    zigzag = crossings(valley_path("sgd", VALLEY_RATES["sgd"]))
    assert crossings(valley_path("nesterov", VALLEY_RATES["nesterov"])) < zigzag / 2
    assert crossings(valley_path("adam", VALLEY_RATES["adam"])) < zigzag / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_valley_path_of_every_optimizer_nears_the_minimum_at_its_rate(name: str):
    path = valley_path(name, VALLEY_RATES[name], VALLEY_MORE_STEPS.get(name, VALLEY_STEPS))
    assert np.array_equal(path[0], VALLEY_START)
    assert height(path[-1]) < height(path[0]) / 100
    assert np.abs(path[-1]).max() < 0.3, "the path ends away from the minimum"
    assert np.abs(path).max() <= 4  # inside the picture


def test_gradients_by_depth_vanish_only_for_sigmoid():
    first = {name: gradients_by_depth(name)[0] for name in ACTIVATIONS}
    assert first["sigmoid"] < 1e-9
    # √½ a layer: 2⁻¹⁰ = 1e-3 over 20
    assert 1e-4 < first["relu"] < 1e-2 and first["leaky"] > first["relu"]
    assert min(first[name] for name in ("tanh", "elu", "maxout")) > 0.1


def test_gradients_by_depth_depend_only_on_the_seed():
    assert np.array_equal(
        gradients_by_depth("tanh", depth=4, seed=3), gradients_by_depth("tanh", depth=4, seed=3)
    )
    assert not np.array_equal(
        gradients_by_depth("tanh", depth=4), gradients_by_depth("tanh", depth=4, seed=1)
    )


def test_loss_gradients_of_squared_error_vanish_at_both_ends():
    """Cross-entropy has the gradient 1 − p. Squared error has none where p is 0 or 1."""
    p, cross_entropy = loss_gradients("cross_entropy")
    _, squared = loss_gradients("squared_error")
    np.testing.assert_allclose(cross_entropy, 1 - p, atol=1e-9)
    # By hand for 10 classes: 2 p (1 − p) ((1 − p) + (1 − p) / 9).
    np.testing.assert_allclose(squared, 2 * p * (1 - p) ** 2 * (10 / 9), atol=1e-9)
    assert squared[0] < 1e-3 and squared[-1] < 1e-6 and cross_entropy[0] > 0.99


@pytest.mark.learn
@pytest.mark.timeout(600)
def test_loss_curve_of_squared_error_is_higher_from_a_surely_wrong_start():
    """After 10 epochs (mean of three seeds), cross-entropy reaches a low error from both starts;
    squared error reaches it only from the usual start.
    """
    error = {
        (loss, start): np.mean(
            [loss_curve(loss, start, epochs=10, seed=seed)[-1] for seed in range(3)]
        )
        for loss in ("cross_entropy", "squared_error")
        for start in ("as usual", "surely wrong")
    }
    assert (
        error["cross_entropy", "surely wrong"] < 0.05 and error["squared_error", "as usual"] < 0.08
    )
    assert error["squared_error", "surely wrong"] > 2 * error["cross_entropy", "surely wrong"]


@pytest.mark.learn
@pytest.mark.timeout(600)
def test_depth_curve_of_40_layers_falls_only_with_residual_connections():
    """After 12 epochs, the training error of 40 plain layers is far above that of 4 layers; the
    error of 40 residual layers is close to it.
    """
    plain, residual = depth_curve(40, False, epochs=12)[-1], depth_curve(40, True, epochs=12)[-1]
    shallow = depth_curve(4, False, epochs=12)[-1]
    assert shallow < 0.05
    assert plain > 0.5
    assert residual < 0.15


@pytest.mark.parametrize("name", ["schedules", "gradients"])
def test_main_figures_writes_the_same_file_each_time(tmp_path: Path, name: str):
    (first,) = main_figures(tmp_path / "new" / "folder", [name])
    (second,) = main_figures(tmp_path, [name, name])
    assert first.name == f"{name}.png" and first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # curves, not an empty page


def test_main_figures_refuses_an_unknown_name_before_drawing(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=f"^vally: no such figure; there are {', '.join(FIGURES)}$"
    ):
        main_figures(tmp_path, ["schedules", "vally"])
    assert not list(tmp_path.iterdir())


def test_main_figures_reports_an_unwritable_folder_in_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"cannot be written .*; choose another place"):
        main_figures(tmp_path / "file", ["schedules"])
