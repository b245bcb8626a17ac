"""What the pictures show, as numbers; and that the files are pictures."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError, ResourceError
from genray.gen.figures import (
    FIGURES,
    VALLEY,
    VALLEY_MORE_STEPS,
    VALLEY_RATES,
    VALLEY_START,
    VALLEY_STEPS,
    depth_curve,
    gradients_by_depth,
    loss_curve,
    loss_gradients,
    main_figures,
    valley_path,
)
from genray.gen.layers import ACTIVATIONS
from genray.gen.training.optimizers import OPTIMIZERS


def height(point_XY: np.ndarray) -> float:
    return float((np.array(VALLEY) * point_XY**2).sum() / 2)


def crossings(path: np.ndarray) -> int:
    """How often the path changes the side of the valley, but for the last hair's breadth."""
    steep = path[np.abs(path[:, 1]) > 1e-3, 1]
    return int((np.sign(steep[1:]) != np.sign(steep[:-1])).sum())


def test_sgds_path_is_the_closed_form():
    """On a quadratic each coordinate shrinks by (1 − η·a) a step: the steep one changes its sign
    each time.
    """
    path = valley_path("sgd", 0.06, steps=20)
    rates = 1 - 0.06 * np.array(VALLEY)
    expected = np.array(VALLEY_START) * rates ** np.arange(21)[:, None]
    np.testing.assert_allclose(path, expected, rtol=1e-12)
    assert rates[1] < 0 and crossings(path) > 10


def test_sgd_zigzags_and_others_damp_it():
    zigzag = crossings(valley_path("sgd", VALLEY_RATES["sgd"]))
    assert crossings(valley_path("nesterov", VALLEY_RATES["nesterov"])) < zigzag / 2
    assert crossings(valley_path("adam", VALLEY_RATES["adam"])) < zigzag / 2


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_goes_down_at_its_rate(name: str):
    path = valley_path(name, VALLEY_RATES[name], VALLEY_MORE_STEPS.get(name, VALLEY_STEPS))
    assert np.array_equal(path[0], VALLEY_START)
    assert height(path[-1]) < height(path[0]) / 100
    assert np.abs(path[-1]).max() < 0.3, "it stops on the way"
    assert np.abs(path).max() <= 4  # inside the picture


def test_gradients_vanish_under_sigmoids_alone():
    first = {name: gradients_by_depth(name)[0] for name in ACTIVATIONS}
    assert first["sigmoid"] < 1e-9
    # √½ a layer: 2⁻¹⁰ = 1e-3 over 20
    assert 1e-4 < first["relu"] < 1e-2 and first["leaky"] > first["relu"]
    assert min(first[name] for name in ("tanh", "elu", "maxout")) > 0.1


def test_gradients_by_depth_repeat():
    assert np.array_equal(
        gradients_by_depth("tanh", depth=4, seed=3), gradients_by_depth("tanh", depth=4, seed=3)
    )
    assert not np.array_equal(
        gradients_by_depth("tanh", depth=4), gradients_by_depth("tanh", depth=4, seed=1)
    )


def test_squared_errors_gradient_vanishes_at_both_ends():
    """Cross-entropy's is 1 − p; squared error's has its top in between and is 0 where the
    softmax is sure, right or wrong.
    """
    p, cross_entropy = loss_gradients("cross_entropy")
    _, squared = loss_gradients("squared_error")
    np.testing.assert_allclose(cross_entropy, 1 - p, atol=1e-9)
    # By hand for 10 classes: 2 p (1 − p) ((1 − p) + (1 − p) / 9).
    np.testing.assert_allclose(squared, 2 * p * (1 - p) ** 2 * (10 / 9), atol=1e-9)
    assert squared[0] < 1e-3 and squared[-1] < 1e-6 and cross_entropy[0] > 0.99


@pytest.mark.learn
@pytest.mark.timeout(600)
def test_squared_error_stays_behind_where_the_start_is_surely_wrong():
    """Training error, mean of three seeds, after 10 epochs: cross-entropy hardly minds the
    start, squared error does.
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
def test_depth_hurts_plain_networks_and_not_residual_ones():
    """Training error after 12 epochs: 40 plain layers stay far above 4, 40 residual ones come
    near.
    """
    plain, residual = depth_curve(40, False, epochs=12)[-1], depth_curve(40, True, epochs=12)[-1]
    shallow = depth_curve(4, False, epochs=12)[-1]
    assert shallow < 0.05
    assert plain > 0.5
    assert residual < 0.15


@pytest.mark.parametrize("name", ["schedules", "gradients"])
def test_a_figure_is_the_same_file_each_time(tmp_path: Path, name: str):
    (first,) = main_figures(tmp_path / "new" / "folder", [name])
    (second,) = main_figures(tmp_path, [name, name])
    assert first.name == f"{name}.png" and first.read_bytes() == second.read_bytes()
    with Image.open(first) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert pixels.shape[0] > 400 and pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 50  # curves, not an empty page


def test_unknown_figures_are_refused_before_any_is_drawn(tmp_path: Path):
    with pytest.raises(
        ConfigError, match=f"^vally: no such figure; there are {', '.join(FIGURES)}$"
    ):
        main_figures(tmp_path, ["schedules", "vally"])
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ResourceError, match=r"cannot be written .*; choose another place"):
        main_figures(tmp_path / "file", ["schedules"])
