"""Tests retrieval, clusters, maps and codes of photographs with lite0, from the command line."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray import cli
from genray.gen.evaluation import retrieval
from tests.helpers.photographs import changed, photographs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight photographs: four in `a`, four in `b`."""
    top = tmp_path_factory.mktemp("photographs")
    for number, (name, rgb) in enumerate(list(photographs().items())[:8]):
        place = top / ("a" if number < 4 else "b")
        place.mkdir(exist_ok=True)
        Image.fromarray(rgb).save(place / f"{name}.png")
    return top


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    path = folder.parent / "saved"
    assert cli.main(["retrieve", "lite0", "--data", f"folder:{folder}", "--save", str(path)]) == 0
    return path


def test_retrieve_lite0_finds_the_original_of_a_changed_photograph(folder, tmp_path, capsys):
    original = sorted(folder.rglob("*.png"))[2]
    with Image.open(original) as image:
        query = changed(np.asarray(image), np.random.default_rng(0))
    Image.fromarray(query).save(tmp_path / "query.jpg")
    words = ["retrieve", "lite0", str(tmp_path / "query.jpg"), str(original), "0", "a/chelsea.png"]
    out, found = tmp_path / "sheet.png", tmp_path / "found.json"
    options = ["--data", f"folder:{folder}", "--neighbours", "3"]
    assert cli.main([*words, *options, "--out", str(out), "--json", str(found)]) == 0
    first, second, third, fourth = json.loads(found.read_text())
    name = original.relative_to(folder).as_posix()
    assert first["neighbours"][0]["name"] == name and len(first["neighbours"]) == 3
    # A query that lies in the folder is no neighbour of itself.
    assert second["query"] == name and third["query"] == "a/astronaut.png"
    assert fourth["query"] == "a/chelsea.png" and fourth["neighbours"][0]["label"] in "ab"
    for each in (second, third, fourth):
        assert each["query"] not in [near["name"] for near in each["neighbours"]]
    with Image.open(out) as sheet:
        assert sheet.width >= 4 * 160 and sheet.height >= 4 * 160
    printed = capsys.readouterr().out
    assert "each of 8 pictures as a query" in printed and "raw 32x32" in printed
    assert printed.endswith(f"{found}\n{out}\n")


def test_retrieve_samples_the_queries_of_the_precision_among_many_pictures(
    saved, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("genray.commands.photographs.MOST_QUERIES", 6)
    asked = []
    real = retrieval.leave_one_out
    monkeypatch.setattr(
        retrieval, "leave_one_out", lambda *args: (asked.append(args[-1].tolist()), real(*args))[1]
    )
    words = ["retrieve", str(saved), "1", "--json", str(tmp_path / "found.json")]
    assert cli.main(words) == 0
    assert "6 random ones of 8 pictures as a query among the others" in capsys.readouterr().out
    assert len(set(asked[0])) == 6 and asked[0] == asked[1]


def test_retrieve_names_the_option_whose_file_cannot_be_written(saved, tmp_path, capsys):
    words = ["retrieve", str(saved), "1", "--json", str(tmp_path)]
    assert cli.main(words) == 2
    assert f"--json {tmp_path}: a folder" in capsys.readouterr().err


def test_retrieve_searches_a_saved_index_without_the_folder(saved, tmp_path):
    sheet, found = tmp_path / "sheet.png", tmp_path / "found.json"
    words = ["retrieve", str(saved), "1", "--binary", "--neighbours", "7"]
    assert cli.main([*words, "--out", str(sheet), "--json", str(found)]) == 0
    near = json.loads(found.read_text())[0]["neighbours"]
    assert [each["distance"] for each in near] == sorted(each["distance"] for each in near)
    assert sorted(each["row"] for each in near) == [0, 2, 3, 4, 5, 6, 7]


def test_retrieve_saves_an_index_again_after_a_change_of_the_folder(folder, tmp_path):
    original, index = sorted(folder.rglob("*.png"))[0], tmp_path / "index"
    (tmp_path / "new").mkdir()
    words = ["retrieve", "lite0", "--data", f"folder:{tmp_path / 'new'}", "--save", str(index)]
    for count in (1, 2):
        shutil.copy(original, tmp_path / "new" / f"{count}.png")
        assert cli.main(words) == 0
        assert json.loads((index / "config.json").read_text())["pictures"] == count


def test_cluster_map_and_encode_take_lite0(saved, folder, tmp_path, capsys):
    out = tmp_path / "clusters.png"
    assert cli.main(["cluster", str(saved), "--clusters", "3", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "nmi" in printed and printed.endswith(f"{out}\n") and out.exists()
    assert cli.main(["map", str(saved), "--out", str(tmp_path / "map.png")]) == 0
    table = tmp_path / "codes.parquet"
    words = ["encode", "lite0", "--data", f"folder:{folder}", "--out", str(table)]
    assert cli.main(words) == 0
    rows = pq.read_table(table).to_pylist()
    assert len(rows) == 8 and len(rows[0]["code"]) == 1280
    assert rows[0]["name"] == "a/astronaut.png" and rows[0]["label"] == "a"


def test_cluster_lite0_needs_no_labels(folder, tmp_path, capsys):
    assert cli.main(["cluster", "lite0", "--data", f"folder:{folder / 'a'}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and sum(int(line.split()[0]) for line in lines) == 4


def test_cluster_lite0_leaves_out_empty_clusters(folder, tmp_path, capsys):
    """Copies of one picture have one code."""
    original = sorted(folder.rglob("*.png"))[0]
    for name in ("1.png", "2.png", "3.png"):
        shutil.copy(original, tmp_path / name)
    words = ["cluster", "lite0", "--data", f"folder:{tmp_path}", "--clusters", "2"]
    assert cli.main([*words, "--out", str(tmp_path / "sheet.png")]) == 0
    assert capsys.readouterr().out.splitlines()[0] == "     3  1, 2, 3"
    (tmp_path / "one").mkdir()
    shutil.copy(original, tmp_path / "one" / "1.png")
    assert cli.main(["cluster", "lite0", "--data", f"folder:{tmp_path / 'one'}"]) == 2
    assert "clusters need two pictures or more" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["retrieve", "lite0", "--out", "a.png"], "--data: name the pictures that lite0 embeds"),
        (["retrieve", "SAVED"], "--out: name a picture for the neighbours"),
        (["retrieve", "SAVED", "--data", "digits", "--out", "a.png"], "contains its pictures"),
        (["retrieve", "SAVED", "8", "--out", "a.png"], "row 8: there are 8 pictures, from 0"),
        (["retrieve", "SAVED", "no.jpg", "--out", "a.png"], "no.jpg: neither a file nor the name"),
        (["retrieve", "SAVED", "--neighbours", "0", "--out", "a.png"], "--neighbours 0"),
        (["cluster", "SAVED", "--clusters", "9"], "--clusters 9: must lie in 2..8"),
        (["cluster", "SAVED", "--out", "a.jpg"], "a.jpg"),
        (["retrieve", "SAVED", "--save", ".."], "exists, and is no saved index"),
        (["export", "SAVED", "--out", "a.onnx"], "'photographs' has no part to export"),
        (["export", "SAVED", "--out", "a.onnx", "--part", "encoder"], "has no such part"),
        (["reconstruct", "SAVED", "--out", "a.png"], "does not reconstruct"),
        (["sample", "SAVED", "--out", "a.png"], "does not generate"),
    ],
)
def test_commands_with_lite0_refuse_in_one_line(
    words, message, saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert cli.main([str(saved) if word == "SAVED" else word for word in words]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())
