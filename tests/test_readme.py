"""The README's Python example, as it is printed there, in a process of its own as a reader would
start it.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.ray
@pytest.mark.timeout(420)
def test_the_python_example_runs(tmp_path: Path):
    section = README.read_text().partition("\n**From Python**\n")[2].partition("\n## ")[0]
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
    # with the replay
    assert sum(shard["counts"]["size"] for shard in state["shards"]) > 900 * iterations
