"""The commands of README.md and docs/: they exist with their options, and a test runs them."""

import re
import shlex
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from genray import cli
from genray.commands import train, train_dqn
from genray.gen.families import FAMILIES
from genray.gen.learned_optimizer import use
from genray.rl.presets import preset

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```(?:sh)?\n(.*?)^```", re.DOTALL | re.MULTILINE)
"""Blocks of commands; a block with another word, such as `text`, shows what a command prints."""


@dataclass(frozen=True)
class Command:
    """A `genray …` line of a fenced block."""

    words: tuple[str, ...]
    """Without `genray`; for `genray submit`, the command of the job."""
    comment: str
    around: str
    """The fenced block, and the paragraph before it."""
    page: str
    submitted: bool

    @property
    def kind(self) -> tuple[str, ...]:
        """The words that name the command in `genray.cli.COMMANDS`."""
        return self.words[:2] if " ".join(self.words[:2]) in cli.COMMANDS else self.words[:1]

    def option(self, name: str) -> str | None:
        """The value of an option, or None."""
        return self.words[self.words.index(name) + 1] if name in self.words else None

    @property
    def options(self) -> list[str]:
        return [word for word in self.words if word.startswith("--")]


def commands_of(page: Path) -> list[Command]:
    found = []
    text = page.read_text()
    for match in SHELL.finditer(text):
        block, before = match[1], text[: match.start()].strip().rpartition("\n\n")[2]
        for line in block.replace("\\\n", " ").splitlines():
            inner = re.search(r'"(genray [^"]*)"', line)  # ray exec cluster.yaml "genray …"
            start = re.search(r"(?:^|&& |\) )genray ", line)  # after `cd …`, after VARIABLE=$(…)
            if inner is None and start is None:
                continue
            shell = inner[1] if inner else line[start.start() :].lstrip("&) ")  # type: ignore[union-attr]
            words = shlex.split(shell, comments=True)[1:]
            submitted = words[0] == "submit"
            found.append(
                Command(
                    words=tuple(words[words.index("--") + 1 :] if submitted else words),
                    comment=line.partition("#")[2].strip(),
                    around=f"{before}\n{block}",
                    page=page.relative_to(ROOT).as_posix(),
                    submitted=submitted,
                )
            )
    return found


COMMANDS = [command for page in PAGES for command in commands_of(page)]


def test_commands_of_finds_every_form_of_a_command(tmp_path: Path, monkeypatch):
    monkeypatch.setattr("tests.test_documentation.ROOT", tmp_path)
    (tmp_path / "page.md").write_text(
        "`genray no`\n```sh\ngenray demo  # now\ncd a && genray doctor\nK=$(x) genray serve runs\n"
        'ray exec c.yaml "genray submit -- train dqn"\ngenray play RUN \\\n  --out a.gif\n```\n'
    )
    found = commands_of(tmp_path / "page.md")
    assert [each.kind for each in found] == [
        ("demo",),
        ("doctor",),
        ("serve",),
        ("train", "dqn"),
        ("play",),
    ]
    assert found[0].comment == "now" and found[3].submitted and found[4].option("--out") == "a.gif"


# -- commands and options exist --------------------------------------------------------------------


def help_text(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        raise SystemExit(cli.main([*words, "--help"]))
    assert not ended.value.code, (words, capsys.readouterr().err)
    return capsys.readouterr().out


OF_OTHER_PROGRAMS = {"--quick", "--crds", "--settings"}
"""Options of `python -m …` that the guides name."""


@pytest.mark.timeout(300)  # about 20 s of CPU time
def test_documented_commands_and_options_exist(capsys: pytest.CaptureFixture[str]):
    """Every command of the pages exists and has the options that the pages name. Every option that
    a guide names in its text exists, too.
    """
    helps: dict[tuple[str, ...], str] = {}
    missing = []
    for command in COMMANDS:
        kind = list(command.kind)
        if kind == ["sweep"] and (model := command.option("--model")):
            kind += [command.words[1], "--model", model]  # a sweep's options are its model's, too
        if tuple(kind) not in helps:
            helps[tuple(kind)] = help_text(kind, capsys)
        for option in command.options:
            if not re.search(rf"(?<![\w-]){option}(?![\w-])", helps[tuple(kind)]):
                missing.append(f"{command.page}: {' '.join(command.words)}: {option}")
    helps["submit",] = help_text(["submit"], capsys)
    known = set(re.findall(r"--[a-z][\w-]*", "\n".join(helps.values()))) | OF_OTHER_PROGRAMS
    for page in sorted((ROOT / "docs" / "guides").glob("*.md")):
        text = FENCE.sub("", page.read_text())
        named = re.findall(r"(?<![\w-])--[a-z][\w-]*", "\n".join(re.findall(r"`[^`]+`", text)))
        missing += [f"{page.name}: {option}" for option in sorted({*named} - known)]
    assert not missing, "\n".join(missing)


class Parsed(BaseException):
    """Raised in place of the work that a command would begin."""


def trainings() -> list[Any]:
    """The `genray train` commands that begin a new run, each once."""
    once = {command.words: command for command in reversed(COMMANDS)}
    return [
        pytest.param(command, id=" ".join(words))
        for words, command in sorted(once.items())
        if words[0] == "train" and not {"--resume", "--help"} & set(words)
    ]


@pytest.mark.parametrize("command", trainings())
def test_documented_training_has_valid_values(command: Command, monkeypatch: pytest.MonkeyPatch):
    """The values of the options are read and are valid together; nothing is trained."""
    results = []
    parse = train.parse

    def parse_only(*arguments: Any, **named: Any) -> Any:
        results.append(parse(*arguments, **named))
        raise Parsed

    monkeypatch.setattr(use, "check_learned", lambda name: None)  # learned:RUN names no run here
    monkeypatch.setattr(train, "parse", parse_only)
    monkeypatch.setattr(train_dqn, "parse", parse_only)
    monkeypatch.syspath_prepend(str(ROOT / "examples"))  # --env own_environment:Reach
    with pytest.raises(Parsed):
        cli.main(list(command.words))
    results[0].config.validate()


# -- a test runs them ------------------------------------------------------------------------------

RUN_BY = {
    "anomalies": "tests/commands/test_cli_models.py",
    "check-learner": "tests/rl/test_sanity.py",
    "cluster": "tests/commands/test_cli_models.py",
    "data atari": "tests/test_documentation.py",
    "data screens": "tests/test_documentation.py",
    "data episodes": "tests/commands/test_cli_world.py",
    "data paintings": "tests/gen/data/test_gcompris.py",
    "doctor": "tests/test_documentation.py",
    "dream": "tests/commands/test_cli_dream.py",
    "encode": "tests/commands/test_cli_models.py",
    "evaluate": "tests/test_cli.py",
    "export": "tests/commands/test_cli_models.py",
    "features": "tests/commands/test_cli_features.py",
    "figures": "tests/test_documentation.py",
    "imagine": "tests/commands/test_cli_imagine.py",
    "interpolate": "tests/commands/test_cli_models.py",
    "map": "tests/commands/test_cli_models.py",
    "play": "tests/test_cli.py",
    "reconstruct": "tests/commands/test_cli_models.py",
    "retrieve": "tests/commands/test_cli_models.py",
    "sample": "tests/commands/test_cli_models.py",
    "serve": "tests/serve/test_redeploy.py",
    "status": "tests/cluster/test_ray_up.py",
    "stylize": "tests/commands/test_cli_style.py",
    "submit": "tests/cluster/test_ray_up.py",
    "sweep": "tests/tuning/test_resume.py",
    "sweep promote": "tests/tuning/test_engine.py",
    "sweep report": "tests/tuning/report/test_report_unfinished.py",
    "train ae": "tests/commands/test_cli_models.py",
    "train classifier": "tests/serve/conftest.py",
    "train cyclegan": "tests/commands/test_cli_translate.py",
    "train dqn": "tests/test_cli.py",
    "train gan": "tests/serve/conftest.py",
    "train pix2pix": "tests/commands/test_cli_translate.py",
    "train optimizer": "tests/commands/test_cli_optimizer.py",
    "train sprites": "tests/commands/test_cli_sprites.py",
    "train style": "tests/gen/images/style/test_tasks.py",
    "train vae": "tests/commands/test_cli_models.py",
    "translate": "tests/commands/test_cli_translate.py",
    "train world": "tests/commands/test_cli_world.py",
}
"""The test that runs a command, with options that make it short."""

NEEDS_A_GPU = {
    "apex_breakout",
    "classifier_cifar10",
    "cyclegan_256",
    "dcgan_svhn",
    "pix2pix_256",
    "pong_quick",
    "style_any_full",
    "style_fast_full",
}
DOWNLOADS = {"mnist", "fashion-mnist", "svhn", "cifar10"}


def test_documented_commands_are_run_by_a_test():
    for name in sorted({" ".join(command.kind) for command in COMMANDS} | {"submit"}):
        assert name in RUN_BY, f"{name}: name the test that runs it"
        text = (ROOT / RUN_BY[name]).read_text()
        for word in name.split():
            assert re.search(rf'[" ]{word}[" ]', text), (name, RUN_BY[name])


def test_short_commands_run(tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]):
    """The commands that no other test runs from the command line."""
    monkeypatch.chdir(tmp_path)
    assert cli.main(["doctor"]) == 0
    assert cli.main(["figures", "schedules", "--out", "figures"]) == 0
    out = ["--out", "frames.safetensors"]
    screens = ["--out", "screens.safetensors"]
    assert cli.main(["data", "screens", "--game", "pong", "--frames", "50", *screens]) == 0
    assert (tmp_path / "screens.safetensors").exists()
    assert cli.main(["data", "atari", "--games", "pong", "--frames", "20", *out]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].endswith("frames.safetensors") and Path(printed[-1]).exists()
    assert (tmp_path / "figures" / "schedules.png").exists()


def needs(command: Command) -> str:
    """The words that must stand beside a command that does not run on every machine, or ""."""
    kind, name = command.kind[-1], command.option("--preset")
    if command.submitted or kind == "status":
        return "cluster|machines"
    if name in NEEDS_A_GPU:
        return "GPU"
    if name == "dqn_nature":
        return "large machine"
    if kind in FAMILIES:
        data = command.option("--data") or FAMILIES[kind].preset(name).data.data
        return "downloads" if data in DOWNLOADS else ""
    return ""


def test_documented_commands_name_the_machine_that_they_need():
    """A command that needs a GPU or a download says so in its comment. The commands of a cluster
    say so once, in their block or in the paragraph before it.
    """
    silent = []
    for command in COMMANDS:
        wanted = needs(command)
        text = command.around if wanted.startswith("cluster") else command.comment
        if not re.search(wanted, re.sub(r"cluster[\w-]*\.yaml", "", text)):
            silent.append(f"{command.page}: {' '.join(command.words)}: say {wanted}")
    assert not silent, "\n".join(silent)


def test_documented_presets_exist():
    for command in COMMANDS:
        if name := command.option("--preset"):
            kind = command.option("--model") or command.kind[-1]
            preset(name) if kind == "dqn" else FAMILIES[kind].preset(name)


def test_contributing_names_the_time_limit_of_tests():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]
    limit = settings["ini_options"]["timeout"]
    assert f"longer than {limit} seconds fails" in (ROOT / "CONTRIBUTING.md").read_text()


LINES = [*sorted(ROOT.glob("*.md")), ROOT / "examples" / "README.md", *PAGES[1:]]


@pytest.mark.parametrize("page", LINES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_lines_are_short(page: Path):
    assert max(map(len, page.read_text().splitlines())) <= 120
