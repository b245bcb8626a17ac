"""Tests world models as pages, in Chromium: the decisions, the screens, keys, fingers, errors."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.gen.world.model import WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import Sampling
from genray.gen.world.web_page import write_page
from tests.helpers.axe import axe_source, violations
from tests.helpers.browser import browser, marks  # noqa: F401
from tests.helpers.world import untrained

pytestmark = marks
ACTIONS = ["NOOP", "left", "RIGHT"]
STEP = """([action, chances]) => {
    const {events, nats} = game.step(action, chances);
    const tracks = game.state.tracks.map((t) => [t.look, t.y, t.x, t.unseen, t.age]);
    return {events, nats, tracks, screen: Array.from(game.painted())};
}"""


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


@pytest.fixture(scope="module", params=[False, True], ids=["events last", "events first"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return untrained(tmp_path_factory.mktemp("toy"), events_first=request.param)[0]


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:  # noqa: F811
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


def written(model: WorldModel, folder: Path, dtype: str = "f4") -> Path:
    write_page(model, folder / "game.html", "Falling <stones>", ACTIONS, dtype)
    return folder / "game.html"


def test_page_makes_the_decisions_of_python(opened: Any, model: WorldModel, tmp_path: Path):
    """Given the same random numbers: events, tracks, likelihoods and screens of 4 games."""
    page = opened(written(model, tmp_path))
    drawer, random = QuickDrawer(model, Sampling()), np.random.default_rng(0)
    happened = []
    for start in range(4):
        state = model.begun(model.start(start))
        page.evaluate(f"game.begin({start}, 0)")
        for _ in range(40):
            action = int(random.integers(len(ACTIONS)))
            chance_S4 = random.random((model.sizes.decisions, 4), np.float32)
            state.act(action)
            drawn = drawer.draw([state], chance_S4[None])[0]
            state.follow(drawn.outcome, drawn.events.life)
            found = page.evaluate(STEP, [action, chance_S4.flatten().tolist()])
            tracks = [[t.look, t.y, t.x, t.unseen, t.age] for t in state.tracks]
            assert found["tracks"] == tracks
            assert found["events"] == [int(each) for each in drawn.events]
            assert found["nats"] == pytest.approx(drawn.nats, abs=0.01, rel=1e-4)
            assert found["screen"] == model.paint(state.sprites()).flatten().tolist()
            happened.append((len(tracks), *map(int, drawn.events)))
    assert all(len(set(each)) > 1 for each in zip(*happened))  # sprites, rewards, lives, endings


def test_page_is_played_by_keys_fingers_and_seed(opened: Any, model: WorldModel, tmp_path: Path):
    page = opened(written(model, tmp_path, "f2"), has_touch=True)
    page.evaluate(ENDLESS)
    assert page.inner_text("h1") == "Falling <stones>, inside a network"
    assert page.inner_text("#likely") == "This screen is real."
    page.select_option("#speed", "60")

    def plays(action: int) -> None:
        page.evaluate("game.acted.length = 0")
        page.wait_for_function(f"game.acted.includes({action})")

    page.click("#play")
    plays(0)
    page.keyboard.down("ArrowRight")
    plays(2)
    page.keyboard.up("ArrowRight")
    plays(0)
    page.keyboard.down("ArrowLeft")
    plays(1)
    page.keyboard.up("ArrowLeft")
    right = page.locator("[data-hold=RIGHT]")
    right.dispatch_event("pointerdown", {"pointerId": 1})
    plays(2)
    right.dispatch_event("pointerup", {"pointerId": 1})
    plays(0)
    page.click("#stop")
    assert "steps since reality" in page.inner_text("#score")
    assert page.inner_text("#likely").startswith("ln p of this screen: -")

    def game(seed: int) -> list[Any]:
        page.evaluate(f"game.begin(0, {seed})")
        return [page.evaluate("game.step(1).nats") for _ in range(10)]

    first = game(1)
    assert game(1) == first != game(2)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_fits_a_phone(
    opened: Any,
    model: WorldModel,
    tmp_path: Path,
    scheme: str,
):
    axe_source()
    path = written(model, tmp_path)
    for width in (360, 1200):
        page = opened(path, viewport={"width": width, "height": 740}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
        page.close()
