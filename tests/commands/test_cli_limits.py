"""Tests that `genray train` refuses runs without an update, and changes of a resumed run."""

from pathlib import Path

import pytest

from genray import cli

TINY = {
    "vae": ["--widths", "8", "--latent", "2"],
    "gan": ["--generator-widths", "8", "--discriminator-widths", "8"],
}


@pytest.mark.parametrize(
    ("family", "words", "message"),
    [
        (
            "vae",
            "--steps 3 --accumulate 4",
            "--accumulate 4: a stage has 3 steps, so that no update would be made",
        ),
        (
            "gan",
            "--steps 3 --discriminator-steps 4",
            "--discriminator-steps 4: the run makes 3 updates, so that the gen",
        ),
        ("vae", "--steps 3 --batch-size 9999", "--batch-size 9999: train has"),
    ],
)
def test_train_refuses_a_run_that_would_train_nothing(
    family: str, words: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    assert cli.main(["train", family, *TINY[family], *words.split(), "--out", str(run)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err and not run.exists()


def test_train_notes_and_resume_refuses_another_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run = tmp_path / "run"
    words = ["--steps", "4", "--warmup-updates", "9", "--patience", "5", "--out", str(run)]
    assert cli.main(["train", "vae", *TINY["vae"], *words]) == 0
    out = capsys.readouterr().out
    assert "note: --warmup-updates 9 is longer than a stage of 4 updates" in out
    assert "note: a stage has 1 validations, so --patience 5 cannot stop it early" in out
    for changed, began in (
        ("--latent 3", "--latent 2"),
        ("--data atari", "--data mnist5k"),
        ("--size 16", "--size 0"),
    ):
        assert (
            cli.main(["train", "vae", "--resume", str(run), "--steps", "8", *changed.split()]) == 2
        )
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and f"{changed}: this run began with {began}" in err
