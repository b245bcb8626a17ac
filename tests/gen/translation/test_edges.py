"""Edges of HED become thin lines or soft grey edges, and pix2pix and its models use them."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.types import Source
from genray.gen.images.hed import HED
from genray.gen.training.fit import Fit
from genray.gen.translation import edges
from genray.gen.translation.apply import model_input
from genray.gen.translation.config import Pix2PixConfig
from genray.gen.translation.edges import draw_edges, draw_hed, find_edges, thin_lines
from genray.gen.translation.model import Translator
from genray.gen.translation.pairs import make_pairs
from genray.gen.translation.task_pix2pix import Pix2PixTask
from tests.helpers.translation import UNET, pix2pix, scenes


@pytest.fixture(scope="module")
def random_hed() -> HED:
    """HED with random weights: the published ones are an optional package."""
    generator, net = torch.Generator().manual_seed(0), HED()
    for each in net.parameters():
        torch.nn.init.normal_(each, 0, (2 / each[0].numel()) ** 0.5, generator)
    net.blocks[0][0].weight.mul_(0.01)  # type: ignore[index]
    net.fuse.weight.mul_(2)  # probabilities from 0 to 1
    net.fuse.bias.sub_(7)  # type: ignore[union-attr]
    return net


@pytest.fixture
def hed(random_hed: HED, monkeypatch: pytest.MonkeyPatch) -> HED:
    monkeypatch.setattr(edges, "load_hed", lambda device: random_hed.to(device))
    monkeypatch.setattr(edges, "LEAST_SIDE", 1)
    return random_hed


def photos(count: int = 3, channels: int = 3, height: int = 24, width: int = 30) -> np.ndarray:
    """Return smooth random images, uint8 [count, channels, height, width]."""
    noise = np.random.RandomState(0).normal(size=(count, channels, height, width))
    smooth = ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return (128 + 127 * smooth / np.abs(smooth).max()).astype(np.uint8)


def test_find_edges_enlarges_small_images_in_batches(hed: HED, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(edges, "LEAST_SIDE", 61)
    images = photos()
    found = find_edges(images)
    assert found.shape == (3, 24, 30) and found.dtype == np.float32
    # 30 pixels are enlarged threefold, to at least 61, and each probability is the mean of 3x3.
    large = torch.nn.functional.interpolate(
        torch.from_numpy(images).float(), size=(72, 90), mode="bicubic"
    )
    expected = hed(large.clamp(0, 255)).reshape(3, 24, 3, 30, 3).mean((2, 4)).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found.std() > 0.01
    monkeypatch.setattr(edges, "BATCH_PIXELS", 2 * 72 * 90)
    np.testing.assert_allclose(find_edges(images), found, atol=1e-5)
    # Larger images remain as they are, and grey ones are grey in three channels.
    grey = photos(1, 1, 20, 61)
    expected = hed(torch.from_numpy(grey.repeat(3, 1)).float())[0].numpy()
    np.testing.assert_allclose(find_edges(grey), expected, atol=1e-5)


def slow_lines(probability_HW: np.ndarray, threshold: float) -> np.ndarray:
    """Return what `thin_lines` returns before short lines are removed, pixel by pixel."""
    height, width = probability_HW.shape
    second = {
        name: ndimage.gaussian_filter(probability_HW.astype(float), 2.0, order, mode="nearest")
        for name, order in (("yy", (2, 0)), ("xx", (0, 2)), ("xy", (1, 1)))
    }

    def at(y: float, x: float) -> float:
        y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
        top, left = min(int(y), height - 2), min(int(x), width - 2)
        square, down, right = probability_HW[top : top + 2, left : left + 2], y - top, x - left
        return np.array([1 - down, down]) @ square @ np.array([1 - right, right])

    out = np.zeros((height, width), bool)
    for y, x in np.ndindex(height, width):
        yy, xx, xy = (second[name][y, x] for name in ("yy", "xx", "xy"))
        curvatures, vectors = np.linalg.eigh([[yy, xy], [xy, xx]])
        down, right = vectors[:, 0]  # of the smaller eigenvalue
        value, neighbours = probability_HW[y, x], (at(y + down, x + right), at(y - down, x - right))
        inside = min(y, x, height - 1 - y, width - 1 - x) / 5
        is_ridge = curvatures[0] <= -0.015 * value and value > max(neighbours)
        out[y, x] = is_ridge and value * min(inside, 1) >= threshold
    return out


def test_thin_lines_equal_a_slow_search(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(edges, "LEAST_LINE", 1)
    noise = ndimage.gaussian_filter(np.random.RandomState(1).normal(size=(40, 52)), 2)
    probability = (0.5 + noise / np.abs(noise).max() / 2).astype(np.float32)
    found, expected = thin_lines(probability, 0.4), slow_lines(probability, 0.4)
    assert 40 < expected.sum() < 600 and (found != expected).mean() < 0.002  # rounding of ties


def test_thin_lines_are_the_middle_of_thick_edges():
    y, x = np.mgrid[:80, :90]
    radius = np.hypot(y - 40, x - 45)
    thick = np.exp(-(((radius - 22.3) / 3) ** 2)).astype(np.float32)  # about 7 pixels wide
    thick[70, 70:73] = 0.9  # 3 pixels are no line
    thick[30:50, 1] = 0.45  # an answer to the border
    line = thin_lines(thick, 0.1)
    assert np.abs(radius[line] - 22.3).max() < 1
    assert ndimage.label(~line)[1] == 2  # the circle is closed: it has an inside and an outside
    assert not ndimage.binary_erosion(line, np.ones((2, 2))).any()  # nowhere 2 pixels thick
    assert not thin_lines(thick * 0.09, 0.1).any() and thin_lines(thick[:1, :1], 0.1).shape == (
        1,
        1,
    )


def test_thin_lines_have_one_of_two_equal_columns_and_keep_diagonals():
    y, x = np.mgrid[:40, :40]
    columns = thin_lines(np.exp(-(((x - 19.5) / 2) ** 2)).astype(np.float32), 0.1)
    assert (columns[6:-6].sum(1) == 1).all()
    diagonal = thin_lines(np.exp(-(((x - y) / 2) ** 2)).astype(np.float32), 0.1)
    assert (diagonal[6:-6, 6:-6] == np.eye(28, dtype=bool)).all()


def test_draw_hed_makes_lines_or_soft_edges(hed: HED):
    images = photos()
    soft, lines = draw_hed(images, 0.0), draw_hed(images, 0.4)
    probability = find_edges(images)
    assert soft.dtype == lines.dtype == np.uint8 and soft.shape == lines.shape == (3, 1, 24, 30)
    assert np.abs(255 - soft[:, 0] - 255 * probability).max() <= 0.51
    assert set(np.unique(lines)) == {0, 255}
    assert ((lines[:, 0] == 0) == [thin_lines(each, 0.4) for each in probability]).all()
    assert np.array_equal(draw_edges(images, "hed", threshold=0.4), lines)
    assert not np.array_equal(draw_edges(images), lines)


def test_pix2pix_draws_with_hed_and_its_model_knows(hed: HED, capsys: pytest.CaptureFixture[str]):
    config = pix2pix(pairs="edges", edge_detector="hed", edge_threshold=0.3)
    images = photos(6, height=16, width=16)
    pairs = make_pairs(Source("toy", images[:4], images[4:]), config)
    assert np.array_equal(pairs.train[:, :1], draw_hed(images[:4], 0.3))
    assert np.array_equal(pairs.test, np.concatenate([draw_hed(images[4:], 0.3), images[4:]], 1))
    assert capsys.readouterr().err == "--edge-detector hed: finding the edges of 6 images\n"
    # The model's description has all that the preparation of a photograph needs.
    data = replace(scenes(pairs=True), about={"pairs": pairs.about["pairs"]})
    task = Pix2PixTask(config)
    Fit(task, data, config.fit)
    export = task.export()
    about = export.config["about"]
    assert about["input"] == "edges" and "--edge-detector hed" in export.card
    rgb = images[0].transpose(1, 2, 0)
    model = Translator(UNET, (1, 16, 16), 3, about=about)
    drawn = model_input(model, rgb, prepare=True)
    assert np.array_equal(drawn[0].numpy() == -1, draw_hed(images[:1], 0.3)[0] == 0)
    assert set(drawn.unique().tolist()) <= {-1.0, 1.0}
    # A drawing is not searched for edges: it becomes black and white, or remains soft.
    drawing = np.full((16, 16, 3), 159, np.uint8)
    assert (model_input(model, drawing) == -1).all()
    soft = Translator(UNET, (1, 16, 16), 3, about={**about, "edge_threshold": 0.0})
    torch.testing.assert_close(model_input(soft, drawing), torch.full((1, 1, 16, 16), 63 / 255))
    drawn = model_input(soft, rgb, prepare=True)
    torch.testing.assert_close(drawn[0], torch.from_numpy(draw_hed(images[:1], 0.0)[0]) / 127.5 - 1)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"pairs": "grey"}, "--edge-detector hed: --pairs grey has no edges; use --pairs edges"),
        (
            {"pairs": "edges", "data": DataConfig(data="pairs:x")},
            "--edge-detector hed: --data pairs:x has inputs already; leave it out",
        ),
    ],
)
def test_edge_detector_needs_pairs_of_edges(options: dict, line: str):
    with pytest.raises(ConfigError, match=line):
        Pix2PixConfig(edge_detector="hed", **options).validate()
    Pix2PixConfig(pairs="edges", edge_detector="hed").validate()
