"""The messages that docs/troubleshooting.md quotes are those that the code prints."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = [" ".join(block.split()) for block in re.findall(r"```text\n(.*?)```", PAGE, re.S)]

ASSEMBLED = ("no such option: ", "<place>: <reason>; free some space")
"""Beginnings of messages whose parts stand in several texts of the code."""


@cache
def texts() -> tuple[str, ...]:
    """Every text of the source files; a value of an f-string stands as one NUL character."""
    found = []
    for package in ("genray", "tuning", "serve"):
        for file in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    parts = [
                        str(part.value) if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    ]
                    found.append("".join(parts))
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.append(node.value)
    return tuple(found)


def in_source(message: str) -> bool:
    """Whether the fixed parts of a message, between <placeholders>, stand in one text, in order."""
    fixed = [part for part in re.split(r"<[^>]+>", message) if part.strip()]
    if message.startswith(ASSEMBLED):
        words = [part.strip(" :;?(`") for part in fixed]
        return all(any(word in text for text in texts()) for word in words)
    parts = [re.escape(part) for part in fixed]
    pattern = re.compile(r"[^\n]*?".join(parts), re.S)
    return any(pattern.search(text) for text in texts())


@pytest.mark.parametrize("message", MESSAGES)
def test_troubleshooting_quotes_a_message_of_the_code(message: str):
    assert in_source(message)


def test_troubleshooting_has_the_likely_messages():
    assert len(MESSAGES) == len(set(MESSAGES)) >= 40


def test_in_source_notices_another_word():
    assert in_source("--preset <name>: no such preset; did you mean <names>?")
    assert not in_source("--preset <name>: no such template; did you mean <names>?")
