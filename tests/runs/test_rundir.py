"""Tests run directories: the lock, complete checkpoints, detection of damage, and metrics."""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from genray.commands.train import _new_run
from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.gen.vae import VAEConfig
from genray.runs.rundir import MetricsLog, RunDir, new_folder, require_disk, verify_checkpoint

HOLDER = """
import sys
import time
from pathlib import Path
from genray.runs.rundir import RunDir
with RunDir(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def fill(folder: Path) -> None:
    (folder / "replay").mkdir()
    (folder / "learner.pt").write_bytes(bytes(range(256)) * 40)
    np.save(folder / "replay" / "frames.npy", np.arange(1000))


@pytest.fixture
def run(tmp_path: Path):
    with RunDir.create(tmp_path / "run") as made:
        yield made


# --- names chosen for the user --------------------------------------------------------------------


def test_new_folder_is_unique_within_a_second(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(time, "strftime", lambda form: "20260101-000000")
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(lambda _: new_folder("dqn-catch"), range(24)))
    numbered = [Path(f"runs/dqn-catch-20260101-000000-{number}") for number in range(2, 25)]
    assert set(folders) == {Path("runs/dqn-catch-20260101-000000"), *numbered}
    runs = []
    for _ in range(3):  # as `genray train` makes them
        with _new_run("vae", VAEConfig(), None) as run:
            (run.path / "config.yaml").touch()
            runs.append(run.path.name)
    assert runs == ["vae-digits-20260101-000000" + tail for tail in ("", "-2", "-3")]
    assert new_folder("dqn-a/b").parent == Path("runs")


def test_new_folder_names_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("runs").touch()
    with pytest.raises(
        ConfigError,
        match="runs/vae-.*: File exists; choose a folder that can be written with --out",
    ):
        new_folder("vae")


# --- one process at a time ------------------------------------------------------------------------


def test_run_dir_refuses_a_run_in_use_by_another_process(tmp_path: Path):
    path = tmp_path / "run"
    RunDir.create(path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(ConfigError, match=f"{path}: in use by another process.*another --out"):
            with RunDir(path):
                pass
        holder.send_signal(signal.SIGKILL)  # the lock dies with its holder, however it dies
        holder.wait(timeout=30)
        with RunDir(path):
            pass
    finally:
        holder.kill()
        holder.communicate()


def test_run_dir_releases_its_lock(tmp_path: Path):
    run = RunDir.create(tmp_path / "run")
    for _ in range(2):
        with run:
            with pytest.raises(ConfigError, match="in use"), RunDir(run.path):
                pass


def test_run_dir_create_refuses_a_folder_that_is_not_empty(tmp_path: Path):
    RunDir.create(tmp_path / "absent" / "deeper")
    (tmp_path / "empty").mkdir()
    RunDir.create(tmp_path / "empty")
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    with pytest.raises(
        ConfigError,
        match=f"--out {full}: not empty; choose a new folder, or continue with --resume {full}",
    ):
        RunDir.create(full)
    with pytest.raises(ConfigError, match="--out .*thesis.txt: not empty"):
        RunDir.create(full / "thesis.txt")
    with pytest.raises(
        ConfigError, match="--out .*: Not a directory; choose a folder that can be written"
    ):
        RunDir.create(full / "thesis.txt" / "run")
    assert (full / "thesis.txt").read_text() == "years of work" and len(list(full.iterdir())) == 1


def test_run_dir_open_refuses_a_folder_that_is_not_a_run(tmp_path: Path):
    with pytest.raises(CheckpointError, match="not a run directory"):
        RunDir.open(tmp_path)


# --- checkpoints ----------------------------------------------------------------------------------


def test_latest_checkpoint_is_the_complete_one_that_was_written(run: RunDir):
    folder = run.write_checkpoint(45_000, fill, keep=2)
    assert folder.name == "00045000" and run.latest_checkpoint() == folder
    manifest = json.loads((folder / "manifest.json").read_text())
    assert sorted(manifest["files"]) == ["learner.pt", "replay/frames.npy"]
    assert np.load(folder / "replay" / "frames.npy").tolist() == list(range(1000))


def test_latest_checkpoint_reports_that_there_is_none(run: RunDir):
    with pytest.raises(CheckpointError, match="no complete checkpoint yet"):
        run.latest_checkpoint()


@pytest.mark.parametrize("name", ["learner.pt", "replay/frames.npy"])
def test_latest_checkpoint_detects_a_flipped_bit(run: RunDir, name: str):
    file = run.write_checkpoint(1, fill, keep=2) / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"00000001: {name} is damaged.*older checkpoint"):
        run.latest_checkpoint()


def test_latest_checkpoint_detects_a_shortened_and_a_missing_file(run: RunDir):
    folder = run.write_checkpoint(1, fill, keep=2)
    os.truncate(folder / "learner.pt", 100)
    with pytest.raises(CheckpointError, match="learner.pt is damaged"):
        verify_checkpoint(folder)
    (folder / "learner.pt").unlink()
    with pytest.raises(CheckpointError, match="learner.pt is missing"):
        verify_checkpoint(folder)


@pytest.mark.parametrize(
    "manifest",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 99, "files": {}}',
        '{"files": {}}',
        '{"format": 1, "files": []}',
        "\x00",
    ],
)
def test_latest_checkpoint_refuses_another_manifest(run: RunDir, manifest: str):
    folder = run.write_checkpoint(1, fill, keep=2)
    (folder / "manifest.json").write_text(manifest)
    with pytest.raises(CheckpointError, match="not a genray checkpoint of format 1"):
        run.latest_checkpoint()


def leftovers(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.checkpoints.iterdir())


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), ValueError("x")],
)
def test_write_checkpoint_that_fails_leaves_no_files(run: RunDir, error: BaseException):
    first = run.write_checkpoint(1, fill, keep=1)

    def fail(folder: Path) -> None:
        fill(folder)
        raise error

    for step in (2, 1):  # a new name, and one that is there
        with pytest.raises(type(error)):
            run.write_checkpoint(step, fail, keep=1)
        assert leftovers(run) == ["00000001"]
        assert run.latest_checkpoint() == first


@contextmanager
def longest_file(length: int) -> Iterator[None]:
    """Limit the files of this process to `length` bytes within the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (length, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_write_checkpoint_beyond_the_kernels_file_limit_leaves_no_files(run: RunDir):
    """The kernel ends the write, because files of this process are limited to 100,000 bytes."""

    def too_long(folder: Path) -> None:
        (folder / "frames.npy").write_bytes(bytes(400_000))

    first = run.write_checkpoint(1, fill, keep=1)
    with longest_file(100_000), pytest.raises(OSError, match="File too large"):
        run.write_checkpoint(2, too_long, keep=1)
    assert leftovers(run) == ["00000001"] and run.latest_checkpoint() == first


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
def test_write_checkpoint_on_a_full_disk_leaves_no_files(run: RunDir):
    """One file of the checkpoint is on the device that is always full, which raises ENOSPC."""

    def onto_the_full_disk(folder: Path) -> None:
        fill(folder)
        (folder / "state.json").symlink_to("/dev/full")
        (folder / "state.json").write_text("{}")

    with pytest.raises(OSError) as caught:
        run.write_checkpoint(1, onto_the_full_disk, keep=1)
    assert caught.value.errno == errno.ENOSPC
    assert leftovers(run) == []
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        run.latest_checkpoint()


def test_run_dir_clears_incomplete_checkpoints_of_a_killed_process(run: RunDir):
    run.write_checkpoint(1, fill, keep=2)
    half = run.checkpoints / ".00000002.123.tmp"
    half.mkdir()
    (half / "learner.pt").write_bytes(b"half")
    assert [folder.name for folder in run.list_checkpoints()] == ["00000001"]
    run.__exit__(None, None, None)
    with RunDir(run.path):
        assert leftovers(run) == ["00000001"]


def steps_of(run: RunDir) -> list[int]:
    return [int(folder.name) for folder in run.list_checkpoints()]


def test_write_checkpoint_keeps_the_newest_and_the_best(run: RunDir):
    kept = []
    for step, score in ((1, None), (2, 5.0), (3, 9.0), (4, 1.0), (5, None), (6, 8.0)):
        run.write_checkpoint(step, fill, keep=2, score=score)
        kept.append(steps_of(run))
    assert kept == [[1], [1, 2], [2, 3], [3, 4], [3, 4, 5], [3, 5, 6]]
    run.write_checkpoint(7, fill, keep=1, score=10.0)  # a new best: the old one goes
    assert steps_of(run) == [7]


def test_write_checkpoint_keeps_the_best_of_negative_scores(run: RunDir):
    for step, score in ((1, -20.0), (2, -21.0), (3, -21.0), (4, None)):
        run.write_checkpoint(step, fill, keep=1, score=score)
    assert steps_of(run) == [1, 4]


def test_list_checkpoints_sorts_by_number(run: RunDir):
    """100,000,000 has more digits than the padded names."""
    for step in (99_000_000, 99_900_000, 100_000_000, 100_100_000):
        run.write_checkpoint(step, fill, keep=2)
        assert run.latest_checkpoint().name == f"{step:08d}"
    assert steps_of(run) == [100_000_000, 100_100_000]


def test_write_checkpoint_of_the_same_step_replaces_the_checkpoint(run: RunDir):
    def other(folder: Path) -> None:
        (folder / "other").write_bytes(b"new")

    run.write_checkpoint(1, fill, keep=2)
    run.write_checkpoint(1, other, keep=2)
    assert sorted(path.name for path in run.latest_checkpoint().iterdir()) == [
        "manifest.json",
        "other",
    ]


# --- disk and metrics -----------------------------------------------------------------------------


def test_require_disk_reports_too_little_space(tmp_path: Path):
    require_disk(tmp_path / "not" / "yet" / "there", 1, "a checkpoint")
    with pytest.raises(
        ResourceError,
        match="GB free, but a checkpoint needs 1000000000.0 GB; .*--out.*--capacity or --keep",
    ):
        require_disk(tmp_path / "not" / "yet", 10**18, "a checkpoint")


@pytest.mark.parametrize("rest", [b'{"step": 3, "sec', b"{}\n", b"\xff\xfe\n[]\n\x00"])
def test_metrics_log_continues_after_an_incomplete_line(run: RunDir, rest: bytes):
    """A killed process or a full disk may leave an incomplete line, and the run can be resumed."""
    path = run.path / "metrics.jsonl"
    path.write_bytes(b'{"step": 2, "seconds": 77.5}\n' + rest)
    log = MetricsLog(run)
    log.write(4, {"loss": 1.0})
    log.close()
    last = json.loads(path.read_bytes().splitlines()[-1])
    assert last["step"] == 4 and 77.5 <= last["seconds"] < 80


@pytest.mark.timeout(30)
def test_metrics_log_on_a_full_disk_raises_and_does_not_block(run: RunDir):
    """TensorBoard's usual writer passes events to a thread. On a full disk the thread ends, and
    later events block.
    """
    log = MetricsLog(run)
    with longest_file(4_000):
        with pytest.raises(OSError, match="File too large"):
            for step in range(1_000):
                log.write(step, dict.fromkeys("abcdefghijklmnop", 1.0))
        log.close()


def test_metrics_log_writes_both_files_and_continues_after_a_resume(run: RunDir):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for step in (1, 2):
        log = MetricsLog(run)
        log.write(step, {"loss": 0.5 * step, "score": None})
        log.close()
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [(1, 0.5), (2, 1.0)]
    assert all("score" not in line and line["seconds"] >= 0 for line in lines)
    events = EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [(1, 0.5), (2, 1.0)]


def test_metrics_log_removes_lines_after_the_resumed_step(run: RunDir):
    """The run was killed at step 5 and resumed from step 2. Both files have each step once, and the
    seconds continue from step 2.
    """
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for start, last in ((0, 5), (2, 4)):
        log = MetricsLog(run, start)
        for step in range(start + 1, last + 1):
            log.write(step, {"loss": 10.0 * start + step})
        log.close()
        if not start:
            lines = [
                json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()
            ]
            for line in lines:
                line["seconds"] = 100.0 * line["step"]
            (run.path / "metrics.jsonl").write_text(
                "".join(json.dumps(line) + "\n" for line in lines)
            )
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["loss"]) for line in lines] == [
        (1, 1.0),
        (2, 2.0),
        (3, 23.0),
        (4, 24.0),
    ]
    assert 200 <= lines[-1]["seconds"] < 210
    events = EventAccumulator(str(run.path / "tensorboard")).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in events] == [
        (1, 1.0),
        (2, 2.0),
        (3, 23.0),
        (4, 24.0),
    ]
