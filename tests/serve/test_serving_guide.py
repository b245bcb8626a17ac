"""Runs the client examples of docs/guides/serving.md against a service with a key."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import Web

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "serving.md"
KEY = "a-key-of-this-test-0001"


@pytest.fixture
def snippets() -> Callable[[str, Web], list[str]]:
    """Return the code blocks of one language in "Clients", with the test's address and key."""
    section = GUIDE.read_text().partition("\n## Clients\n")[2].partition("\n## ")[0]

    def blocks(language: str, web: Web) -> list[str]:
        found = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
        return [
            each.replace("127.0.0.1:8000", f"127.0.0.1:{web.port}").replace("KEY", KEY)
            for each in found
        ]

    return blocks


@pytest.fixture
def workdir(tmp_path: Path, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a photo.jpg."""
    Image.fromarray(photo).save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# The examples close no files or connections; the end of the program does.
@pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
def test_serving_guide_python_examples_run(
    start: Callable[..., Web], snippets: Callable, workdir: Path
):
    web = start(keys=(KEY,))
    triton, openai = sorted(snippets("python", web), key=lambda code: "OpenAI" in code)
    found: dict = {}
    exec(compile(openai, "serving.md", "exec"), found)
    assert len(found["made"].data) == 4 and found["styled"].data[0].b64_json
    exec(compile(triton, "serving.md", "exec"), found)
    assert found["code"].shape == (1, 10)


def test_serving_guide_curl_examples_run(
    start: Callable[..., Web], snippets: Callable, workdir: Path
):
    from tests.serve.test_registry import retrain

    web = start(keys=(KEY,))
    retrain(Path(web.service.settings.models_dir) / "digits-gan")  # a version to go back from
    web.service.registry.refresh()
    (block,) = snippets("sh", web)
    commands = block.replace("\\\n", "").strip().splitlines()
    answers = [
        subprocess.run(
            f"{command} --fail-with-body",
            shell=True,
            cwd=workdir,
            capture_output=True,
            text=True,
            timeout=60,
        )
        for command in commands
    ]
    assert [answer.returncode for answer in answers] == [0] * 7, [
        answer.stdout[:300] + answer.stderr for answer in answers
    ]
    assert (
        '"b64_json"' in answers[0].stdout
        and '"neighbours"' in answers[1].stdout
        and '"classes"' in answers[2].stdout
        and '"of"' in answers[3].stdout
        and '"version"' in answers[6].stdout
    )
    assert (workdir / "walk.gif").read_bytes().startswith(b"GIF89a") and answers[5].stdout.count(
        "\n"
    ) == 31
