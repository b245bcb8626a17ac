"""Opens the pages of world models, and plays them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.browser import browser

__all__ = ["browser"]  # pytest finds the fixture by its name here


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens pages; an error of a script ends the test."""
    pages = []

    def open_page(path: Path, **options: Any) -> Any:
        page = browser.new_page(**options)
        pages.append(page)

        def fail(problem: Any) -> None:
            raise AssertionError(problem)

        page.on("pageerror", fail)
        page.goto(path.as_uri())
        page.wait_for_function("window.game !== undefined")
        return page

    yield open_page
    for page in pages:
        page.close()
