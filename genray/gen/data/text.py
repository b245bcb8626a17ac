"""Loads texts as bags of words: docstrings of the standard library, or a directory of text files.

Shapes: N rows, V words of the vocabulary.
"""

import ast
import contextlib
import hashlib
import json
import sys
import sysconfig
from collections import Counter
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from genray.errors import require
from genray.gen.data.folders import find_files, report_skipped
from genray.gen.data.splits import labels_of, split_rows
from genray.gen.data.types import TEST_SHARE, Data, Split
from genray.runs.files import writing_file

Weighting = Literal["tf-idf", "counts"]
"""How a bag of words weights its words."""
MODULES = 30
"""Largest number of modules whose docstrings are used."""
LEAST_DOCSTRINGS = 40
"""A module with fewer docstrings is not used."""
LEAST_WORDS = 10
"""A docstring with fewer words is not used."""
MOST_BYTES = 4_000_000
"""Largest size of one text file, in bytes."""
SUFFIXES = (".txt", ".md", ".rst", ".text", ".py", ".html", ".csv", ".json", ".log", ".tex")


@dataclass(frozen=True)
class Texts:
    """Texts before splitting and vectorising."""

    name: str
    texts: list[str]
    titles: list[str]
    label: np.ndarray | None
    classes: tuple[str, ...]
    licence: str
    about: dict[str, Any]


def load_text(
    path: str,
    words: int,
    validation: float,
    cache: Path | None = None,
    idf: dict[str, float] | None = None,
    weighting: Weighting = "tf-idf",
) -> Data:
    """Load the texts below `path` as bags of words, or the data set `docs` if `path` is empty.

    Rows are float32 [N, V] ≥ 0 with length 1, or all 0 for a text without a word of the vocabulary.
    With the weighting "counts" they are in proportion to the counts of the words. With "tf-idf"
    they are in proportion to the product of two factors. The term frequency (TF) of a word in a
    text is 1 + ln(count), or 0 for count 0. The inverse document frequency (IDF) is
    1 + ln((1 + n) / (1 + d)), where d of the n training texts contain
    the word. English stop words are ignored.

    `words`: size of the vocabulary. `validation`: share of the training rows that becomes the
    validation split. `cache`: directory for parsed docstrings. `idf`: a vocabulary, IDF by word, as
    in `about["idf"]` of an earlier result; by default the vocabulary is fitted to the training rows
    without validation rows.

    Raises ConfigError for too few texts, or texts without words of the vocabulary.
    """
    if path:
        source = read_folder(Path(path).expanduser())
    else:
        source = cached_docstrings(cache) if cache else read_docstrings()
    train_rows, test_rows = split_rows(len(source.texts), TEST_SHARE)
    cut = len(train_rows) - round(len(train_rows) * validation)
    known = (
        fit_vocabulary([source.texts[row] for row in train_rows[:cut]], words)
        if idf is None
        else idf
    )
    require(
        len(known) >= 2,
        f"--data {source.name}: fewer than two words occur in two texts or more; give more text",
    )

    def split(rows: np.ndarray) -> Split:
        values = torch.from_numpy(vectorize([source.texts[row] for row in rows], known, weighting))
        label = None if source.label is None else torch.from_numpy(source.label[rows])
        return Split(values, label, 0.0, 1.0, tuple(source.titles[row] for row in rows))

    parts = [split(rows) for rows in (train_rows[:cut], train_rows[cut:], test_rows)]
    require(
        any(bool(part.values.any()) for part in parts),
        f"--data {source.name}: has none of the {len(known):,} words of the model's vocabulary; "
        "give texts on the subjects of the training texts",
    )
    about = {**source.about, "split": "a random fifth is the test split", "idf": known}
    if weighting != "tf-idf":
        about["weighting"] = weighting
    return Data(source.name, parts[0], parts[1], parts[2], source.classes, source.licence, about)


def fit_vocabulary(texts: list[str], words: int) -> dict[str, float]:
    """Return the inverse document frequency of the `words` most frequent words, sorted by word.

    A word must occur in at least two texts, and not be an English stop word. Returns {} if no word
    is left. Raises ConfigError for fewer than two texts.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    require(len(texts) >= 2, f"{len(texts)} training texts are too few; give more")
    try:
        vectorizer = TfidfVectorizer(
            max_features=words, min_df=2, stop_words="english", dtype=np.float64
        ).fit(texts)
    except ValueError:  # no word is left
        return {}
    return dict(
        zip(vectorizer.get_feature_names_out().tolist(), vectorizer.idf_.tolist(), strict=True)
    )


def vectorize(
    texts: list[str], idf: dict[str, float], weighting: Weighting = "tf-idf"
) -> np.ndarray:
    """Return a bag of words for each text, float32 [N, V], of length 1 or 0.

    `idf`: the vocabulary, the inverse document frequency by word; "counts" uses its words only.
    """
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(
        vocabulary={word: column for column, word in enumerate(idf)}, stop_words="english"
    )
    count_NV = vectorizer.transform(texts).toarray().astype(np.float64)
    if weighting == "counts":
        weight_NV = count_NV
    else:
        tf_NV = np.log(count_NV, where=count_NV > 0, out=np.full_like(count_NV, -1.0)) + 1
        weight_NV = tf_NV * np.array(list(idf.values()))
    length_N1 = np.linalg.norm(weight_NV, axis=1, keepdims=True)
    return (weight_NV / np.where(length_N1 > 0, length_N1, 1)).astype(np.float32)


def cached_docstrings(folder: Path) -> Texts:
    """Return `read_docstrings()`, cached in a JSON file in `folder`; parsing takes seconds.

    The file's name contains a hash of everything that the texts depend on: this Python (version,
    build, path, modules) and this source file. A damaged cache is rebuilt. If `folder` is not
    writable, nothing is cached.
    """
    library = sysconfig.get_paths()["stdlib"]
    python = "\0".join((sys.version, library, *sorted(sys.stdlib_module_names)))
    key = hashlib.sha256(python.encode() + Path(__file__).read_bytes()).hexdigest()[:16]
    file = folder / f"docs-{key}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_text(encoding="utf-8"))
        label, classes = np.array(kept.pop("label"), np.int64), tuple(kept.pop("classes"))
        found = Texts(label=label, classes=classes, **kept)
        if len(found.texts) == len(found.titles) == len(label) and label.max() < len(classes):
            return found
    found = read_docstrings()
    assert found.label is not None
    record = {each.name: getattr(found, each.name) for each in fields(found)} | {
        "label": found.label.tolist()
    }
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        with writing_file(file) as temporary:
            temporary.write_text(json.dumps(record), encoding="utf-8")
    return found


def read_docstrings() -> Texts:
    """Read the docstrings of this Python's standard library, labelled by top-level module.

    Uses docstrings of at least ten words, without tests and duplicates, of the 30 modules with the
    most such docstrings. There are about 3,700 texts; the number depends on the version of Python.
    Modules are parsed, not imported. Raises ConfigError if the library has no docstrings.
    """
    library = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, list[tuple[str, str]]] = {}
    seen: set[str] = set()
    # Collect the docstrings of each module, without tests, short texts and duplicates.
    for name in sorted(sys.stdlib_module_names):
        single = library / f"{name}.py"
        for path in [single] if single.exists() else sorted((library / name).rglob("*.py")):
            parts = path.relative_to(library).with_suffix("").parts
            if not {"test", "tests", "idle_test"} & set(parts):
                for qualified, text in docstrings(
                    path, ".".join(part for part in parts if part != "__init__")
                ):
                    if len(text.split()) >= LEAST_WORDS and text not in seen:
                        seen.add(text)
                        found.setdefault(name, []).append((qualified, text))
    # The modules with the most docstrings are the classes.
    largest = Counter(
        {name: len(items) for name, items in found.items() if len(items) >= LEAST_DOCSTRINGS}
    )
    modules = sorted(name for name, _ in largest.most_common(MODULES))
    require(
        len(modules) >= 2,
        f"--data docs: {library} has no docstrings (perhaps they were stripped); use "
        "folder-text:PATH",
    )
    rows = [(number, *item) for number, name in enumerate(modules) for item in found[name]]
    version = f"Python {sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}"
    return Texts(
        "docs",
        [text for _, _, text in rows],
        [f"{qualified}: {text.strip().splitlines()[0]}" for _, qualified, text in rows],
        np.array([number for number, _, _ in rows], np.int64),
        tuple(modules),
        "PSF-2.0",
        {"source": f"docstrings of {version}'s standard library"},
    )


def docstrings(path: Path, module: str) -> list[tuple[str, str]]:
    """Return (qualified name, docstring) of a file's module, classes and functions.

    Returns [] for a file that has a syntax error or cannot be read.
    """
    try:
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
    except (SyntaxError, ValueError, OSError):
        return []
    found: list[tuple[str, str]] = []

    def visit(node: ast.AST, name: str) -> None:
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text and text.strip():
                found.append((name, text))
        for child in ast.iter_child_nodes(node):
            visit(child, f"{name}.{child.name}" if hasattr(child, "name") and child.name else name)

    visit(tree, module)
    return found


def read_folder(folder: Path) -> Texts:
    """Read the text files below `folder`; a text's label is its subdirectory of the first level.

    There are no labels unless every text is in a subdirectory. Files that are empty, too large or
    not UTF-8 are skipped, and reported on stderr. Hidden names are skipped and links are followed
    (see `find_files`); stderr reports how many. Raises ConfigError for a missing directory, or for
    fewer than 5 readable texts.
    """
    require(folder.is_dir(), f"--data folder-text:{folder}: no such folder")
    files = find_files(folder, SUFFIXES)
    texts: list[str] = []
    titles: list[str] = []
    broken: list[str] = []
    for path in files.paths:
        name = str(path.relative_to(folder))
        try:
            if path.stat().st_size > MOST_BYTES:
                raise ValueError(f"larger than {MOST_BYTES:,} bytes")
            text = path.read_text(encoding="utf-8")
            if not text.strip():
                raise ValueError("empty")
        except (OSError, ValueError) as error:
            broken.append(f"{name} ({str(error).splitlines()[0]})")
            continue
        texts.append(text)
        titles.append(name)
    report_skipped(f"folder-text:{folder}", files, broken)
    require(
        len(texts) >= 5,
        f"--data folder-text:{folder}: {len(texts)} readable texts ({', '.join(SUFFIXES)}) are too "
        "few; give at least 5",
    )
    label, classes = labels_of(titles)
    about = {"skipped": len(broken), "skipped_files": broken[:100], **files.about()}
    return Texts(folder.name or "folder-text", texts, titles, label, classes, "its owner's", about)
