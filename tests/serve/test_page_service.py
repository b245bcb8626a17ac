"""Tests what the page says of the whole service, in a real browser: log-in, deletion, a busy
service.
"""

from collections.abc import Callable
from typing import Any

import pytest

from serve.limits import Limits
from tests.helpers.browser import browser, marks
from tests.helpers.pages import DESKTOP, shot, until
from tests.serve.conftest import Web

__all__ = ["browser"]  # pytest finds the fixture by its name here
pytestmark = [marks[0], pytest.mark.timeout(300)]


def test_page_asks_before_it_deletes_and_undoes(browser: Any, start: Callable[..., Web]):
    web = start()
    page = browser.new_page(viewport=DESKTOP)
    page.goto(f"{web.url}/?model=waves")
    page.click(".manage summary")
    page.click("text=Delete…")
    assert page.locator("dialog[open]").inner_text().startswith("Delete “waves”?")
    page.keyboard.press("Escape")
    assert "waves" in web.service.registry.models
    page.click("text=Delete…")
    page.click("dialog[open] button:text-is('Delete')")
    until(page, "document.querySelector('.banner')?.textContent.includes('waves was deleted')")
    assert "waves" not in web.service.registry.models
    page.click(".banner button:text-is('Undo')")
    until(page, "document.querySelector('.banner')?.textContent.includes('waves is back')")
    assert "waves" in web.service.registry.models
    page.close()


def test_page_login_and_logout(browser: Any, start: Callable[..., Web]):
    web = start(keys=("a-key-of-this-test-0001",))
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{web.url}/?model=waves&size=256")
    shot(page, "login")
    page.fill("input[name=key]", "a-key-of-this-test-0001")
    page.keyboard.press("Enter")
    until(page, "document.querySelector('h1')?.textContent === 'waves'")
    assert page.url.endswith("?model=waves&size=256") or "model=waves" in page.url
    assert "a-key" not in str(context.cookies())
    assert "$GENRAY_API_KEY" in page.inner_text(".snippets pre")
    page.reload()
    until(page, "document.querySelector('h1')?.textContent === 'waves'")
    page.click("text=Log out")
    until(page, "document.querySelector('input[name=key]') !== null")
    context.close()


def test_page_says_that_the_service_is_busy(browser: Any, start: Callable[..., Web]):
    web = start(limits=Limits(max_slow=1))
    busy, other = browser.new_page(viewport=DESKTOP), browser.new_page(viewport=DESKTOP)
    busy.goto(f"{web.url}/?model=lite0&photo=flower&steps=40&size=512")
    until(busy, "document.querySelector('.drop img') !== null")
    busy.click("button:text-is('Dream')")
    until(busy, "document.querySelector('.working progress')?.value > 0")
    other.goto(f"{web.url}/?model=waves&size=256")
    until(other, "document.querySelector('.drop img') !== null")
    other.click("button:text-is('Paint')")
    until(other, "document.querySelector('.output .error')?.textContent.includes('too busy')")
    busy.click(".working button:text-is('Cancel')")
    busy.close()
    other.close()
