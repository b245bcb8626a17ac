"""Tests the reader of Qt resource files, the puzzles, the credits, and the unpacked package."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from genray import cli
from genray.errors import ResourceError
from genray.gen.data.gcompris import unpack as unpacking
from genray.gen.data.gcompris.credits import (
    Credit,
    credit_of,
    format_credits,
    read_credits,
    read_readme,
)
from genray.gen.data.gcompris.puzzle import Piece, join_pieces
from genray.gen.data.gcompris.rcc import read_rcc
from genray.gen.data.gcompris.unpack import PHOTOGRAPHS, PLACE, unpack
from tests.helpers.rcc import write_rcc

FILES = {"a/one.txt": b"one" * 50, "a/b/zwei – 2.qml": b"", "c.bin": bytes(range(256)) * 9}

# -- resource files --------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [1, 2, 3])
@pytest.mark.parametrize("pack", ["", "zlib", "zstd"])
def test_read_rcc_reads_what_rcc_writes(tmp_path: Path, version: int, pack: str):
    files = {name: content for name, content in FILES.items() if content or pack != "zstd"}
    (tmp_path / "x.rcc").write_bytes(write_rcc(files, version, pack))
    assert read_rcc(tmp_path / "x.rcc") == files


def test_read_rcc_refuses_damaged_files_in_one_line(tmp_path: Path):
    """Cut at every tenth byte, and with each byte changed, the file is read or refused."""
    good = write_rcc(FILES, 3, "zlib")
    path = tmp_path / "x.rcc"
    cases = [good[:cut] for cut in range(0, len(good), 10)]
    cases += [good[:at] + bytes([good[at] ^ 0x81]) + good[at + 1 :] for at in range(len(good))]
    refused = 0
    for case in cases:
        path.write_bytes(case)
        try:
            read_rcc(path)
        except ResourceError as error:
            refused += 1
            assert "\n" not in str(error) and "damaged" in str(error) and str(path) in str(error)
    assert refused > len(cases) / 2


def test_read_rcc_stops_at_a_directory_that_contains_itself(tmp_path: Path):
    content = bytearray(write_rcc({"a/b": b"x"}, 1))
    tree = int.from_bytes(content[8:12], "big")
    content[tree + 14 + 10 : tree + 14 + 14] = (0).to_bytes(4, "big")  # a's first entry is the root
    (tmp_path / "x.rcc").write_bytes(content)
    with pytest.raises(ResourceError, match="two directories"):
        read_rcc(tmp_path / "x.rcc")


# -- puzzles ---------------------------------------------------------------------------------------


def jigsaw(rng: np.random.Generator) -> tuple[np.ndarray, list[Piece]]:
    """A picture, and four pieces with tabs; neighbours overlap by 2 pixels."""
    picture = np.asarray(
        Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)).resize((90, 72))
    )
    rows_HW, columns_HW = np.indices((72, 90))
    edge = 45 + 8 * ((rows_HW % 36 > 12) & (rows_HW % 36 < 24))  # tabs to the right
    pieces = []
    for top in (0, 1):
        for left in (0, 1):
            down = rows_HW >= 35 if top else rows_HW < 37
            side = columns_HW >= edge - 1 if left else columns_HW < edge + 1
            rows, columns = (
                np.flatnonzero((down & side).any(1)),
                np.flatnonzero((down & side).any(0)),
            )
            box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
            alpha = np.where((down & side)[box], 255, 0).astype(np.uint8)
            pieces.append(Piece(np.dstack([picture[box], alpha]), rows[0], columns[0]))
    return picture, pieces


def test_join_pieces_restores_the_picture_from_wrong_positions():
    rng = np.random.default_rng(0)
    for _ in range(5):
        picture, pieces = jigsaw(rng)
        moved = [
            Piece(each.pixels_HW4, each.top + down, each.left + right)
            for each, (down, right) in zip(pieces, rng.integers(-1, 2, (4, 2)))
        ]
        assert np.array_equal(join_pieces(moved), picture)


def test_join_pieces_cuts_ragged_borders_and_refuses_holes():
    square = np.full((10, 10, 4), 255, np.uint8)
    joined = join_pieces([Piece(square, 0, 0), Piece(square, 1, 10)])
    assert joined.shape == (9, 20, 3)
    ring = np.full((10, 10, 4), 255, np.uint8)
    ring[4:6, 4:6, 3] = 0
    with pytest.raises(ValueError, match="hole"):
        join_pieces([Piece(ring, 0, 0)])


# -- credits ---------------------------------------------------------------------------------------

README = """\
Copyright: Ann Painter / Wikimedia Commons
Source: https://example.org/File:D%C3%BClmen.jpg
License: CC-BY-SA-4.0
Comments: cropping, sharpening
Files: alpaca.webp

Copyright: 2000, 2008 Bea Drawer and others
License: Public domain
Gogh4_0.webp
Gogh4_background.webp
Comment: based on an original painting by Van Gogh.

Copyright:
  Copyright 1994-2006 Cy Scanner
  Copyright 2008 Bea Drawer
License: GPLv3 or later
Files:
  germany/audaPalatina.webp
"""


def test_read_readme_reads_the_three_forms_of_blocks():
    found = read_readme(README)
    assert found["alpaca.webp"] == Credit(
        "",
        "Ann Painter / Wikimedia Commons",
        "CC-BY-SA-4.0",
        "https://example.org/File:D%C3%BClmen.jpg",
        "cropping, sharpening",
    )
    gogh = found["Gogh4_background.webp"]
    assert (gogh.author, gogh.licence) == ("Bea Drawer and others", "Public domain")
    assert "painting" in gogh.changes
    assert credit_of("germany/aulaPalatina.webp", found).author == "Cy Scanner, Bea Drawer"
    assert credit_of("germany/elbphilharmonie.webp", found) == Credit()


def test_read_credits_returns_what_format_credits_wrote(tmp_path: Path):
    credits = {"paintings/a.png": Credit("A | B", "C", "CC0"), "photographs/d.webp": Credit("D")}
    (tmp_path / "CREDITS.md").write_text(format_credits("Words.", credits))
    assert read_credits(tmp_path)["photographs/d.webp"] == Credit("D")
    assert read_credits(tmp_path / "paintings") == {"a.png": Credit("A / B", "C", "CC0")}
    assert read_credits(tmp_path / "paintings" / "x") == {}


# -- the package -----------------------------------------------------------------------------------


def webp(side: int, value: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (side, side), (value, 0, 0)).save(stream, "WEBP")
    return stream.getvalue()


def resources(folder: Path) -> Path:
    """Files of the package's layout: a puzzle of two pieces, a painting, and photographs."""
    board = (
        'instruction: qsTr("{}")\n "pixmapfile" : "image/bg.svg",\n "width": 100,\n "height": 50\n'
    )
    piece = '{{ "pixmapfile" : "image/w_{}.webp",\n "x" : "{}",\n "y" : "0.500"\n }}\n'
    puzzle = board.format("Mary Cassatt, Été - 1894") + piece.format(1, 0.1) + piece.format(2, 0.3)
    activities = {
        "paintings": {
            "resource/board/board1_0.qml": puzzle.encode(),
            "resource/image/w_1.webp": webp(20, 40),
            "resource/image/w_2.webp": webp(20, 90),
            "resource/image/README": b"Copyright: 2008 Cy\nLicense: GPLv3\nw_1.webp\nw_2.webp",
        },
        "details": {
            "resource/board/board1_0.qml": board.format("Vincent van Gogh, Café 1887-8").encode()
            + b'"image/Gogh4_background.webp"',
            "resource/image/Gogh4_background.webp": webp(30, 7),
            "resource/image/README": README.encode(),
        },
    }
    for number, activity in enumerate(PHOTOGRAPHS):
        activities[activity] = {"resource/alpaca.webp": webp(16, number)}
        activities[activity]["resource/README"] = README.encode()
    for name, files in activities.items():
        full = {f"gcompris/src/activities/{name}/{file}": each for file, each in files.items()}
        (folder / f"{name}.rcc").write_bytes(write_rcc(full))
    return folder


def test_unpack_writes_pictures_with_credits(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "rcc").mkdir()
    package, out = resources(tmp_path / "rcc"), tmp_path / "art"
    assert cli.main(["data", "paintings", "--package", str(package), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "paintings: 2" in printed and "photographs/animals: 3" in printed
    assert sorted(path.name for path in (out / "paintings").iterdir()) == [
        "mary_cassatt-ete.png",
        "vincent_van_gogh-cafe.webp",
    ]
    joined = np.asarray(Image.open(out / "paintings" / "mary_cassatt-ete.png"))
    assert joined.shape == (20, 40, 3) and joined[0, 0, 0] < 60 < joined[0, 39, 0]
    # Files that are not joined are unchanged, and names that occur again get a number.
    names = {path.name for path in (out / "photographs" / "animals").iterdir()}
    assert names == {"alpaca.webp", "alpaca_2.webp", "alpaca_3.webp"}
    assert (out / "photographs" / "animals" / "alpaca.webp").read_bytes() == webp(16, 0)
    credits = read_credits(out)
    assert len(credits) == 7 and all(each.author and each.licence for each in credits.values())
    assert credits["paintings/mary_cassatt-ete.png"].title == "Mary Cassatt, Été - 1894"
    # The directory may be written again; another directory with files is not touched.
    assert unpack(out, package)["paintings"] == 2
    # A link stays, and the directory to which it leads is replaced.
    (tmp_path / "link").symlink_to(out)
    (out / "paintings" / "mary_cassatt-ete.png").unlink()
    assert unpack(tmp_path / "link", package)["paintings"] == 2
    assert (tmp_path / "link").is_symlink() and len(list((out / "paintings").iterdir())) == 2
    (out / "mine.txt").touch()
    with pytest.raises(ResourceError, match=r"--out .*art: has other files already \(mine.txt\)"):
        unpack(out, package)
    (out / "mine.txt").rename(out / "paintings" / "mine.png")
    with pytest.raises(ResourceError, match=r"has other files already \(paintings/mine.png\)"):
        unpack(out, package)


@pytest.mark.parametrize(
    "fault", ["missing", "damaged", "unknown", "no package", "no apt", "not a package"]
)
def test_unpack_reports_faults_in_one_line_and_writes_nothing(
    tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str], fault: str
):
    (tmp_path / "rcc").mkdir()
    package = resources(tmp_path / "rcc")
    words = ["--package", str(package)]
    expected = "erase.rcc: is missing"
    if fault == "missing":
        (package / "erase.rcc").unlink()
    elif fault == "damaged":
        (package / "erase.rcc").write_bytes(b"qres")
        expected = "erase.rcc: damaged, or not a resource file"
    elif fault == "unknown":
        board = b'"pixmapfile" : "image/none.webp",\n "x" : "0.1",\n "y" : "0.5"\n "width": 9,'
        file = "gcompris/src/activities/paintings/resource/board/board1_0.qml"
        (package / "paintings.rcc").write_bytes(write_rcc({file: board + b'"height": 9'}))
        expected = "paintings.rcc: has an unknown form ('image/none.webp')"
    elif fault == "no package":
        words, expected = ["--package", str(tmp_path / "x.deb")], "x.deb: no such file"
    elif fault == "no apt":
        monkeypatch.setattr(unpacking, "PLACE", Path("not", "here"))
        monkeypatch.setenv("PATH", str(tmp_path))
        words, expected = [], "not installed and there is no apt-get"
    else:
        (tmp_path / "x.deb").write_bytes(b"no package")
        words, expected = ["--package", str(tmp_path / "x.deb")], "dpkg-deb"
    assert cli.main(["data", "paintings", "--out", str(tmp_path / "art"), *words]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1
    assert not (tmp_path / "art").exists() and not list(tmp_path.glob(".*"))


@pytest.mark.skipif(
    not Path("/", PLACE).is_dir(), reason="gcompris-qt-data is not installed: make system-deps"
)
def test_unpack_finds_the_works_of_the_installed_package(tmp_path: Path):
    counts = unpack(tmp_path / "art")
    assert counts["paintings"] >= 25 and counts["photographs/animals"] >= 50
    credits = read_credits(tmp_path / "art")
    assert len(credits) == sum(counts.values())
    assert all(each.title and each.author and each.licence for each in credits.values())
