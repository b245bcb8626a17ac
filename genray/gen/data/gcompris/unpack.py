"""Unpacks the paintings and photographs of the Debian package gcompris-qt-data into a directory.

GCompris is a collection of activities for children. Its paintings are jigsaw puzzles, or pictures
in which a child finds details; its photographs show animals, buildings and musicians.

Shapes: H height, W width.
"""

import io
import re
import shutil
import subprocess
import tempfile
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from genray.errors import ResourceError, disk_error, first_line
from genray.gen.data.gcompris.credits import (
    CREDITS,
    Credit,
    credit_of,
    format_credits,
    read_credits,
    read_readme,
)
from genray.gen.data.gcompris.puzzle import Piece, join_pieces
from genray.gen.data.gcompris.rcc import read_rcc
from genray.runs.files import replacing_directory

PACKAGE = "gcompris-qt-data"
FOLDER = "gcompris"
"""Name of the default output directory, in the directory of all data sets."""
PLACE = Path("usr", "share", "gcompris-qt", "rcc")
"""Directory of the resource files, relative to the root of the system or of the unpacked package.
"""
DOWNLOAD_S = 300
"""Seconds that a download of the package (44 MB) may take."""
PHOTOGRAPHS = {
    "erase": "animals",
    "explore_farm_animals": "animals",
    "explore_world_animals": "animals",
    "explore_monuments": "buildings",
    "explore_world_music": "musicians",
}
"""Activities whose pictures are all photographs, and what these show."""
SCULPTURES = ("Michelangelo",)
"""Artists whose puzzle shows a photograph of a sculpture, which is left out."""
MISSPELT = {"Katsushika Hokusa,": "Katsushika Hokusai,", "Pieter Brugel,": "Pieter Bruegel,"}
"""Names of artists that a board misspells."""
OURS = {"paintings", "photographs", CREDITS}
"""Names in the directory that `unpack` writes."""
INTRODUCTION = f"""\
The pictures are from GCompris (<https://gcompris.net>), Debian's package {PACKAGE}, whose file
`copyright` repeats the licences. Licences and authors are those of GCompris' README files. Files
with the suffix .webp are unchanged; files with the suffix .png were joined from the pieces of a
puzzle."""


@dataclass(frozen=True)
class Work:
    """A picture to write."""

    file: str
    """Path relative to the output directory."""
    content: bytes
    credit: Credit


# -- the package -----------------------------------------------------------------------------------


@contextmanager
def open_package(given: Path | None = None) -> Iterator[Path]:
    """Yield the directory with the package's resource files.

    `given`: a directory with .rcc files, or a downloaded .deb file. Without it, the installed
    package is used; if there is none, `apt-get download` fetches the package into a temporary
    directory. Nothing is installed. Raises ResourceError if there is no package.
    """
    installed = Path("/", PLACE)
    if given is not None and given.is_dir():
        yield given
    elif given is None and installed.is_dir():
        yield installed
    else:
        with tempfile.TemporaryDirectory(prefix="genray-") as temporary:
            yield _unpacked(given or _download(Path(temporary)), Path(temporary))


def _download(folder: Path) -> Path:
    """Download the package into `folder`; return its file."""
    if shutil.which("apt-get") is None:
        raise ResourceError(
            f"genray data paintings: {PACKAGE} is not installed and there is no apt-get; download "
            "the package from packages.debian.org and name it with --package FILE.deb"
        )
    _run(["apt-get", "download", "-q", PACKAGE], folder, "apt-get update, or --package FILE.deb")
    return next(folder.glob("*.deb"))


def _unpacked(package: Path, folder: Path) -> Path:
    """Unpack a .deb file below `folder`; return the directory of its resource files."""
    if not package.is_file():
        raise ResourceError(
            f"--package {package}: no such file; name a {PACKAGE}_….deb, or a folder of .rcc files"
        )
    if shutil.which("dpkg-deb") is None:
        raise ResourceError(
            f"--package {package}: there is no dpkg-deb here to unpack it; name a folder of .rcc "
            "files"
        )
    root = folder / "root"
    _run(["dpkg-deb", "-x", str(package.absolute()), str(root)], folder, "another --package")
    if not (root / PLACE).is_dir():
        raise ResourceError(f"--package {package}: has no {PLACE}; name a {PACKAGE}_….deb")
    return root / PLACE


def _run(command: list[str], folder: Path, advice: str) -> None:
    """Run a program in `folder`; raises ResourceError if it fails."""
    what = f"genray data paintings: {command[0]} failed"
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=DOWNLOAD_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"{what} ({first_line(error)}); try {advice}") from error
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
        raise ResourceError(f"{what} ({lines[-1].strip()}); try {advice}")


# -- the pictures ----------------------------------------------------------------------------------


def find_works(resources: Path) -> list[Work]:
    """Return the paintings and photographs in a directory of .rcc files.

    Raises ResourceError if a resource file is missing or damaged.
    """
    works: list[Work] = []
    for activity in ("paintings", "details", *PHOTOGRAPHS):
        files = _activity(resources, activity)
        try:
            if activity in PHOTOGRAPHS:
                works += _photographs(files, PHOTOGRAPHS[activity])
            else:
                works += (_puzzles if activity == "paintings" else _details)(files)
        except (LookupError, ValueError, OSError) as error:
            # A board names a file that does not exist, or a picture is damaged.
            raise ResourceError(
                f"{resources / activity}.rcc: has an unknown form ({first_line(error)}); use "
                f"another version of {PACKAGE}, e.g. 3.1"
            ) from error
    return [replace(work, file=name) for work, name in zip(works, _distinct(works))]


def _activity(resources: Path, name: str) -> dict[str, bytes]:
    """Return the files of an activity, by path below its directory `resource`."""
    path = resources / f"{name}.rcc"
    if not path.is_file():
        raise ResourceError(
            f"{path}: is missing; genray data paintings needs all files of {PACKAGE}: reinstall it"
        )
    return {
        file.partition("/resource/")[2]: content
        for file, content in read_rcc(path).items()
        if "/resource/" in file
    }


def _puzzles(files: dict[str, bytes]) -> list[Work]:
    """Return the puzzles, with their pieces joined."""
    from PIL import Image

    credits = _credits(files)
    works = []
    for board in _boards(files):
        title = _title(board)
        if title.startswith(SCULPTURES):
            continue
        # The centre of a piece is given in shares of the board's width and height.
        width, height = (int(re.findall(rf'"{side}"\s*:\s*(\d+)', board)[0]) for side in SIDES)
        pieces, file = [], ""
        for file, x, y in PIECE.findall(board):
            image = Image.open(io.BytesIO(files[file])).convert("RGBA")
            left, top = float(x) * width - image.width / 2, float(y) * height - image.height / 2
            pieces.append(Piece(np.asarray(image), round(top), round(left)))
        credit = replace(credit_of(Path(file).name, credits), title=title)
        try:
            joined = join_pieces(pieces)
        except ValueError:
            # Another version of the package may have other puzzles.
            continue
        content = io.BytesIO()
        Image.fromarray(joined).save(content, "PNG")
        file = f"paintings/{_painting_slug(title)}.png"
        works.append(Work(file, content.getvalue(), credit))
    return works


SIDES = ("width", "height")
PIECE = re.compile(
    r'"pixmapfile"\s*:\s*"([^"]+\.webp)",\s*"x"\s*:\s*"?([\d.]+)"?,\s*"y"\s*:\s*"?([\d.]+)"?'
)
"""A piece of a puzzle: its file and its centre."""


def _details(files: dict[str, bytes]) -> list[Work]:
    """Return the pictures in which a child finds details: van Gogh's paintings, and buildings."""
    credits = _credits(files)
    works = []
    for board in _boards(files):
        for file in re.findall(r'"([^"]+_background\.webp)"', board):
            credit = replace(credit_of(Path(file).name, credits), title=_title(board))
            if "painting" in credit.changes:
                name = f"paintings/{_painting_slug(credit.title)}.webp"
            else:
                name = f"photographs/buildings/{_slug(credit.title)}.webp"
            works.append(Work(name, files[file], credit))
    return works


def _photographs(files: dict[str, bytes], kind: str) -> list[Work]:
    """Return all photographs of an activity."""
    credits = _credits(files)
    # An explorer's board gives the title of each photograph; the other photographs have their
    # files' names.
    titles = {
        file: title
        for board in _boards(files)
        for title, file in re.findall(
            r'"title": qsTr\("([^"]+)"\)[^}]*?"image2": "[^"]*/resource/([^"]+)"', board
        )
    }
    works = []
    for file, content in files.items():
        if file.endswith(".webp"):
            title = titles.get(file, Path(file).stem.replace("_", " ").capitalize())
            # A README names files relative to itself.
            found = credit_of(file, credits)
            credit = found if found != Credit() else credit_of(Path(file).name, credits)
            name = f"photographs/{kind}/{_slug(title)}.webp"
            works.append(Work(name, content, replace(credit, title=title)))
    return works


def _credits(files: dict[str, bytes]) -> dict[str, Credit]:
    """Return the credits in the README files of an activity."""
    found: dict[str, Credit] = {}
    for file, content in files.items():
        if Path(file).name == "README":
            found |= read_readme(content.decode("utf-8", "replace"))
    return found


def _boards(files: dict[str, bytes]) -> list[str]:
    """Return the texts of an activity's boards, which describe its levels."""
    return [
        files[file].decode("utf-8", "replace")
        for file in sorted(files)
        if re.search(r"board/board\d+(_\d+)?\.qml$", file)
    ]


def _title(board: str) -> str:
    """Return the board's instruction, such as "Mary Cassatt, Summertime - 1894"."""
    found = re.search(r'instruction: qsTr\("([^"]+)"\)', board)
    title = found[1].strip(" .") if found else "untitled"
    for wrong, right in MISSPELT.items():
        title = title.replace(wrong, right)
    return title


def _slug(title: str) -> str:
    """Return a title as the stem of a file's name: lower case, ASCII, words joined by _."""
    plain = unicodedata.normalize("NFKD", title.lower().replace("ø", "o"))
    return re.sub(r"[^a-z0-9]+", "_", plain.encode("ascii", "ignore").decode()).strip("_")[:100]


def _painting_slug(title: str) -> str:
    """Return ARTIST-WORK for a title such as "Mary Cassatt, Summertime - 1894"."""
    artist, _, work = re.sub(r"[ ,-]+\d{4}[\d-]*$", "", title).partition(", ")
    return f"{_slug(artist)}-{_slug(work)}" if work else _slug(artist)


def _distinct(works: list[Work]) -> list[str]:
    """Return the works' files, with _2, _3 … added to names that occur again."""
    counts: dict[str, int] = {}
    names = []
    for work in works:
        counts[work.file] = count = counts.get(work.file, 0) + 1
        path = Path(work.file)
        names.append(work.file if count == 1 else f"{path.with_suffix('')}_{count}{path.suffix}")
    return names


# -- writing ---------------------------------------------------------------------------------------


def check_out(out: Path) -> None:
    """Raise ResourceError if `out` contains anything that `unpack` did not write.

    The files that `unpack` wrote are those that CREDITS.md lists.
    """
    try:
        others = sorted({path.name for path in out.iterdir()} - OURS) if out.exists() else []
        if not others:
            files = [path for path in out.rglob("*") if not path.is_dir()]
            names = {path.relative_to(out).as_posix() for path in files}
            others = sorted(names - {CREDITS, *read_credits(out)})
    except OSError as error:
        raise disk_error(out, error) from error
    if others:
        raise ResourceError(
            f"--out {out}: has other files already ({others[0]}); choose a new directory"
        )


def unpack(out: Path, package: Path | None = None) -> dict[str, int]:
    """Write `paintings`, `photographs` and CREDITS.md into the directory `out`, which is replaced.

    If `out` is a link, the directory to which it leads is replaced, and the link stays. `package`:
    see `open_package`. Returns the number of pictures by directory. Raises ResourceError; `out` is
    then unchanged.
    """
    check_out(out)
    with open_package(package) as resources:
        works = find_works(resources)
    counts: dict[str, int] = {}
    try:
        with replacing_directory(out.resolve()) as fresh:
            for work in works:
                path = fresh / work.file
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(work.content)
                kind = str(Path(work.file).parent)
                counts[kind] = counts.get(kind, 0) + 1
            text = format_credits(INTRODUCTION, {work.file: work.credit for work in works})
            (fresh / CREDITS).write_text(text, encoding="utf-8")
    except OSError as error:
        raise disk_error(out, error) from error
    return counts
