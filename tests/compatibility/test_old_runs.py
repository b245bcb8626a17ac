"""Runs and models that an earlier release wrote still load, continue and give the same outputs.

`runs.tar.xz` was written by commit 7297b99: for each family a small run directory with its
configuration, metrics, checkpoint and model, and in `expected/` what that commit's commands made of
them. Each run was trained for a few steps of a tiny network: only loading is tested here.
"""

import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray import cli

ARCHIVE = Path(__file__).parent / "runs.tar.xz"
STEPS = {"ae": 20, "vae": 20, "gan": 10, "classifier": 10, "style": 4}
RUN = {"style": "style_fast"}  # the family's run where it has another name


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The unpacked archive, as the working directory: one run names another by a relative path."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), np.int16)


@pytest.mark.parametrize("family", STEPS)
def test_resume_of_an_old_run_continues_from_its_checkpoint(family: str, old: Path):
    run, before = old / RUN.get(family, family), STEPS[family]
    written = len(metrics(run))
    status = cli.main(["train", family, "--resume", str(run), "--steps", str(before + 2)])
    assert status == 0
    added = metrics(run)[written:]
    assert added and all(row["step"] > before or "test" in str(row) for row in added)
    assert (run / "checkpoints" / f"{before + 2:08d}" / "manifest.json").exists()


def test_resume_of_an_old_dqn_run_keeps_its_replay(old: Path, capsys: pytest.CaptureFixture[str]):
    run = old / "dqn"
    command = ["train", "dqn", "--resume", str(run), "--local", "--steps", "432"]
    assert cli.main(command) == 0
    assert "resuming from" in capsys.readouterr().out
    last = [row for row in metrics(run) if "replay_size" in row][-1]
    assert last["step"] >= 432
    assert last["replay_size"] > 200, "the replay's 250 transitions were lost"


@pytest.mark.parametrize("family", ["vae", "gan"])
def test_sample_of_an_old_model_draws_the_same_images(family: str, old: Path):
    assert cli.main(["sample", family, "--out", "new.png", "--num", "4", "--seed", "3"]) == 0
    assert np.abs(pixels(old / "new.png") - pixels(old / f"expected/{family}.png")).max() <= 1


@pytest.mark.parametrize("family", ["ae", "classifier"])
def test_encode_of_an_old_model_gives_the_same_codes(family: str, old: Path):
    assert cli.main(["encode", family, "--out", "new.parquet"]) == 0
    new, expected = pq.read_table("new.parquet"), pq.read_table(f"expected/{family}.parquet")
    assert new.schema.names == expected.schema.names
    assert new["label"] == expected["label"]
    np.testing.assert_allclose(
        np.array(new["code"].to_pylist()), np.array(expected["code"].to_pylist()), atol=1e-4
    )


def test_stylize_with_an_old_model_paints_the_same_picture(old: Path):
    command = ["stylize", "expected/content.png", "--model", "style_fast", "--out", "new.png"]
    assert cli.main(command) == 0
    assert np.abs(pixels(old / "new.png") - pixels(old / "expected/style_fast.png")).max() <= 2


def test_evaluate_of_an_old_policy_scores_the_same(old: Path):
    expected = json.loads((old / "dqn/evaluations.jsonl").read_text().splitlines()[-1])
    assert cli.main(["evaluate", "dqn", "--episodes", "16", "--seed", "5"]) == 0
    scores = json.loads((old / "dqn/evaluations.jsonl").read_text().splitlines()[-1])["scores"]
    assert scores == expected["scores"]
