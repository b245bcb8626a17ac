"""Tests data sets of texts: docstrings, folders, the vocabulary, and the cache."""

import sys

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.data import text
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data


@pytest.fixture
def docs(monkeypatch, tmp_path) -> Data:
    """Docstrings of four modules, because parsing the whole library takes seconds."""
    monkeypatch.setattr(
        sys, "stdlib_module_names", {"inspect", "logging", "string", "tarfile", "threading"}
    )
    return load_data(DataConfig(data="docs", words=500, data_folder=str(tmp_path)))


def check_labels(docs: Data) -> None:
    parts = (docs.train, docs.validation, docs.test)
    label = torch.cat([part.label for part in parts if part.label is not None])
    assert label.bincount(minlength=len(docs.classes)).min() >= 40


def test_read_docstrings_labels_by_module_and_has_titles(docs):
    assert set(docs.classes) == {"inspect", "logging", "tarfile", "threading"}  # string has too few
    check_labels(docs)
    assert docs.test.label is not None
    for name, label in zip(docs.test.names[:50], docs.test.label[:50].tolist()):
        assert name.split(":")[0].split(".")[0] == docs.classes[label]
    length = docs.test.values.norm(dim=1)
    assert (
        torch.all((length - 1).abs().lt(1e-5) | length.eq(0)) and float(docs.test.values.min()) == 0
    )


def test_fit_vocabulary_uses_only_training_rows():
    train, test = ["red apple pie", "red apple cake", "green pear"], ["purple plum", "purple apple"]
    idf = text.fit_vocabulary(train, 10)
    assert list(idf) == ["apple", "red"]  # what two training texts have
    assert idf["red"] == pytest.approx(1 + np.log(4 / 3))
    values = text.vectorize(["red red apple", *test], idf)
    by_hand = np.array([1.0, 1 + np.log(2)])  # apple once, red twice, the same idf
    np.testing.assert_allclose(values[0], by_hand / np.linalg.norm(by_hand), rtol=1e-6)
    assert values[1].tolist() == [0, 0] and values[2].tolist() == [1, 0]


def test_vectorize_counts_are_how_often_each_word_occurs():
    idf = {"apple": 2.0, "pie": 3.0, "red": 1.0}
    values = text.vectorize(["red red the red pie apple", "plum", "pie"], idf, "counts")
    np.testing.assert_allclose(values[0], np.array([1, 1, 3]) / np.sqrt(11), rtol=1e-6)
    assert values[1:].tolist() == [[0, 0, 0], [0, 1, 0]]


def test_load_data_with_counts_has_the_words_of_tf_idf(docs, tmp_path):
    counts = load_data(
        DataConfig(data="docs", words=500, weighting="counts", data_folder=str(tmp_path))
    )
    assert list(counts.about["idf"]) == list(docs.about["idf"])
    assert counts.about["weighting"] == "counts" and "weighting" not in docs.about
    for mine, theirs in zip(counts.test.values, docs.test.values):
        assert torch.equal(mine > 0, theirs > 0)
    assert not torch.allclose(counts.test.values, docs.test.values)
    # A text's smallest weight is a word that occurs once (or as often as all others): the others
    # are whole multiples in nearly all texts.
    row = counts.test.values[counts.test.values.norm(dim=1) > 0]
    ratio = row / torch.where(row > 0, row, 9.0).min(1, keepdim=True).values
    assert ((ratio - ratio.round()).abs() < 1e-4).float().mean() > 0.99


def test_cached_docstrings_reads_the_library_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdlib_module_names", {"inspect", "logging"})
    cache = tmp_path / "data"
    first = text.cached_docstrings(cache)
    (file,) = cache.iterdir()
    assert vars(first).keys() == vars(text.read_docstrings()).keys()

    with monkeypatch.context() as patch:
        patch.setattr(text, "read_docstrings", lambda: pytest.fail("was read again"))
        again = text.cached_docstrings(cache)
    assert (
        first.label is not None
        and again.label is not None
        and np.array_equal(first.label, again.label)
    )
    assert again.label.dtype == first.label.dtype
    assert all(
        getattr(first, name) == getattr(again, name) for name in vars(first) if name != "label"
    )

    for damage in (
        "",
        "[1, 2",
        '{"texts": []}',
        file.read_text().replace('"label": [0', '"label": [7', 1),
    ):
        file.write_text(damage)
        assert text.cached_docstrings(cache).texts == first.texts
        assert text.cached_docstrings(cache).label.max() == 1 and len(list(cache.iterdir())) == 1

    # another library, another file
    monkeypatch.setattr(sys, "stdlib_module_names", {"inspect", "tarfile"})
    assert text.cached_docstrings(cache).classes == ("inspect", "tarfile")
    (tmp_path / "file").write_text("no folder")
    assert text.cached_docstrings(tmp_path / "file").classes == ("inspect", "tarfile")


def test_vectorize_equals_tf_idf_of_scikit_learn(docs):
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = text.read_folder.__doc__.split() * 2 + [
        "a code of numbers",
        "numbers of a code and a word",
        "words",
    ]
    idf = text.fit_vocabulary(texts, 50)
    theirs = TfidfVectorizer(
        max_features=50, min_df=2, stop_words="english", sublinear_tf=True
    ).fit_transform(texts)
    np.testing.assert_allclose(text.vectorize(texts, idf), theirs.toarray(), atol=1e-6)
    assert list(docs.about["idf"]) == sorted(docs.about["idf"])


def test_load_data_reads_a_folder_of_texts(tmp_path, capsys):
    for kind, word in (("cooking", "pepper"), ("sailing", "anchor")):
        (tmp_path / kind).mkdir()
        for number in range(6):
            (tmp_path / kind / f"{number}.txt").write_text(
                f"{word} and {word} number{number * number}{kind} shared thing"
            )
    (tmp_path / "cooking" / "latin.txt").write_bytes(b"caf\xe9")
    data = load_data(DataConfig(data=f"folder-text:{tmp_path}", validation=0))
    assert data.classes == ("cooking", "sailing") and len(data.train) == 10 and len(data.test) == 2
    assert "latin.txt" in capsys.readouterr().err and data.about["skipped"] == 1
    assert set(data.about["idf"]) == {"pepper", "anchor", "shared", "thing"}
    assert data.train.label is not None
    assert all(
        name.startswith(data.classes[label])
        for name, label in zip(data.train.names, data.train.label.tolist())
    )
    for name in data.test.names:  # a word that only the held-out texts share must stay unknown
        (tmp_path / name).write_text("pepper leak leak")
    again = load_data(DataConfig(data=f"folder-text:{tmp_path}", validation=0))
    assert again.test.names == data.test.names and "leak" not in again.about["idf"]
    assert int((again.test.values > 0).sum()) == 2


def test_load_data_refuses_another_range_for_text():
    with pytest.raises(ConfigError, match=r"text are in 0\.\.1, and this model needs -1\.\.1"):
        load_data(DataConfig(data="docs"), low=-1.0)
