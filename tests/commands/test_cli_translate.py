"""`genray train pix2pix` and `cyclegan`, then `genray translate` and `genray export`."""

import json
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from genray import cli
from genray.gen.builders import BUILDERS
from genray.gen.data.types import Data
from genray.gen.evaluation.metrics import Extractor
from genray.gen.images.classifier import train_extractor
from genray.gen.images.clips import read_clip
from genray.media import write_clip
from genray.runs.modelstore import load_model

SMALL = [
    "--size", "16", "--steps", "2", "--batch-size", "2", "--validate-every", "2", "--ema", "0.9",
    "--discriminator-width", "3", "--discriminator-layers", "1",
]  # fmt: skip


def write(path: Path, seed: int, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.RandomState(seed).randint(0, 256, (16, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)


def size_of(path: Path) -> tuple[int, int]:
    """Return the width and the height of a picture whose file says how it was made."""
    with Image.open(path) as image:
        assert "genray" in image.info
        return image.size


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two folders of 24 pictures, a and b."""
    root = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        write(root / "a" / f"{number}.png", number)
        write(root / "b" / f"{number}.png", 100 + number)
    return root


@pytest.fixture(scope="module")
def pix2pix(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `genray train pix2pix` on pairs."""
    out = tmp_path_factory.mktemp("runs") / "pix2pix"
    words = ["train", "pix2pix", "--data", f"pairs:{pictures}", "--widths", "4", "4", "4", *SMALL]
    assert cli.main([*words, "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def cyclegan(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `genray train cyclegan` on two folders."""
    out = tmp_path_factory.mktemp("runs") / "cyclegan"
    words = ["train", "cyclegan", "--data", f"folder:{pictures / 'a'}", *SMALL]
    words += ["--to", f"folder:{pictures / 'b'}", "--widths", "3", "4", "--residual", "1"]
    words += ["--validation", "0.2", "--pool", "2"]
    with pytest.MonkeyPatch.context() as patch:
        # Few steps of the test's classifier are enough here.
        patch.setattr("genray.gen.translation.task_cyclegan.make_recogniser", few_steps)
        assert cli.main([*words, "--out", str(out)]) == 0
    return out


def few_steps(data: Data, device: torch.device) -> Extractor:
    return train_extractor(data, device, steps=1)


def test_training_writes_sheets_curves_and_a_card(pix2pix: Path, cyclegan: Path):
    for run in (pix2pix, cyclegan):
        names = {path.name for path in (run / "pictures").iterdir()}
        assert {"translated.png", "progress.png", "losses.png"} <= names
        assert "Image translation" in (run / "model" / "README.md").read_text()
    config = json.loads((cyclegan / "model" / "config.json").read_text())
    assert config["about"]["domains"] == ["a", "b"] and config["data"]["classes"] == ["a", "b"]


def test_translate_a_picture_a_folder_and_a_clip(
    pix2pix: Path, cyclegan: Path, pictures: Path, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    photo = pictures / "a" / "0.png"
    assert cli.main(["translate", str(photo), "--model", str(pix2pix)]) == 0
    out = Path(capsys.readouterr().out.splitlines()[-1])
    assert out == tmp_path / "0-translated.png"
    assert size_of(out) == (16, 16)
    words = ["--model", str(cyclegan), "--direction", "b_to_a", "--size", "40"]
    (pictures / "b" / "broken.png").write_bytes(b"no picture")
    assert cli.main(["translate", str(pictures / "b"), *words, "--out", "many"]) == 1
    (pictures / "b" / "broken.png").unlink()
    assert "1 of 25 pictures could not be read" in capsys.readouterr().err
    assert len(list((tmp_path / "many").glob("*.png"))) == 24
    assert size_of(tmp_path / "many" / "3.png") == (40, 40)
    frames = [np.full((16, 24, 3), 60 * number, np.uint8) for number in range(3)]
    write_clip(tmp_path / "clip.gif", frames, scale=1)
    assert cli.main(["translate", "clip.gif", "--model", str(pix2pix), "--out", "new.gif"]) == 0
    assert {frame.shape for frame in read_clip(tmp_path / "new.gif")} == {(16, 24, 3)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a picture first"),
        (["none.png"], "none.png: no such file or folder"),
        (["PHOTO", "--direction", "b_to_a"], "--direction b_to_a: this model translates a_to_b"),
        (["PHOTO", "--prepare"], "--prepare: this model takes pictures as they are"),
        (["PHOTO", "PHOTO", "--out", "many"], "two pictures would be 0.png"),
        (["PHOTO", "FOLDER", "--out", "all.png"], "--out .*all.png: must be a directory"),
    ],
)
def test_translate_refuses_in_one_line(
    words: list[str], message: str, pix2pix: Path, pictures: Path, capsys: pytest.CaptureFixture
):
    names = {"PHOTO": str(pictures / "a" / "0.png"), "FOLDER": str(pictures / "a")}
    words = [names.get(word, word) for word in words]
    assert cli.main(["translate", *words, "--model", str(pix2pix)]) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and re.search(message, error)


def test_resumed_run_keeps_its_pairs(pix2pix: Path, capsys: pytest.CaptureFixture):
    words = ["train", "pix2pix", "--resume", str(pix2pix), "--direction", "b_to_a"]
    assert cli.main(words) == 2
    assert "--direction" in capsys.readouterr().err


def test_exported_onnx_equals_the_model(pix2pix: Path, cyclegan: Path, tmp_path: Path, capsys):
    back = ["--part", "translator-back"]
    out = tmp_path / "model.onnx"
    assert cli.main(["export", str(pix2pix), "--out", str(out), *back]) == 2
    assert "has no such part; use --part translator" in capsys.readouterr().err
    for run, words in ((pix2pix, []), (cyclegan, back)):
        assert cli.main(["export", str(run), "--out", str(out), *words]) == 0
        model, config = load_model(run / "model", BUILDERS)
        session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
        # Images of different contrast: each has its own statistics, also in a batch.
        x = torch.randn(3, *config["shape"]) * torch.tensor([0.1, 1.0, 3.0]).reshape(3, 1, 1, 1)
        method = model.translate_back if words else model.translate
        with torch.no_grad():
            expected = method(x).numpy()
        [found] = session.run(None, {"x": x.numpy()})
        assert np.abs(found - expected).max() <= 1e-4 and expected.std() > 1e-3
