"""The public names of `genray.gen`."""

import subprocess
import sys
from pathlib import Path

import pytest

from genray import gen


@pytest.mark.parametrize("name", gen.__all__)
def test_gen_public_name_is_found_and_listed(name: str):
    assert getattr(gen, name).__name__ == name
    assert name in dir(gen)


def test_gen_public_names_are_complete():
    assert sorted(gen._MODULES) == sorted(gen.__all__)


def test_gen_unknown_name_raises_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = gen.Nothing


def test_gen_imports_neither_ray_nor_torch_until_a_name_is_used():
    code = "import sys, genray.gen; sys.exit(bool({'ray', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    assert done.returncode == 0
