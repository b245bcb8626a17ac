"""Defines the configuration of a DQN run and the checks that involve several of its parts.

All parts except RunConfig are defined in other modules.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from genray.bounds import bounded, check_bounds, seed
from genray.config import check_finite, refuse_changes
from genray.errors import require
from genray.rl.collect import CollectConfig
from genray.rl.env import EnvConfig
from genray.rl.exploration import ExploreConfig
from genray.rl.learner import LearnerConfig
from genray.rl.limiter import SamplesPerInsert
from genray.rl.networks import NetworkConfig
from genray.rl.observation import Observation, stack_of
from genray.rl.replay import ReplayConfig, ShardLayout, plan_shards
from genray.rl.sequences import SequenceConfig, SequenceLayout


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Length, evaluation and checkpoints of a run."""

    steps: int = bounded(1_000_000, min=1)
    """Agent steps of all lanes together (× --frame-skip emulator frames)."""
    max_minutes: float = bounded(0.0, min=0, below=math.inf, note="(0: no limit)", example=5)
    """Training also ends after this many minutes, with its last checkpoint and evaluation; 0: no
    limit. The last evaluation is not counted. A resumed run has these minutes again.
    """
    seed: int = seed(0)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the learner; collectors use CPUs."""
    evaluate_every: int = bounded(100_000, min=0, note="(0: only at the end)")
    """Agent steps between evaluations while training; 0: only at the end."""
    evaluate_episodes: int = bounded(30, min=1, example=30)
    """Episodes of the last evaluation; evaluations during training play a third of them."""
    evaluate_epsilon: float = bounded(0.001, min=0, max=1)
    """ε while evaluating; 0: greedy."""
    saved_policy: Literal["last", "best"] = "last"
    """The run's model: the last policy, or the best one of those evaluated (--evaluate-every). The
    best one is played once more at the end, from other starts, because the best of several scores
    is too high.
    """
    checkpoint_every: int = bounded(100_000, min=0)
    """Agent steps between checkpoints; 0: only at the end, and when stopped."""
    checkpoint_replay: bool = True
    """Whether checkpoints contain the replay (7 KB a transition); without it, a resumed run fills
    the replay again.
    """
    keep: int = bounded(2, min=1)
    """Newest checkpoints kept, in addition to the best one."""
    publish_every: int = bounded(25, min=1)
    """Updates between versions of the weights that collectors fetch."""
    learner_snapshot_s: float = bounded(10.0, above=0, note="seconds", example=10)
    """Seconds between snapshots of weights, target network and optimizer (53 MB for DQN's network,
    dueling) in the driver's memory. The death of a learner costs about this much learning at most.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.saved_policy in ("last", "best"),
            f"--saved-policy {self.saved_policy}: must be last or best",
        )


FIXED = (
    "env.env",
    "env.env_config",
    "env.full_action_space",
    "env.frame_skip",
    "env.crop_top",
    "env.crop_bottom",
    "env.blank_frames",
    "env.stack",
    "env.stack_start",
    "env.sticky_actions",
    "env.life_loss",
    "network",
    "learner.optimizer",
    "learner.prediction_steps",
    "collect.n_step_end",
    "collect.gamma_end",
    "sequences.sequence_length",
    "sequences.sequence_overlap",
    "sequences.burn_in",
)
"""Options that a resumed run cannot change, in addition to the game. They define the stored
transitions, the network, and the state of the optimizer.
"""


@dataclass(frozen=True, kw_only=True)
class DQNConfig:
    """DQN and its extensions, from one process (`--local`) to Ape-X."""

    env: EnvConfig = field(default_factory=EnvConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    explore: ExploreConfig = field(default_factory=ExploreConfig)
    collect: CollectConfig = field(default_factory=CollectConfig)
    run: RunConfig = field(default_factory=RunConfig)
    sequences: SequenceConfig = field(default_factory=SequenceConfig)

    def validate(self) -> None:
        """Raise ConfigError for the first option that is invalid, alone or together with others."""
        for part in (
            self.env,
            self.network,
            self.replay,
            self.learner,
            self.explore,
            self.collect,
            self.run,
            self.sequences,
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
            f"--frames-on {self.learner.frames_on}: needs uncompressed frames in the replay; use "
            "--replay-store raw",
        )
        require(
            self.network.head == "scalar" or self.learner.loss == "huber",
            f"--loss {self.learner.loss}: a head {self.network.head} has a loss of its own; leave "
            "--loss out, or use --head scalar",
        )
        require(
            not self.learner.munchausen or self.network.head != "c51",
            f"--munchausen {self.learner.munchausen}: not for --head c51; use scalar or iqn",
        )
        later, n = self.learner.prediction_steps, self.collect.n_step
        require(
            later <= n,
            f"--prediction-steps {later}: a transition is drawn with at most --n-step {n} later "
            f"rows; use at most {n}, or --n-step {later} or more",
        )
        require(
            not later or not self.network.past_actions,
            f"--prediction-steps {later}: latent states contain no --past-actions; use "
            "--past-actions 0",
        )
        ensemble = self.network.ensemble
        require(
            self.learner.batch_size % ensemble == 0,
            f"--ensemble {ensemble}: every network needs an equal part of --batch-size "
            f"{self.learner.batch_size}; use a multiple, e.g. {32 * ensemble}",
        )
        require(
            ensemble == 1 or not later,
            f"--prediction-steps {later}: not with --ensemble {ensemble}; use --ensemble 1 "
            f"--batch-size {self.learner.batch_size // ensemble} --samples-per-insert "
            f"{self.replay.samples_per_insert / ensemble:g}",
        )
        if self.network.lstm_units:
            self._check_recurrent()
        self.plan_shards((84, 84))

    def _check_recurrent(self) -> None:
        """Raise ConfigError for options that a network with an LSTM does not have."""
        learner, units = self.learner, self.network.lstm_units
        for name, used in (
            ("--prediction-steps", learner.prediction_steps),
            ("--shift", learner.shift),
            ("--intensity", learner.intensity),
            ("--n-step-end", self.collect.n_step_end),
            ("--gamma-end", self.collect.gamma_end),
        ):
            require(not used, f"{name}: not with --lstm-units {units}; leave one of them out")
        self.sequences.check(self.collect.n_step, self.collect.chunk_rows)

    @property
    def sequence_layout(self) -> SequenceLayout | None:
        """The sequences from which a network with an LSTM learns; None without an LSTM."""
        if not self.network.lstm_units:
            return None
        repeats = self.env.stack_start == "repeat"
        return self.sequences.layout(self.collect.n_step, 2 * self.network.lstm_units, repeats)

    @property
    def transitions_per_sample(self) -> int:
        """Transitions that are learned from for each sample that is drawn."""
        return self.sequences.sequence_length if self.network.lstm_units else 1

    @property
    def rows_per_sample(self) -> int:
        """Rows that the network processes for each sample that is drawn."""
        return self.sequence_layout.rows if self.sequence_layout else 1

    def check_resumes(self, before: "DQNConfig") -> None:
        """Raise ConfigError if a run with the configuration `before` cannot be resumed with this
        one; the message names the option.
        """
        refuse_changes(before, self, FIXED)
        # If returns are computed from stored rows, a larger n needs rows that may not be stored.
        if self.collect.anneals_returns or self.network.lstm_units:
            refuse_changes(before, self, ("collect.n_step",))
        # A game has several spellings, but only one title.
        if not self.env.env and self.env.title != before.env.title:
            refuse_changes(before, self, ("env.game",))

    def check_learns(self) -> None:
        """Raise ConfigError if a new run of this length would end before its first update."""
        lanes = self.collect.collectors * self.collect.envs_per_collector
        # A transition is stored when its n steps are known, so the last n of each lane are missing.
        # A chunk is never cut, so the last chunk may exceed the requested number of steps.
        chunk = self.collect.chunk_rows * self.collect.envs_per_collector
        steps = -(-self.run.steps // chunk) * chunk
        limiter = self.limiter(self.learner.batch_size)
        missing = self.collect.n_step * lanes
        if self.sequence_layout:
            missing = (self.sequence_layout.rows + self.sequence_layout.period) * lanes
        needed = limiter.inserts_needed(self.learner.batch_size * self.transitions_per_sample)
        require(
            steps >= missing + needed,
            f"--steps {self.run.steps}: ends before the first update, because learning begins "
            "after --min-size "
            f"{self.replay.min_size} transitions; use at least --steps {missing + needed}, "
            "or a smaller --min-size",
        )
        every, updates = self.learner.reset_every, self._expected_updates
        require(
            not every or not self.replay.samples_per_insert or every < updates,
            f"--reset-every {every}: the run makes about {updates:,} updates, so it would never "
            f"reset; use less than {updates}, or 0",
        )

    @property
    def _expected_updates(self) -> int:
        """The number of updates that the limit on samples per insert allows, about."""
        learning = max(0, self.run.steps - self.replay.min_size)
        samples = self.learner.batch_size * self.learner.learners * self.transitions_per_sample
        return int(self.replay.samples_per_insert * learning / samples)

    @property
    def replay_ratio(self) -> float:
        """Updates per agent step; 0: no limit."""
        samples = self.learner.batch_size * self.learner.learners * self.transitions_per_sample
        return self.replay.samples_per_insert / samples

    def notes(self) -> list[str]:
        """Return a line for each option whose steps or updates are more than the run's."""
        notes, steps = [], self.run.steps
        if self.explore.anneal_steps > steps:
            notes.append(
                f"note: --anneal-steps {self.explore.anneal_steps:,} is longer than the run, so ε "
                "does not reach its end"
            )
        updates = self._expected_updates
        copies = self.learner.target_network and not self.learner.target_tau
        if self.replay.samples_per_insert and copies:
            period = self.learner.target_period_updates
            if updates < period:
                notes.append(
                    f"note: about {updates:,} updates are to be made, fewer than "
                    f"--target-period-updates {period:,}, so the "
                    "target network keeps its first weights"
                )
        return notes

    def plan_shards(
        self, frame_shape: tuple[int, int], observation: Observation | None = None
    ) -> list[ShardLayout]:
        """Return the layout of each replay shard. `observation` describes packed records; None:
        grey frames.

        Raises ConfigError for more shards than collectors, and if a ring buffer is too short.
        """
        return plan_shards(
            self.replay,
            collectors=self.collect.collectors,
            lanes=self.collect.envs_per_collector,
            frame_shape=frame_shape,
            stack=stack_of(self.env.stack, observation),
            stack_start=self.env.stack_start,
            past_actions=self.network.past_actions,
            n_step=self.collect.n_step,
            chunk_rows=self.collect.chunk_rows,
            anneals_returns=self.collect.anneals_returns,
            later=self.learner.prediction_steps,
            sequence=self.sequence_layout,
        )

    def limiter(self, round_samples: int) -> SamplesPerInsert:
        """Return the run's limiter for a learner that draws `round_samples` samples at a time.

        It counts transitions: a sequence counts for each transition that is learned from.
        """
        return SamplesPerInsert.for_run(
            self.replay.samples_per_insert,
            self.replay.min_size,
            chunk=self.collect.chunk_rows * self.collect.envs_per_collector,
            sources=self.collect.collectors,
            round_samples=round_samples * self.transitions_per_sample,
        )
