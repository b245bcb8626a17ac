"""Makes a data set of game frames: plays games, drops repeated frames, and labels frames by game.

The file (safetensors, read by gen/data/sources.py) contains `frames` uint8 [N, C, H, W], `label`
int64 [N], `held_out` bool [N], and as metadata the recipe, which describes how the data set was
made. A job plays either the training or the held-out frames of one game, with its own random
numbers, so the result does not depend on the number of workers. Held-out frames come from separate
episodes, because neighbouring frames of an episode are nearly equal.

Shapes: E lanes, N frames, C channels, H height, W width.
"""

import hashlib
import importlib.metadata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genray.bounds import bounded, check_bounds, seed
from genray.distributed.played import HOLD, Job, pictures_of
from genray.errors import ConfigError, RunFault, require
from genray.gen.data.config import data_folder
from genray.gen.data.sources import atari_file, resize
from genray.gen.data.types import TEST_SHARE
from genray.gen.data.writing import make_room, write_tensors
from genray.rl.env import EnvConfig
from genray.rl.games import resolve_game
from genray.rl.policy import load_policy

EVERY = 4
"""Of each lane, one frame in EVERY agent steps is used, because neighbouring frames are nearly
equal.
"""
MOST_PLAYED = 20
"""A job stops after about this many frames examined per wanted frame. A game whose frames repeat
often then gets fewer frames.
"""

Progress = Callable[[int, int], None]
"""Called with (number of frames done, number of frames wanted)."""


@dataclass(frozen=True, kw_only=True)
class FramesConfig:
    """Which frames a data set contains, and how the games are played."""

    games: tuple[str, ...] = ("breakout", "seaquest", "pong", "road_runner")
    """The games, each of which is a class; separated by spaces or commas."""
    frames: int = 20_000
    """Number of different frames of all games together, of which a fifth is held out. The data set
    may have fewer: held-out frames that equal a training frame are removed, and a game may repeat
    its frames.
    """
    size: int = bounded(32, min=8, max=210, example=32)
    """Side of the square frames in pixels."""
    grey: bool = False
    """Make grey frames, as agents see them, instead of frames in the game's colours."""
    seed: int = seed(0)
    model: Path | None = None
    """A run or model directory. Its policy then plays its own game, instead of random play."""
    epsilon: float = bounded(0.05, min=0, max=1, example=0.05)
    """Probability of a random action when a policy plays."""
    workers: int = bounded(1, min=1, max=256)
    """Number of processes that play; if there are several, they are Ray actors."""
    out: Path | None = None
    """File to write. Default: the file in $GENRAY_DATA or ~/.cache/genray that `--data atari`
    reads.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.model is not None or len(self.names) >= 1,
            "--games: name one at least, e.g. breakout,seaquest",
        )
        least = 10 if self.model else 10 * len(self.names)
        require(self.frames >= least, f"--frames {self.frames}: must be ≥ {least}, ten a game")
        if self.model is None:
            for name in self.names:
                _game(name)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the games, after splitting `games` at commas."""
        return tuple(name for entry in self.games for name in entry.split(",") if name.strip())


def collect_frames(
    config: FramesConfig, progress: Progress | None = None
) -> tuple[Path, dict[str, Any]]:
    """Play games and write the data set, completely or not at all; return (the file, its recipe).

    Raises ConfigError for an invalid option, CheckpointError when `config.model` contains no
    policy, ResourceError when the file cannot be written, and RunFault when a worker dies.
    """
    config.validate()
    out = config.out or atari_file(data_folder(), config.size, config.grey)
    make_room(out)
    policy = load_policy(config.model) if config.model else None
    require(
        policy is None or policy[0].observation is None,
        f"--model {config.model}: its environment returns no grey frames; leave it out: --games",
    )
    envs = [policy[1]] if policy else [EnvConfig(game=_game(name)) for name in config.names]
    envs = list({env.title: env for env in envs}.values())  # a game given twice is one class
    require(
        config.grey or not any(env.env for env in envs),
        f"--model {config.model}: its environment has no colours: --grey",
    )
    common = (config.size, config.grey, config.seed, config.model, config.epsilon)
    jobs = [
        Job(env, count, held_out, *common)
        for index, env in enumerate(envs)
        for held_out, count in _shares(config.frames, len(envs), index)
    ]
    played = list(
        _play_on_ray(jobs, config.workers, progress)
        if config.workers > 1
        else _play_here(jobs, progress)
    )
    frames, label, held_out = merge(
        [(number // 2, job.held_out, part) for number, (job, part) in enumerate(zip(jobs, played))]
    )
    games = [env.title for env in envs]
    recipe = {
        "games": games,
        "frames": {
            game: {
                part: int(((label == number) & (held_out == (part == "test"))).sum())
                for part in ("train", "test")
            }
            for number, game in enumerate(games)
        },
        "size": config.size,
        "colours": "grey" if config.grey else "RGB",
        "seed": config.seed,
        "policy": f"{config.model}, ε {config.epsilon:g}"
        if config.model
        else f"random, holding an action with {HOLD:g}",
        "every": EVERY,
        "lanes": jobs[0].lanes,
        "protocol": {
            key: value for key, value in asdict(envs[0]).items() if key not in ("game", "env")
        },
        "ale_py": importlib.metadata.version("ale-py"),
        "split": "held-out frames are from episodes of their own and are no training frame",
    }
    tensors = {"frames": np.ascontiguousarray(frames), "label": label, "held_out": held_out}
    write_tensors(out, tensors, recipe)
    return out, recipe


def merge(
    parts: Iterable[tuple[int, bool, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Join parts (label, held_out, frames) into arrays (frames, label, held_out), each frame once.

    Training parts come first, so a held-out frame that equals a training frame is removed. A frame
    that two games have in common (such as a blank screen) gets the first game's label.
    """
    frames: list[np.ndarray] = []
    label: list[int] = []
    held_out: list[bool] = []
    seen: set[bytes] = set()
    for number, test, part in sorted(parts, key=lambda part: (part[1], part[0])):
        for frame in part:
            if _is_new(frame, seen):
                frames.append(frame)
                label.append(number)
                held_out.append(test)
    return np.stack(frames), np.array(label, np.int64), np.array(held_out, bool)


def play_frames(job: Job, progress: Callable[[int], None] | None = None) -> np.ndarray:
    """Return different frames of one game, uint8 [N, C, size, size] with N ≤ `job.count`.

    The same job always gives the same frames.
    """
    env_rng, act_rng = job.generators()
    seen: set[bytes] = set()
    kept: list[np.ndarray] = []
    looked_at = 0
    for step, picture_ECHW in enumerate(
        pictures_of(job, int(env_rng.integers(2**31 - job.lanes)), act_rng)
    ):
        if step % EVERY:
            continue
        kept += [frame.copy() for frame in resize(picture_ECHW, job.size) if _is_new(frame, seen)]
        looked_at += len(picture_ECHW)
        if progress:
            progress(min(len(kept), job.count))
        if len(kept) >= job.count or looked_at >= MOST_PLAYED * job.count + 100 * job.lanes:
            break
    return np.stack(kept[: job.count])


# -- playing ---------------------------------------------------------------------------------------


def _play_here(jobs: Sequence[Job], progress: Progress | None) -> Iterator[np.ndarray]:
    wanted, before = sum(job.count for job in jobs), 0
    for job in jobs:

        def report(done: int, before: int = before) -> None:
            if progress:
                progress(before + done, wanted)

        yield play_frames(job, report)
        before += job.count
    if progress:
        progress(wanted, wanted)


def _play_on_ray(jobs: Sequence[Job], workers: int, progress: Progress | None) -> list[np.ndarray]:
    """Play the jobs with at most `workers` actors, the largest job first; return the frames of each
    job, in the order of `jobs`.
    """
    import ray
    from ray.exceptions import RayError

    from genray.distributed.coordinator import ray_session
    from genray.distributed.waiting import waits_explained

    with ray_session(), waits_explained("--workers"):
        available = ray.cluster_resources().get("CPU", 1)
        workers = min(workers, len(jobs))
        actors = [
            ray.remote(FramesActor).options(num_cpus=min(1.0, available / workers)).remote()
            for _ in range(workers)
        ]
        try:
            waiting = sorted(range(len(jobs)), key=lambda number: -jobs[number].count)
            playing: dict[Any, tuple[int, Any]] = {}
            played: dict[int, np.ndarray] = {}
            idle = list(actors)
            while len(played) < len(jobs):
                # Give every idle worker the largest waiting job, then wait for one job to finish.
                while idle and waiting:
                    actor, number = idle.pop(), waiting.pop(0)
                    playing[actor.play.remote(jobs[number])] = (number, actor)
                for reference in ray.wait(list(playing), num_returns=1)[0]:
                    number, actor = playing.pop(reference)
                    played[number] = np.array(ray.get(reference))
                    idle.append(actor)
                if progress:
                    progress(
                        sum(jobs[number].count for number in played), sum(job.count for job in jobs)
                    )
            return [played[number] for number in range(len(jobs))]
        except RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise RunFault(
                f"a worker that played frames died ({reason}); nothing was written: run again"
            ) from error
        finally:
            for actor in actors:
                ray.kill(actor)


class FramesActor:
    """Plays one job after another in its own process."""

    def __init__(self) -> None:
        import torch

        torch.set_num_threads(1)

    def play(self, job: Job) -> np.ndarray:
        """Play one job, and return its frames (see `play_frames`)."""
        return play_frames(job)


def _game(name: str) -> str:
    try:
        return resolve_game(name)
    except ConfigError as error:
        raise ConfigError(str(error).replace("--game ", "--games ", 1)) from None


def _shares(frames: int, games: int, index: int) -> list[tuple[bool, int]]:
    """Return [(held_out, number of frames)] for the two jobs of the game `index`: its even part of
    `frames`, of which a fifth is held out.
    """
    count = (frames + games - 1 - index) // games
    test = round(count * TEST_SHARE)
    return [(False, count - test), (True, test)]


def _is_new(frame: np.ndarray, seen: set[bytes]) -> bool:
    key = hashlib.blake2b(frame.tobytes(), digest_size=16).digest()
    if key in seen:
        return False
    seen.add(key)
    return True
