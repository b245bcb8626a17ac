"""Tests that `genray serve` reports bad options in one line before anything starts."""

import os
import socket
from pathlib import Path

import pytest

from genray import cli
from genray.errors import RunFault
from genray.machine import ensure_ray_token
from serve.launch import room_for_sockets


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a"),
        (["FOLDER/nowhere"], "no such directory"),
        (["FOLDER", "--host", "0.0.0.0"], "GENRAY_API_KEY"),
        (["FOLDER", "--host", "", "--open"], "--host '': is empty, which would be every address"),
        (
            ["FOLDER", "--host", "203.0.113.7", "--open"],
            "203.0.113.7 is no address of this machine",
        ),
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


def test_serve_command_checks_its_surroundings_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    blocked = tmp_path / "file"
    blocked.write_text("")
    log = blocked / "requests.jsonl"  # not even root can write there
    assert cli.main(["serve", str(tmp_path), "--request-log", str(log)]) == 2
    error = capsys.readouterr().err
    assert f"--request-log {log}: cannot be written" in error and error.count("\n") == 1
    for folder, reason in ((tmp_path / "a b", "a space"), (tmp_path / "none", "cannot write")):
        if " " in folder.name:
            folder.mkdir()
        monkeypatch.setenv("RAY_TMPDIR", str(folder))
        assert cli.main(["serve", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"RAY_TMPDIR {folder}: " in error and reason in error and error.count("\n") == 1


def test_serve_command_reports_the_cause_of_a_failed_start_in_one_line():
    from serve.launch import _failures_of_ray

    message = "\x1b[36mray::Manager.ready()\x1b[39m\n  File 'x.py'\nRuntimeError: no port\n\n"
    with pytest.raises(RunFault, match=r"service: RuntimeError: no port; on a busy") as found:
        with _failures_of_ray():
            raise ValueError(message)
    assert "\n" not in str(found.value)


def test_ensure_ray_token_works_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_ray_token()
    assert "RAY_AUTH_TOKEN" not in os.environ  # Ray stores one in the home directory
    monkeypatch.setenv("HOME", "/proc/no-home")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ensure_ray_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    # A user id of a container that no list of users contains.
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    ensure_ray_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_sockets_are_in_tmp_where_their_paths_would_be_too_long():
    assert room_for_sockets("/tmp/gr-abc") == "/tmp/gr-abc"
    assert room_for_sockets("/tmp/gr-0b1cmn07") == "/tmp"
