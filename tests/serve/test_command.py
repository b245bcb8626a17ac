"""Tests that `genray serve` reports bad options in one line before anything starts."""

import socket
from pathlib import Path

import pytest

from genray import cli


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a"),
        (["FOLDER/nowhere"], "no such directory"),
        (["FOLDER", "--host", "0.0.0.0"], "GENRAY_API_KEY"),
        (["FOLDER", "--port", "99999"], "--port 99999: must lie in 0..65535"),
        (["FOLDER", "--max-images", "0"], "--max-images 0: must be ≥ 1"),
        (["FOLDER", "--max-imags", "3"], "did you mean --"),
    ],
)
def test_serve_command_reports_a_bad_option_in_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.delenv("GENRAY_API_KEY", raising=False)
    assert cli.main(["serve", *(word.replace("FOLDER", str(tmp_path)) for word in words)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_serve_command_names_a_port_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert cli.main(["serve", str(tmp_path), "--port", str(port)]) == 2
    assert f"--port {port}: cannot listen on 127.0.0.1:{port}" in capsys.readouterr().err
