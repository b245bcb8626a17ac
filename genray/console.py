"""Escapes text that an output's encoding cannot represent, and quotes commands for a shell.

This module imports only the standard library, so that every entry point can call it first.
"""

import os
import shlex
import sys


def escape_unprintable() -> None:
    """Make stdout and stderr escape the characters that their encoding lacks, instead of raising.

    An ASCII terminal has no `…`. A file name that is not valid in the locale's encoding contains
    surrogates, which even UTF-8 cannot encode. Without escapes, printing either of them would end a
    training with a UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a calling program may have replaced the stream
            reconfigure(errors="backslashreplace")


def escaped(text: str) -> str:
    """Return `text` as valid Unicode, for libraries that accept nothing else.

    The bytes of a file name that are not valid text are escaped.
    """
    return text.encode(errors="backslashreplace").decode()


def shell_command(*words: object) -> str:
    """Join `words` to one command line, quoted for a shell."""
    return " ".join(map(shell_word, words))


def shell_word(word: object) -> str:
    """Return `word`, quoted for a shell if necessary.

    A word that stdout cannot print unchanged (bytes that are not text, a line break) becomes `$'…'`
    with escaped bytes, which bash, ksh and zsh read back exactly.
    """
    text = str(word)
    if text.isprintable() and _fits_stdout(text):
        return shlex.quote(text)
    content = os.fsencode(text)
    plain = set(range(0x20, 0x7F)) - set(b"'\\")
    return (
        "$'" + "".join(chr(byte) if byte in plain else f"\\x{byte:02x}" for byte in content) + "'"
    )


def _fits_stdout(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
