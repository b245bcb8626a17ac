"""Helpers of the tests of pages in a real browser: sizes, waiting, screenshots, errors."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.conftest import Web

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


def watched(context: Any, web: Web, wrong: list[str]) -> Any:
    """Open a page that records errors of its scripts and requests to other sites."""
    opened = context.new_page()
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            wrong.append(message.text)
            if message.type == "error" and "status of" not in message.text
            else None
        ),
    )
    own = (web.url, "data:", "blob:")
    opened.on(
        "request",
        lambda request: None if request.url.startswith(own) else wrong.append(request.url),
    )
    return opened


def until(page: Any, condition: str, seconds: float = 60) -> None:
    """Wait until a JavaScript expression is true. Playwright's own function evaluates a string in
    the page, which the page's policy forbids.
    """
    stop = time.monotonic() + seconds
    while not _holds(page, condition):
        assert time.monotonic() < stop, f"still not: {condition}"
        time.sleep(0.05)


def _holds(page: Any, condition: str) -> bool:
    from playwright.sync_api import Error

    try:
        return bool(page.evaluate(f"() => Boolean({condition})"))
    except Error as error:
        if "navigation" in str(error):  # the browser is loading another page
            return False
        raise


def shot(page: Any, name: str) -> None:
    """Save a screenshot in the directory GENRAY_SHOTS, if set, for a person to inspect."""
    folder = os.environ.get("GENRAY_SHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=f"{folder}/{name}.png", full_page=True)


ENDLESS = """() => {
    game.acted = [];
    const step = game.step;
    game.step = (action, chances) => {
        game.acted.push(action);
        const drawn = step.call(game, action, chances);
        game.over = false;
        return drawn;
    };
}"""


class Player:
    """Plays a page whose game does not end."""

    def __init__(self, page: Any):
        self.page = page
        page.evaluate(ENDLESS)
        page.select_option("#speed", "60")

    def acts(self, action: int) -> None:
        """Wait until the game gets an action."""
        self.page.evaluate("game.acted.length = 0")
        self.page.wait_for_function(f"game.acted.includes({action})")


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens the pages of world models; an error of a script ends the test."""
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
