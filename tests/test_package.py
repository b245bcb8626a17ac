"""What the wheel and the source archive carry, by pyproject.toml."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TARGETS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]


@pytest.mark.parametrize("package", TARGETS["wheel"]["packages"])
def test_wheel_package_is_marked_as_typed(package: str):
    assert (ROOT / package / "py.typed").exists()


def test_wheel_leaves_out_the_results_of_the_study():
    assert TARGETS["wheel"]["exclude"] == ["/tuning/results"]
    assert (
        ROOT / "tuning" / "results"
    ).is_dir()  # a pattern of a moved directory would match nothing


def test_sdist_includes_what_the_tests_read():
    included = set(TARGETS["sdist"]["include"])
    assert {"/tests", "/examples", "/Makefile", "/constraints.txt", "/CONTRIBUTING.md"} <= included
