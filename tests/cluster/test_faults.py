"""Tests a small part of `make test-cluster`: no acknowledged data is lost, and the run continues.

The full matrix (tests/cluster/matrix.py) measures how fast a run continues, on a quiet machine.
"""

import pytest

from tests.cluster.driver import Case
from tests.cluster.faults import HOSTS, experiment
from tests.cluster.hosts import Hosts

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def hosts(make_hosts) -> Hosts:
    return make_hosts(HOSTS)


@pytest.mark.parametrize(
    "case",
    [Case(role="learner", fault="cut")],
    ids=lambda case: f"{case.role}-{case.fault}",
)
def test_a_lost_machine_costs_no_acknowledged_transition(hosts, case, tmp_path):
    outcome = experiment(hosts, case, tmp_path)
    wrong = [
        miss for miss in outcome.misses() if not miss.startswith(("detected", "acting", "learning"))
    ]
    assert not wrong, (wrong, outcome)
    assert None not in (outcome.detected_s, outcome.acting_s, outcome.learning_s), outcome
    assert outcome.accounts and outcome.accounts.acknowledged > 1_000
    # Whether the cut learner still tries to write when it is back is a race with its own raylet,
    # which ends it then; `misses` counts what such a writer got accepted, and
    # tests/distributed/test_recovery.py forges one.
    if case.role == "learner":
        assert outcome.restored is not None and 0 < outcome.restored <= outcome.published + 200, (
            outcome
        )
