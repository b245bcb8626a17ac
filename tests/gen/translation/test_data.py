"""Pairs and domains: how they are made and read, and what is refused with one clear line."""

import builtins
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray.errors import ConfigError, ResourceError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Source
from genray.gen.translation.config import CycleGANConfig, Pix2PixConfig
from genray.gen.translation.domains import choose_domains, domain_names, load_domains
from genray.gen.translation.pairs import MASK, load_pairs, make_inputs, make_pairs


def write(path: Path, colour: int, width: int = 16, height: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((height, width, 3), colour, np.uint8)
    pixels[:, width // 2 :] //= 2  # the right half is darker
    Image.fromarray(pixels).save(path)


def folders(root: Path, count: int = 6) -> Path:
    """Write pairs in two subfolders: A is 100 + n, and B 200 + n."""
    for number in range(count):
        write(root / "a" / f"{number}.png", 100 + number)
        write(root / "b" / f"{number}.bmp", 200 + number)
    return root


def pairs_of(root: Path, **changes) -> np.ndarray:
    """Return the first pixel's channels of all rows, sorted, as levels of 0..255."""
    data = load_pairs(Pix2PixConfig(data=DataConfig(data=f"pairs:{root}", **changes)), -1.0, 1.0)
    values = np.concatenate(
        [part.values.numpy() for part in (data.train, data.validation, data.test)]
    )
    assert data.about["pairs"]["channels"] == [values.shape[1] // 2] * 2
    return np.sort(values[:, :, 0, 0], axis=0)


# -- pairs -----------------------------------------------------------------------------------------


def test_pairs_of_two_folders_are_matched_by_name(tmp_path: Path):
    rows = pairs_of(folders(tmp_path))
    assert rows.tolist() == [[100 + n] * 3 + [200 + n] * 3 for n in range(6)]
    config = Pix2PixConfig(data=DataConfig(data=f"pairs:{tmp_path}"), direction="b_to_a")
    turned = load_pairs(config, -1.0, 1.0)
    assert (turned.train.values[:, 0, 0, 0] - turned.train.values[:, 3, 0, 0] == 100).all()
    assert len(turned.test) == 1 and turned.about["rows"]["names"]
    small = load_pairs(replace(config, data=replace(config.data, size=8, grey=True)), -1.0, 1.0)
    assert small.shape == (2, 8, 8)


def test_pairs_side_by_side_are_the_halves_of_a_file(tmp_path: Path):
    for number in range(5):
        write(tmp_path / f"{number}.png", 100 + 2 * number, width=32)
    assert pairs_of(tmp_path).tolist() == [[100 + 2 * n] * 3 + [50 + n] * 3 for n in range(5)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "b" / "3.bmp").unlink(), "a/3 has no partner in b .1 of 6 names"),
        (lambda root: write(root / "b" / "more.png", 1), "b/more has no partner in a .1 of 7"),
        (lambda root: write(root / "b" / "3.bmp", 9, width=20), "of 3 are 16x16 and 20x16"),
        (
            lambda root: (
                [write(root / side / "3.png", 9, 20, 20) for side in "ab"]
                and (root / "b" / "3.bmp").unlink()
            ),
            "3 is 20x20, 0 is 16x16; .*--size 64",
        ),
        (lambda root: (root / "a" / "2.png").write_bytes(b"no"), "2.png: not an image"),
        (lambda root: write(root / "more.png", 1, width=17), "0.png is|is 17 pixels wide"),
    ],
    ids=["unpaired-a", "unpaired-b", "sizes", "several-sizes", "damaged", "odd"],
)
def test_pairs_refuse_files_that_are_no_pairs(change, message: str, tmp_path: Path):
    change(folders(tmp_path))
    config = Pix2PixConfig(data=DataConfig(data=f"pairs:{tmp_path}"))
    with pytest.raises(ConfigError, match=f"^--data pairs:.*{message}") as refused:
        load_pairs(config, -1.0, 1.0)
    assert "\n" not in str(refused.value)


def test_pairs_refuse_missing_and_small_folders_and_other_families(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such folder"):
        pairs_of(tmp_path / "none")
    with pytest.raises(ConfigError, match="1 pair is too few; give at least 5"):
        pairs_of(folders(tmp_path / "one", 1))
    with pytest.raises(ConfigError, match="pairs of images are for `genray train pix2pix`"):
        load_data(DataConfig(data=f"pairs:{folders(tmp_path / 'six')}"))


def squares(count: int = 3, side: int = 16) -> np.ndarray:
    """Return colour images with a bright square in the middle, uint8 [count, 3, side, side]."""
    images = np.full((count, 3, side, side), 20, np.uint8)
    images[:, 0, side // 4 : -side // 4, side // 4 : -side // 4] = 250
    return images


def test_made_inputs_of_each_kind():
    images = squares()
    edges = make_inputs(images, "edges", edge_sigma=0.5)
    assert edges.shape == (3, 1, 16, 16) and set(np.unique(edges)) == {0, 255}
    assert (edges[0, 0, 6:10, 6:10] == 255).all() and (edges[0, 0, 2:6, 8] == 0).any()
    grey = make_inputs(images, "grey")
    assert grey.shape == (3, 1, 16, 16) and grey[0, 0, 0, 0] == 20
    assert grey[0, 0, 8, 8] == round(0.299 * 250 + 0.701 * 20)
    low = make_inputs(images, "low", factor=4)
    assert low.shape == images.shape and len(np.unique(low[0, 0])) > 2
    assert np.abs(low.astype(int).mean() - images.mean()) < 3
    masked = make_inputs(images, "masked")
    changed = (masked == MASK).all(1)
    assert (changed.sum((1, 2)) == 64).all() and (
        masked[~changed[:, None].repeat(3, 1)]
    ).max() == 250
    assert np.array_equal(masked, make_inputs(images, "masked"))
    assert not np.array_equal(masked, make_inputs(images, "masked", seed=1))


def test_made_pairs_keep_labels_and_targets():
    source = Source("toy", squares(6), squares(2), np.arange(6) % 2, np.arange(2), ("x", "y"))
    found = make_pairs(source, Pix2PixConfig(pairs="grey"))
    assert found.train.shape == (6, 4, 16, 16) and np.array_equal(found.train[:, 1:], source.train)
    assert found.classes == ("x", "y") and found.about["pairs"]["channels"] == [1, 3]
    floats = replace(source, train=source.train / 255.0, test=source.test / 255.0)
    again = make_pairs(floats, Pix2PixConfig(pairs="grey"))
    assert again.train.dtype == np.uint8 and np.array_equal(again.train, found.train)
    grey = replace(source, train=source.train[:, :1], test=source.test[:, :1])
    with pytest.raises(ConfigError, match="--pairs grey: needs colours.*--data toy"):
        make_pairs(grey, Pix2PixConfig(pairs="grey"))


def test_edges_without_scikit_image_name_the_package(monkeypatch: pytest.MonkeyPatch):
    plain = builtins.__import__

    def without(name: str, *rest, **named):
        if name.startswith("skimage"):
            raise ImportError(name)
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ResourceError, match=r"pip install 'genray\[edges\]'"):
        make_inputs(squares(), "edges")


# -- domains ---------------------------------------------------------------------------------------


def three_classes() -> Source:
    label = np.arange(60) % 3
    images = np.zeros((60, 3, 16, 16), np.uint8) + (10 * label + 1)[:, None, None, None].astype(
        np.uint8
    )
    return Source("toy", images[:45], images[45:], label[:45], label[45:], ("x", "y", "z"))


def test_domains_are_two_chosen_classes_mixed_evenly():
    found = choose_domains(three_classes(), CycleGANConfig(domains=("z", "x")))
    assert found.classes == ("z", "x") and len(found.train) == 30
    assert set(found.train[found.train_label == 0].flatten()) == {21}  # z
    assert set(found.train[found.train_label == 1].flatten()) == {1}
    assert found.train_label is not None and found.train_label[-4:].sum() == 2


@pytest.mark.parametrize(
    ("domains", "message"),
    [
        ((), "has 3 classes; choose two, e.g. --domains x y"),
        (("x", "w"), "has no class w; it has x, y, z"),
    ],
)
def test_domains_refuse_other_classes(domains: tuple[str, ...], message: str):
    with pytest.raises(ConfigError, match=message):
        choose_domains(three_classes(), CycleGANConfig(domains=domains))


def folder_of(root: Path, count: int, colour: int, side: int = 16) -> str:
    for number in range(count):
        write(root / f"{number}.png", colour, side, side)
    return f"folder:{root}"


def test_domains_of_two_data_sets_have_both_splits(tmp_path: Path):
    a, b = folder_of(tmp_path / "day", 30, 250), folder_of(tmp_path / "night", 40, 10)
    config = CycleGANConfig(data=DataConfig(data=a, validation=0.2), to=b)
    data = load_domains(config, -1.0, 1.0)
    assert data.classes == ("day", "night") and data.name == "day and night"
    for split, counts in ((data.train, (19, 26)), (data.validation, (5, 6)), (data.test, (6, 8))):
        assert split.label is not None
        found = tuple(int((split.label == number).sum()) for number in (0, 1))
        assert found == counts
        assert (split.values[split.label == 0, 0, 0, 0] == 250).all()
        assert (split.values[split.label == 1, 0, 0, 0] == 10).all()
    assert domain_names("photos", "photos") == ("a", "b")


def test_domains_of_a_folder_with_two_subfolders(tmp_path: Path):
    for name, colour in (("horse", 200), ("zebra", 90)):
        folder_of(tmp_path / name, 30, colour)
    config = CycleGANConfig(data=DataConfig(data=f"folder:{tmp_path}", validation=0.2))
    assert load_domains(config, -1.0, 1.0).classes == ("horse", "zebra")


def test_domains_refuse_unlike_sizes_single_images_and_wrong_options(tmp_path: Path):
    a, b = folder_of(tmp_path / "day", 6, 250), folder_of(tmp_path / "night", 6, 10, side=20)
    with pytest.raises(ConfigError, match=r"^--to .*night: images of 20x20 .* has 16x16"):
        load_domains(CycleGANConfig(data=DataConfig(data=a), to=b), -1.0, 1.0)
    one = tmp_path / "two"
    folder_of(one / "horse", 1, 200)
    folder_of(one / "zebra", 9, 90)
    with pytest.raises(ConfigError, match="domain horse has [01] training image.*at least 2; give"):
        load_domains(CycleGANConfig(data=DataConfig(data=f"folder:{one}")), -1.0, 1.0)
    with pytest.raises(ConfigError, match="has no classes; name the second domain with --to"):
        load_domains(CycleGANConfig(data=DataConfig(data=a)), -1.0, 1.0)
    for options, message in (
        ({"to": "paintings", "domains": ("x", "y")}, "--domains x y: --to paintings is domain B"),
        ({"to": "paintngs"}, "did you mean paintings"),
        ({"to": "docs"}, "--to docs: a domain needs images"),
        ({"domains": ("x",)}, "--domains x: give two classes"),
        ({"data": DataConfig(data="pairs:x")}, "pairs are for `genray train pix2pix`"),
    ):
        with pytest.raises(ConfigError, match=message):
            CycleGANConfig(**options).validate()
    for options, message in (
        ({"data": DataConfig(data="photos", augment=("colour",))}, "--augment colour"),
        ({"data": DataConfig(data="photos", grey=True)}, "--grey: inputs of --pairs grey"),
        ({"adversarial_weight": 0.0, "l1_weight": 0.0}, "--l1-weight 0"),
        ({"data": DataConfig(data="docs")}, "--data docs: a translation needs images"),
    ):
        with pytest.raises(ConfigError, match=message):
            Pix2PixConfig(**options).validate()
