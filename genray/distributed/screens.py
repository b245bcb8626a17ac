"""Records the screens of one game at full size, without loss, as data for sprite models.

A screen is what the emulator shows: 160x210 pixels in the game's own colours, without the maximum
of two frames that agents see. The maximum would draw a moving sprite twice. An object that the
game shows only in every second frame (flicker) is therefore on only some of the screens.

Shapes: E lanes, N screens, H height, W width.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from genray.bounds import bounded, check_bounds, seed
from genray.distributed.frames import EVERY
from genray.distributed.played import HOLD, MOST_LANES, Job, pictures_of
from genray.errors import require
from genray.gen.data.config import DataConfig, data_folder
from genray.gen.data.screens import Screens, screens_file, write_screens
from genray.gen.data.types import TEST_SHARE
from genray.gen.data.writing import make_room
from genray.gen.sprites.palette import PaletteBuilder
from genray.rl.env import EnvConfig
from genray.rl.games import resolve_game
from genray.rl.policy import load_policy

VALIDATION = DataConfig().validation
"""Share of the training screens that are for validation."""


@dataclass(frozen=True, kw_only=True)
class ScreensConfig:
    """Record screens of a game at full size, in the game's own colours."""

    game: str = "road_runner"
    """The game. With --model, the model's own game is played instead."""
    frames: int = bounded(4000, min=50, max=100_000, example=4000)
    """Number of screens, of which a fifth is held out: it comes from other episodes."""
    seed: int = seed(0)
    model: Path | None = None
    """A run or model directory. Its policy then plays, instead of random play."""
    epsilon: float = bounded(0.05, min=0, max=1, example=0.05)
    """Probability of a random action when a policy plays."""
    every: int = bounded(EVERY, min=1, max=100, example=EVERY)
    """Of each lane, one screen in this many agent steps is recorded."""
    max_pool: bool = False
    """Record the maximum of the last two frames, as agents see it. Flickering objects are then on
    every screen, but moving sprites are drawn twice."""
    out: Path | None = None
    """File to write. Default: the file in $GENRAY_DATA or ~/.cache/genray that `--data
    screens:GAME` reads.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        if self.model is None:
            resolve_game(self.game)


def collect_screens(
    config: ScreensConfig, progress: Callable[[int, int], None] | None = None
) -> tuple[Path, Screens]:
    """Play the game and write the file; returns (the file, the screens).

    `progress` is called with (number of screens done, number of screens wanted). Raises
    ConfigError for an invalid option, CheckpointError when `config.model` contains no policy, and
    ResourceError when the file cannot be written.
    """
    config.validate()
    env = load_policy(config.model)[1] if config.model else EnvConfig(game=config.game)
    require(
        not env.env, f"--model {config.model}: plays {env.env}; screens need an Atari game's policy"
    )
    out = config.out or screens_file(data_folder(), env.title)
    make_room(out)
    test = round(config.frames * TEST_SHARE)
    palette = PaletteBuilder(f"--game {env.title}")
    parts: list[np.ndarray] = []
    # Held-out lanes play as many steps as training lanes, so that both see the same levels.
    lanes = max(1, round(MOST_LANES * TEST_SHARE / (1 - TEST_SHARE)))
    for held_out, count in ((False, config.frames - test), (True, test)):
        job = Job(
            env, count, held_out, 0, False, config.seed, config.model, config.epsilon,
            max_pool=config.max_pool, most_lanes=lanes if held_out else MOST_LANES,
        )  # fmt: skip
        before = sum(len(part) for part in parts)

        def report(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, config.frames)

        parts.append(play_screens(job, palette, config.every, report))
    held_out_N = np.arange(config.frames) >= config.frames - test
    recipe = {
        "game": env.title,
        "frames": {"train": config.frames - test, "test": test},
        "seed": config.seed,
        "policy": f"{config.model}, ε {config.epsilon:g}"
        if config.model
        else f"random, holding an action with {HOLD:g}",
        "every": config.every,
        "max_pool": config.max_pool,
        "protocol": {
            key: value for key, value in asdict(env).items() if key not in ("game", "env")
        },
        "ale_py": importlib.metadata.version("ale-py"),
        "split": "held-out screens are from episodes of their own",
    }
    screens = Screens(np.concatenate(parts), palette.palette_P3, held_out_N, recipe)
    write_screens(out, screens)
    return out, screens


def play_screens(
    job: Job, palette: PaletteBuilder, every: int, progress: Callable[[int], None] | None = None
) -> np.ndarray:
    """Return `job.count` screens of one game as palette indices, uint8 [N, H, W], in the order of
    `validation_last`.

    `palette` gets the colours that appear. The same job always gives the same screens.
    """
    env_rng, act_rng = job.generators()
    lanes, kept = job.lanes, 0
    steps = -(-job.count // lanes)
    parts: list[np.ndarray] = []
    first_seed = int(env_rng.integers(2**31 - lanes))
    for step, picture_ECHW in enumerate(pictures_of(job, first_seed, act_rng)):
        if step % every:
            continue
        parts.append(palette.indices(np.moveaxis(picture_ECHW, 1, 3)))
        kept += lanes
        if progress:
            progress(min(kept, job.count))
        if len(parts) == steps:
            break
    order_N = validation_last(steps, lanes)
    return np.concatenate(parts)[order_N[order_N < job.count]]


def validation_last(steps: int, lanes: int) -> np.ndarray:
    """Return an order of screens in which those that are good for validation come last, int64 [N].

    Row s·`lanes` + e is step s of lane e. The validation split is the last tenth of the training
    rows. A tenth of each lane is put there, from the end of the first lane to the start of the last
    one, because an agent reaches other levels of a game late in an episode. The screens of each
    lane's part are consecutive, so few of them have neighbours that are trained on.
    """
    part = round(steps * VALIDATION)
    start_E = np.linspace(steps - part, 0, lanes).round()
    step_SE = np.arange(steps)[:, None]
    late_SE = (step_SE >= start_E) & (step_SE < start_E + part)
    return np.argsort(late_SE.ravel(), kind="stable")
