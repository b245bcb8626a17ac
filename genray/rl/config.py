"""A DQN run's whole configuration: the parts, each defined beside what it configures, and what
ties them.
"""

from dataclasses import dataclass, field
from typing import Literal

from genray.config import check_finite, refuse_changes
from genray.errors import require
from genray.rl.collect import CollectConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.limiter import SamplesPerInsert
from genray.rl.networks import NetworkConfig
from genray.rl.replay import ReplayConfig, ShardLayout, plan_shards


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """How long, how reported, how kept."""

    steps: int = 1_000_000
    """Agent steps of all lanes together (× --frame-skip emulator frames)."""
    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the learner works; collectors act on CPUs."""
    evaluate_every: int = 100_000
    """Agent steps between evaluations while training; 0: only at the end."""
    evaluate_episodes: int = 30
    """Episodes of the last evaluation; those on the way play a third of it."""
    evaluate_epsilon: float = 0.001
    """ε while evaluating; 0: greedy."""
    checkpoint_every: int = 100_000
    """Agent steps between checkpoints; 0: only at the end, and when stopped."""
    checkpoint_replay: bool = True
    """Put the replay's contents into checkpoints (7 KB a transition); without, resuming fills it
    anew.
    """
    keep: int = 2
    """Newest checkpoints kept, beside the best."""
    publish_every: int = 25
    """Updates between versions of the weights that collectors pull."""
    learner_snapshot_s: float = 10.0
    """Seconds of learning that the death of a learner's machine may cost at most, half a second
    more or less: so often the head takes a copy of weights, target network and optimizer (53 MB
    for DQN's network, dueling).
    """

    def validate(self) -> None:
        require(self.steps >= 1, f"--steps {self.steps}: must be ≥ 1")
        require(
            self.evaluate_every >= 0,
            f"--evaluate-every {self.evaluate_every}: must be ≥ 0 (0: only at the end)",
        )
        require(
            self.evaluate_episodes >= 1,
            f"--evaluate-episodes {self.evaluate_episodes}: must be ≥ 1, e.g. 30",
        )
        require(
            0 <= self.evaluate_epsilon <= 1,
            f"--evaluate-epsilon {self.evaluate_epsilon}: must lie in [0, 1]",
        )
        require(
            self.checkpoint_every >= 0, f"--checkpoint-every {self.checkpoint_every}: must be ≥ 0"
        )
        require(self.keep >= 1, f"--keep {self.keep}: must be ≥ 1")
        require(self.publish_every >= 1, f"--publish-every {self.publish_every}: must be ≥ 1")
        require(
            0 < self.learner_snapshot_s < float("inf"),
            f"--learner-snapshot-s {self.learner_snapshot_s}: must be > 0 seconds, e.g. 10",
        )
        require(0 <= self.seed < 2**31, f"--seed {self.seed}: must lie in 0 .. 2^31 − 1")


FIXED = (
    "env.env",
    "env.full_action_space",
    "env.frame_skip",
    "env.stack",
    "env.stack_start",
    "env.sticky_actions",
    "env.life_loss",
    "network",
    "learner.optimizer",
)
"""What a resumed run cannot change, beside the game: the task, which the replay's transitions
are of, and the network.
"""


@dataclass(frozen=True, kw_only=True)
class DQNConfig:
    """DQN and its tricks, from one process (`--local`) to Ape-X."""

    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    explore: ExploreConfig = field(default_factory=ExploreConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def validate(self) -> None:
        """Raise ConfigError for the first option that makes no sense, alone or beside another."""
        for part in (
            self.env,
            self.network,
            self.replay,
            self.learner,
            self.explore,
            self.collect,
            self.run,
        ):
            part.validate()
        check_finite(self)
        require(
            self.replay.capacity >= self.learner.batch_size,
            f"--capacity {self.replay.capacity}: less than a batch; use at least --batch-size "
            f"{self.learner.batch_size}",
        )
        require(
            self.learner.frames_on == "host" or self.replay.replay_store == "raw",
            f"--frames-on {self.learner.frames_on}: needs the shards' frames as they are; use "
            "--replay-store raw",
        )
        self.plan_shards((84, 84))

    def check_resumes(self, before: "DQNConfig") -> None:
        """Raise ConfigError, which names the option, where a run of `before` cannot go on as
        this one.
        """
        refuse_changes(before, self, FIXED)
        if not self.env.env and self.env.title != before.env.title:  # a game has several spellings
            refuse_changes(before, self, ("env.game",))

    def check_learns(self, made: int = 0, stored: int = 0) -> None:
        """Raise ConfigError for a run that would end before its first update.

        `made`, `stored`: steps made and transitions in the replay already, for a resumed run.
        """
        lanes = self.collect.collectors * self.collect.envs_per_collector
        # A transition is stored once its n steps are known, so each lane's last n are missing. A
        # chunk is never cut, so the last one may go beyond the asked number of steps.
        chunk = self.collect.chunk_rows * self.collect.envs_per_collector
        steps = -(-(self.run.steps - made) // chunk) * chunk
        limiter = self.limiter(self.learner.batch_size)
        limiter.inserted = stored
        missing = self.collect.n_step * lanes
        needed = limiter.inserts_needed(self.learner.batch_size)
        require(
            steps >= missing + needed,
            f"--steps {self.run.steps}: ends before the first update, because learning begins "
            "after --min-size "
            f"{self.replay.min_size} transitions; use at least --steps {made + missing + needed}, "
            "or a smaller --min-size",
        )

    def notes(self) -> list[str]:
        """What in this run never comes to pass because the run is too short for it, one line
        each.
        """
        notes, steps = [], self.run.steps
        if self.explore.anneal_steps > steps:
            notes.append(
                f"note: --anneal-steps {self.explore.anneal_steps:,} is longer than the run, so ε "
                "does not reach its end"
            )
        learning = steps - self.replay.min_size
        updates = int(self.replay.samples_per_insert * learning / self.learner.batch_size)
        if self.replay.samples_per_insert and self.learner.target_network:
            period = self.learner.target_period_updates
            if updates < period:
                notes.append(
                    f"note: about {updates:,} updates are to be made, fewer than "
                    f"--target-period-updates {period:,}, so the "
                    "target network keeps its first weights"
                )
        return notes

    def plan_shards(self, frame_shape: tuple[int, int]) -> list[ShardLayout]:
        return plan_shards(
            self.replay,
            collectors=self.collect.collectors,
            lanes=self.collect.envs_per_collector,
            frame_shape=frame_shape,
            stack=self.env.stack,
            stack_start=self.env.stack_start,
            past_actions=self.network.past_actions,
            n_step=self.collect.n_step,
            chunk_rows=self.collect.chunk_rows,
        )

    def limiter(self, round_samples: int) -> SamplesPerInsert:
        """The run's flow control, for a learner that draws `round_samples` at a time."""
        return SamplesPerInsert.for_run(
            self.replay.samples_per_insert,
            self.replay.min_size,
            chunk=self.collect.chunk_rows * self.collect.envs_per_collector,
            sources=self.collect.collectors,
            round_samples=round_samples,
        )
