"""What is printed: commands that a shell takes as they are, and text that every encoding takes.
Files: always UTF-8.
"""

import ast
import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from genray import cli
from genray.commands import sweep
from genray.commands.train_dqn import LaunchConfig
from genray.console import shell_command, shell_word
from genray.errors import ConfigError
from genray.media import write_png
from genray.runs.rundir import RunDir
from tests.test_imports import product_files

# -- commands that are printed ---------------------------------------------------------------------

NAMES = [
    "plain/run",
    "a b",
    "it's",
    '$HOME; "x"',
    "ü",
    "b\udce4d\udcff.png",
    "two\nlines",
    "back\\slash\udcff'",
]


def as_bash_reads(words: str) -> list[bytes]:
    done = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {words}"],
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return done.stdout.split(b"\0")[:-1]


def test_shell_command_is_read_back_by_a_shell(monkeypatch):
    for encoding in ("utf-8", "ascii"):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        monkeypatch.setattr(sys, "stdout", out)
        command = shell_command(*NAMES)
        out.write(command)  # the encoding takes it as it is
        assert "\n" not in command
        assert as_bash_reads(command) == [os.fsencode(name) for name in NAMES]
    monkeypatch.undo()
    assert shell_word(Path("runs/one")) == "runs/one"


def test_resume_command_of_a_run_with_a_space_can_be_pasted():
    command = LaunchConfig(local=True).resume_command(Path("my runs/one"))
    assert shlex.split(command) == ["genray", "train", "dqn", "--resume", "my runs/one", "--local"]
    command = LaunchConfig(address="a b:1").resume_command("s3://bucket/one two")
    assert shlex.split(command)[-3:] == ["s3://bucket/one two", "--address", "a b:1"]


def test_resume_advice_of_a_taken_folder_can_be_pasted(tmp_path: Path):
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "file").touch()
    with pytest.raises(ConfigError) as caught:
        RunDir.create(tmp_path / "a run")
    words = str(caught.value).rpartition("continue with ")[2]
    assert shlex.split(words) == ["--resume", str(tmp_path / "a run")]


def test_advice_of_a_stopped_sweep_and_of_promote_can_be_pasted(
    tmp_path: Path, monkeypatch, capsys
):
    folder = tmp_path / "a sweep"
    folder.mkdir()
    (folder / "sweep.yaml").touch()

    def stopped():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep._going(folder, stopped)
    words = capsys.readouterr().out.rpartition("continue with: ")[2]
    assert shlex.split(words) == ["genray", "sweep", "--resume", str(folder)]

    monkeypatch.setattr("tuning.sweep.promote", lambda *_: tmp_path / "the models" / "best")
    assert (
        sweep.promote(
            [str(folder), "--name", "best", "--models", str(tmp_path / "the models")], "promote"
        )
        == 0
    )
    sample, serve = capsys.readouterr().out.splitlines()[0].removeprefix("try it: ").split("; ")
    assert shlex.split(sample) == [
        "genray",
        "sample",
        str(tmp_path / "the models" / "best"),
        "--out",
        "grid.png",
    ]
    assert shlex.split(serve) == ["genray", "serve", str(tmp_path / "the models")]


# -- encodings -------------------------------------------------------------------------------------


def text_files_without_encoding(source: str) -> list[int]:
    """Lines that open a text file in the locale's encoding."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or any(word.arg == "encoding" for word in node.keywords):
            continue
        name = (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        owner = getattr(getattr(node.func, "value", None), "id", "")
        constants = [
            each.value for each in node.args if isinstance(each, ast.Constant) and each.value != ""
        ]
        mode = [each for each in constants if isinstance(each, str) and set(each) <= set("rwaxbt+")]
        opens = name == "open" and (
            isinstance(node.func, ast.Name) or mode or not (node.args or node.keywords)
        )
        if owner not in ("os", "self") and (
            name in ("read_text", "write_text") or (opens and not any("b" in each for each in mode))
        ):
            found.append(node.lineno)
    return found


def test_every_text_file_names_its_encoding():
    bad = (
        "open(p)\np.open()\np.open('w')\np.read_text()\np.write_text(t)\nopen(p, 'a')\nlock.open()"
    )
    assert len(text_files_without_encoding(bad)) == 7
    good = "open(p, 'rb')\np.open('wb')\nImage.open(p)\nav.open(b, mode='w')\nos.open(p, 0)\nopen(p, encoding='utf-8')"  # noqa: E501
    assert text_files_without_encoding(good) == []
    found = {
        str(path): lines
        for path in product_files()
        if (lines := text_files_without_encoding(path.read_text()))
    }
    assert not found


def test_names_that_are_no_text_in_an_ascii_terminal(tmp_path: Path, monkeypatch):
    pictures, run = tmp_path / "pics", tmp_path / "r\udcfcn\udcff"
    for index in range(12):
        pixels = np.random.default_rng(index).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        name = f"bad\udcff{index}.png" if index < 6 else f"{index}.png"
        (pictures / f"class\udcfc{index % 2}").mkdir(parents=True, exist_ok=True)
        write_png(pictures / f"class\udcfc{index % 2}" / name, pixels)

    def genray(*words: str) -> str:
        content = io.BytesIO()
        terminal = io.TextIOWrapper(content, encoding="ascii", write_through=True)
        for stream in ("stdout", "stderr"):
            monkeypatch.setattr(sys, stream, terminal)
        status = cli.main(list(words))
        monkeypatch.undo()
        assert status == 0, content.getvalue()
        return content.getvalue().decode("ascii")

    words = [
        "--data",
        f"folder:{pictures}",
        "--without",
        "",
        "--size",
        "8",
        "--steps",
        "2",
        "--batch-size",
        "4",
    ]
    said = genray("train", "vae", *words, "--out", str(run))
    assert "\\u2026" in said and said.endswith("r\\udcfcn\\udcff\n")
    card = (run / "model" / "README.md").read_text(encoding="utf-8")
    assert card.startswith("# Variational autoencoder")
    assert (
        json.loads((run / "model" / "config.json").read_bytes())["data"]["options"]["data"]
        == f"folder:{pictures}"
    )
    genray("train", "vae", "--resume", str(run), "--steps", "3")

    genray("encode", str(run), "--split", "train", "--out", f"{run}.parquet")
    with Path(f"{run}.parquet").open("rb") as file:
        table = pq.read_table(file).to_pydict()
    names = sorted(str(path.relative_to(pictures)) for path in pictures.rglob("*.png"))
    exact = [os.fsdecode(name) for name in table["name_bytes"]]
    assert set(exact) <= set(names) and any("\udcff" in name for name in exact)
    assert table["name"] == [name.encode(errors="backslashreplace").decode() for name in exact]

    style = str(pictures / "class\udcfc0" / "bad\udcff0.png")
    genray(
        "stylize",
        style,
        style,
        "--out",
        f"{run}.png",
        "--size",
        "32",
        "--steps",
        "1",
        "--features",
        "untrained",
    )
    with Path(f"{run}.png").open("rb") as file, Image.open(file) as picture:
        assert json.loads(picture.text["genray"])["content"] == "bad\udcff0.png"  # type: ignore[attr-defined]
