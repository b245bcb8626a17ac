"""The pages of README.md and docs/: their commands, links and columns."""

import re
import shlex
from pathlib import Path

import pytest

from genray import cli
from genray.gen.families import FAMILIES
from genray.rl.presets import preset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands() -> set[tuple[str, ...]]:
    """The words of every `genray …` line in the pages' fenced blocks, without comments."""
    found = set()
    for page in PAGES:
        for block in FENCE.findall(page.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                inner = re.search(r'"(genray [^"]*)"', line)  # ray exec cluster.yaml "genray …"
                words = (
                    shlex.split(inner[1] if inner else line, comments=True)
                    if "genray " in line
                    else []
                )
                if words[:1] == ["genray"]:
                    found.add(tuple(words[1:]))
    return found


def help_text(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(cli.main([*words, "--help"]))
    assert not ended.value.code, (words, capsys.readouterr().err)
    return capsys.readouterr().out


def check_preset(model: str, name: str) -> None:
    """Raises ConfigError unless `model` (dqn or a family) has the preset."""
    preset(name) if model == "dqn" else FAMILIES[model].preset(name)


@pytest.mark.timeout(300)  # about 20 s of CPU time
def test_documented_commands_and_options_exist(capsys: pytest.CaptureFixture[str]):
    """Every command of the pages exists, and has the options and presets that the pages name."""
    helps: dict[tuple[str, ...], str] = {}
    missing = []
    for command in sorted(commands()):
        name, *rest = command
        if name == "submit":  # the command after "--" is checked instead
            name, *rest = command[command.index("--") + 1 :]
        kind = [name]
        if name in ("train", "data") or (name == "sweep" and not rest[0].startswith("-")):
            kind.append(rest.pop(0))
        if name == "sweep" and "--model" in rest:  # the options of a sweep are those of its model
            kind += ["--model", rest[rest.index("--model") + 1]]
        if "--preset" in rest:
            check_preset(kind[-1], rest[rest.index("--preset") + 1])
        if tuple(kind) not in helps:
            helps[tuple(kind)] = help_text(kind, capsys)
        options = [word for word in rest if word.startswith("--")]
        for option in options:
            if not re.search(rf"(?<![\w-]){option}(?![\w-])", helps[tuple(kind)]):
                missing.append(f"{' '.join(command)}: {option}")
    assert not missing, "\n".join(missing)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_links_lead_to_files_and_lines_are_short(page: Path):
    text = page.read_text()
    outside_code = FENCE.sub("", text)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", outside_code)]
    lost = [
        target
        for target in targets
        if target and ":" not in target and not (page.parent / target).exists()
    ]
    assert not lost
    assert max(map(len, text.splitlines())) <= 120
