"""Tests games inside a world model: the WebSocket of a program, and the page in Chromium."""

import base64
import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from genray.gen.training.config import FitConfig
from genray.gen.training.fit import Fit
from genray.gen.training.run import save_export
from genray.gen.world import dream
from genray.gen.world.config import WorldModelConfig, world
from genray.gen.world.task import WorldTask
from serve.errors import BadRequest
from serve.limits import MOST_STEPS, Limits
from serve.pilots import Pilot, Seen
from tests.helpers.axe import violations
from tests.helpers.browser import browser, marks
from tests.helpers.pages import DESKTOP, PHONE, shot, until, watched
from tests.helpers.world import LEFT, RIGHT, save_agent, toy_data
from tests.serve.conftest import Web, start_web, stop_web

__all__ = ["browser"]  # pytest finds the fixture by its name here
FULL = "too busy: 2 games are streamed already; try again in 10 s"
TOUCH = {"viewport": PHONE, "has_touch": True, "is_mobile": True, "bypass_csp": True}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a model of the toy game that has learned where the player goes."""
    folder = tmp_path_factory.mktemp("models")
    options = replace(
        world(),
        fit=FitConfig(steps=120, batch_size=32, validate_every=120),
        model=WorldModelConfig(width=32, heads=2, layers=1, dropout=0.1, rare=2),
        ema=0.9,
    )
    options = replace(options, optimizer=replace(options.optimizer, learning_rate=4e-3))
    fit = Fit(WorldTask(options), toy_data(tmp_path_factory.mktemp("toy")), options.fit)
    list(fit)
    fit.test()
    save_export(folder / "toy", fit, {})
    # The same game without an end, on larger screens and under the name of an Atari game, and
    # agents of it.
    data = toy_data(tmp_path_factory.mktemp("large"), train=3, test=1, scale=4, game="pong")
    small = replace(options.model, width=16)
    large = replace(options, fit=FitConfig(steps=40, batch_size=32), model=small)
    large_task = WorldTask(large)
    fit = Fit(large_task, data, large.fit)
    list(fit)
    with torch.no_grad():  # so few steps do not teach that the game goes on
        last: Any = large_task.model.network.done_out
        last.weight.zero_()
        last.bias.copy_(torch.tensor([20.0, -20.0]))
    save_export(folder / "toy-pong", fit, {})
    save_agent(folder / "pilot", "pong", 3)
    save_agent(folder / "pilot-of-six", "pong", 6)
    save_agent(folder / "diver", "seaquest", 3)
    return folder


@pytest.fixture(scope="module")
def web(models: Path) -> Iterator[Web]:
    running = start_web(models, limits=Limits(max_streams=2))
    yield running
    stop_web(running)


def inside(web: Web, query: str = "", name: str = "toy", **options: Any) -> ClientConnection:
    url = web.url.replace("http", "ws")
    return connect(f"{url}/api/worlds/{name}?{query}", **options)


def line(socket: ClientConnection) -> dict[str, Any]:
    return json.loads(socket.recv(timeout=20))


def screen(message: dict[str, Any]) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(message["png"]))))


def player(message: dict[str, Any]) -> float:
    """Where the player's eye is: its colour is the palette's fourth."""
    return float(np.flatnonzero((screen(message) == (153, 170, 187)).all(2).any(0)).mean())


def free(web: Web) -> None:
    """Wait until no game runs."""
    stop = time.monotonic() + 10
    while web.service.places.taken:
        assert time.monotonic() < stop
        time.sleep(0.02)


def played(web: Web, action: int, steps: int = 12, query: str = "seed=3&fps=120") -> list[Any]:
    """Play with one action, and return all lines."""
    with inside(web, query) as socket:
        found = [line(socket)]
        socket.send(json.dumps({"action": action}))
        while len(found) <= steps:
            found.append(line(socket))
            socket.send(json.dumps({"seen": found[-1]["step"]}))
    free(web)
    return found


def test_a_game_begins_with_a_real_screen_and_follows_the_action(web: Web):
    right, left = played(web, RIGHT), played(web, LEFT)
    about = right[0]
    assert about["actions"] == ["stay", "left", "right"] and about["step"] == 0
    model: Any = web.service.registry.models["toy"].model
    real = model.language.palette_P3[model.paint(model.start(0).screens[-1])]
    assert np.array_equal(screen(about), real)
    assert [each["step"] for each in right] == list(range(13))
    assert {"action", "nats", "known", "score", "lives_lost"} <= right[-1].keys()
    assert right[-1]["action"] == "right"
    assert player(right[-1]) - player(left[-1]) >= 6


def test_another_start_is_another_screen_and_models_are_described(web: Web):
    begun = {played(web, 0, 1, f"start={start}")[0]["png"] for start in range(6)}
    assert len(begun) > 1
    listed = httpx.get(f"{web.url}/v1/models").json()["data"]
    about = next(each for each in listed if each["id"] == "toy")
    assert about["kind"] == "world" and about["about"]["game"] == "toy"
    assert about["about"]["starts"] == 32
    cover = httpx.get(f"{web.url}/api/cover/toy").raise_for_status()
    assert Image.open(io.BytesIO(cover.content)).size == (32, 24)


@pytest.mark.parametrize(
    ("query", "said", "message"),
    [
        ("seed=-1", None, "seed '-1': must be a whole number of 0.."),
        ("fps=500", None, "fps '500': must be a whole number of 1..120"),
        ("", '{"action": 3}', "action 3: must lie in 0..2"),
        ("", '{"seen": 99}', "seen 99: no such step was sent"),
        ("", "left", "send one JSON object a message"),
        ("", json.dumps({"a": "x" * 2000}), "at most 1000 characters"),
    ],
)
def test_a_bad_message_ends_the_game_with_one_line(web: Web, query: str, said: str | None, message):
    with inside(web, query) as socket:
        if said:
            socket.send(said)
        while "error" not in (last := line(socket)):
            assert last["step"] < 50
    assert message in last["error"]
    free(web)


def test_other_models_and_a_full_service_are_refused(web: Web):
    with inside(web, name="none") as socket:
        assert "no model 'none'" in line(socket)["error"]
    with inside(web, "fps=1") as first, inside(web, "fps=1") as second:
        assert line(first)["step"] == line(second)["step"] == 0
        with inside(web) as third:
            assert line(third)["error"] == FULL
    free(web)
    assert len(played(web, 0, 2)) == 3  # places are free again


def test_a_slow_client_is_waited_for_and_an_idle_one_is_closed(models: Path):
    """The client never says that it has seen a step."""
    web = start_web(models, limits=Limits(dream_idle_s=1))
    with inside(web, "fps=40") as socket:
        found = []
        while "end" not in (last := line(socket)):
            found.append(last)
    assert found[-1]["step"] == 20  # half a second
    assert last["end"] == "No key was pressed for 1 s: the game was closed."
    free(web)
    stop_web(web)


def test_a_game_ends_at_its_limit(models: Path):
    web = start_web(models, limits=Limits(max_dream_steps=3))
    with inside(web, "fps=120") as socket:
        last = [line(socket) for _ in range(5)][-1]
    assert last["end"] == "The dream has made 3 steps, its limit."
    stop_web(web)
    assert MOST_STEPS == dream.MOST_STEPS


def test_a_game_needs_the_key_and_a_page_of_the_service(models: Path):
    web = start_web(models, keys=("a-secret-of-the-test",))
    with pytest.raises(InvalidStatus) as refused, inside(web):
        pass
    assert refused.value.response.status_code == 401
    assert b"a key is needed" in refused.value.response.body
    with inside(web, additional_headers={"Authorization": "Bearer a-secret-of-the-test"}) as socket:
        assert line(socket)["step"] == 0
    stop_web(web)
    # Another site's page can open WebSockets, and the browser sends the origin.
    web = start_web(models)
    with pytest.raises(InvalidStatus) as refused, inside(web, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403
    with inside(web, origin=web.url) as socket:
        assert line(socket)["step"] == 0
    stop_web(web)


def test_frames_arrive_at_the_speed_that_is_asked_for(web: Web):
    begin = time.monotonic()
    played(web, 0, 30, "fps=40")
    assert time.monotonic() - begin < 3


def test_an_agent_plays_until_the_player_takes_over(web: Web):
    found = []
    # At this speed, the game is at most five steps ahead of the client.
    with inside(web, "seed=3&fps=10", "toy-pong") as socket:
        assert line(socket)["agents"] == ["pilot"]
        for message in ({"agent": "pilot", "action": LEFT}, {"agent": ""}):
            socket.send(json.dumps(message))
            for _ in range(8):
                found.append(line(socket))
                assert "step" in found[-1], found[-1]
                socket.send(json.dumps({"seen": found[-1]["step"]}))
    free(web)
    played = [(each["agent"], each["action"]) for each in found]
    assert ("pilot", "right") in played and played[-1] == ("", "left")
    assert {each for each in played if each[0]} == {("pilot", "right")}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("diver", "model 'diver' plays seaquest, and 'toy-pong' dreams pong; choose an agent of"),
        ("pilot-of-six", "model 'pilot-of-six' plays pong with 6 actions, and 'toy-pong' has 3"),
        ("toy", "model 'toy' (world) is no agent"),
        ("none", "no model 'none'"),
    ],
)
def test_an_agent_that_cannot_play_the_game_is_refused(web: Web, name: str, message: str):
    with inside(web, "fps=5", "toy-pong") as socket:
        socket.send(json.dumps({"agent": name}))
        while "error" not in (last := line(socket)):
            assert last["step"] < 50
    assert message in last["error"]
    free(web)


def test_an_agent_sees_the_last_screens_as_it_sees_its_game(web: Web):
    models = web.service.registry.models
    slow = {"data": {"recipe": {"game": "pong", "protocol": {"frame_skip": 8}}}}
    with pytest.raises(BadRequest, match="frame skip 4, and 'toy-pong' has 8; choose an agent"):
        Pilot(models["pilot"], replace(models["toy-pong"], config=slow), [])
    world: Any = models["toy-pong"].model
    start = world.start(2)
    screens = [world.paint(sprites) for sprites in start.screens]
    pilot = Pilot(models["pilot"], models["toy-pong"], [Seen(screens[0])])
    for screen in screens[1:]:
        pilot.push(Seen(screen, RIGHT, 1.0))
    stack = pilot._lanes.stack_ESHW[0]
    luma = world.language.palette_P3[np.stack(screens)] @ np.array([0.299, 0.587, 0.114])
    for frame, grey in zip(stack, luma):
        picture = Image.fromarray(grey.astype(np.float32)).resize((84, 84), Image.Resampling.BOX)
        assert np.abs(frame - np.asarray(picture)).mean() < 2
    assert len(np.unique(stack)) >= 4 and pilot.act() == RIGHT


# -- the page --------------------------------------------------------------------------------------

EYE = """
(() => {
  const c = document.querySelector('canvas.screen'), found = [];
  const p = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
  for (let i = 0; i < p.length; i += 4)
    if (p[i] === 153 && p[i + 1] === 170) found.push((i / 4) % c.width);
  return found.length ? found[0] : NaN;
})()
"""
OVER = "/(Stopped|is over)\\.$/.test(document.querySelector('figcaption').textContent)"
STEPS = "Number(/^\\d+/.exec(document.querySelector('.output figcaption').textContent)?.[0] ?? 0)"


@pytest.fixture
def page(browser: Any, web: Web) -> Iterator[Any]:
    wrong: list[str] = []
    context = browser.new_context(viewport=DESKTOP)
    yield watched(context, web, wrong)
    context.close()
    assert wrong == []
    free(web)  # a closed tab frees its place


@marks[0]
def test_page_plays_inside_the_model_by_keys(page: Any, web: Web):
    page.goto(f"{web.url}/?model=toy&fps=30")
    page.click("button:text-is('Start')")
    until(page, f"{STEPS} > 2")
    page.keyboard.down("ArrowRight")
    until(page, f"{EYE} >= 20", 10)
    page.keyboard.up("ArrowRight")
    shot(page, "inside")
    assert "ln p of this screen" in page.inner_text(".likely")
    page.click("button:text-is('Stop')")
    until(page, OVER, 10)  # the toy game may have ended by itself
    free(web)
    page.keyboard.down("ArrowLeft")  # does nothing before the game begins
    page.keyboard.up("ArrowLeft")
    # A game of the toy ends by itself after some 50 steps, sometimes before the eye is there.
    for _ in range(6):
        page.click("button:text-is('Start again')")
        until(page, f"{STEPS} > 2 && !{OVER}")
        page.keyboard.down("ArrowLeft")
        until(page, f"{OVER} || {EYE} <= 8", 10)
        page.keyboard.up("ArrowLeft")
        if page.evaluate(f"() => {EYE.strip()} <= 8"):
            break
        free(web)
    assert page.evaluate(f"() => {EYE.strip()} <= 8")


SENT = """
window.sent = [];
const send = WebSocket.prototype.send;
WebSocket.prototype.send = function (text) { sent.push(JSON.parse(text)); send.call(this, text); };
"""


@marks[0]
def test_page_releases_keys_wherever_the_focus_is_and_leaves_shortcuts_alone(page: Any, web: Web):
    page.add_init_script(SENT)
    page.goto(f"{web.url}/?model=toy&fps=30")
    page.click("button:text-is('Start')")
    until(page, f"{STEPS} > 2")
    page.keyboard.press("Control+ArrowLeft")
    page.keyboard.down("ArrowRight")
    until(page, "sent.some((each) => each.action === 2)")
    page.focus("input[name=seed]")
    page.keyboard.up("ArrowRight")
    until(page, "sent.findLast((each) => 'action' in each && !('seen' in each)).action === 0")
    changes = "sent.filter((each) => 'action' in each && !('seen' in each)).map((e) => e.action)"
    assert page.evaluate(changes) == [2, 0]


GAMEPAD = """
const pad = { connected: true, axes: [0, 0], buttons: Array(16).fill({ pressed: false }) };
navigator.getGamepads = () => [null, pad];
window.tilt = (x) => { pad.axes = [x, 0]; };
"""


@marks[0]
def test_page_is_played_by_a_gamepad_and_hands_over_to_an_agent(page: Any, web: Web):
    page.add_init_script(GAMEPAD)
    page.goto(f"{web.url}/?model=toy-pong&fps=30")
    page.click("button:text-is('Start')")
    until(page, f"{STEPS} > 2")
    caption = "document.querySelector('.output figcaption').textContent"
    page.keyboard.press("m")
    until(page, f"{caption}.includes('pilot plays')", 10)
    page.click("button:text-is('Play yourself (m)')")
    until(page, f"!{caption}.includes('pilot plays')", 10)
    sent: list[str] = []
    page.on("websocket", lambda each: each.on("framesent", lambda said: sent.append(str(said))))
    page.click("button:text-is('Start again')")
    until(page, f"/^[1-9]/.test({caption}) && {STEPS} < 40", 20)
    for tilt, action in ((-1, LEFT), (1, RIGHT), (0, 0)):
        page.evaluate(f"() => tilt({tilt})")
        stop = time.monotonic() + 10
        while json.dumps({"action": action}, separators=(",", ":")) not in sent:
            assert time.monotonic() < stop, sent
            page.wait_for_timeout(50)


@marks[0]
def test_page_on_a_phone_is_played_by_touch_and_says_why_it_is_refused(browser: Any, web: Web):
    context = browser.new_context(**TOUCH)
    page = context.new_page()
    page.goto(f"{web.url}/?model=toy&fps=30")
    with inside(web, "fps=1") as first, inside(web, "fps=1") as second:
        assert line(first)["step"] == line(second)["step"] == 0
        page.click("button:text-is('Start')")
        until(page, f"document.querySelector('.error')?.textContent === '{FULL}'", 20)
    free(web)
    page.click("button:text-is('Start')")
    until(page, f"{STEPS} > 2")
    page.locator(".joystick .right").dispatch_event("pointerdown", {"pointerId": 1})
    until(page, f"{EYE} >= 20", 10)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert violations(page) == []
    shot(page, "inside-phone")
    context.close()
    free(web)
