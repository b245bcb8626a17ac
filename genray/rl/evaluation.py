"""Defines the result of an evaluation, with the protocol of its play, and a progress report."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from scipy.special import stdtrit

from genray.rl.env import EnvConfig
from genray.rl.scores import PUBLISHED_FRAMES, human_normalised, reference

MOST_LANES = 64
"""Largest number of episodes that an evaluation plays at once."""
REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class Evaluation:
    """Scores of episodes (the game's own, unclipped; a lost life ends nothing) and the protocol of
    their play.
    """

    game: str
    scores: list[float]
    steps: list[int]
    """Agent steps of each episode."""
    epsilon: float
    sticky_actions: float | None
    """None, like `noop_max`, for a user's environment, where these options have no effect."""
    noop_max: int | None
    max_episode_frames: int
    num_cut: int = 0
    """Episodes ended by a limit on their length, or by a stop; their scores are incomplete."""
    stopped: bool = False
    """Whether a stop (Ctrl-C) ended the evaluation; episodes then running count as cut."""

    @property
    def mean(self) -> float:
        """Mean of the scores."""
        return statistics.fmean(self.scores)

    @property
    def median(self) -> float:
        """Median of the scores."""
        return statistics.median(self.scores)

    @property
    def std_error(self) -> float | None:
        """Standard error of the mean; None for a single episode."""
        if len(self.scores) < 2:
            return None
        return statistics.stdev(self.scores) / math.sqrt(len(self.scores))

    @property
    def ci95(self) -> float | None:
        """Half the width of the mean's 95% confidence interval (Student's t); None for a single
        episode.

        Treats episodes as independent. Greedy play without sticky actions is not independent: at
        most `noop_max` + 1 starts differ.
        """
        return (
            None if self.std_error is None else student_t95(len(self.scores) - 1) * self.std_error
        )

    @property
    def human_normalised(self) -> float | None:
        """The score on a scale where 0 is random play and 1 the human tester; None if no scores
        were published.

        None as well if episodes were cut sooner than in the published protocol: the score of part
        of an episode cannot be compared.
        """
        return human_normalised(self.game, self.mean) if self.is_whole else None

    @property
    def is_whole(self) -> bool:
        """Whether no episode was cut, or only where the published protocol cuts it (30 minutes)."""
        as_published = not self.stopped and self.max_episode_frames >= PUBLISHED_FRAMES
        return not self.num_cut or as_published

    def summary(self) -> str:
        """Return two lines: the score, and the protocol of its play."""
        interval = "" if self.ci95 is None else f" ± {self.ci95:,.1f} (95%)"
        score = f"{self.game}: mean {self.mean:,.1f}{interval}, median {self.median:,.1f}"
        published = reference(self.game)
        if published and self.is_whole:
            score += (
                f"; human-normalised {self.human_normalised:.1%} (random {published[0]:,g}, human "
                f"{published[1]:,g})"
            )
        elif published:
            score += "; not human-normalised, which needs whole episodes"
        protocol = [
            f"{len(self.scores)} episodes of {statistics.fmean(self.steps):,.0f} steps",
            *[f"{self.num_cut} of them cut{' by the stop' * self.stopped}"] * bool(self.num_cut),
            f"ε {self.epsilon:g}",
        ]
        if self.sticky_actions is not None:
            protocol += [
                f"sticky actions {self.sticky_actions:g}",
                f"up to {self.noop_max} no-ops at the start",
            ]
        protocol += [f"at most {self.max_episode_frames:,} frames", "lost lives ignored"]
        return f"{score}\n{', '.join(protocol)}"

    def to_dict(self) -> dict[str, Any]:
        """Return all values as JSON values."""
        return {
            "game": self.game,
            "mean": self.mean,
            "median": self.median,
            "std_error": self.std_error,
            "ci95": self.ci95,
            "human_normalised": self.human_normalised,
            "epsilon": self.epsilon,
            "sticky_actions": self.sticky_actions,
            "noop_max": self.noop_max,
            "max_episode_frames": self.max_episode_frames,
            "life_loss": "ignored",
            "cut_episodes": self.num_cut,
            "stopped": self.stopped,
            "scores": self.scores,
            "steps": self.steps,
        }


class EvaluationStopped(KeyboardInterrupt):
    """Raised when an evaluation was stopped; `result` contains the episodes until then."""

    def __init__(self, result: Evaluation):
        super().__init__("stopped while evaluating")
        self.result = result


def student_t95(degrees: int) -> float:
    """Return the 97.5% quantile of Student's t with `degrees` ≥ 1 degrees of freedom."""
    return float(stdtrit(degrees, 0.975))


def num_batches_of(episodes: int) -> int:
    """Return the number of groups of at most `MOST_LANES` episodes, played one after the other."""
    return math.ceil(episodes / MOST_LANES)


def max_episode_steps(config: EnvConfig) -> int:
    """Return the number of agent steps after which an episode is cut."""
    return max(1, config.max_episode_frames // config.frame_skip)


class EvaluationProgress:
    """Reports every `every_s` seconds how far an evaluation is and how long it can still take.

    An instance is a `progress` argument of `evaluate` and `play_out`. The estimate is an upper
    bound: it assumes that all running episodes continue until their limit.

    Args:
        config: the game, whose longest episode bounds the estimate.
        say: prints a line.
        check: called after every step; a KeyboardInterrupt from it stops the evaluation.
        every_s: seconds between two lines.
    """

    def __init__(
        self,
        config: EnvConfig,
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        every_s: float = REPORT_EVERY_S,
    ):
        self._limit = max_episode_steps(config)
        self._say, self._check, self._every_s = say, check, every_s
        self._start = self._said = time.monotonic()
        self._steps = 0

    def __call__(self, done: int, episodes: int) -> None:
        self._steps += 1
        now = time.monotonic()
        if now - self._said >= self._every_s and done < episodes:
            self._said = now
            self._say(self._line(done, episodes, now - self._start))
        self._check()

    def _line(self, done: int, episodes: int, seconds: float) -> str:
        # The episodes of a group are played in lockstep, so a group takes at most `limit` steps.
        most = self._limit * num_batches_of(episodes)
        left = seconds / self._steps * max(0, most - self._steps)
        return (
            f"evaluating: {done} of {episodes} episodes have ended after {self._steps:,} steps "
            f"in {format_duration(seconds)}; at most {format_duration(left)} more"
        )


def format_duration(seconds: float) -> str:
    """Return a duration in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
