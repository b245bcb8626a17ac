"""Tests that a sweep whose driver was killed resumes without losing or repeating a trial."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from genray import cli
from genray.gen.learned_optimizer.config import LearnedOptimizerModelConfig
from genray.gen.learned_optimizer.network import LearnedRule
from genray.gen.learned_optimizer.use import KIND
from genray.runs.modelstore import save_model
from tests.helpers.tuning import check_clones, clones_of
from tuning.trials import TrialRow, read_trials

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(600)]

SMALL = ("model.widths=16", "model.latent=2", "fit.batch_size=64")
SMALL_GAN = (
    "model.network=dense",
    "model.generator_widths=16",
    "model.discriminator_widths=16",
    "model.latent=8",
    "model.generator_norm=none",
    "fit.batch_size=32",
)


def killed(sweep: Path, *words: str, when: Callable[[], bool]) -> dict[str, TrialRow]:
    """Run a sweep, kill its driver as soon as `when` is true, and return its rows."""
    command = [sys.executable, "-m", "genray", "sweep", *words, "--no-report", "--out", str(sweep)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not when():
            assert time.monotonic() < deadline and driver.poll() is None, (
                "the sweep ended, or hangs"
            )
            time.sleep(0.1)
    finally:
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    return {row.trial: row for row in read_trials(sweep)}


def rows_of(sweep: Path) -> list[TrialRow]:
    return read_trials(sweep) if (sweep / "sweep.yaml").exists() else []


def resumed(sweep: Path, before: dict[str, TrialRow]) -> list[TrialRow]:
    """Resume the sweep, and return its rows. Checks that the files of ended trials are unchanged,
    and that other trials continued.
    """
    ended = [row for row in before.values() if row.status in ("done", "stopped")]
    files = {
        path: path.stat().st_mtime_ns
        for row in ended
        for path in (sweep / row.path).rglob("*")
        if path.is_file()
    }
    assert len(ended) < len(before) or len(before) == 0, "the driver was killed too late"
    assert cli.main(["sweep", "--resume", str(sweep), "--no-report"]) == 0
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in files.items())
    rows = read_trials(sweep)
    assert len({row.trial for row in rows}) == len(rows)
    for row in rows:
        lines = [
            json.loads(line)
            for line in (sweep / row.path / "metrics.jsonl").read_text().splitlines()
        ]
        steps = [line["step"] for line in lines if "cloned" not in line]
        assert steps == sorted(set(steps)), f"{row.trial} was trained twice"
        evaluated = [step for step, _, _ in row.curve]
        assert evaluated == sorted(set(evaluated))
    after = {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/*")}
    assert cli.main(["sweep", "--resume", str(sweep), "--no-report"]) == 0  # nothing is left to do
    assert after == {path: path.stat().st_mtime_ns for path in sweep.glob("trials/*/*")}
    return rows


def save_learned_optimizer(folder: Path) -> Path:
    """Save an untrained learned optimizer, whose updates are at most about 1e-4."""
    torch.manual_seed(0)
    rule = LearnedRule(LearnedOptimizerModelConfig(lstm_units=2, output_scale=1e-4))
    return save_model(folder, KIND, {"model": asdict(rule.config)}, rule.state_dict(), "card")


def test_resume_sweep_continues_a_killed_comparison_with_a_learned_optimizer(tmp_path):
    sweep = tmp_path / "sweep"
    words = (
        "--arms",
        f"learned:{save_learned_optimizer(tmp_path / 'rule')}",
        "--trials",
        "4",
        "--seeds",
        "1",
        "--steps",
        "500",
        "--looks",
        "5",
        "--set",
        *SMALL,
    )
    before = killed(
        sweep,
        "optimizers",
        *words,
        when=lambda: any(row.status == "done" for row in rows_of(sweep)),
    )
    rows = resumed(sweep, before)
    assert [row.status for row in rows] == ["done"] * 6
    assert all([step for step, _, _ in row.curve] == [100, 200, 300, 400, 500] for row in rows)


def test_resume_sweep_continues_a_killed_search_by_optuna_and_asha(tmp_path):
    sweep = tmp_path / "sweep"
    words = (
        "--search",
        "optuna",
        "--scheduler",
        "asha",
        "--arms",
        "sgd",
        "--trials",
        "8",
        "--seeds",
        "0",
    )
    words += ("--steps", "900", "--looks", "9", "--set", *SMALL)

    def two_have_ended_and_one_is_under_way() -> bool:
        rows = rows_of(sweep)
        ended = sum(row.status != "running" for row in rows)
        return ended >= 2 and any(row.status == "running" and len(row.curve) >= 2 for row in rows)

    before = killed(sweep, "optimizers", *words, when=two_have_ended_and_one_is_under_way)
    rows = resumed(sweep, before)
    assert len(rows) == 8 and {row.status for row in rows} <= {"done", "stopped", "diverged"}
    assert all(row.params == before[row.trial].params for row in rows if row.trial in before), (
        "settings of existing trials stay"
    )
    assert len({row.params["optimizer.learning_rate"] for row in rows}) == 8, (
        "no point is suggested twice"
    )
    for row in rows:
        assert row.status != "done" or len(row.curve) == 9
        assert row.status != "stopped" or 1 <= len(row.curve) < 9


def test_resume_sweep_continues_a_killed_population_from_its_last_common_barrier(tmp_path):
    sweep = tmp_path / "sweep"
    words = (
        "--model",
        "gan",
        "--scheduler",
        "pbt",
        "--trials",
        "4",
        "--seeds",
        "0",
        "--steps",
        "160",
        "--looks",
        "8",
    )
    words += ("--perturb-every", "2", "--set", *SMALL_GAN)

    def one_is_past_the_first_copies() -> bool:
        return bool(clones_of(sweep)) and any(len(row.curve) >= 3 for row in rows_of(sweep))

    before = killed(sweep, "gan-stability", *words, when=one_is_past_the_first_copies)
    copied = clones_of(sweep)
    rows = resumed(sweep, before)
    assert [row.status for row in rows] == ["done"] * 4
    # Every evaluation exists once, so all members continued from the same evaluation.
    for row in rows:
        assert [step for step, _, _ in row.curve] == [20 * number for number in range(1, 9)]
    now = clones_of(sweep)
    assert now[: len(copied)] == copied and len(now) > len(copied), (
        "earlier copies stay, and new ones follow"
    )
    assert check_clones(sweep, rows) >= 1
    # Evaluations before the barrier are those of the first session, bit for bit.
    for row in rows:
        known = {step: value for step, _, value in before[row.trial].curve}
        assert all(value == known[step] for step, _, value in row.curve if step <= 40)
