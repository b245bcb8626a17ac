"""Tests world models as pages, in Chromium: the decisions, the screens, keys, fingers, errors."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genray.gen.world.model import WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import Sampling
from genray.gen.world.web_page import write_page
from tests.helpers.axe import axe_source, violations
from tests.helpers.browser import browser, marks
from tests.helpers.pages import Player, opened
from tests.helpers.world import untrained

__all__ = ["browser", "opened"]  # pytest finds the fixtures by their names here
pytestmark = marks
ACTIONS = ["NOOP", "left", "RIGHT"]
STEP = """([action, chances]) => {
    const {events, nats} = game.step(action, chances);
    const tracks = game.state.tracks.map((t) => [t.look, t.y, t.x, t.unseen, t.age]);
    return {events, nats, tracks, screen: Array.from(game.painted())};
}"""


@pytest.fixture(scope="module", params=[False, True], ids=["events last", "events first"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return untrained(tmp_path_factory.mktemp("toy"), events_first=request.param)[0]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> WorldModel:
    return untrained(tmp_path_factory.mktemp("toy"), events_first=True)[0]


def written(
    model: WorldModel, folder: Path, dtype: str = "f4", actions: Sequence[str] = ACTIONS
) -> Path:
    write_page(model, folder / "game.html", "Falling <stones>", list(actions), dtype)
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


def test_page_is_played_by_keys_fingers_and_seed(opened: Any, toy: WorldModel, tmp_path: Path):
    page = opened(written(toy, tmp_path, "f2"), has_touch=True)
    player = Player(page)
    assert page.inner_text("h1") == "Falling <stones>, inside a network"
    assert page.inner_text("#likely") == "This screen is real."
    page.click("#play")
    player.acts(0)
    assert page.inner_text("[role=status]") == "Playing."
    for key, action in (("ArrowRight", 2), ("ArrowLeft", 1)):
        page.keyboard.down(key)
        player.acts(action)
        page.keyboard.up(key)
        player.acts(0)
    right = page.locator("[data-hold=RIGHT]")
    right.dispatch_event("pointerdown", {"pointerId": 1})
    player.acts(2)
    right.dispatch_event("pointerup", {"pointerId": 1})
    player.acts(0)
    right.evaluate("button => button.click()")  # as a screen reader does
    player.acts(2)
    player.acts(0)
    page.click("#stop")
    assert page.inner_text("[role=status]") == "Stopped."
    assert "steps since reality" in page.inner_text("#score")
    assert page.inner_text("#likely").startswith("ln p of this screen: -")

    def game(seed: int) -> list[Any]:
        page.evaluate(f"game.begin(0, {seed})")
        return [page.evaluate("game.step(1).nats") for _ in range(10)]

    first = game(1)
    assert game(1) == first != game(2)


def test_page_leaves_other_keys_to_the_browser(opened: Any, toy: WorldModel, tmp_path: Path):
    page = opened(written(toy, tmp_path, "f2"))
    page.evaluate("window.kept = []; addEventListener('keydown', (event) => "
                  "kept.push([event.key, event.defaultPrevented]))")  # fmt: skip
    player = Player(page)
    page.keyboard.press("ArrowDown")  # scrolls, before the game begins
    page.click("#play")
    player.acts(0)
    for keys in ("Alt+ArrowLeft", "Control+0", "1", "ArrowRight"):
        page.keyboard.press(keys)
    kept = {tuple(each) for each in page.evaluate("kept")}
    assert ("ArrowDown", False) in kept and ("ArrowRight", True) in kept
    assert {("ArrowLeft", False), ("0", False), ("1", False)} <= kept
    # A key that is released in a field is released.
    page.keyboard.down("ArrowRight")
    player.acts(2)
    page.focus("#seed")
    page.keyboard.up("ArrowRight")
    player.acts(0)
    # Out of range, or empty: the first real screen.
    for start in ("-1", "NaN", "1.5", "1e9"):
        page.evaluate(f"game.begin({start}, 0)")


def test_actions_without_names_have_a_button_and_a_key_each(
    opened: Any, toy: WorldModel, tmp_path: Path
):
    names = [str(number) for number in range(12)]
    page = opened(written(toy, tmp_path, "f2", names), has_touch=True)
    assert page.inner_text("#keys") == "Start, then the keys 0 to 9."
    assert page.locator("[data-hold]").all_inner_texts() == names
    page.evaluate("game.step = (action) => game.acted.push(action); game.acted = []")
    page.click("#play")
    page.keyboard.down("2")
    page.wait_for_function("game.acted.includes(2)")
    page.keyboard.up("2")
    page.locator("[data-hold='11']").dispatch_event("pointerdown", {"pointerId": 1})
    page.wait_for_function("game.acted.includes(11)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_is_accessible_and_fits_a_phone(
    opened: Any,
    toy: WorldModel,
    tmp_path: Path,
    scheme: str,
):
    axe_source()
    path = written(toy, tmp_path)
    for width in (360, 1200):
        page = opened(path, viewport={"width": width, "height": 740}, color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert violations(page) == []
        page.close()
