"""Tests splits, ranges and scaling of digits, and the messages for unsuitable options and data."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.data import sources
from genray.gen.data.config import DataConfig
from genray.gen.data.load import check_data, load_data
from genray.gen.data.types import Data, Split, need_images, need_labels


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


# -- digits ----------------------------------------------------------------------------------------


def test_load_data_splits_digits_into_disjoint_rows(digits):
    assert digits.shape == (1, 8, 8)
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [
        1167,
        130,
        500,
    ]
    bundled = sources.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    assert (
        sorted(order.tolist()) == list(range(1797))
        and len(bundled.train) + len(bundled.test) == 1797
    )
    joined = torch.cat([digits.train.all(), digits.validation.all()])
    assert torch.equal(joined, torch.from_numpy(bundled.train))
    assert (float(joined.min()), float(joined.max())) == (0.0, 1.0)


def test_load_data_scales_values_to_the_range(digits):
    wide = load_data(DataConfig(), low=-1.0, high=1.0)
    torch.testing.assert_close(wide.test.all(), digits.test.all() * 2 - 1)
    assert (wide.test.low, wide.test.high) == (-1.0, 1.0)


def test_split_take_scales_uint8_rows():
    split = Split(
        torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), torch.tensor([3, 4]), -1.0, 1.0
    )
    values, label = split.take(torch.tensor([1, 0]))
    torch.testing.assert_close(values, torch.tensor([[-0.6, -0.2], [-1.0, 1.0]]))
    assert label is not None and label.tolist() == [4, 3]


def test_load_digits_gives_the_published_pca_error_of_the_test_rows():
    """PCA with 10 components has a test error of .0197 and a training error of .01906993."""
    from sklearn.decomposition import PCA

    source = sources.load_digits()
    train, test = source.train.reshape(1297, 64).astype(np.float64), source.test.reshape(500, 64)
    pca = PCA(10, svd_solver="full").fit(train)
    errors = [
        ((pca.inverse_transform(pca.transform(part)) - part) ** 2).mean() for part in (train, test)
    ]
    assert errors == pytest.approx([0.01906993, 0.01974], abs=1e-6)


def test_load_data_scales_to_size_and_converts_to_luma():
    assert load_data(DataConfig(size=16)).shape == (1, 16, 16)
    red_green_blue = np.array([255, 0, 0, 0, 255, 0, 0, 0, 255], np.uint8).reshape(3, 3, 1, 1)
    # 0.299, 0.587, 0.114 of 255
    assert sources.to_grey(red_green_blue).ravel().tolist() == [76, 150, 29]


# -- unfit data, unfit options ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data": "cifar"}, "did you mean cifar10"),
        ({"data": "folder"}, "write folder:PATH"),
        ({"data": "digits:x"}, "no such data set"),
        ({"validation": 1.0}, "--validation 1.0"),
        ({"size": 2}, "--size 2"),
        ({"data": "mnist", "augment": ("flip",)}, "mirrored digit"),
        ({"data": "docs", "augment": ("shift",)}, "not for text"),
        ({"data": "docs", "size": 32}, "not for text"),
        ({"data": "docs", "grey": True}, "not for text"),
        ({"words": 1}, "--words 1"),
    ],
)
def test_data_config_refuses_bad_options(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options).validate()


def test_check_data_finds_nan_and_infinite_values(digits):
    values = digits.test.values.clone()
    values[7, 0, 2, 2] = torch.inf
    with pytest.raises(
        ConfigError, match="1 test rows have NaN or infinite values .the first: row 7"
    ):
        check_data(replace(digits, test=replace(digits.test, values=values)))
    check_data(digits)


def test_need_labels_refuses_one_class(digits):
    need_labels(digits, "--finetune-labels")
    rows = torch.nonzero(digits.train.label == 3)[:, 0]
    values, label = digits.train.take(rows)
    with pytest.raises(ConfigError, match="--finetune-labels needs at least two"):
        need_labels(replace(digits, train=Split(values, label)), "--finetune-labels")
    with pytest.raises(ConfigError, match="needs labels"):
        need_labels(replace(digits, train=Split(values)), "--finetune-labels")


def test_need_images_names_the_nearest_size(digits):
    need_images(digits, "--kind conv", 4)
    with pytest.raises(ConfigError, match="images of 8x8.*multiple of 16; use --size 16"):
        need_images(digits, "--preset dcgan_svhn", 16)
