"""Tests the parts of `genray demo` that need no training."""

import base64
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli
from genray.commands import demo, demo_parts, demo_world
from genray.commands.demo_page import Figure, Part, write_page
from genray.gen.images.pictures import read_picture
from genray.rl import presets
from genray.rl.engine import initial_network, network_card, probe_env
from genray.rl.evaluation import Evaluation
from genray.rl.networks import NetworkConfig
from genray.rl.train import save_policy
from genray.runs.rundir import RunDir
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
        links=(("a <game>", "world.html"),),
    )
    page = write_page(tmp_path / "demo.html", "A title", "below", [part]).read_text("utf-8")
    assert base64.b64encode(picture.read_bytes()).decode() in page
    assert "A &lt;b&gt;part&lt;/b&gt;" in page and "x &lt; y" in page
    assert '<a href="world.html">a &lt;game&gt;</a>' in page
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


def test_demo_learns_the_game_and_writes_a_page_to_play(tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setattr(demo_world, "SCREENS", 400)
    config = presets.preset("road_runner_quick")
    config = replace(config, network=NetworkConfig(channels=(4, 4, 4), hidden=8))
    run = RunDir.create(tmp_path / "run")
    network = initial_network(network_card(config, *probe_env(config.env)), seed=0)
    nothing = Evaluation("road_runner", [0.0], [1], 0.001, 0.0, 30, 18_000)
    save_policy(run.model, config, network, 0, nothing)
    part = demo_world.learn_world(run, 2, seed=0)
    page = (run.path / "world.html").read_text("utf-8")
    assert "<h1>Road Runner, inside a network</h1>" in page
    assert part.links == (("Play inside the network", "world.html"),)
    with Image.open(part.figures[0].path) as film:
        assert film.n_frames > 20 and film.size == (648, 448)
    assert (run.path / "world" / "model" / "config.json").exists()  # for the service
    assert str(run.path / "world.html") in part.said[0]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--style-size", "5"], "--style-size 5: must lie in 32..512 pixels, or 0"),
        (["--generator-steps", "-5"], "--generator-steps -5: must be ≥ 0"),
        (["--world-steps", "-1"], "--world-steps -1: must be ≥ 0"),
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
