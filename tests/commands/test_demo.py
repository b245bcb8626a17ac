"""`genray demo`: what it makes beside the training, which the demo itself proves."""

from pathlib import Path

import numpy as np

from genray import cli
from genray.commands import demo
from genray.gen.images.pictures import read_picture
from genray.runs.rundir import RunDir
from tests.helpers.pictures import read_about


def test_a_styled_frame_has_its_note_and_is_not_the_frame(tmp_path: Path, capsys):
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


def test_a_size_that_makes_no_sense_is_refused_before_anything_runs(tmp_path: Path, capsys):
    assert cli.main(["demo", "--style-size", "5", "--out", str(tmp_path / "run")]) == 2
    assert "--style-size 5: must lie in 32..512 pixels, or 0" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
