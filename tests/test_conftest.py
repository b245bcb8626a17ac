"""How `pytest -n 2 --dist loadgroup` shares the tests out."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests import conftest
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


def item(file: str, *fixtures: str) -> Any:
    return SimpleNamespace(path=Path(file), fixturenames=fixtures)


def test_ray_of_a_file_ends_with_it_unless_the_next_file_uses_it_too(monkeypatch):
    """With a stand-in for the module `ray`, because a real one takes half a minute."""
    running = [True]
    ray = SimpleNamespace(is_initialized=lambda: any(running), shutdown=running.clear)
    monkeypatch.setitem(sys.modules, "ray", ray)
    conftest._RAY.callback(ray.shutdown)
    conftest._KIND.add("ray_here")
    first, last = item("a.py", "ray_here"), item("a.py")
    for this, following in ((first, last), (last, item("b.py", "ray_here"))):
        conftest.pytest_runtest_teardown(this, following)
        assert running
    conftest.pytest_runtest_teardown(item("b.py"), item("c.py", "two_cpus"))
    assert not running and not conftest._KIND


def test_file_that_leaves_a_ray_fails(monkeypatch):
    running = [True]
    ray = SimpleNamespace(is_initialized=lambda: any(running), shutdown=running.clear)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with pytest.raises(pytest.fail.Exception, match="a.py left a Ray"):
        conftest.pytest_runtest_teardown(item("a.py"), item("b.py"))
    assert not running, "the next file would join it"
