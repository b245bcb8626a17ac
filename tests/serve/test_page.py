"""Tests the page in a real browser (Debian's Chromium), with a user's clicks and keys."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.browser import browser, marks
from tests.serve.conftest import Web

__all__ = ["browser"]  # pytest finds the fixture by its name here
pytestmark = marks


@pytest.fixture
def page(browser: Any, web: Web) -> Iterator[Any]:
    """Open the page at a desktop's size. An error of its script, or a request to another site,
    fails the test.
    """
    opened = browser.new_page(viewport={"width": 1100, "height": 900})
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on(
        "console",
        lambda message: (
            wrong.append(message.text)
            if message.type == "error" and "415" not in message.text
            else None
        ),
    )
    opened.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((web.url, "data:", "blob:"))
            else wrong.append(request.url)
        ),
    )
    opened.goto(web.url)
    opened.wait_for_selector("#models .cards li")
    yield opened
    opened.close()
    assert wrong == []


def until(page: Any, condition: str, seconds: float = 30) -> None:
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


def test_page_gallery_shows_every_model(page: Any, web: Web):
    names = page.locator("#models h3").all_inner_texts()
    assert names == sorted(web.service.registry.models)
    until(page, "document.querySelector('#state').textContent.startsWith('ready: 6')")
    until(page, "document.querySelectorAll('#models img').length === 2")


def test_page_generates_by_seed_and_by_sliders(page: Any):
    until(page, "document.querySelectorAll('#make .grid img').length === 12")
    page.fill("#make [name=seed]", "41")
    page.click("#make button:text-is('Generate')")
    until(page, "document.querySelector('#make figcaption').textContent.includes('seed 41')")
    before = page.get_attribute("#make img.big", "src")
    slider = page.locator("#make .sliders input").first
    slider.focus()
    page.keyboard.press("End")
    until(page, "document.querySelector('#make figcaption').textContent.includes('by hand')")
    assert page.get_attribute("#make img.big", "src") != before
    page.click("#make [name=walk]")
    until(page, "document.querySelector('#make figcaption').textContent.includes('a walk')")
    shot(page, "generate")


def test_page_styles_a_photo(page: Any, tmp_path: Path, photo: np.ndarray):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page.select_option("#style select", "waves")
    assert page.locator("#style .wants-style").is_hidden()
    page.set_input_files("#style [name=photo]", str(tmp_path / "photo.png"))
    page.click("#style button")
    until(page, "document.querySelector('#style .after').naturalWidth === 96")
    shot(page, "style")


def test_page_dreams_with_the_builtin_network(page: Any, tmp_path: Path, photo: np.ndarray):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page.select_option("#style select", "waves")
    assert page.locator("#style .of-styles >> visible=true").count() == 2
    page.select_option("#style select", "lite0")
    assert page.locator("#style .of-styles >> visible=true").count() == 0
    page.set_input_files("#style [name=photo]", str(tmp_path / "photo.png"))
    page.click("#style button")
    until(page, "document.querySelector('#style .after').naturalWidth === 96")
    assert page.get_attribute("#style .after", "alt") == "by lite0"
    shot(page, "dream")


def test_page_shows_a_refusal_beside_its_form(page: Any, tmp_path: Path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.select_option("#style select", "waves")
    page.set_input_files("#style [name=photo]", str(tmp_path / "broken.png"))
    with page.expect_response("**/v1/images/edits") as answer:
        page.click("#style button")
    assert answer.value.status == 415
    until(page, "document.querySelector('#style .error').textContent.includes('not an image')")


def test_page_finds_neighbours_of_a_picture(page: Any, tmp_path: Path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8)).astype(np.uint8)).save(
        tmp_path / "digit.png"
    )
    page.set_input_files("#find [name=photo]", str(tmp_path / "digit.png"))
    page.click("#find button")
    until(page, "document.querySelectorAll('#find .grid img').length === 13", 60)
    shot(page, "find")


def test_page_plays_and_stops_a_game(page: Any):
    page.click("#watch button:text-is('Play')")
    until(
        page,
        "/step (1[0-9]|[2-9][0-9])/.test(document.querySelector('#watch figcaption').textContent)",
        60,
    )
    assert page.locator("#watch .values .best").count() == 1
    colours = page.evaluate(
        "() => { const c = document.querySelector('#watch canvas'); "
        "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size }"
    )
    assert colours > 8  # a game, not a blank
    shot(page, "watch")
    page.click("#watch [name=stop]")
    until(page, "document.querySelector('#watch [name=stop]').disabled")


def test_page_fits_a_phone_and_works_by_keyboard(browser: Any, web: Web):
    phone = browser.new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    phone.goto(web.url)
    until(phone, "document.querySelectorAll('#make .grid img').length === 12")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 360
    shot(phone, "phone")
    phone.focus("#make [name=seed]")
    phone.keyboard.press("Control+a")
    phone.keyboard.type("7")
    phone.keyboard.press("Enter")
    until(phone, "/seed 0?7$/.test(document.querySelector('#make figcaption').textContent)")
    phone.close()


def test_page_login_is_needed_once(browser: Any, start: Callable[..., Web]):
    web = start(keys=("a-key-of-this-test-0001",))
    context = browser.new_context()
    page = context.new_page()
    page.goto(web.url)
    page.fill("input[name=key]", "a-key-of-this-test-0001")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#models .cards li h3').length === 6")
    page.reload()
    page.wait_for_selector("#models .cards li h3")
    context.close()
