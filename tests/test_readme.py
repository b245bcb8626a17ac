"""Runs the Python examples of README.md and a guide, each in a process of its own."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.ray
@pytest.mark.timeout(420)
def test_guide_rllib_example_runs(tmp_path: Path):
    section = (
        (ROOT / "docs" / "guides" / "atari_agents.md")
        .read_text()
        .partition("\n## From Python\n")[2]
        .partition("\n## ")[0]
    )
    [example] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    folder = tmp_path / "apex"
    code = example.replace('"/tmp/apex"', repr(str(folder)))
    assert code != example
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=400, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert math.isfinite(float(done.stdout.strip().splitlines()[-1]))  # some games have ended
    iterations = int(re.search(r"range\((\d+)\)", example)[1])  # type: ignore[index]
    state = json.loads((folder / "engine" / "state.json").read_text())
    assert state["steps"] >= 1_000 * iterations
    assert (
        sum(shard["counts"]["size"] for shard in state["shards"]) > 900 * iterations
    )  # with the replay


@pytest.mark.learn
@pytest.mark.timeout(300)
def test_readme_local_agent_example_runs_with_fewer_steps(tmp_path: Path):
    section = (
        (ROOT / "README.md")
        .read_text()
        .partition("\n## Train and watch an agent\n")[2]
        .partition("\n## ")[0]
    )
    [example] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    code = example.replace("24_000", "800")
    assert code != example
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=280, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "32 episodes" in done.stdout
    assert (tmp_path / "catch.gif").read_bytes().startswith(b"GIF89a")


def test_readme_stays_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.encode()) <= 8 * 1024
    assert max(map(len, text.splitlines())) <= 120
