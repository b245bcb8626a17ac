"""Implements value-based reinforcement learning on Atari in plain PyTorch and NumPy, without Ray.

Suggested reading order: `targets` (the equations), `networks`, `nstep`, `sum_tree`, `replay`,
`collect`, `learner`, and finally `agent`, which combines them in one process.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genray.rl.agent import LocalAgent
    from genray.rl.config import DQNConfig, RunConfig
    from genray.rl.networks import QNetwork

__all__ = ["DQNConfig", "LocalAgent", "QNetwork", "RunConfig"]

_MODULES = {
    "DQNConfig": "genray.rl.config",
    "LocalAgent": "genray.rl.agent",
    "QNetwork": "genray.rl.networks",
    "RunConfig": "genray.rl.config",
}


def __getattr__(name: str) -> Any:
    """Import a public class at its first use, because a replay shard's process imports this package
    but needs no PyTorch.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
