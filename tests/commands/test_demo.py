"""Tests the parts of `genray demo` that need no training."""

from pathlib import Path

import numpy as np

from genray import cli
from genray.commands import demo
from genray.gen.images.pictures import read_picture
from genray.runs.rundir import RunDir
from tests.helpers.pictures import read_about


def test_demo_styled_frame_differs_from_the_frame_and_has_metadata(tmp_path: Path, capsys):
    frame = np.zeros((210, 160, 3), np.uint8)
    frame[60:150, 20:140] = (200, 160, 60)
    path = demo._styled(RunDir.create(tmp_path / "run"), frame, demo.DemoConfig(style_size=32))
    assert path == tmp_path / "run" / "pictures" / "styled.png"
    rgb = read_picture(path).rgb
    assert rgb.shape == (32, 24, 3) and rgb[10:20, 8:16].std() > 1, "a flat area has got texture"
    about = read_about(path)
    assert (
        about["features"]["note"].startswith("untrained features")
        and about["options"]["steps"] == 60
    )
    assert "styling a frame (24x32 pixels" in capsys.readouterr().out


def test_demo_refuses_a_bad_style_size_before_any_work(tmp_path: Path, capsys):
    assert cli.main(["demo", "--style-size", "5", "--out", str(tmp_path / "run")]) == 2
    assert "--style-size 5: must lie in 32..512 pixels, or 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
