"""What genray prints: text that every output encoding takes, and commands that a shell takes.

Imports only the standard library, so that every entry point can call it first.
"""

import os
import shlex
import sys


def escape_unprintable() -> None:
    """Make stdout and stderr escape the characters that their encoding lacks, instead of raising.

    An ASCII terminal has no `…`, and a file name that is not valid in the locale's encoding holds
    surrogates that not even UTF-8 takes. Either would end a training with a UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:  # a program that calls us may have put another stream there
            reconfigure(errors="backslashreplace")


def escaped(text: str) -> str:
    """`text` as valid Unicode, for libraries that take nothing else: the bytes of a file name
    that are no text escaped.
    """
    return text.encode(errors="backslashreplace").decode()


def shell_command(*words: object) -> str:
    """The command `words` on one line, quoted for a shell."""
    return " ".join(map(shell_word, words))


def shell_word(word: object) -> str:
    """`word` quoted for a shell, where it needs quotes.

    A word that stdout cannot print as it is (bytes that are no text, a line break) becomes
    `$'…'` with escaped bytes, which bash, ksh and zsh read back exactly.
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
