"""The commands of the generative family, from training to what one does with a model, and what
they refuse.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli

VAE = ["train", "vae", "--preset", "vae_digits", "--epochs", "2", "--widths", "16"]


@pytest.fixture(scope="module")
def vae_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "vae"
    assert cli.main([*VAE, "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="module")
def ae_run(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "ae"
    words = [
        "train",
        "ae",
        "--preset",
        "ae_digits",
        "--epochs",
        "2",
        "--without",
        "3",
        "--out",
        str(run),
    ]
    assert cli.main(words) == 0
    return run


def picture(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_a_run_leaves_what_the_house_promises(vae_run):
    assert (vae_run / "config.yaml").exists() and list((vae_run / "tensorboard").glob("events*"))
    lines = [json.loads(line) for line in (vae_run / "metrics.jsonl").read_text().splitlines()]
    assert {"step", "seconds", "loss", "kl", "validation_loss"} <= lines[
        -2
    ].keys() and "test_loss" in lines[-1]
    assert picture(vae_run / "pictures" / "samples.png").std() > 0
    config = json.loads((vae_run / "model" / "config.json").read_text())
    assert (
        config["kind"] == "vae"
        and config["data"]["name"] == "digits"
        and config["test"]["loss"] > 0
    )
    assert "CC BY" in (vae_run / "model" / "README.md").read_text()


def test_what_one_does_with_a_generator(vae_run, tmp_path, capsys):
    for seed, name in (("1", "a.png"), ("1", "b.png"), ("2", "c.png")):
        assert (
            cli.main(
                [
                    "sample",
                    str(vae_run),
                    "--num",
                    "9",
                    "--seed",
                    seed,
                    "--out",
                    str(tmp_path / name),
                ]
            )
            == 0
        )
    a, b, c = (picture(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert np.array_equal(a, b) and not np.array_equal(a, c)
    walk = tmp_path / "walk.gif"
    assert (
        cli.main(
            [
                "interpolate",
                str(vae_run / "model"),
                "--stops",
                "2",
                "--frames",
                "3",
                "--out",
                str(walk),
            ]
        )
        == 0
    )
    with Image.open(walk) as clip:
        assert getattr(clip, "n_frames", 1) > 2
    assert cli.main(["reconstruct", str(vae_run), "--out", str(tmp_path / "r.png")]) == 0
    assert "mean squared error" in capsys.readouterr().out
    height, width, _ = picture(tmp_path / "r.png").shape
    # 12 digits and what is made of them, 64 pixels tall each
    assert height > 2 * 64 and width > 12 * 64


def test_reconstruct_shows_what_a_denoiser_was_given(tmp_path, capsys):
    words = ["train", "ae", "--preset", "ae_digits", "--kind", "denoising", "--epochs", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["reconstruct", str(tmp_path / "run"), "--out", str(tmp_path / "r.png")]) == 0
    out = capsys.readouterr().out
    noisy = float(out.split("of the noisy ones: ")[1].split(";")[0])
    assert 0.03 < noisy < 0.09  # gaussian noise of 0.3, cut off at 0 and 1
    assert picture(tmp_path / "r.png").shape[0] > 3 * 64  # original, noisy, denoised


def test_codes_as_a_table(vae_run, tmp_path):
    import pyarrow.parquet as pq

    assert cli.main(["encode", str(vae_run), "--out", str(tmp_path / "codes.parquet")]) == 0
    table = pq.read_table(tmp_path / "codes.parquet").to_pydict()
    assert len(table["row"]) == 500 and set(table["label"]) == set("0123456789")
    assert len(table["code"][0]) == 10 and np.std(table["code"]) > 0


def test_map_retrieve_cluster_and_anomalies(ae_run, tmp_path, capsys):
    assert cli.main(["map", str(ae_run), "--out", str(tmp_path / "map.png")]) == 0
    # classes in colours
    assert len(np.unique(picture(tmp_path / "map.png").reshape(-1, 3), axis=0)) > 9
    assert cli.main(["retrieve", str(ae_run), "0", "1", "--out", str(tmp_path / "near.png")]) == 0
    out = capsys.readouterr().out
    assert "these codes" in out and "raw" in out and "pca-" in out
    assert cli.main(["retrieve", str(ae_run), "--binary", "--out", str(tmp_path / "bits.png")]) == 0
    assert "bits a code" in capsys.readouterr().out
    assert cli.main(["cluster", str(ae_run)]) == 0
    assert "nmi" in capsys.readouterr().out
    assert cli.main(["anomalies", str(ae_run), "--out", str(tmp_path / "odd.png")]) == 0
    out = capsys.readouterr().out
    assert 0.3 < float(out.split("AUROC ")[1].split()[0]) <= 1


@pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning"
)
def test_onnx_says_what_pytorch_says(vae_run, tmp_path):
    import onnxruntime
    import torch

    from genray.commands.models import load

    path = tmp_path / "model.onnx"
    assert cli.main(["export", str(vae_run), "--out", str(path)]) == 0
    model, _ = load(vae_run / "model")
    z = torch.randn(5, model.latent)
    session = onnxruntime.InferenceSession(str(path))
    (images,) = session.run(None, {session.get_inputs()[0].name: z.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(images, model.generate(z).numpy(), atol=1e-5)


def test_resume_goes_on_and_ends_as_an_uninterrupted_run(vae_run, tmp_path, capsys):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "genray", *VAE, "--epochs", "4000", "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop = time.monotonic() + 90
    while (
        not (run / "metrics.jsonl").exists()
        or len((run / "metrics.jsonl").read_text().splitlines()) < 3
    ):
        assert time.monotonic() < stop and process.poll() is None, process.communicate()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"continue with: genray train vae --resume {run}" in out
    step = int(sorted((run / "checkpoints").iterdir())[-1].name)
    assert cli.main(["sample", str(run), "--num", "4", "--out", str(tmp_path / "grid.png")]) == 0
    # the newest, though the run never ended
    assert f"model of step {step:,}: " in capsys.readouterr().out
    assert (
        cli.main(["train", "vae", "--resume", str(run), "--steps", str(step + 20), "--epochs", "1"])
        == 0
    )
    whole = tmp_path / "whole"
    assert cli.main([*VAE, "--steps", str(step + 20), "--out", str(whole)]) == 0
    tensors = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, whole)]
    assert tensors[0] == tensors[1]


def test_a_run_does_not_go_on_with_another_optimizer(vae_run, capsys):
    before = (vae_run / "config.yaml").read_text()
    assert (
        cli.main(
            ["train", "vae", "--resume", str(vae_run), "--epochs", "3", "--optimizer", "rmsprop"]
        )
        == 2
    )
    err = capsys.readouterr().err
    assert (
        err.count("\n") == 1
        and "--optimizer rmsprop" in err
        and "resume with --optimizer adam" in err
    )
    assert (vae_run / "config.yaml").read_text() == before


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


def test_a_text_model_knows_its_words_when_files_come_and_go(tmp_path, capsys):
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

    # and with them two words, one before all others
    write_texts(folder, "aardvark zebra", range(20, 23))
    after = text_codes(run, out)
    assert len(after) == 46 and all(
        np.allclose(after[name], code, atol=1e-5) for name, code in before.items()
    )
    err = capsys.readouterr().err
    assert err.count("\n") == 3 and "its files are not those that the model was trained on" in err

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


def test_pictures_that_come_are_told_of(tmp_path, capsys):
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

    path = run / "model" / "config.json"  # a model of before has no record
    config = json.loads(path.read_text())
    del config["data"]["recipe"]["rows"]
    path.write_text(json.dumps(config))
    assert cli.main(reconstruct) == 0 and "warning" not in capsys.readouterr().err


def write_pictures(folder: Path, classes: str, count: int, width: int = 8) -> Path:
    """`count` pictures of 8 rows in each class."""
    rng = np.random.default_rng(0)
    for name in classes:
        (folder / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (8, width, 3), np.uint8)).save(
                folder / name / f"{number}.png"
            )
    return folder


def test_retrieval_in_fewer_than_ten_rows_counts_those(tmp_path, capsys):
    folder, run = write_pictures(tmp_path / "pictures", "ab", 4), tmp_path / "run"
    words = ["--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "4", "--without", ""]
    assert cli.main(["train", "ae", "--preset", "ae_digits", *words, "--out", str(run)]) == 0
    assert cli.main(["retrieve", str(run), "--out", str(tmp_path / "near.png")]) == 0
    out = capsys.readouterr().out
    assert "6 rows in the index" in out and out.count("precision_at_6") == 4


def test_a_picture_is_cut_to_what_the_model_takes(tmp_path, capsys):
    folder, run = write_pictures(tmp_path / "pictures", "ab", 10, width=12), tmp_path / "run"
    words = ["--data", f"folder:{folder}", "--epochs", "1", "--batch-size", "4", "--without", ""]
    assert cli.main(["train", "ae", "--preset", "ae_digits", *words, "--out", str(run)]) == 0
    query = write_pictures(tmp_path / "queries", "c", 1, width=40) / "c" / "0.png"
    assert cli.main(["retrieve", str(run), str(query), "--out", str(tmp_path / "near.png")]) == 0
    assert "these codes" in capsys.readouterr().out


def test_codes_that_are_not_all_are_not_exported(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "model.onnx"
    words = ["--kind", "conv", "--widths", "4", "6", "--upsampling", "unpool", "--steps", "2"]
    assert cli.main(["train", "ae", "--preset", "conv_digits", *words, "--out", str(run)]) == 0
    assert cli.main(["export", str(run), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "its decoder needs pool positions" in err and not out.exists()


def test_epochs_on_the_command_line_go_before_a_presets_steps_and_a_runs(tmp_path):
    from genray.commands.train import _options
    from genray.gen.families import FAMILIES

    def planned(*words: str) -> tuple[int, int]:
        _, config = _options("gan", FAMILIES["gan"], list(words), "genray train gan")
        return config.fit.steps, config.fit.epochs

    assert planned() == (3000, 20)
    assert planned("--epochs", "1") == planned("--epochs=1") == (0, 1)
    assert planned("--epochs", "1", "--steps", "7") == (7, 1)
    run = ["train", "gan", "--steps", "2", "--batch-size", "8", "--generator-widths", "8", "4"]
    assert cli.main([*run, "--discriminator-widths", "4", "8", "--out", str(tmp_path / "gan")]) == 0
    assert planned("--resume", str(tmp_path / "gan")) == (2, 20)
    assert planned("--resume", str(tmp_path / "gan"), "--epochs", "3") == (0, 3)


@pytest.mark.parametrize(
    ("family", "words"),
    [
        ("ae", "--preset pca --no-lbfgs --l2 10"),
        ("ae", "--preset pca --epochs 3"),
        ("vae", "--validation 0"),
        ("vae", "--patience 0 --validation 0"),
        ("vae", "--likelihood gaussian --decoder-std 0.1"),
        ("vae", "--decoder-std 0"),
    ],
)
def test_options_that_mean_something_are_taken(family: str, words: str):
    from genray.commands.train import _options
    from genray.gen.families import FAMILIES

    for preset in FAMILIES[family].presets:
        _options(family, FAMILIES[family], ["--preset", preset], f"genray train {family}")
    _options(family, FAMILIES[family], words.split(), f"genray train {family}")


BAD = {
    "train vae --optimizer adm": "did you mean",
    "train vae --preset vae_digit": "--preset vae_digit: no such preset; did you mean vae_digits",
    "train vae --data digit": "--data digit",
    "train vae --data folder:nowhere": "nowhere",
    "train vae --batch-size 5000": "--batch-size 5000",
    "train vae --data docs": "needs images",
    "train gan --label-smoothing 0.9": "--label-smoothing 0.9",
    "train ae --without eleven": "--without eleven: no such class",
    "train vae --device cuda": "--device cuda",
    "train vae --workers 0": "--workers 0",
    "train vae --learning-rate -1": "--learning-rate",
    "train ae --preset pca --l2 10": "--l2: --lbfgs takes no such option",
    "train ae --preset ae_digits --lbfgs --schedule=cosine": (
        "--schedule: --lbfgs takes no such option"
    ),
    "train vae --patience 3 --validation 0": "--patience 3: needs held-out rows",
    "train vae --decoder-std 0.1": (
        "--decoder-std 0.1: a Bernoulli decoder has none; give --likelihood gaussian"
    ),
    "train vae --resume nowhere": "nowhere: not a run directory",
    "sample nowhere --out grid.png": "nowhere: not a model",
    "sample": "name a model first",
    "encode nowhere --out codes.csv": ".parquet",
    "sample nowhere --out grid.jpg": "grid.jpg: the name must end in .png, e.g. grid.png",
    "reconstruct nowhere --out grid.jpg": "grid.jpg: the name must end in .png",
    "reconstruct nowhere --num 0 --out grid.png": "--num 0: must be ≥ 1",
    "map nowhere --out map": "map: the name must end in .png, e.g. map.png",
    "retrieve nowhere --out sheet.webp": "sheet.webp: the name must end in .png",
    "anomalies nowhere --out odd.jpeg": "odd.jpeg: the name must end in .png",
    "figures vally": "valley",
    "data atari --games breakot": "breakout",
}


@pytest.mark.parametrize("words", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    words, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    # which a data set may write to
    monkeypatch.setenv("GENRAY_DATA", str(tmp_path_factory.mktemp("cache")))
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert BAD[words] in err
    assert not out and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_diverging_run_ends_with_its_last_good_checkpoint(tmp_path, capsys):
    words = [
        "train",
        "ae",
        "--preset",
        "ae_digits",
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e12",
        "--epochs",
        "20",
    ]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "try a lower --learning-rate" in err


def test_models_of_others_are_refused(vae_run, tmp_path, capsys):
    import pickle
    import shutil

    copy = shutil.copytree(vae_run / "model", tmp_path / "model")
    (copy / "model.safetensors").write_bytes(pickle.dumps({"weights": 1}))
    assert cli.main(["sample", str(copy), "--out", str(tmp_path / "x.png")]) == 2
    assert "damaged model" in capsys.readouterr().err
    assert (
        cli.main(["interpolate", str(copy.parent / "nothing"), "--out", str(tmp_path / "x.gif")])
        == 2
    )
    assert not (tmp_path / "x.png").exists()
