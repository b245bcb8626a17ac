"""A small training run, and the command line in the tests' process."""

import io
import subprocess
from contextlib import redirect_stderr, redirect_stdout

from genray import cli

TINY = [
    *("--preset", "catch", "--channels", "4", "4", "4", "--hidden", "16"),
    *("--capacity", "2000", "--min-size", "100", "--evaluate-episodes", "6", "--chunk-rows", "4"),
]
"""Options of `genray train dqn` for a run of seconds."""


def genray(*words: str) -> subprocess.CompletedProcess:
    """Run the command in this process, whose imports are done, and return its output."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        status = cli.main(words)
    return subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
