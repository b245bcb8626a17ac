"""Results of evaluations: the scores, the protocol they hold for, and a report while they are
made.
"""

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
"""Episodes that an evaluation plays at once."""
REPORT_EVERY_S = 10.0


@dataclass(frozen=True)
class Evaluation:
    """Episodes as the game scored them (unclipped, a lost life ends nothing), and the protocol
    of their play.
    """

    game: str
    scores: list[float]
    steps: list[int]
    """Agent steps of each episode."""
    epsilon: float
    sticky_actions: float | None
    """None, like `noop_max`, for an own environment, which these options do not reach."""
    noop_max: int | None
    max_episode_frames: int
    num_cut: int = 0
    """Episodes that a limit on their length, or a stop, ended: their scores are those so far."""
    stopped: bool = False
    """Whether a stop (Ctrl-C) ended the evaluation: the episodes still running are among the
    cut.
    """

    @property
    def mean(self) -> float:
        return statistics.fmean(self.scores)

    @property
    def median(self) -> float:
        return statistics.median(self.scores)

    @property
    def std_error(self) -> float | None:
        """Of the mean; None for a single episode."""
        if len(self.scores) < 2:
            return None
        return statistics.stdev(self.scores) / math.sqrt(len(self.scores))

    @property
    def ci95(self) -> float | None:
        """Half the width of the mean's 95% confidence interval (Student's t); None for a single
        episode.

        Treats episodes as independent. Greedy play without sticky actions is not: at most
        `noop_max` + 1 starts differ.
        """
        return (
            None if self.std_error is None else student_t95(len(self.scores) - 1) * self.std_error
        )

    @property
    def human_normalised(self) -> float | None:
        """0 is random play, 1 the human tester; None where no scores were published.

        None as well where episodes were cut sooner than in the published protocol: part of an
        episode has no place on the scale of whole ones.
        """
        return human_normalised(self.game, self.mean) if self.is_whole else None

    @property
    def is_whole(self) -> bool:
        """Whether no episode was cut, or only where the published protocol cuts it (30 minutes)."""
        as_published = not self.stopped and self.max_episode_frames >= PUBLISHED_FRAMES
        return not self.num_cut or as_published

    def summary(self) -> str:
        """Two lines: the score, and the protocol that it holds for."""
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
        """Everything, as JSON-able values."""
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
    """A stop reached an evaluation: `result` is what had been measured until then."""

    def __init__(self, result: Evaluation):
        super().__init__("stopped while evaluating")
        self.result = result


def student_t95(degrees: int) -> float:
    """The 97.5% quantile of Student's t with `degrees` ≥ 1 degrees of freedom."""
    return float(stdtrit(degrees, 0.975))


def num_batches_of(episodes: int) -> int:
    """How many groups of at most `MOST_LANES` episodes are played one after the other."""
    return math.ceil(episodes / MOST_LANES)


def max_episode_steps(config: EnvConfig) -> int:
    """Agent steps after which an episode is cut."""
    return max(1, config.max_episode_frames // config.frame_skip)


class EvaluationProgress:
    """Says every `every_s` seconds how far an evaluation is and how long it can still take.

    An instance is what `evaluate` and `play_out` take as `progress`. The estimate is an upper
    bound: it assumes that the episodes still running go on until their limit.
    """

    def __init__(
        self,
        config: EnvConfig,
        say: Callable[[str], None],
        check: Callable[[], None] = lambda: None,
        every_s: float = REPORT_EVERY_S,
    ):
        """`check` is called after every step; KeyboardInterrupt from it stops the evaluation."""
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
            f"in {spoken_s(seconds)}; at most {spoken_s(left)} more"
        )


def spoken_s(seconds: float) -> str:
    """A duration in words: 45 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
