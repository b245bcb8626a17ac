"""Every data set by its real files, written here where they are not bundled; and what is said about unfit ones."""

import gzip
import pickle
import socket
import struct
import sys
import time
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from genray.errors import ConfigError
from genray.gen import published, sources, text
from genray.gen.augment import augment
from genray.gen.data import Data, DataConfig, Split, check_data, load_data, need_images, need_labels


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


@pytest.fixture
def docs(monkeypatch, tmp_path) -> Data:
    """Four modules of the library: the whole takes seconds to parse."""
    monkeypatch.setattr(sys, "stdlib_module_names", {"inspect", "logging", "string", "tarfile", "threading"})
    return load_data(DataConfig(data="docs", words=500, data_folder=str(tmp_path)))


def picture(path: Path, width: int, height: int, colour=(255, 0, 0)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), colour).save(path)
    return path


# -- digits -------------------------------------------------------------------------------------------------------------


def test_digits_are_cut_into_parts_that_share_no_row(digits):
    assert digits.shape == (1, 8, 8)
    assert [len(part) for part in (digits.train, digits.validation, digits.test)] == [1167, 130, 500]
    bundled = sources.load_digits()
    order = np.random.RandomState(0).permutation(1797)
    assert sorted(order.tolist()) == list(range(1797)) and len(bundled.train) + len(bundled.test) == 1797
    joined = torch.cat([digits.train.all(), digits.validation.all()])
    assert torch.equal(joined, torch.from_numpy(bundled.train))
    assert (float(joined.min()), float(joined.max())) == (0.0, 1.0)


def test_a_range_of_minus_one_to_one_is_the_same_pictures(digits):
    wide = load_data(DataConfig(), low=-1.0, high=1.0)
    torch.testing.assert_close(wide.test.all(), digits.test.all() * 2 - 1)
    assert (wide.test.low, wide.test.high) == (-1.0, 1.0)


def test_uint8_rows_are_scaled_when_they_are_taken():
    split = Split(torch.tensor([[0, 255], [51, 102]], dtype=torch.uint8), torch.tensor([3, 4]), -1.0, 1.0)
    values, label = split.take(torch.tensor([1, 0]))
    torch.testing.assert_close(values, torch.tensor([[-0.6, -0.2], [-1.0, 1.0]]))
    assert label is not None and label.tolist() == [4, 3]


def test_the_held_out_digits_give_the_published_pca_figure():
    """PCA to 10 numbers, fitted on 1,297 rows: test error .0197, training error .01906993."""
    from sklearn.decomposition import PCA

    source = sources.load_digits()
    train, test = source.train.reshape(1297, 64).astype(np.float64), source.test.reshape(500, 64)
    pca = PCA(10, svd_solver="full").fit(train)
    errors = [((pca.inverse_transform(pca.transform(part)) - part) ** 2).mean() for part in (train, test)]
    assert errors == pytest.approx([0.01906993, 0.01974], abs=1e-6)


def test_size_scales_and_grey_is_luma():
    assert load_data(DataConfig(size=16)).shape == (1, 16, 16)
    red_green_blue = np.array([255, 0, 0, 0, 255, 0, 0, 0, 255], np.uint8).reshape(3, 3, 1, 1)
    assert sources.to_grey(red_green_blue).ravel().tolist() == [76, 150, 29]  # 0.299, 0.587, 0.114 of 255


# -- torchvision's, in their own file formats ---------------------------------------------------------------------------


def write_mnist(folder: Path) -> None:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, rows in (("train", 20), ("t10k", 10)):
        pixels = np.arange(rows * 784, dtype=np.uint32).astype(np.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 2051, rows, 28, 28) + pixels.tobytes())
        label = (np.arange(rows) % 10).astype(np.uint8)
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 2049, rows) + label.tobytes())


def test_mnist_is_read_from_the_data_folder(tmp_path):
    write_mnist(tmp_path)
    data = load_data(DataConfig(data="mnist", data_folder=str(tmp_path)))
    assert data.shape == (1, 28, 28) and [len(data.train), len(data.validation), len(data.test)] == [18, 2, 10]
    expected = torch.arange(784).to(torch.uint8).reshape(28, 28) / 255.0
    torch.testing.assert_close(data.train.all()[0, 0], expected)
    assert data.test.label is not None and data.test.label.tolist() == list(range(10))
    assert "CC BY-SA" in data.licence


def test_svhn_and_cifar10_keep_their_channels_and_labels(tmp_path, monkeypatch):
    """Both in their publishers' formats; only the checksums are set aside, which no file written here could have."""
    from scipy.io import savemat
    from torchvision import datasets

    images = np.random.default_rng(0).integers(0, 256, (12, 3, 32, 32), dtype=np.uint8)
    label = np.arange(12) % 10
    (tmp_path / "SVHN").mkdir()
    lists = {}
    for part in ("train", "test"):
        ten = np.where(label == 0, 10, label)  # the publishers call zero 10
        savemat(tmp_path / "SVHN" / f"{part}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": ten[:, None]})
        url, file, _ = datasets.SVHN.split_list[part]
        lists[part] = [url, file, None]
    monkeypatch.setattr(datasets.SVHN, "split_list", lists)

    folder = tmp_path / "CIFAR10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batch = {"data": images.reshape(12, 3072), "labels": label.tolist()}
    for file in ("one", "test"):
        (folder / file).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": [str(number) for number in range(10)]}))
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [["one", None]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test", None]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", {**datasets.CIFAR10.meta, "md5": None})

    for name in ("svhn", "cifar10"):
        data = load_data(DataConfig(data=name, data_folder=str(tmp_path), validation=0))
        assert torch.equal(data.train.values, torch.from_numpy(images)), name
        assert data.test.label is not None and data.test.label.tolist() == label.tolist()
        assert len(data.classes) == 10 and data.licence


def test_the_environment_names_the_data_folder(tmp_path, monkeypatch):
    write_mnist(tmp_path)
    monkeypatch.setenv("GENRAY_DATA", str(tmp_path))
    assert load_data(DataConfig(data="mnist")).shape == (1, 28, 28)


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist", "svhn", "cifar10"])
def test_a_missing_file_without_a_network_is_one_line_that_says_where_it_goes(name, tmp_path, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody answers there
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(ConfigError) as error:
        load_data(DataConfig(data=name, data_folder=str(tmp_path)))
    message = str(error.value)
    assert "\n" not in message and str(tmp_path) in message and f"--data {name}" in message
    assert any(file in message for file in ("train-images-idx3-ubyte.gz", "train_32x32.mat", "cifar-10-python.tar.gz"))


def test_a_damaged_download_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for what in ("images-idx3", "labels-idx1"):
            (raw / f"{part}-{what}-ubyte.gz").write_bytes(gzip.compress(b"not MNIST"))
    with pytest.raises(ConfigError, match="--data mnist: not at hand"):
        load_data(DataConfig(data="mnist", data_folder=str(tmp_path)))


def test_a_silent_host_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as server:  # accepts, never answers
        start = time.monotonic()
        with pytest.raises(OSError):
            published.probe(f"http://127.0.0.1:{server.getsockname()[1]}/file", seconds=0.3)
        assert time.monotonic() - start < 3


# -- a folder of pictures -----------------------------------------------------------------------------------------------


def test_a_folder_is_scaled_labelled_and_split(tmp_path, capsys):
    for number in range(10):
        picture(tmp_path / "cats" / f"{number}.png", 20 + number, 30, (number, 0, 0))
        picture(tmp_path / "dogs" / f"{number}.jpg", 40, 20, (0, 200, number))
    (tmp_path / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing more")
    (tmp_path / "cats" / "notes.txt").write_text("not an image")
    data = load_data(DataConfig(data=f"folder:{tmp_path}", size=16, validation=0.25))
    assert data.classes == ("cats", "dogs") and data.shape == (3, 16, 16)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [12, 4, 4]
    names = data.train.names + data.validation.names + data.test.names
    assert len(set(names)) == 20
    assert data.train.label is not None
    for name, label in zip(data.train.names, data.train.label.tolist()):
        assert name.startswith(data.classes[label])
    assert data.about["skipped"] == 1 and "broken.png" in capsys.readouterr().err
    again = load_data(DataConfig(data=f"folder:{tmp_path}", size=16, validation=0.25))
    assert again.test.names == data.test.names


def test_unequal_sizes_without_size_name_both_files(tmp_path):
    for number in range(6):
        picture(tmp_path / f"{number}.png", 20 + (number == 3), 20)
    with pytest.raises(ConfigError, match=r"3\.png is 21x20, 0\.png is 20x20.*--size 64"):
        load_data(DataConfig(data=f"folder:{tmp_path}"))


def test_a_picture_that_claims_too_many_pixels_is_never_decoded(tmp_path, capsys):
    for number in range(6):
        picture(tmp_path / f"{number}.png", 8, 8)
    bomb = bytearray((tmp_path / "0.png").read_bytes())
    header = struct.pack(">4s2I5B", b"IHDR", 9_000, 9_000, 8, 2, 0, 0, 0)
    bomb[12:33] = header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "0.png").write_bytes(bytes(bomb))
    data = load_data(DataConfig(data=f"folder:{tmp_path}"))
    assert data.about["skipped_files"] == ["0.png (9000x9000 pixels are too many)"]
    assert "0.png" in capsys.readouterr().err
    assert len(data.train) + len(data.validation) + len(data.test) == 5


def test_nan_pixels_name_the_file(tmp_path):
    for number in range(5):
        picture(tmp_path / f"{number}.png", 8, 8)
    pixels = np.zeros((8, 8), np.float32)
    pixels[2, 3] = np.nan
    Image.fromarray(pixels).save(tmp_path / "bad.tiff")
    with pytest.raises(ConfigError, match=r"bad\.tiff has NaN"):
        load_data(DataConfig(data=f"folder:{tmp_path}"))


@pytest.mark.parametrize(("what", "message"), [("missing", "no such folder"), ("empty", "holds no images")])
def test_a_folder_without_pictures(what, message, tmp_path):
    folder = tmp_path / what
    if what == "empty":
        folder.mkdir()
    with pytest.raises(ConfigError, match=message):
        load_data(DataConfig(data=f"folder:{folder}"))


# -- frames -------------------------------------------------------------------------------------------------------------


def test_missing_frames_name_the_command(tmp_path):
    with pytest.raises(ConfigError, match=r"genray data atari --games .* --frames 20000 --size 64 --grey"):
        load_data(DataConfig(data="atari", size=64, grey=True, data_folder=str(tmp_path)))


def test_foreign_frames_are_refused(tmp_path):
    (tmp_path / "atari-32-rgb.safetensors").write_bytes(b"\x80\x04pickle")
    with pytest.raises(ConfigError, match="damaged or not ours"):
        load_data(DataConfig(data="atari", data_folder=str(tmp_path)))


# -- text ---------------------------------------------------------------------------------------------------------------


def check_labels(docs: Data) -> None:
    parts = (docs.train, docs.validation, docs.test)
    label = torch.cat([part.label for part in parts if part.label is not None])
    assert label.bincount(minlength=len(docs.classes)).min() >= 40


def test_docstrings_are_labelled_by_module_and_have_titles(docs):
    assert set(docs.classes) == {"inspect", "logging", "tarfile", "threading"}  # string has too few
    check_labels(docs)
    assert docs.test.label is not None
    for name, label in zip(docs.test.names[:50], docs.test.label[:50].tolist()):
        assert name.split(":")[0].split(".")[0] == docs.classes[label]
    length = docs.test.values.norm(dim=1)
    assert torch.all((length - 1).abs().lt(1e-5) | length.eq(0)) and float(docs.test.values.min()) == 0


def test_the_vocabulary_knows_training_rows_only():
    train, test = ["red apple pie", "red apple cake", "green pear"], ["purple plum", "purple apple"]
    idf = text.fit_vocabulary(train, 10)
    assert list(idf) == ["apple", "red"]  # what two training texts have
    assert idf["red"] == pytest.approx(1 + np.log(4 / 3))
    values = text.vectorize(["red red apple", *test], idf)
    by_hand = np.array([1.0, 1 + np.log(2)])  # apple once, red twice, the same idf
    np.testing.assert_allclose(values[0], by_hand / np.linalg.norm(by_hand), rtol=1e-6)
    assert values[1].tolist() == [0, 0] and values[2].tolist() == [1, 0]


def test_docstrings_are_read_once(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdlib_module_names", {"inspect", "logging"})
    cache = tmp_path / "data"
    first = text.cached_docstrings(cache)
    (file,) = cache.iterdir()
    assert vars(first).keys() == vars(text.read_docstrings()).keys()

    with monkeypatch.context() as patch:
        patch.setattr(text, "read_docstrings", lambda: pytest.fail("was read again"))
        again = text.cached_docstrings(cache)
    assert first.label is not None and again.label is not None and np.array_equal(first.label, again.label)
    assert again.label.dtype == first.label.dtype
    assert all(getattr(first, name) == getattr(again, name) for name in vars(first) if name != "label")

    for damage in ("", "[1, 2", '{"texts": []}', file.read_text().replace('"label": [0', '"label": [7', 1)):
        file.write_text(damage)
        assert text.cached_docstrings(cache).texts == first.texts
        assert text.cached_docstrings(cache).label.max() == 1 and len(list(cache.iterdir())) == 1

    monkeypatch.setattr(sys, "stdlib_module_names", {"inspect", "tarfile"})  # another library, another file
    assert text.cached_docstrings(cache).classes == ("inspect", "tarfile")
    (tmp_path / "file").write_text("no folder")
    assert text.cached_docstrings(tmp_path / "file").classes == ("inspect", "tarfile")


def test_vectorize_is_scikit_learns_tf_idf(docs):
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = text.read_folder.__doc__.split() * 2 + ["a code of numbers", "numbers of a code and a word", "words"]
    idf = text.fit_vocabulary(texts, 50)
    theirs = TfidfVectorizer(max_features=50, min_df=2, stop_words="english", sublinear_tf=True).fit_transform(texts)
    np.testing.assert_allclose(text.vectorize(texts, idf), theirs.toarray(), atol=1e-6)
    assert list(docs.about["idf"]) == sorted(docs.about["idf"])


def test_a_folder_of_texts(tmp_path, capsys):
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
    assert all(name.startswith(data.classes[label]) for name, label in zip(data.train.names, data.train.label.tolist()))
    for name in data.test.names:  # a word that only the held-out texts share must stay unknown
        (tmp_path / name).write_text("pepper leak leak")
    again = load_data(DataConfig(data=f"folder-text:{tmp_path}", validation=0))
    assert again.test.names == data.test.names and "leak" not in again.about["idf"]
    assert int((again.test.values > 0).sum()) == 2


def test_text_has_no_other_range():
    with pytest.raises(ConfigError, match=r"text lies in 0\.\.1, this model needs -1\.\.1"):
        load_data(DataConfig(data="docs"), low=-1.0)


# -- unfit data, unfit options ------------------------------------------------------------------------------------------


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
        ({"words": 1}, "--words 1"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options).validate()


def test_values_that_are_no_numbers_are_found(digits):
    values = digits.test.values.clone()
    values[7, 0, 2, 2] = torch.inf
    with pytest.raises(ConfigError, match="1 test rows have NaN or infinite values .the first: row 7"):
        check_data(replace(digits, test=replace(digits.test, values=values)))
    check_data(digits)


def test_one_class_is_not_enough_for_what_needs_labels(digits):
    need_labels(digits, "--finetune-labels")
    rows = torch.nonzero(digits.train.label == 3)[:, 0]
    values, label = digits.train.take(rows)
    with pytest.raises(ConfigError, match="--finetune-labels needs at least two"):
        need_labels(replace(digits, train=Split(values, label)), "--finetune-labels")
    with pytest.raises(ConfigError, match="needs labels"):
        need_labels(replace(digits, train=Split(values)), "--finetune-labels")


def test_wrong_sizes_name_the_nearest_fit(digits):
    need_images(digits, "--kind conv", 4)
    with pytest.raises(ConfigError, match="images of 8x8.*side 16 divides: --size 16"):
        need_images(digits, "--preset dcgan_svhn", 16)


# -- augmentation -------------------------------------------------------------------------------------------------------


def test_only_training_rows_are_augmented(digits):
    data = load_data(DataConfig(augment=("shift",)))
    assert data.train.augment == ("shift",) and data.validation.augment == () and data.test.augment == ()
    assert torch.equal(data.train.all(), digits.train.all())  # `take` and `all` never augment


def test_flips_mirror_about_half_of_the_rows():
    torch.manual_seed(0)
    x = torch.rand(400, 1, 4, 6)
    flipped = augment(x, ("flip",))
    same = (flipped == x).flatten(1).all(1)
    assert torch.equal(flipped[~same], x[~same].flip(3)) and 150 < int(same.sum()) < 250


def test_shifts_move_by_whole_pixels_and_repeat_the_edge():
    torch.manual_seed(0)
    x = torch.rand(400, 2, 20, 30)  # at most 2 down, 3 across
    moved = augment(x, ("shift",))
    padded = torch.nn.functional.pad(x, (3, 3, 2, 2), mode="replicate")
    seen = set()
    for row in range(400):
        fits = [
            (down, right)
            for down in range(5)
            for right in range(7)
            if torch.equal(moved[row], padded[row, :, down : down + 20, right : right + 30])
        ]
        assert len(fits) == 1
        seen.update(fits)
    assert len(seen) == 35


def test_crops_stay_inside_and_magnify():
    torch.manual_seed(0)
    ramp = torch.linspace(-1, 1, 32).expand(100, 1, 32, 32)
    cropped = augment(ramp, ("crop",))
    slope = (cropped[:, 0, 16, -4] - cropped[:, 0, 16, 3]) / (ramp[:, 0, 16, -4] - ramp[:, 0, 16, 3])
    assert float(slope.min()) >= 0.8 - 1e-4 and float(slope.max()) <= 1 + 1e-4 and float(slope.std()) > 0.03
    assert float(cropped.min()) >= -1 and float(cropped.max()) <= 1


def test_augmentation_is_a_function_of_the_global_generator_and_of_the_global_batch():
    from genray.gen.world import World

    x, names = torch.rand(8, 3, 8, 8), ("flip", "shift", "crop", "colour")
    torch.manual_seed(3)
    whole = augment(x, names)
    torch.manual_seed(3)
    assert torch.equal(augment(x, names), whole)
    for rank, rows in ((0, slice(0, 4)), (1, slice(4, 8))):
        torch.manual_seed(3)
        torch.testing.assert_close(augment(x[rows], names, World(rank, 2)), whole[rows])


def test_other_colours_are_the_same_picture():
    """Each channel of a recoloured image is one of the image's own, each once, as it is or as its negative."""
    torch.manual_seed(0)
    x = torch.rand(200, 3, 6, 5) * 0.5 - torch.rand(200, 3, 1, 1)
    turned = x.amin((2, 3), keepdim=True) + x.amax((2, 3), keepdim=True) - x
    y = augment(x, ("colour",))
    plain = (y[:, :, None] == x[:, None]).flatten(3).all(3)  # [B, channel of y, channel of x]
    negative = torch.isclose(y[:, :, None], turned[:, None]).flatten(3).all(3)
    assert torch.equal((plain | negative).sum(2), torch.ones(200, 3, dtype=torch.int64))
    assert torch.equal((plain | negative).sum(1), torch.ones(200, 3, dtype=torch.int64))
    assert 0.2 < negative.any(2).float().mean() < 0.4
    assert 0.2 < (plain | negative)[:, 0, 0].float().mean() < 0.5  # a third stays where it was
    assert torch.equal(augment(x[:, :1], ()), x[:, :1])
