"""How the tests share two processes: `pytest -n 2 --dist loadgroup`, as the Makefile starts it.

A file's tests stay in one process, so that its fixtures are made once. All tests that start Ray
form one group and all that start a cluster form another: each group runs in one process, so at
most one Ray and one cluster run at a time. The long groups and files start first.
"""

import os
from contextlib import ExitStack

import pytest
from xdist.scheduler import LoadGroupScheduling

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before PyTorch is imported: two processes with a thread for each core would wait for each
    # other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

GROUPS = ("ray", "cluster")
FIRST = (*GROUPS, "learn", "service")


class ByGroupOrFile(LoadGroupScheduling):
    """Hands out whole groups and, of the tests that have no group, whole files."""

    def _split_scope(self, nodeid: str) -> str:
        scope = super()._split_scope(nodeid)
        return scope.partition("::")[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroupOrFile | None:
    if config.getvalue("dist") != "loadgroup":
        return None
    # the order of pytest_collection_modifyitems, not the largest first
    config.option.loadscopereorder = False
    return ByGroupOrFile(config, log)  # type: ignore[arg-type]


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for group in GROUPS:
            if item.get_closest_marker(group):
                item.add_marker(pytest.mark.xdist_group(group))
    if "PYTEST_XDIST_WORKER" in os.environ:
        sharing = {item.path for item in items if _shares_ray(item)}
        items.sort(key=lambda item: (_rank(item), item.path not in sharing))


def _rank(item: pytest.Item) -> int:
    marks = [name for name in FIRST if item.get_closest_marker(name)]
    return FIRST.index(marks[0]) if marks else len(FIRST)


# -- one Ray for consecutive files --------------------------------------------------------------

_RAY = ExitStack()
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


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        _FAILED.add(report.nodeid)


@pytest.hookimpl(trylast=True)  # after the fixtures of the test's file
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and (
        nextitem.path == item.path or (_shares_ray(nextitem) and not _FAILED)
    ):
        return
    _RAY.close()
    _FAILED.clear()


def _shares_ray(item: pytest.Item) -> bool:
    return "ray_here" in getattr(item, "fixturenames", ())
