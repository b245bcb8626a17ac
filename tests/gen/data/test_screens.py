"""Tests the reader of files of game screens."""

import json
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from genray.errors import ConfigError
from genray.gen.data.screens import read_screens


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4, 3, 2]},
        {"shape": ["four", 3, 3]},
        {"shape": [36]},
        {"shape": [4, 3, 2.5]},
        {"shape": [4, 0, 3]},
        {"recipe": "[]"},
        {"recipe": "{"},
        {"colours": 1},
        {"held_out": 3},
    ],
)
def test_read_screens_refuses_a_damaged_file_in_one_line(tmp_path: Path, change: dict):
    indices_NHW = np.arange(36, dtype=np.uint8).reshape(4, 3, 3) % 2
    tensors = {
        "packed": np.frombuffer(zlib.compress(indices_NHW.tobytes()), np.uint8),
        "palette": np.zeros((change.get("colours", 2), 3), np.uint8),
        "held_out": np.zeros(change.get("held_out", 4), bool),
    }
    recipe = change.get("recipe", json.dumps({"shape": change.get("shape", [4, 3, 3])}))
    file = tmp_path / "screens-pong.safetensors"
    save_file(tensors, file, {"recipe": recipe})
    with pytest.raises(ConfigError, match="damaged.*genray data screens --game pong") as caught:
        read_screens(file)
    assert "\n" not in str(caught.value)


def test_read_screens_decompresses_no_more_than_the_shape(tmp_path: Path):
    """A stream of 64 KB that would become 64 MB."""
    tensors = {
        "packed": np.frombuffer(zlib.compress(bytes(2**26)), np.uint8),
        "palette": np.zeros((1, 3), np.uint8),
        "held_out": np.zeros(4, bool),
    }
    file = tmp_path / "screens-pong.safetensors"
    save_file(tensors, file, {"recipe": json.dumps({"shape": [4, 3, 3]})})
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="damaged"):
            read_screens(file)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
