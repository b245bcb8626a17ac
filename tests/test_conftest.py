"""How `pytest -n 2 --dist loadgroup` shares the tests out."""

import pytest

from tests.conftest import ByGroupOrFile


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/rl/test_a.py::test_one", "tests/rl/test_a.py"),
        ("tests/rl/test_a.py::test_one[x::y]", "tests/rl/test_a.py"),
        ("tests/rl/test_a.py::test_one[user@host]", "tests/rl/test_a.py"),
        ("tests/rl/test_a.py::TestAll::test_one", "tests/rl/test_a.py"),
        ("tests/rl/test_a.py::test_one[x]@ray", "ray"),
        ("tests/tuning/test_b.py::test_two@ray", "ray"),
    ],
)
def test_by_group_or_file_keeps_files_whole_and_gathers_groups(nodeid: str, scope: str):
    assert ByGroupOrFile._split_scope(object.__new__(ByGroupOrFile), nodeid) == scope


@pytest.mark.ray
def test_ray_tests_are_in_the_ray_group(request: pytest.FixtureRequest):
    assert [mark.args for mark in request.node.iter_markers("xdist_group")] == [("ray",)]
