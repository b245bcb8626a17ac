"""Defines the options of the collectors."""

from dataclasses import dataclass
from typing import Literal

from genray.bounds import bounded, check_bounds
from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """The number of collectors and lanes, and the size of chunks."""

    collectors: int = bounded(2, min=1)
    """Collecting processes, one CPU core each."""
    envs_per_collector: int = bounded(8, min=1, example=8)
    """Games that a collector plays in lockstep."""
    chunk_rows: int = bounded(32, min=1, example=32)
    """Steps of each game that a collector sends together (32 steps of 8 games: 1.8 MB)."""
    gamma: float = bounded(0.99, above=0, max=1, example=0.99)
    """Discount factor per step."""
    n_step: int = bounded(3, min=1, max=32, example=3)
    """Number of rewards summed before the bootstrap."""
    n_step_end: int = bounded(0, min=0, max=32, note="(0: constant)", example=3)
    """n at the end of its annealing from --n-step; 0: n is constant. With annealing, returns are
    computed when transitions are drawn, so all transitions of a draw have the same n and γ.
    [Schwarzer 2023, https://arxiv.org/abs/2305.19452]
    """
    gamma_end: float = bounded(0.0, min=0, below=1, note="(0: constant)", example=0.997)
    """γ at the end of its annealing from --gamma; 0: γ is constant."""
    anneal_returns_updates: int = bounded(10_000, min=1, example=10_000)
    """Updates over which n and γ are annealed, after the start and after each reset."""
    reward_clip: Literal["clip", "sign", "sqrt", "none"] = "clip"
    """How learning uses a reward: clip: clipped to [−1, 1]; sign: its sign; sqrt: the root of its
    size, with its sign; none: unchanged. Reported returns are never changed.
    """
    reward_scale: float = bounded(1.0, above=0, example=0.01)
    """Factor on rewards before --reward-clip."""

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.n_step_end <= self.n_step,
            f"--n-step-end {self.n_step_end}: n falls from --n-step {self.n_step}; use a smaller "
            "number, or 0 for a constant n",
        )
        require(
            self.gamma < 1 or not self.gamma_end,
            f"--gamma-end {self.gamma_end}: γ is annealed from --gamma, which must be < 1",
        )

    @property
    def anneals_returns(self) -> bool:
        """Whether n or γ changes, so that returns are computed when transitions are drawn."""
        return bool(self.n_step_end or self.gamma_end)

    @property
    def total_lanes(self) -> int:
        """Lanes of all collectors together."""
        return self.collectors * self.envs_per_collector
