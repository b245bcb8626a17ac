"""Value-based reinforcement learning on Atari: plain PyTorch and NumPy, no Ray.

Read in this order: `targets` (the equations), `networks`, `nstep`, `sum_tree`, `replay`, `collect`, `learner`, and
`agent`, which puts them together in one process.
"""

from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.networks import QNetwork

__all__ = ["DQNConfig", "LocalAgent", "QNetwork", "RunConfig"]
