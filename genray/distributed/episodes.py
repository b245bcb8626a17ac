"""Records whole episodes of one game with actions, rewards and endings, as data for world models.

Screens are recorded as `genray data screens` records them: what the emulator shows, 160x210 pixels
in the game's own colours, without the maximum of two frames. A user's environment shows its frames.

Shapes: E lanes, T screens of one episode, H height, W width.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genray.bounds import bounded, check_bounds, seed
from genray.distributed.played import HOLD, MOST_LANES, Job, Moment, moments_of
from genray.errors import ConfigError, require
from genray.gen.data.config import data_folder
from genray.gen.data.episodes import Episode, Episodes, episodes_file, pack, write_episodes
from genray.gen.data.types import TEST_SHARE
from genray.gen.data.writing import make_room
from genray.gen.sprites.palette import PaletteBuilder
from genray.rl.engine import probe_env
from genray.rl.env import EnvConfig
from genray.rl.evaluate import action_names
from genray.rl.policy import load_policy

SHORTEST = 2
"""Episodes of fewer screens contain no step, and are left out."""


@dataclass(frozen=True, kw_only=True)
class EpisodesConfig:
    """Record whole episodes of a game: screens, actions, rewards, lost lives and endings."""

    game: str = "road_runner"
    """The game. With --from-run, the run's own game is played instead."""
    env: str = ""
    """Instead of an Atari game: an environment of grey frames, as for `genray train dqn`, e.g.
    genray.rl.catch:Catch.
    """
    env_config: str = ""
    """The arguments of --env as a JSON object."""
    frames: int = bounded(20_000, min=400, max=500_000, example=20000)
    """Number of screens, of which a fifth is held out: it comes from other episodes."""
    seed: int = seed(0)
    from_run: Path | None = None
    """A run or model directory. Its policy then plays, instead of random play."""
    epsilon: float = bounded(0.25, min=0, below=1, example=0.25)
    """Share of random steps when a policy plays. They come in phases of one action."""
    hold: float = bounded(HOLD, min=0, below=1, example=HOLD)
    """Probability that random play repeats the last action; 0: a new action at every step. With
    --from-run, a phase of random play goes on with this probability."""
    habit: float = bounded(0.0, min=0, below=1, example=0.5)
    """Probability that a new action of random play is the lane's favourite one, which changes after
    64 steps on average. Random play then gets farther."""
    out: Path | None = None
    """File to write. Default: the file in $GENRAY_DATA or ~/.cache/genray that `--data
    episodes:GAME` reads.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.from_run is None or not (self.env or self.env_config),
            f"--from-run {self.from_run}: plays the run's own environment; leave out --env and "
            "--env-config",
        )
        _ = self.played

    @property
    def played(self) -> EnvConfig:
        """The environment to play: that of the run, or the one that is named.

        Raises ConfigError for an unknown game, and for an environment without grey frames, and
        CheckpointError when `from_run` contains no policy.
        """
        env = EnvConfig(game=self.game, env=self.env, env_config=self.env_config)
        if self.from_run is not None:
            env = load_policy(self.from_run)[1]
        else:
            env.validate()
        if env.env and probe_env(env).observation is not None:
            run = f"--from-run {self.from_run}: it plays {env.env}, whose"
            raise ConfigError(
                f"{run if self.from_run else f'--env {env.env}: its'} observations are not grey "
                "frames of one size, which episodes of sprites need; see "
                "genray.rl.env.FrameVectorEnv, or choose a --game"
            )
        return env


def collect_episodes(
    config: EpisodesConfig, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, dict[str, Any]]:
    """Play the game and write the file; returns (the file, its recipe).

    `progress` is called with (number of screens done, number of screens wanted). Raises
    ConfigError for an invalid option, CheckpointError when `config.from_run` contains no policy,
    and ResourceError when the file cannot be written.
    """
    config.validate()
    env = config.played
    # "genray.rl.catch:Catch" is saved as "Catch".
    name = env.title.rpartition(":")[2]
    out = config.out or episodes_file(data_folder(), name)
    make_room(out)
    test = round(config.frames * TEST_SHARE)
    palette = PaletteBuilder(f"--{'env' if env.env else 'game'} {env.title}")
    parts: list[tuple[Episode, ...]] = []
    # Held-out lanes play as many steps as training lanes, so that both see the same levels.
    lanes = max(1, round(MOST_LANES * TEST_SHARE / (1 - TEST_SHARE)))
    for held_out, count in ((False, config.frames - test), (True, test)):
        job = Job(
            env, count, held_out, 0, False, config.seed, config.from_run, config.epsilon,
            max_pool=False, most_lanes=lanes if held_out else MOST_LANES, hold=config.hold,
            habit=config.habit, phases=True,
        )  # fmt: skip
        before = 0 if not held_out else config.frames - test

        def report(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, config.frames)

        parts.append(play_episodes(job, palette, report))
    training, held = parts
    recipe = {
        "game": name,
        "frames": {"train": sum(map(len, training)), "test": sum(map(len, held))},
        "episodes": {"train": len(training), "test": len(held)},
        "actions": action_names(env),
        "seed": config.seed,
        "policy": f"{config.from_run}, a share of {config.epsilon:g} in phases of one random "
        f"action that go on with {config.hold:g}"
        if config.from_run
        else f"random, holding an action with {config.hold:g}, habit {config.habit:g}",
        **_protocol(env),
        "split": "held-out episodes are played by lanes of their own",
    }
    return out, write_episodes(out, Episodes(training, held, palette.palette_P3, recipe))


def _protocol(env: EnvConfig) -> dict[str, Any]:
    """Return how `env` is played, for the recipe."""
    if env.env:
        return {"env": env.env, "env_config": env.env_config}
    settings = {key: value for key, value in asdict(env).items() if key not in ("game", "env")}
    return {"protocol": settings, "ale_py": importlib.metadata.version("ale-py")}


def play_episodes(
    job: Job, palette: PaletteBuilder, progress: Callable[[int], None] | None = None
) -> tuple[Episode, ...]:
    """Play about `job.count` screens of one game; returns the episodes, ordered by their ends.

    Episodes that have not ended when enough is played come last. `palette` gets the colours that
    appear. The same job always gives the same episodes.
    """
    env_rng, act_rng = job.generators()
    lanes = [_Lane() for _ in range(job.lanes)]
    episodes: list[Episode] = []
    first_seed = int(env_rng.integers(2**31 - job.lanes))
    for number, moment in enumerate(moments_of(job, first_seed, act_rng), 1):
        screen_EHW = palette.indices(moment.shown)
        for lane, (recorder, screen_HW) in enumerate(zip(lanes, screen_EHW)):
            episodes += recorder.add(screen_HW, moment, lane)
        if progress:
            progress(min(number * job.lanes, job.count))
        if number * job.lanes >= job.count:
            break
    episodes += [each for recorder in lanes for each in recorder.finish()]
    return tuple(episodes)


class _Lane:
    """Collects the screens of one lane into episodes."""

    def __init__(self) -> None:
        self._screens: list[np.ndarray] = []
        self._rows: list[tuple[int, float, bool, bool, bool]] = []
        self._over = False

    def add(self, screen_HW: np.ndarray, moment: Moment, lane: int) -> list[Episode]:
        """Add the lane's part of a moment; returns the episode that it ended, if any."""
        step = moment.step
        # The screen after an end is the first one of the next episode; its action was ignored.
        begins = step is None or moment.action_E is None or self._over
        self._over = False
        if step is None or moment.action_E is None or begins:
            row = (0, 0.0, False, False, False)
        else:
            row = (
                int(moment.action_E[lane]), float(step.reward_E[lane]),
                bool(step.life_lost_E[lane]), bool(step.terminated_E[lane]),
                bool(step.truncated_E[lane]),
            )  # fmt: skip
            self._over = row[3] or row[4]
        self._screens.append(screen_HW.copy())
        self._rows.append(row)
        return self.finish() if self._over else []

    def finish(self) -> list[Episode]:
        """Return the episode so far, if it contains a step, and begin another one."""
        screens, rows = self._screens, self._rows
        self._screens, self._rows = [], []
        if len(screens) < SHORTEST:
            return []
        screens_THW = np.stack(screens)
        columns = [
            np.array(column, kind)
            for column, kind in zip(zip(*rows), (np.uint8, np.float32, bool, bool, bool))
        ]
        return [Episode(pack(screens_THW), screens_THW.shape, *columns)]
