"""Tests the commands for generative models: training, use of a model, and one-line errors."""

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
from genray.errors import ConfigError

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


def test_train_vae_writes_all_files_of_a_run(vae_run):
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


def test_sample_compares_samples_with_the_data(vae_run, tmp_path, capsys):
    grid, sheet = tmp_path / "grid.png", tmp_path / "nearest.png"
    words = ["sample", str(vae_run), "--num", "9", "--out", str(grid)]
    assert cli.main([*words, "--nearest", str(sheet), "--fld"]) == 0
    printed = capsys.readouterr().out
    assert "near-duplicates of training images: " in printed and "of 9 samples" in printed
    assert (
        "FLD of 9 training images in place of the samples" in printed
        and "500 real and 9 generated images" in printed
    )
    assert picture(sheet).shape[0] > 4 * 112 and grid.exists()
    assert cli.main([*words, "--num", "1", "--fld"]) == 2
    assert "--num 1: --fld needs two samples or more" in capsys.readouterr().err


def test_sample_interpolate_and_reconstruct_write_pictures(vae_run, tmp_path, capsys):
    drawn = ["sample", str(vae_run), "--num", "9", "--noise", "--out", str(tmp_path / "d.png")]
    assert cli.main(drawn) == 0
    assert set(np.unique(picture(tmp_path / "d.png"))) == {0, 255}, "a Bernoulli decoder draws bits"
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
    # The picture has 12 digits and their reconstructions, each 64 pixels tall.
    assert height > 2 * 64 and width > 12 * 64


def test_reconstruct_shows_the_noisy_input_of_a_denoiser(tmp_path, capsys):
    words = ["train", "ae", "--preset", "ae_digits", "--kind", "denoising", "--epochs", "1"]
    assert cli.main([*words, "--out", str(tmp_path / "run")]) == 0
    assert cli.main(["reconstruct", str(tmp_path / "run"), "--out", str(tmp_path / "r.png")]) == 0
    out = capsys.readouterr().out
    noisy = float(out.split("of the noisy ones: ")[1].split(";")[0])
    assert 0.03 < noisy < 0.09  # Gaussian noise of 0.3, clipped to 0..1
    assert picture(tmp_path / "r.png").shape[0] > 3 * 64  # original, noisy, denoised


def test_encode_writes_a_table_of_codes(vae_run, tmp_path):
    import pyarrow.parquet as pq

    assert cli.main(["encode", str(vae_run), "--out", str(tmp_path / "codes.parquet")]) == 0
    table = pq.read_table(tmp_path / "codes.parquet").to_pydict()
    assert len(table["row"]) == 500 and set(table["label"]) == set("0123456789")
    assert len(table["code"][0]) == 10 and np.std(table["code"]) > 0


def test_map_retrieve_cluster_and_anomalies(ae_run, tmp_path, capsys):
    assert cli.main(["map", str(ae_run), "--out", str(tmp_path / "map.png")]) == 0
    # Each class has a colour.
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
def test_export_to_onnx_gives_the_images_of_pytorch(vae_run, tmp_path):
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


def test_train_vae_resume_equals_an_uninterrupted_run(vae_run, tmp_path, capsys):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "genray", *VAE, "--epochs", "4000", "--out", str(run)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    stop = time.monotonic() + 150
    while (
        not (run / "metrics.jsonl").exists()
        or len((run / "metrics.jsonl").read_text().splitlines()) < 3
    ):
        if time.monotonic() > stop or process.poll() is not None:
            process.kill()  # a process that goes on would never end its output
            raise AssertionError(process.communicate())
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"continue with: genray train vae --resume {run}" in out
    step = int(sorted((run / "checkpoints").iterdir())[-1].name)
    assert cli.main(["sample", str(run), "--num", "4", "--out", str(tmp_path / "grid.png")]) == 0
    # The sample comes from the newest model, although the run did not end.
    assert f"model of step {step:,}: " in capsys.readouterr().out
    assert (
        cli.main(["train", "vae", "--resume", str(run), "--steps", str(step + 20), "--epochs", "1"])
        == 0
    )
    whole = tmp_path / "whole"
    assert cli.main([*VAE, "--steps", str(step + 20), "--out", str(whole)]) == 0
    tensors = [(folder / "model" / "model.safetensors").read_bytes() for folder in (run, whole)]
    assert tensors[0] == tensors[1]


def test_train_vae_resume_refuses_another_optimizer(vae_run, capsys):
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


def test_export_refuses_a_model_whose_codes_are_incomplete(tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "model.onnx"
    words = ["--kind", "conv", "--widths", "4", "6", "--upsampling", "unpool", "--steps", "2"]
    assert cli.main(["train", "ae", "--preset", "conv_digits", *words, "--out", str(run)]) == 0
    assert cli.main(["export", str(run), "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "its decoder needs pool positions" in err and not out.exists()


def test_train_epochs_override_the_steps_of_a_preset_or_run(tmp_path):
    from genray.commands.train import _options
    from genray.gen.families import FAMILIES

    def planned(*words: str) -> tuple[int, int]:
        _, config = _options("gan", FAMILIES["gan"], list(words), "genray train gan")
        return config.fit.steps, config.fit.epochs

    assert planned("--data", "digits") == (3000, 20)
    assert planned("--epochs", "1") == planned("--epochs=1") == (0, 1)
    assert planned("--epochs", "1", "--steps", "7") == (7, 1)
    run = ["train", "gan", "--data", "digits", "--steps", "2", "--batch-size", "8"]
    run += ["--generator-widths", "8", "4"]
    assert cli.main([*run, "--discriminator-widths", "4", "8", "--out", str(tmp_path / "gan")]) == 0
    assert planned("--resume", str(tmp_path / "gan")) == (2, 20)
    assert planned("--resume", str(tmp_path / "gan"), "--epochs", "3") == (0, 3)


@pytest.mark.parametrize(
    ("family", "words", "data", "size"),
    [
        ("vae", "", "mnist5k", (512,)),
        ("vae", "--data mnist5k", "mnist5k", (512,)),
        ("vae", "--data digits", "digits", (256, 128)),
        ("vae", "--data folder:x", "folder:x", (256, 128)),
        ("vae", "--preset vae_digits --data mnist5k", "mnist5k", (256, 128)),
        ("gan", "", "mnist5k", (64, 32)),
        ("gan", "--data digits", "digits", (128, 64)),
        ("ae", "", "digits", (256, 128)),
        ("classifier", "", "digits", (32, 64)),
    ],
)
def test_train_without_a_preset_chooses_one_by_the_data(
    family: str, words: str, data: str, size: tuple[int, ...]
):
    from genray.commands.train import _options
    from genray.gen.families import FAMILIES

    _, config = _options(family, FAMILIES[family], words.split(), f"genray train {family}")
    model = config.model
    sizes = [getattr(model, name, ()) for name in ("widths", "generator_widths", "channels")]
    assert config.data.data.replace(str(Path.cwd()) + "/", "") == data and size in sizes


def test_train_vae_with_a_gaussian_decoder_does_not_binarise():
    from genray.commands.train import _options
    from genray.gen.families import FAMILIES

    def binarise(*words: str) -> str:
        return _options("vae", FAMILIES["vae"], list(words), "genray train vae")[1].model.binarise

    assert binarise() == binarise("--likelihood", "bernoulli") == "dynamic"
    assert binarise("--likelihood", "gaussian") == "none"
    with pytest.raises(ConfigError, match="--binarise dynamic"):
        binarise("--likelihood", "gaussian", "--binarise", "dynamic")


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
def test_train_accepts_valid_combinations_of_options(family: str, words: str):
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
        "--decoder-std 0.1: a bernoulli decoder has no such number; give --likelihood gaussian"
    ),
    "train vae --least-std 0.1": (
        "--least-std 0.1: a bernoulli decoder has no such limit; give --likelihood gaussian-diag"
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
def test_main_reports_bad_input_in_one_line_and_writes_nothing(
    words, tmp_path, tmp_path_factory, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    # A data set may write to its cache.
    monkeypatch.setenv("GENRAY_DATA", str(tmp_path_factory.mktemp("cache")))
    assert cli.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ") and err.count("\n") == 1
    assert BAD[words] in err
    assert not out and not any(path.is_file() for path in tmp_path.rglob("*"))


def test_train_ae_reports_divergence_in_one_line(tmp_path, capsys):
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


def test_sample_refuses_pickled_weights(vae_run, tmp_path, capsys):
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
