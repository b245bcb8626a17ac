"""How `pytest -n 2 --dist loadgroup` shares the tests out."""

import pytest

from tests.conftest import ByGroupOrFile


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/rl/test_env.py::test_one", "tests/rl/test_env.py"),
        ("tests/rl/test_env.py::test_one[x::y]", "tests/rl/test_env.py"),
        ("tests/rl/test_env.py::TestAll::test_one", "tests/rl/test_env.py"),
        ("tests/rllib/test_algorithm.py::test_one", "ray"),
        ("tests/distributed/test_coordinator.py::test_one[x]", "ray"),
        ("tests/cluster/test_faults.py::test_one", "cluster"),
        ("tests/serve/test_models.py::test_one", "serve"),
        ("tests/serve/test_on_ray.py::test_one", "serve"),
        ("tests/tuning/test_resume.py::test_one", "sweeps on ray"),
        ("tests/tuning/test_spaces.py::test_one", "tests/tuning/test_spaces.py"),
        ("tests/learn/test_catch.py::test_one", "tests/learn/test_catch.py"),
    ],
)
def test_by_group_or_file_keeps_files_whole_and_gathers_groups(nodeid: str, scope: str):
    assert ByGroupOrFile._split_scope(object.__new__(ByGroupOrFile), nodeid) == scope
