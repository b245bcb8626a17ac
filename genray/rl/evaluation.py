"""Defines the result of an evaluation and the progress report while it runs."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from genray.rl.env import EnvConfig
from genray.rl.scores import PUBLISHED_FRAMES, human_normalised, reference

MOST_LANES = 64
"""Largest number of episodes that an evaluation plays at once."""
REPORT_EVERY_S = 10.0
"""Seconds between two progress reports."""


@dataclass(frozen=True)
class Evaluation:
    """The scores of whole episodes, and the rules by which they were played.

    A score is the game's own, from unclipped rewards. A lost life does not end an episode.
    """

    game: str
    scores: list[float]
    steps: list[int]
    """Agent steps of each episode."""
    epsilon: float
    sticky_actions: float | None
    """None, as is `noop_max`, for a user's environment: these options do not affect it."""
    noop_max: int | None
    max_episode_frames: int
    num_cut: int = 0
    """Number of episodes that a limit on their length or a stop ended; their scores are incomplete.
    """
    stopped: bool = False
    """Whether a stop (Ctrl-C) ended the evaluation. Episodes that were running then count as cut.
    """

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

        The interval assumes independent episodes. Episodes of greedy play without sticky actions
        are not independent: at most `noop_max` + 1 of them differ.
        """
        return (
            None if self.std_error is None else student_t95(len(self.scores) - 1) * self.std_error
        )

    @property
    def human_normalised(self) -> float | None:
        """The mean score on a scale where 0 is random play and 1 is the human tester.

        None if no scores were published, or if episodes were cut sooner than in the published
        protocol, because incomplete scores cannot be compared.
        """
        return human_normalised(self.game, self.mean) if self.is_whole else None

    @property
    def is_whole(self) -> bool:
        """Whether no episode was cut before the published protocol would cut it (30 minutes)."""
        as_published = not self.stopped and self.max_episode_frames >= PUBLISHED_FRAMES
        return not self.num_cut or as_published

    def summary(self) -> str:
        """Return two lines: the score, and the rules by which it was reached."""
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
                f"at most {self.max_episode_frames:,} frames",
                "lost lives ignored",
            ]
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

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Return the evaluation that `to_dict` returned as JSON values.

        Evaluations of older versions lack the newer values. Raises KeyError if others are missing.
        """
        same = ("game", "scores", "steps", "epsilon", "sticky_actions", "noop_max")
        return cls(
            **{name: values[name] for name in same},
            max_episode_frames=values["max_episode_frames"],
            num_cut=values.get("cut_episodes", 0),
            stopped=values.get("stopped", False),
        )


class EvaluationStopped(KeyboardInterrupt):
    """Raised when an evaluation was stopped; `result` contains the episodes until then, complete or
    not.
    """

    def __init__(self, result: Evaluation):
        super().__init__("stopped while evaluating")
        self.result = result


def student_t95(degrees: int) -> float:
    """Return the 97.5% quantile of Student's t with `degrees` ≥ 1 degrees of freedom."""
    from scipy.special import stdtrit  # a third of a second, which playing a policy does not need

    return float(stdtrit(degrees, 0.975))


def num_batches_of(episodes: int) -> int:
    """Return the number of groups in which episodes are played, at most `MOST_LANES` in a group."""
    return math.ceil(episodes / MOST_LANES)


def max_episode_steps(config: EnvConfig) -> int:
    """Return the number of agent steps after which an episode is cut."""
    return max(1, config.max_episode_frames // config.frame_skip)


class EvaluationProgress:
    """Reports how far an evaluation is, and how long it can still take.

    Pass an instance as the argument `progress` of `evaluate` or `play_out`. The remaining time is
    an upper bound for steps of the average duration so far, because every group of episodes is
    assumed to reach the limit of an episode's length.

    Args:
        config: the game and the limit of an episode's length.
        say: prints a line.
        check: called after every step; if it raises KeyboardInterrupt, the evaluation stops.
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
        if self._steps == 1:
            self._start = now  # the games were started within the first step
        elif now - self._said >= self._every_s and done < episodes:
            self._said = now
            self._say(self._line(done, episodes, now - self._start))
        self._check()

    def _line(self, done: int, episodes: int, seconds: float) -> str:
        # A group's episodes are played in lockstep, so a group takes at most `_limit` steps.
        most = self._limit * num_batches_of(episodes)
        left = seconds / (self._steps - 1) * max(0, most - self._steps)
        return (
            f"evaluating: {done} of {episodes} episodes have ended after {self._steps:,} steps "
            f"in {format_duration(seconds)}; at most {format_duration(left)} more"
        )


def format_duration(seconds: float) -> str:
    """Return a duration as text: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
