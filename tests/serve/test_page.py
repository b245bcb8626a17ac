"""Tests the page in a real browser (Debian's Chromium), with a user's clicks and keys."""

import base64
import io
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.helpers.axe import axe_source, violations
from tests.helpers.browser import browser, marks
from tests.helpers.pages import DESKTOP, PHONE, shot, until, watched
from tests.serve.conftest import Web

__all__ = ["browser"]  # pytest finds the fixture by its name here
# The first test waits for the training of the models.
pytestmark = [marks[0], pytest.mark.timeout(300)]


@pytest.fixture
def page(browser: Any, web: Web) -> Iterator[Any]:
    """Open a page at a desktop's size. An error of its script, or a request to another site,
    fails the test.
    """
    wrong: list[str] = []
    context = browser.new_context(viewport=DESKTOP, accept_downloads=True)
    yield watched(context, web, wrong)
    context.close()
    assert wrong == []


IDLE = "document.querySelector('.output')?.getAttribute('aria-busy') === 'false'"
RESULT = "document.querySelector('.output .result img')?.naturalWidth"
PAINT = "[...document.querySelectorAll('button')].find((each) => each.textContent === 'Paint')"
CAPTION = "document.querySelector('.output figcaption')?.textContent"


# -- the gallery -----------------------------------------------------------------------------------


def test_page_gallery_shows_every_model_with_a_cover(page: Any, web: Web):
    page.goto(web.url)
    count = len(web.service.registry.models)
    until(page, f"document.querySelector('#state').textContent === '{count} models ready'")
    names = page.locator(".card h3").all_inner_texts()
    assert sorted(names) == sorted([*web.service.registry.models, "lite0"])
    until(page, f"document.querySelectorAll('.cover img').length === {count + 1}")
    shot(page, "gallery")
    page.click(".card:has-text('digits-gan') a")
    until(page, "location.search.includes('model=digits-gan') && document.querySelector('.task')")
    page.go_back()
    until(page, "document.querySelector('.card') !== null")


def test_page_without_models_says_what_to_train(
    browser: Any, start: Callable[..., Web], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("serve.routes.openai.builtin_names", lambda: [])
    (tmp_path / "none").mkdir()
    other = start(tmp_path / "none")
    fresh = browser.new_page(viewport=DESKTOP)
    fresh.goto(other.url)
    until(fresh, "document.querySelector('h1')?.textContent === 'No models yet'")
    commands = fresh.locator(".missing code").all_inner_texts()
    assert len(commands) == 5 and all(each.startswith("genray train ") for each in commands)
    shot(fresh, "empty")
    fresh.close()


def test_page_says_that_the_service_has_gone(browser: Any, start: Callable[..., Web]):
    web = start()
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.goto(f"{web.url}/?model=digits-gan")
    until(page, RESULT)
    context.set_offline(True)
    page.click("button:text-is('Generate')")
    until(page, "document.querySelector('.banner.error')?.textContent.includes('not answer')")
    assert page.inner_text("#state") == "not reachable"
    shot(page, "gone")
    context.set_offline(False)
    page.click("button:text-is('Try now')")
    until(page, "document.querySelector('.banner.error') === null")
    context.close()


# -- generate --------------------------------------------------------------------------------------


def test_page_generates_by_seed_and_takes_the_seed_of_a_sample(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits-gan&seed=41&size=64x64")
    until(page, f"{RESULT} === 64 && {CAPTION} === 'Seed 41'")
    until(page, "document.querySelectorAll('.output .thumb').length === 12")
    first = page.locator(".output .thumb img").first.get_attribute("src")
    page.click(".output .thumb >> nth=0")
    until(page, f"{CAPTION} === 'Seed 42' && {IDLE}")
    assert page.input_value("[name=seed]") == "42" and "seed=42" in page.url
    assert page.locator(".output .thumb img").first.get_attribute("src") != first
    with page.expect_download() as download:
        page.click("text=Download")
    assert download.value.suggested_filename == "digits-gan-seed-42-64x64.png"
    page.click("text=Full size")
    assert page.locator("dialog.full").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("dialog.full").is_hidden()
    shot(page, "generate")


def test_page_caption_is_that_of_the_picture_and_not_of_the_form(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits-gan&seed=41&size=64x64")
    until(page, f"{CAPTION} === 'Seed 41' && {IDLE}")
    picture = page.locator(".output .result img").first
    before = picture.get_attribute("src")
    held: list[Any] = []
    page.route("**/v1/images/generations", lambda route: held.append(route), times=1)
    page.click(".output .thumb >> nth=0")
    until(page, "location.search.includes('seed=42')")
    page.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert held and picture.get_attribute("src") == before
    assert page.locator(".output figcaption").text_content() == "Seed 41"
    assert "seed-41" in (page.locator("text=Download").get_attribute("download") or "")
    held[0].continue_()
    page.unroute("**/v1/images/generations")
    until(page, f"{CAPTION} === 'Seed 42' && {IDLE}")
    assert picture.get_attribute("src") != before


def test_page_sliders_start_at_the_seed_and_are_shared_by_the_address(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits-gan&seed=3")
    until(page, "document.querySelectorAll('.sliders > .slider').length === 8")
    latent = web.service.registry.models["digits-gan"].latents([3])[0]
    first = page.locator(".sliders > .slider").first
    number = int(re.search(r"\d+", first.inner_text()).group()) - 1  # type: ignore[union-attr]
    assert float(first.locator("output").inner_text()) == pytest.approx(latent[number], abs=0.01)
    assert page.locator(".sliders details .slider").count() == len(latent) - 8
    before = page.locator(".output .result img").first.get_attribute("src")
    first.locator("input").focus()
    page.keyboard.press("End")
    until(page, f"{CAPTION} === 'Seed 3, changed by hand'")
    until(page, f"document.querySelector('.output .result img').src !== {before!r}")
    assert f"z={number}%3A3" in page.url
    changed = page.locator(".output .result img").first.get_attribute("src")
    assert '"latent":[[' in page.inner_text(".snippets pre")
    # The address shows the same again.
    page.reload()
    until(page, f"document.querySelector('.output .result img')?.src === {changed!r}")
    page.click("text=Back to the seed's values")
    until(page, f"document.querySelector('.output .result img').src === {before!r}")


def test_page_walks(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits-vae&do=walk&stops=2&frames=2")
    until(page, f"{RESULT} === 128 && {CAPTION}.includes('4 pictures')")
    assert page.locator("text=Download").get_attribute("download") == "digits-vae-walk-0.gif"
    page.locator("input[type=range]").first.press("ArrowRight")  # for the next walk
    until(page, "document.querySelector('label output').textContent === '3'")
    assert "4 pictures" in page.locator(".output figcaption").inner_text()


# -- pictures in -----------------------------------------------------------------------------------


def test_page_paints_and_a_new_photograph_clears_the_result(
    page: Any, web: Web, tmp_path: Path, photo: np.ndarray
):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page.goto(f"{web.url}/?model=waves&size=256")
    until(page, "document.querySelectorAll('.picker .thumb').length >= 2")
    until(page, "document.querySelector('.drop img') !== null")  # the first example is chosen
    page.set_input_files(".drop input", str(tmp_path / "photo.png"))
    until(page, f"{CAPTION}?.startsWith('Before')")
    page.click("button:text-is('Paint')")
    until(page, f"{CAPTION} === 'After' && {RESULT} === 96")
    assert page.locator(".compare img").count() == 2
    shot(page, "paint")
    page.click(".picker .thumb >> nth=1")
    until(page, f"{CAPTION}?.startsWith('Before')")
    until(page, "location.search.includes('photo=flower')")
    assert page.locator(".compare").count() == 0


def test_page_paints_only_the_marked_part(page: Any, web: Web, tmp_path: Path, photo: np.ndarray):
    Image.fromarray(photo).save(tmp_path / "photo.png")
    page.goto(f"{web.url}/?model=waves&size=256")
    until(page, "document.querySelector('.drop img') !== null")
    page.set_input_files(".drop input", str(tmp_path / "photo.png"))
    page.get_by_text("Only a part of the photograph").click()
    paint = page.locator("button:text-is('Paint')")
    pad = page.locator(".mask canvas")
    until(page, "document.querySelector('.mask canvas')?.width === 96")
    pad.scroll_into_view_if_needed()
    assert paint.is_disabled(), "nothing is marked yet"
    box = pad.bounding_box()
    # A stroke along the left edge, but not in the round corners.
    page.mouse.move(box["x"] + 1, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + 1, box["y"] + 0.8 * box["height"], steps=5)
    page.mouse.up()
    until(page, f"!({PAINT}.disabled)")
    shot(page, "mask")
    paint.click()
    until(page, f"{CAPTION} === 'After'")
    address = page.locator(".output .result img").first.get_attribute("src")
    made = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    change_HW = np.abs(np.asarray(made.convert("RGB"), int) - photo.astype(int)).max(2)
    side = photo.shape[1] // 25  # the stroke reaches so far to the right
    assert change_HW[20:44, :side].mean() > 5
    assert change_HW[:, photo.shape[1] // 4 :].max() == 0
    assert "mask.png" in page.locator(".snippets").text_content()
    page.locator(".mask + p button").click()
    until(page, f"{PAINT}.disabled")


def test_page_dream_shows_progress_and_can_be_cancelled(page: Any, web: Web):
    page.goto(f"{web.url}/?model=lite0&photo=flower&steps=40&size=256")
    until(page, "document.querySelectorAll('select option').length > 10")
    until(page, "document.querySelector('.drop img') !== null")
    page.click("button:text-is('Random')")
    until(page, "/channels=\\d+/.test(location.search)")
    page.click("button:text-is('Dream')")
    until(page, "document.querySelector('.working progress')?.value > 0")
    assert page.locator("button:text-is('Dream')").is_disabled()
    shot(page, "dream")
    page.click(".working button:text-is('Cancel')")
    until(page, IDLE)
    assert page.locator("button:text-is('Dream')").is_enabled()
    assert page.locator(".output .error").count() == 0
    # The server ends the cancelled dream, so the next one need not wait for it.
    stop = time.monotonic() + 20
    while web.service.waiting:
        assert time.monotonic() < stop
        time.sleep(0.05)


def test_page_shows_a_refusal_beside_its_form(page: Any, web: Web, tmp_path: Path):
    page.goto(f"{web.url}/?model=waves")
    until(page, "document.querySelector('.drop img') !== null")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    page.set_input_files(".drop input", str(tmp_path / "broken.png"))
    until(page, "document.querySelector('.drop img').alt.includes('broken.png')")
    page.click("button:text-is('Paint')")
    until(page, "document.querySelector('.output .error')?.textContent.includes('not an image')")
    (tmp_path / "notes.txt").write_text("text")
    page.set_input_files(".drop input", str(tmp_path / "notes.txt"))
    until(page, "document.querySelector('.picker .error').textContent.includes('notes.txt')")


def test_page_recognises_rebuilds_and_finds(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits")
    until(page, "document.querySelectorAll('.bars li').length === 10")
    page.click(".picker .thumb >> nth=4")
    until(page, f"location.search.includes('picture=test-4') && {IDLE}")
    # Draw a stroke: the drawing is classified, too.
    pad = page.locator(".pad canvas").bounding_box()
    page.mouse.move(pad["x"] + 40, pad["y"] + 40)
    page.mouse.down()
    page.mouse.move(pad["x"] + 60, pad["y"] + 150)
    page.mouse.up()
    until(page, "document.querySelector('.drop img').alt.includes('drawing')")
    until(page, "document.querySelectorAll('.bars li').length === 10")
    shot(page, "classify")
    page.goto(f"{web.url}/?model=digits-ae&do=rebuild")
    until(page, "document.querySelectorAll('.side-by-side img').length >= 2")
    page.goto(f"{web.url}/?model=digits-ae&do=find")
    until(page, "document.querySelectorAll('.output .thumb').length === 12")
    shot(page, "find")
    page.click(".output .thumb >> nth=3")
    until(page, f"document.querySelectorAll('.output .thumb').length === 12 && {IDLE}")


def test_page_map_is_explored_by_keys(page: Any, web: Web):
    page.goto(f"{web.url}/?model=digits-ae&do=map")
    until(page, "document.querySelector('canvas.map') !== null")
    until(page, "document.querySelectorAll('.legend li').length === 10")
    page.focus("canvas.map")
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.found b') !== null")
    shot(page, "map")


# -- watch -----------------------------------------------------------------------------------------


def test_page_plays_and_stops_a_game(page: Any, web: Web):
    page.goto(f"{web.url}/?model=road-runner")
    until(page, "document.querySelector('.game') !== null")
    page.click("button:text-is('Play')")
    until(page, f"/step [1-9][0-9]/.test({CAPTION})", 90)
    assert page.locator(".values .best").count() == 1
    until(page, "document.querySelector('.curve canvas') !== null")
    colours = page.evaluate(
        "() => { const c = document.querySelector('canvas.screen'); "
        "return new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size }"
    )
    assert colours > 8  # a game, not a blank
    shot(page, "play")
    page.click("button:text-is('Stop')")
    until(page, f"{CAPTION}.startsWith('Stopped')")


# -- everyone --------------------------------------------------------------------------------------

VIEWS = (
    "",
    "?model=digits-vae&do=generate",
    "?model=digits-ae&do=find",
    "?model=digits-ae&do=map",
    "?model=digits&do=classify",
    "?model=waves",
    "?model=lite0",
    "?model=road-runner",
    "?model=gone",
)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_page_is_accessible_and_fits(browser: Any, web: Web, size: dict[str, int], scheme: str):
    axe_source()
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    found: list[str] = []
    for view in VIEWS:
        page.goto(f"{web.url}/{view}")
        until(page, "document.querySelector('h1') !== null")
        until(page, f"document.querySelector('.output') === null || {IDLE}")
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], view
        shot(page, f"{scheme}-{size['width']}-{VIEWS.index(view)}")
        found += [f"{view}: {each}" for each in violations(page)]
    context.close()
    assert found == []


def test_page_works_by_keyboard_alone(page: Any, web: Web):
    page.goto(web.url)
    until(page, "document.querySelector('.card') !== null")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == ""  # the first card's link
    first = page.evaluate("document.activeElement.querySelector('h3').textContent")
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('h1')?.textContent === {first!r}")
    until(page, RESULT)
    page.focus("[name=seed]")
    page.keyboard.press("Control+a")
    page.keyboard.type("7")
    page.keyboard.press("Enter")
    until(page, f"{CAPTION} === 'Seed 7'")
    # Every control that the mouse can use is reached by Tab.
    reached = set()
    page.evaluate("document.querySelector('.brand').focus()")
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent.trim()"))
    assert {"Generate", "Surprise me", "Download", "Full size", "Share link", "curl"} <= reached
