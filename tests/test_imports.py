"""Who may import whom: ARCHITECTURE's table, held by walking every file's syntax tree.

Ruff's TID251 keeps `ray` out of the algorithms as one types; it cannot say "ray.rllib only here"
or "rl does not know gen". Imports inside functions count as much as those at the top: a lazy
import is still a dependency.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# room -> the rooms that it may import besides itself; "base" is genray's top-level files (config,
# errors, …).
MAY_IMPORT = {
    "base": set(),
    "rl": {"base"},
    "gen": {"base"},
    "distributed": {"base", "rl", "gen"},
    "rllib": {"base", "rl", "distributed"},
    "tuning": {"base", "rl", "gen", "distributed"},
    "serve": {"base", "rl", "gen"},
    "cli": {"base", "rl", "gen", "distributed", "rllib", "tuning", "serve"},
    "main": {"cli"},
}
MAY_IMPORT_RAY = {"distributed", "rllib", "tuning", "serve", "cli"}
RAY_FILES = {
    "genray.doctor.libraries",  # a base file that asks Ray for its version
    "genray.ray_processes",  # for `distributed` and `serve`, which do not know each other
}
OURS = ("genray", "tuning", "serve")


def room_of(module: str) -> str:
    """genray.rl.replay -> rl; genray.config -> base; serve.app -> serve."""
    first, *rest = module.split(".")
    if first != "genray":
        return first
    if rest and rest[0] in ("cli", "commands"):
        return "cli"  # the roof: what it says, what it shows, what it starts
    if rest and rest[0] in ("rl", "gen", "distributed", "rllib"):
        return rest[0]
    return "main" if rest and rest[0] == "__main__" else "base"


def imported(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Every module that a file may load, with its line; `from a import b` may mean a.b, so both
    are given.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are banned by ruff (TID252)"
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = (
                node.func.attr
                if isinstance(node.func, ast.Attribute)
                else getattr(node.func, "id", "")
            )
            if called in ("import_module", "__import__") and isinstance(node.args[0].value, str):
                yield node.lineno, node.args[0].value


def violations(module: str, source: str) -> list[str]:
    """One line for each import that the table forbids."""
    room, wrong = room_of(module), []
    for line, name in imported(ast.parse(source)):
        first = name.split(".")[0]
        if first == "ray" and room not in MAY_IMPORT_RAY and module not in RAY_FILES:
            wrong.append(f"{module}:{line} imports {name}: no Ray in {room}")
        elif (name + ".").startswith("ray.rllib.") and room != "rllib":
            wrong.append(f"{module}:{line} imports {name}: only genray/rllib may")
        elif first == "tests":
            wrong.append(f"{module}:{line} imports {name}: the product does not know its tests")
        elif first in OURS and name not in OURS:
            # `from genray.rl import X` also yields genray.rl.X: the same room, so nothing is
            # counted wrongly.
            other = room_of(name)
            if other not in (room, *MAY_IMPORT[room]):
                wrong.append(f"{module}:{line} imports {name}: {room} does not know {other}")
    return wrong


def product_files() -> list[Path]:
    return sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_import_table_holds_for_every_file():
    files = product_files()
    assert len(files) > 5
    wrong = [
        line
        for path in files
        for line in violations(module_name(path), path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("genray.rl.replay", "import ray"),
        ("genray.rl.replay", "from ray import serve"),
        ("genray.rl.replay", "def f():\n    import ray.util"),
        ("genray.rl.replay", "importlib.import_module('ray')"),
        ("genray.rl.replay", "from genray.gen import vae"),
        ("genray.rl.replay", "from genray import distributed"),
        ("genray.gen.vae", "import genray.rl.env"),
        ("genray.config", "from genray.rl.learner import Learner"),
        ("genray.runs.modelstore", "from genray.gen.vae import VAE"),
        ("genray.distributed.collector", "import ray.rllib.utils"),
        ("genray.distributed.collector", "from ray import rllib"),
        ("genray.distributed.collector", "from ray.rllib.algorithms import dqn"),
        ("genray.distributed.collector", "import tuning.sweep"),
        ("genray.rl.agent", "from genray.cli import main"),
        ("genray.cli", "from ray.rllib import algorithms"),
        ("genray.doctor.machine", "import ray"),
        ("serve.app", "from genray.distributed import coordinator"),
        ("serve.app", "from tuning import sweep"),
        ("tuning.sweep", "import serve.app"),
        ("genray.rl.env", "from tests.oracles import slow_tree"),
    ],
)
def test_a_forbidden_import_is_seen(module: str, source: str):
    assert violations(module, source)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "genray.rl.replay",
            "from genray.rl.sum_tree import SumTree\nfrom genray.errors import GenrayError",
        ),
        ("genray.rl.replay", "import numpy as np\nimport rayleigh"),
        (
            "genray.distributed.collector",
            "import ray\nfrom genray.rl import env\nfrom genray.gen import data",
        ),
        (
            "genray.rllib.algorithm",
            "from ray.rllib.algorithms.algorithm import Algorithm\nfrom genray.distributed import "
            "coordinator",
        ),
        (
            "genray.cli",
            "def serve():\n    import ray\n    import serve.app\n    from genray.rllib import "
            "ApexDQN",
        ),
        ("genray.doctor.libraries", "import ray"),
        ("genray.__main__", "from genray.cli import main"),
        (
            "serve.app",
            "from ray import serve\nfrom genray import modelstore\nfrom genray.gen import vae",
        ),
        ("tuning.sweep", "from ray import tune\nfrom genray.distributed import parallel_fit"),
    ],
)
def test_an_allowed_import_is_allowed(module: str, source: str):
    assert not violations(module, source)


def test_a_replay_shard_s_process_loads_no_pytorch():
    """PyTorch would take 400 MB and half of the seconds in which a run's shards start."""
    code = "import sys, genray.distributed.replay_shard; sys.exit('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    )


def test_a_training_process_loads_no_scikit_learn():
    """The import costs a second of CPU time, in every worker of a sweep and every replica."""
    loaded = "'sklearn' in sys.modules"
    code = f"import sys, genray.gen.families, genray.gen.training.fit; sys.exit({loaded})"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1]).returncode == 0
    )
