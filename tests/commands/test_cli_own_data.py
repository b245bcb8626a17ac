"""Tests the commands for models that were trained on a directory of texts or pictures."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from genray import cli


def write_texts(folder: Path, words: str, numbers: range) -> None:
    for kind, word in enumerate(words.split()):
        (folder / str(kind)).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            (folder / str(kind) / f"{number}.txt").write_text(
                f"{word} thing " * (1 + number % 3) + f"shared{number % 4}"
            )


def text_codes(run: Path, out: Path) -> dict[str, list[float]]:
    import pyarrow.parquet as pq

    codes = {}
    for split in ("train", "validation", "test"):
        assert cli.main(["encode", str(run), "--split", split, "--out", str(out)]) == 0
        table = pq.read_table(out).to_pydict()
        codes |= dict(zip(table["name"], table["code"]))
    return codes


def test_text_model_keeps_its_vocabulary_when_files_change(tmp_path, capsys):
    from serve.models import load_predictor
    from serve.search import training_data

    run, folder, out = tmp_path / "run", tmp_path / "texts", tmp_path / "codes.parquet"
    write_texts(folder, "pepper anchor", range(20))
    words = [
        "--data",
        f"folder-text:{folder}",
        "--epochs",
        "1",
        "--batch-size",
        "8",
        "--widths",
        "8",
        "--code",
        "2",
    ]
    assert cli.main(["train", "ae", "--preset", "text_docs", *words, "--out", str(run)]) == 0
    before = text_codes(run, out)
    assert "warning" not in capsys.readouterr().err

    # The new files add two words; one of them precedes all others in the alphabet.
    write_texts(folder, "aardvark zebra", range(20, 23))
    after = text_codes(run, out)
    assert len(after) == 46 and all(
        np.allclose(after[name], code, atol=1e-5) for name, code in before.items()
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 3 and "its files differ from the files" in err

    predictor = load_predictor(run / "model", "texts")
    assert list(training_data(predictor).about["idf"]) == list(
        predictor.config["data"]["recipe"]["idf"]
    )

    assert cli.main(["train", "ae", "--resume", str(run), "--epochs", "2"]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "the files or words changed since the run started" in err

    other = tmp_path / "other"
    write_texts(other, "quartz basalt", range(20))
    for path in other.rglob("*.txt"):
        path.write_text(path.read_text().replace("thing", "stone").replace("shared", "layer"))
    assert cli.main(["retrieve", str(run), "0", "--data", f"folder-text:{other}"]) == 2
    assert "words of the model's vocabulary" in capsys.readouterr().err


def test_reconstruct_warns_of_pictures_added_after_training(tmp_path, capsys):
    folder, run = tmp_path / "pictures", tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def draw(number: int) -> None:
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")

    for number in range(20):
        draw(number)
    words = ["--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "4", "--without", ""]
    assert cli.main(["train", "ae", "--preset", "ae_digits", *words, "--out", str(run)]) == 0
    assert cli.main(["train", "ae", "--resume", str(run), "--epochs", "2"]) == 0
    reconstruct = ["reconstruct", str(run), "--out", str(tmp_path / "r.png")]
    assert cli.main(reconstruct) == 0 and "warning" not in capsys.readouterr().err
    draw(20)
    assert cli.main(reconstruct) == 0 and "may have been training rows" in capsys.readouterr().err
    assert cli.main(["train", "ae", "--resume", str(run), "--epochs", "3"]) == 2
    assert "restore the data or start a new run" in capsys.readouterr().err

    path = run / "model" / "config.json"  # models of earlier versions have no record of rows
    config = json.loads(path.read_text())
    del config["data"]["recipe"]["rows"]
    path.write_text(json.dumps(config))
    assert cli.main(reconstruct) == 0 and "warning" not in capsys.readouterr().err


def write_pictures(folder: Path, classes: str, count: int, width: int = 8) -> Path:
    """Write `count` pictures of 8 rows for each class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (8, width, 3), np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


def test_retrieve_in_fewer_than_ten_rows_uses_all_rows(tmp_path, capsys):
    folder, run = write_pictures(tmp_path / "pictures", "ab", 4), tmp_path / "run"
    words = ["--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "4", "--without", ""]
    assert cli.main(["train", "ae", "--preset", "ae_digits", *words, "--out", str(run)]) == 0
    assert cli.main(["retrieve", str(run), "--out", str(tmp_path / "near.png")]) == 0
    out = capsys.readouterr().out
    assert "6 rows in the index" in out and out.count("precision_at_6") == 4


def test_retrieve_crops_a_picture_to_the_models_size(tmp_path, capsys):
    folder, run = write_pictures(tmp_path / "pictures", "ab", 10, width=12), tmp_path / "run"
    words = ["--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "4", "--without", ""]
    assert cli.main(["train", "ae", "--preset", "ae_digits", *words, "--out", str(run)]) == 0
    query = write_pictures(tmp_path / "queries", "c", 1, width=40) / "c" / "0.png"
    assert cli.main(["retrieve", str(run), str(query), "--out", str(tmp_path / "near.png")]) == 0
    assert "these codes" in capsys.readouterr().out
