"""Tests that Ray's autoscaler starts the machines for the collectors that a run needs."""

import json
import sys

import pytest

from tests.cluster.hosts import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def test_collectors_are_started_on_demand(make_hosts, tmp_path):
    host = make_hosts(1)[0]
    script = str(ROOT / "tests/cluster/autoscale.py")
    done = host.run(sys.executable, script, str(tmp_path / "run"), timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "waiting for machines with genray_collector (4 needed, 0 offered)" in done.stdout
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result == {"status": 0, "before": [], "after": [2.0, 2.0]}, (
        "two machines of two, not three"
    )
