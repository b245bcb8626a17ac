"""Tests the parts of `genray demo` that need no training."""

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from genray import cli
from genray.commands import demo, demo_parts
from genray.commands.demo_page import Figure, Part, write_page
from genray.gen.images.pictures import read_picture
from serve.route_calls import screenshot
from tests.helpers.pictures import read_about


def test_demo_paints_a_frame_in_three_styles_and_dreams_of_it(tmp_path: Path, capsys, monkeypatch):
    frame = np.zeros((210, 160, 3), np.uint8)
    frame[60:150, 20:140] = (200, 160, 60)
    part = demo_parts.paint(tmp_path, frame, size=64, seed=0)
    plain, *styled, dreamt = [read_picture(figure.path).rgb for figure in part.figures]
    assert len(styled) == 3
    for rgb in (*styled, dreamt):
        assert rgb.shape == plain.shape == (64, 49, 3)
        assert plain[22:42, 12:36].std(axis=(0, 1)).max() < 1 < rgb[22:42, 12:36].std()
    assert len({rgb.tobytes() for rgb in styled}) == 3, "each style gives another picture"
    about = read_about(part.figures[1].path)
    assert about["options"]["features"] == "lite0" and about["options"]["steps"] == 60
    assert "painting a frame in 3 styles (49x64 pixels" in capsys.readouterr().out


def test_demo_paints_the_frame_in_which_most_is_going_on():
    frames = np.full((100, 20, 20, 3), 7, np.uint8)
    frames[30, :3] = 100
    frames[60, 4:12, 4:12] = 200
    frames[80] = 255  # the screen flashes
    assert (demo_parts.liveliest(list(frames)) == frames[60]).all()


def test_demo_page_has_every_picture_inside_and_loads_nothing(tmp_path: Path):
    picture = demo_parts._write(tmp_path, "a", np.zeros((8, 8, 3), np.uint8))
    part = Part(
        heading="A <b>part</b>",
        said=("",),
        text="x < y",
        figures=(Figure(picture, 'a "caption"'),),
        scores=(("ours", 30.0), ("another", 60.0), ("below zero", -5.0)),
        commands=("genray play 'a b'",),
    )
    page = write_page(tmp_path / "demo.html", "A title", "below", [part]).read_text("utf-8")
    assert base64.b64encode(picture.read_bytes()).decode() in page
    assert "A &lt;b&gt;part&lt;/b&gt;" in page and "x &lt; y" in page
    assert re.findall(r"width: ([\d.]+)%\"></i>", page) == ["50.0", "100.0", "0.0"]
    assert not re.search(r"https?:|<script|<link|url\(", page), "the page stands alone"


def test_demo_page_shows_a_large_picture_in_a_box_that_scrolls(tmp_path: Path):
    picture = demo_parts._write(tmp_path, "a", np.zeros((8, 8, 3), np.uint8))
    for scrolled in (False, True):
        part = Part("A part", (), figures=(Figure(picture, "large", scrolled=scrolled),))
        page = write_page(tmp_path / "demo.html", "A title", "", [part]).read_text("utf-8")
        assert ('<figure class="scrolled"><div tabindex="0"><img' in page) == scrolled


@pytest.mark.skipif(not shutil.which("chromium"), reason="no Chromium here (make system-deps)")
def test_screenshot_ends_below_the_content(tmp_path: Path):
    page = tmp_path / "a.html"
    page.write_text(
        '<body style="background: #eef; margin: 0"><p style="background: red; height: 90px">'
    )
    assert screenshot(page.as_uri(), tmp_path / "a.png", (300, 900))
    rgb = read_picture(tmp_path / "a.png").rgb
    assert rgb.shape[1] == 300 and 100 <= rgb.shape[0] <= 130


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--style-size", "5"], "--style-size 5: must lie in 32..512 pixels, or 0"),
        (["--generator-steps", "-5"], "--generator-steps -5: must be ≥ 0"),
        (["--minutes", "-1"], "--minutes -1.0: must be ≥ 0"),
        (["--keep", "--no-serve"], "--keep: there is no service to keep"),
    ],
)
def test_demo_refuses_a_bad_option_before_any_work(words, message, tmp_path: Path, capsys):
    assert cli.main(["demo", *words, "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_demo_compares_the_score_with_random_play_a_constant_and_a_human():
    from genray.rl.evaluation import Evaluation

    result = Evaluation("road_runner", [4000.0, 5000.0], [10, 10], 0.001, 0.0, 30, 108_000)
    others = (("random play", 11.5), ("holding UPLEFT", 975.0), ("a human tester", 7845.0))
    said = demo.verdict(result, others, 4.2)
    assert "4.6 times what holding one direction scores, and below the human tester" in said
    assert "     975   holding UPLEFT" in said and "2 games after 4.2 minutes" in said
    weak = Evaluation("road_runner", [900.0], [10], 0.001, 0.0, 30, 108_000)
    assert "not clearly better than holding one direction" in demo.verdict(weak, others, 4.2)
