"""Tests runs at a URL, with pyarrow's local file system.

s3:// and gs:// use the same code of genray and other code of pyarrow, and are not tested.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from genray import cli
from genray.config import save_yaml
from genray.errors import CheckpointError, RunFault
from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.runs import storage
from genray.runs.remote_run import RemoteRun, checkpoint_step, create_run, open_run


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"file://{tmp_path}/run-behind-a-url"


def fill(text: str):
    def write(place: storage.Place) -> None:
        with storage.writing(storage.child(place, "part")) as folder:
            (folder / "deep").mkdir()
            (folder / "deep/weights.bin").write_text(text)

    return write


def test_child_of_a_url_keeps_its_options():
    assert storage.child("s3://b/run?region=x", "a", "b") == "s3://b/run/a/b?region=x"
    assert storage.child(Path("run"), "a") == Path("run/a")
    assert storage.name_of("s3://b/run/00012?region=x") == "00012"
    assert (
        storage.as_place("runs/x") == Path("runs/x") and storage.as_place("s3://b/x/") == "s3://b/x"
    )


def test_open_run_reads_what_another_process_wrote(url):
    with create_run(url) as run:
        (run.path / "metrics.jsonl").write_text('{"step": 1, "seconds": 2}\n')
        (run.path / "config.yaml").write_text("a: 1\n")
        run.pictures.joinpath("p.txt").write_text("p")
        run.pictures.joinpath("epoch-000001.png").write_text("an epoch")
        made = run.write_checkpoint(12, fill("weights"), keep=2)
    assert not run.path.exists(), "the working folder stays"
    again = open_run(url)
    assert (again.path / "metrics.jsonl").read_text() == '{"step": 1, "seconds": 2}\n'
    assert (again.pictures / "epoch-000001.png").read_text() == "an epoch"
    assert again.latest_checkpoint() == made and checkpoint_step(made) == 12
    with storage.reading(made) as folder:
        assert (folder / "part/deep/weights.bin").read_text() == "weights"
        assert not list(folder.rglob(f"*{storage.SUM}"))
    assert {"config.yaml", "pictures/p.txt"} <= set(storage.list_files(url))


def test_remote_checkpoint_is_complete_or_absent(url):
    with create_run(url) as run:
        run.write_checkpoint(1, fill("one"), keep=2)

        def half(place: storage.Place) -> None:
            fill("two")(place)
            raise OSError(28, "No space left on device")

        with pytest.raises(OSError, match="No space"):
            run.write_checkpoint(2, half, keep=2)
        assert any("00000002/" in name for name in storage.list_files(url)), (
            "the half is there, without a manifest"
        )
        assert [checkpoint_step(place) for place in run.list_checkpoints()] == [1]
        run.write_checkpoint(2, fill("three"), keep=2)
        with storage.reading(run.latest_checkpoint()) as folder:
            assert (folder / "part/deep/weights.bin").read_text() == "three"
        assert not any("00000002/" in name for name in storage.list_files(url)), (
            "and cleared away by the next"
        )


def test_remote_checkpoint_of_the_same_step_gets_a_new_folder(url):
    with create_run(url) as run:
        run.write_checkpoint(7, fill("first"), keep=1)
        second = run.write_checkpoint(7, fill("second"), keep=1, score=3.0)
        assert run.list_checkpoints() == [second] and checkpoint_step(second) == 7
        best = second
        for step in (8, 9):
            newest = run.write_checkpoint(step, fill("x"), keep=1, score=float(-step))
        assert run.list_checkpoints() == [best, newest]


def test_remote_checkpoint_damage_is_detected(url):
    with create_run(url) as run:
        made = run.write_checkpoint(1, fill("whole"), keep=2)
    file = str(storage.child(made, "part", "deep", "weights.bin"))
    storage.write_bytes(file, b"WHOLE")
    with pytest.raises(CheckpointError, match="weights.bin is damaged"), storage.reading(made):
        pass
    storage.write_bytes(file, b"who")
    with pytest.raises(CheckpointError, match="missing or damaged"):
        RemoteRun(url).latest_checkpoint()


def test_remote_run_without_ownership_writes_no_checkpoint(url):
    with create_run(url) as old:
        (old.path / "config.yaml").write_text("a: 1\n")
        old.write_checkpoint(1, fill("old"), keep=2)
        old.sync()
        with open_run(url):
            with pytest.raises(RunFault, match="has taken this run over"):
                old.write_checkpoint(2, fill("zombie"), keep=2)
    assert [checkpoint_step(place) for place in old.list_checkpoints()] == [1]


def test_create_and_open_run_report_a_bad_url_in_one_line(url, tmp_path, capsys):
    with create_run(url):
        pass
    for value, complaint in (
        (url, "not empty"),
        ("s4://bucket/run", "choose a folder, s3://BUCKET/NAME"),
        ("file:///proc/run", "choose a URL to which this machine can write"),
    ):
        assert cli.main(["train", "dqn", "--preset", "catch", "--local", "--out", value]) == 2
        words = capsys.readouterr().err
        assert complaint in words and len(words.splitlines()) == 1, words
    missing = url.replace("run-", "no-run-")
    assert cli.main(["train", "dqn", "--resume", missing, "--local"]) == 2
    assert "not a run directory" in capsys.readouterr().err


def test_train_dqn_at_a_url_resumes_where_it_stopped(url, capsys):
    """The curve equals that of a run in a folder: step, replay and learner are restored."""
    words = [
        "--preset",
        "catch",
        "--local",
        "--evaluate-episodes",
        "4",
        "--channels",
        "4",
        "4",
        "4",
        "--hidden",
        "16",
    ]
    assert cli.main(["train", "dqn", *words, "--steps", "700", "--out", url]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == url
    made = open_run(url).latest_checkpoint()
    config = replace(
        presets.catch(), network=replace(presets.catch().network, channels=(4, 4, 4), hidden=16)
    )
    agent = LocalAgent(config)
    agent.load(made)
    assert agent.steps == checkpoint_step(made) >= 700 and agent.learner.updates > 20
    agent.close()
    assert cli.main(["train", "dqn", "--resume", url, "--local", "--steps", "800"]) == 0
    assert "resuming from" in capsys.readouterr().out
    lines = [
        json.loads(line)
        for line in storage.read_file(storage.child(url, "metrics.jsonl"))[0].splitlines()
    ]
    assert lines[-1]["step"] >= 800 and lines[0]["step"] <= checkpoint_step(made), "the log goes on"
    assert "model/model.safetensors" in storage.list_files(url)


def test_remote_run_discard_removes_a_refused_run(url):
    with create_run(url) as run:
        save_yaml(presets.catch(), run.path / "config.yaml")
        run.sync()
        run.discard()
    assert storage.list_files(url) == {}
