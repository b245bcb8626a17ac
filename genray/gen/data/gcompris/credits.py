"""Reads and writes the credits of pictures: title, author, licence, source and changes."""

import difflib
import re
from dataclasses import astuple, dataclass, fields
from pathlib import Path

CREDITS = "CREDITS.md"
"""Name of the file with the credits, beside the pictures or one directory above."""


@dataclass(frozen=True)
class Credit:
    """Who made a picture, and under which licence it may be used."""

    title: str = ""
    author: str = ""
    licence: str = ""
    source: str = ""
    changes: str = ""
    """What was changed, or on which picture this one is based."""

    def __str__(self) -> str:
        """Return the credit as one line without empty parts."""
        return "; ".join(part for part in astuple(self) if part)

    @property
    def short(self) -> str:
        """Title, author and licence in one line."""
        return "; ".join(part for part in (self.title, self.author, self.licence) if part)


# -- GCompris' README files ------------------------------------------------------------------------


_FIELD = re.compile(r"(Copyright|License|Source|Comments?|Files):\s*(.*)")


def read_readme(text: str) -> dict[str, Credit]:
    """Return the credits of a README file of GCompris, by the path of each picture.

    The file has blocks that are separated by empty lines. A block has fields such as `License:`,
    and names of files, with or without `Files:` before them.
    """
    found: dict[str, Credit] = {}
    for block in re.split(r"\n\s*\n", text):
        values: dict[str, list[str]] = {}
        files: list[str] = []
        field = ""
        for line in map(str.strip, block.splitlines()):
            if match := _FIELD.fullmatch(line):
                field, line = match[1].removesuffix("s"), match[2]
            if re.fullmatch(r"[^\s:]+\.(webp|jpe?g|png)", line):
                files.append(line)
            elif line:
                values.setdefault(field, []).append(line)
        copyright, licence, source, comment = (
            " ".join(values.get(name, [])) for name in ("Copyright", "License", "Source", "Comment")
        )
        for file in files:
            found[file] = Credit("", _holders(copyright), licence, source, comment)
    return found


def _holders(copyright: str) -> str:
    """Return the names in a copyright notice, without years."""
    parts = re.split(r"(?:Copyright|©|\d{4}(?:-\d{4})?(?:,|\s|$))+", f" {copyright}")
    return ", ".join(part.strip(" ,") for part in parts if part.strip(" ,"))


def credit_of(file: str, credits: dict[str, Credit]) -> Credit:
    """Return the credit of `file`, also if the README misspells the name; else an empty one."""
    near = difflib.get_close_matches(file, credits, n=1, cutoff=0.9)
    return credits[near[0]] if near else Credit()


# -- CREDITS.md ------------------------------------------------------------------------------------


def format_credits(introduction: str, credits: dict[str, Credit]) -> str:
    """Return the text of CREDITS.md: the introduction, and a table with a row for each file."""
    names = ("file", *(field.name for field in fields(Credit)))
    rows = [(file, *astuple(credit)) for file, credit in sorted(credits.items())]
    lines = [names, ("---",) * len(names), *rows]
    table = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
    return f"# Credits\n\n{introduction}\n\n{table}\n"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def read_credits(folder: Path) -> dict[str, Credit]:
    """Return the credits of the pictures below `folder`, by path relative to `folder`.

    They are read from CREDITS.md in `folder`, or in the directory above. The result is empty if
    neither exists.
    """
    for place in (folder, folder.parent):
        try:
            text = (place / CREDITS).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found: dict[str, Credit] = {}
        _, _, rows = text.partition("| --- |")  # below the line of headings
        for line in rows.splitlines()[1:]:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("| ") and len(cells) == 1 + len(fields(Credit)):
                path = place / cells[0]
                if path.is_relative_to(folder):
                    found[str(path.relative_to(folder))] = Credit(*cells[1:])
        return found
    return {}
