"""What every system's run is measured by: a clock of training time, and one evaluation for all.

Training has a budget of CPU time on one core, so that other work on the machine does not change
how far a run gets. The policy is copied twice: after `milestone_steps`
agent steps and at the end of the budget. Copying stops the clock. Both copies play their whole
episodes after training, first without sticky actions and then with them.

Shapes: E lanes, S stack, H height, W width, A actions.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from genray.rl.collect import Lanes
from genray.rl.env import EnvConfig
from genray.rl.evaluate import Evaluation, play_out
from genray.rl.exploration import epsilon_greedy
from genray.rl.scores import human_normalised
from tests.bench.common import tree_cpu_s

EPSILON = 0.001
LOOK_S = 0.2
"""Wall time between two readings of the clock, which take about a millisecond each."""
STICKY = {"sticky_0": 0.0, "sticky_25": 0.25}
"""Name of an evaluation in a result: its probability of sticky actions (0 as in the DQN papers,
0.25 as in Machado 2018). Training has no sticky actions.
"""
MOMENTS = ("milestone", "end")


@dataclass(frozen=True)
class Protocol:
    """The rules of a table's runs, which are equal for all its systems."""

    seconds: float = 600.0
    """CPU time of training (of the process and its descendants), from the first agent step on."""
    milestone_steps: int = 20_000
    """Agent steps (of 4 emulator frames) after which the policy is scored on the way."""
    overtime: float = 0.5
    """Share of `seconds` for which training goes on if the milestone has not been reached. The
    score at the end of the budget is that of before."""
    episodes: int = 30
    max_frames: int = 36_000
    """Emulator frames after which an episode of the evaluation is cut (10 minutes of play)."""


class _Reading(NamedTuple):
    """What the clocks show: CPU seconds of the process and its descendants, and wall time."""

    cpu_s: float
    wall_s: float


def _read() -> _Reading:
    return _Reading(tree_cpu_s(), time.monotonic())


Player = Callable[[EnvConfig, int, int], Evaluation]
"""(environment, episodes, seed) -> the evaluation of a copied policy."""


class Trial:
    """The clock and the copied policies of one run.

    Args:
        protocol: the rules of the run.
        game: an Atari game.
        seed: seed of the run; evaluations use 10,000 + seed.
    """

    def __init__(self, protocol: Protocol, game: str, seed: int):
        self.protocol, self.game, self.seed = protocol, game, seed
        self._moments: dict[str, dict[str, Any]] = {}
        self._players: dict[str, Player] = {}
        self._begin: _Reading | None = None
        self._last = _Reading(0.0, -math.inf)
        self._copying = _Reading(0.0, 0.0)

    @property
    def elapsed_s(self) -> float:
        """CPU seconds of training so far, without those of copying; 0 before the first `tick`."""
        if self._begin is None:
            return 0.0
        if time.monotonic() - self._last.wall_s >= LOOK_S:
            self._last = _read()
        return self._last.cpu_s - self._begin.cpu_s - self._copying.cpu_s

    @property
    def next_steps(self) -> int:
        """Agent steps up to which the system may train before the next `tick`."""
        return 10**9 if "milestone" in self._moments else self.protocol.milestone_steps

    def tick(self, steps: int, updates: int, copy_policy: Callable[[], Player]) -> bool:
        """Note the totals so far, at least once a second; return whether training goes on.

        The first call starts the clock. `copy_policy` returns a player whose weights do not change
        any more.
        """
        if self._begin is None:
            self._begin = self._last = _read()
        elapsed_s = self.elapsed_s
        if steps >= self.protocol.milestone_steps:
            self._take("milestone", elapsed_s, steps, updates, copy_policy)
        if elapsed_s < self.protocol.seconds:
            return True
        self._take("end", elapsed_s, steps, updates, copy_policy)
        late = elapsed_s >= self.protocol.seconds * (1 + self.protocol.overtime)
        return "milestone" not in self._moments and not late

    def _take(
        self,
        moment: str,
        elapsed_s: float,
        steps: int,
        updates: int,
        copy_policy: Callable[[], Player],
    ) -> None:
        if moment in self._moments:
            return
        assert self._begin is not None
        before, copying = _read(), self._copying
        self._players[moment] = copy_policy()
        self._moments[moment] = {
            "seconds": elapsed_s,
            "steps": steps,
            "updates": updates,
            "wall_s": before.wall_s - self._begin.wall_s - copying.wall_s,
        }
        self._last = after = _read()
        self._copying = _Reading(
            copying.cpu_s + after.cpu_s - before.cpu_s,
            copying.wall_s + after.wall_s - before.wall_s,
        )

    def result(self) -> dict[str, Any]:
        """Play the evaluations; return the run's result as JSON values. A milestone that was not
        reached is None.
        """
        for moment, player in self._players.items():
            for name, sticky in STICKY.items():
                env = EnvConfig(
                    game=self.game,
                    sticky_actions=sticky,
                    max_episode_frames=self.protocol.max_frames,
                )
                played = player(env, self.protocol.episodes, 10_000 + self.seed)
                self._moments[moment][name] = {
                    "mean": played.mean,
                    "normalised": human_normalised(self.game, played.mean),
                    "scores": played.scores,
                    "cut": played.num_cut,
                }
        return {moment: self._moments.get(moment) for moment in MOMENTS}

    def settings(self) -> dict[str, Any]:
        """Return what identifies the run, as JSON values."""
        return {"game": self.game, "seed": self.seed, **asdict(self.protocol)}


def player_of(q_values: Callable[[np.ndarray], np.ndarray]) -> Player:
    """Return the ε-greedy player of a rival's network.

    `q_values`: uint8 [E, S, H, W] → float32 [E, A], of weights that do not change any more.
    """

    def play(env: EnvConfig, episodes: int, seed: int) -> Evaluation:
        rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))

        def policy(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
            q_PA = q_values(lanes.stack_ESHW[playing_E])
            q_EA = np.zeros((len(playing_E), q_PA.shape[1]), np.float32)
            q_EA[playing_E] = q_PA
            return epsilon_greedy(q_EA, np.full(len(playing_E), EPSILON), rng)

        return play_out(policy, env, episodes=episodes, epsilon=EPSILON, seed=seed)

    return play


def linear(start: float, end: float, share: float) -> float:
    """Return the value at `share` (0 to 1, clipped) of the way from `start` to `end`."""
    return start + (end - start) * min(max(share, 0.0), 1.0)


def quick(protocol: Protocol) -> Protocol:
    """Return a protocol of seconds, which shows that everything runs."""
    return replace(
        protocol, seconds=8.0, milestone_steps=400, overtime=0.0, episodes=2, max_frames=1_600
    )


def check(protocol: Protocol) -> None:
    """Raise ValueError for a protocol that cannot be carried out."""
    for name, least in (("seconds", 0), ("milestone_steps", 1), ("episodes", 1), ("max_frames", 4)):
        value = getattr(protocol, name)
        if not (math.isfinite(value) and value >= least):
            raise ValueError(f"--{name.replace('_', '-')} {value}: must be at least {least}")
