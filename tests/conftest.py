"""How the tests share two processes: `pytest -n 2 --dist loadgroup`, as the Makefile starts it.

A file's tests stay in one process, so that its fixtures are made once. The files that start Ray
form three groups: sweeps, the service, and all others. The files that start a cluster form a
fourth. Each group runs in one process, so its files can share a Ray or the models of the service.
The long groups and files start first.
"""

import os
import sys
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest
from xdist.scheduler import LoadGroupScheduling

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before PyTorch is imported: two processes with a thread for each core would wait for each
    # other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

FIRST = ("ray", "cluster", "learn", "service")
TESTS = Path(__file__).parent


class ByGroupOrFile(LoadGroupScheduling):
    """Hands out the groups of `group_of` and, of the files that have no group, whole files."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return group_of(file) or file


@cache
def group_of(file: str) -> str:
    """The group of a test file, by its path from the repository's root: "" for a file of its own.

    The markers of single tests are not known where xdist hands the tests out, so a file that has
    any test marked `ray` belongs to a group as a whole.
    """
    path = TESTS.parent / file
    for name in ("cluster", "serve"):
        if TESTS / name in path.parents:
            return name
    if "pytest.mark.ray" not in path.read_text(encoding="utf-8"):
        return ""
    return "sweeps on ray" if TESTS / "tuning" in path.parents else "ray"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroupOrFile | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    # the order of pytest_collection_modifyitems, not the largest first
    config.option.loadscopereorder = False
    return ByGroupOrFile(config, log)  # type: ignore[arg-type]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        sharing = {item.path for item in items if _shared_ray(item)}
        items.sort(key=lambda item: (_rank(item), item.path not in sharing))


def _rank(item: pytest.Item) -> int:
    marks = [name for name in FIRST if item.get_closest_marker(name)]
    return FIRST.index(marks[0]) if marks else len(FIRST)


# -- one Ray for consecutive files --------------------------------------------------------------

_RAY = ExitStack()
_KIND: set[str] = set()  # the fixture that started the Ray, if one runs
_FAILED: set[str] = set()  # tests since this Ray began: what they left on it may hold its CPUs


@pytest.fixture(scope="module")
def ray_here() -> None:
    """A private Ray, as `genray train` starts it. It stays for the next file if that uses it,
    too.
    """
    import ray

    from genray.distributed.session import ray_session

    if not ray.is_initialized():
        _RAY.enter_context(ray_session())
        _KIND.add("ray_here")


@pytest.fixture(scope="module")
def two_cpus() -> None:
    """A private Ray of two CPUs on any machine, which stays as `ray_here` does."""
    import ray

    from genray.ray_processes import few_processes, start_private_ray

    if not ray.is_initialized():
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        with few_processes():
            start_private_ray(num_cpus=2, object_store_memory=300 * 2**20, include_dashboard=False)
        _RAY.callback(ray.shutdown)
        _KIND.add("two_cpus")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _FAILED.add(report.nodeid)


@pytest.hookimpl(trylast=True)  # after the fixtures of the test's file
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and (
        nextitem.path == item.path or (_shared_ray(nextitem) in _KIND and not _FAILED)
    ):
        return
    _RAY.close()
    _KIND.clear()
    _FAILED.clear()
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        sys.modules["ray"].shutdown()
        pytest.fail(f"{item.path.name} left a Ray, which the next file would have joined")


def _shared_ray(item: pytest.Item) -> str:
    """The fixture that gives the test its Ray; an empty string if it has none."""
    names = getattr(item, "fixturenames", ())
    return next((name for name in ("ray_here", "two_cpus") if name in names), "")
