"""`genray evaluate` and `genray play`: score a trained agent, and film it."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from genray.errors import require
from genray.options import folder_argument, parse

if TYPE_CHECKING:
    from genray.rl.env import EnvConfig
    from genray.rl.networks import QNetwork


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play whole games with a trained policy and report scores under a stated protocol."""

    step: int | None = None
    """Evaluate the policy of this step of the run; default: the newest."""
    episodes: int = 30
    """Number of games."""
    epsilon: float = 0.001
    """Exploration rate during evaluation; 0: greedy."""
    sticky_actions: float | None = None
    """Probability to repeat the last action; default: as in training. 0.25 is Machado's
    protocol.
    """
    max_episode_frames: int | None = None
    """Emulator frames after which an episode is cut off; default: as in training. The published
    protocol has 108000 (30 minutes).
    """
    game: str = ""
    """Play this Atari game instead of the training's environment: an agent that was trained in a
    dream (--env dream:MODEL) plays the real game."""
    env: str = ""
    """Play this environment instead of the training's, e.g. dream:MODEL."""
    seed: int = 10_000
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Film a policy playing, in the game's own colours, or as the environment draws itself."""

    out: Path
    """clip.gif or clip.mp4"""
    step: int | None = None
    """Film the policy of this step of the run; default: the newest."""
    epsilon: float = 0.001
    """Exploration rate; 0: greedy."""
    seed: int = 0
    max_steps: int = 450
    """Largest number of agent steps to film (15 a second)."""
    dream: bool = False
    """The model is a world model (`genray train world`): film a real game beside a dream, from the
    same first screens and with the same actions."""
    policy: Path | None = None
    """With --dream: the run whose policy plays the real game; default: random play."""


def evaluate(argv: list[str], prog: str) -> int:
    """Run `genray evaluate`; returns the exit status."""
    import json

    from genray.machine import resolve_device
    from genray.rl.evaluate import evaluate as run_evaluation
    from genray.rl.evaluation import EvaluationProgress, EvaluationStopped
    from genray.rl.policy import open_policy
    from genray.runs.stop import StopRequests
    from genray.threads import choose_threads, own_threads

    path, argv = folder_argument(argv, prog, "RUN", "runs/demo")
    options = parse(EvaluateConfig, argv, prog)
    require(options.seed >= 0, f"--seed {options.seed}: must be ≥ 0, e.g. 10000")
    policy = open_policy(path, options.step)
    given = {name: getattr(options, name) for name in ("sticky_actions", "max_episode_frames")}
    env = replace(policy.env, **{name: value for name, value in given.items() if value is not None})
    env = other_env(env, options)
    env.validate()
    if options.game or options.env:
        check_fits(policy.network, env)
    print(policy, flush=True)
    with own_threads(choose_threads()), StopRequests() as stop:
        try:
            result = run_evaluation(
                policy.network, env, episodes=options.episodes, epsilon=options.epsilon,
                seed=options.seed, device=resolve_device(options.device),
                progress=EvaluationProgress(env, lambda line: print(line, flush=True), stop.check),
            )  # fmt: skip
        except EvaluationStopped as stopped:
            result = stopped.result
    print(result.summary())
    print("per episode: " + " ".join(f"{score:g}" for score in result.scores))
    log = path / "evaluations.jsonl"
    with log.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"step": policy.step, **result.to_dict()}) + "\n")
    print(log)
    if result.stopped:
        raise KeyboardInterrupt
    return 0


def other_env(env: "EnvConfig", options: EvaluateConfig) -> "EnvConfig":
    """Return `env` with the game or the environment of the options, if one is given."""
    from genray.distributed.dream_env import resolve_dream

    require(
        not (options.game and options.env),
        f"--env {options.env}: with --game {options.game}, leave one of the options out",
    )
    if options.game:
        return replace(env, game=options.game, env="", env_config="")
    return resolve_dream(replace(env, env=options.env, env_config="")) if options.env else env


def check_fits(network: "QNetwork", env: "EnvConfig") -> None:
    """Raise ConfigError if a policy cannot play an environment."""
    from genray.rl.engine import probe_env

    num_actions = probe_env(env).num_actions
    require(
        network.observation is None and num_actions == network.num_actions,
        f"{env.title}: has {num_actions} actions, and the policy {network.num_actions}; choose the "
        "game of its training",
    )


def play(argv: list[str], prog: str) -> int:
    """Run `genray play`; returns the exit status."""
    import numpy as np

    from genray.commands.world import play_dream, refuse_dream_options
    from genray.media import check_clip_path, write_clip
    from genray.rl.evaluate import play_steps
    from genray.rl.film import enlargement
    from genray.rl.policy import open_policy
    from genray.threads import own_threads, user_threads

    path, argv = folder_argument(argv, prog, "RUN", "runs/demo")
    options = parse(PlayConfig, argv, prog)
    require(options.seed >= 0, f"--seed {options.seed}: must be ≥ 0, e.g. 0")
    check_clip_path(options.out)
    refuse_dream_options(options)
    if options.dream:
        return play_dream(path, options)
    policy = open_policy(path, options.step)
    print(policy, flush=True)
    steps = play_steps(
        policy.network,
        policy.env,
        epsilon=options.epsilon,
        seed=options.seed,
        max_steps=options.max_steps,
    )
    # The first frame is the frame of the reset, before any step.
    count, score = -1, 0.0

    def frames() -> Iterator[np.ndarray]:
        nonlocal count, score
        for step in itertools.chain([first], steps):
            count, score = count + 1, step.score
            yield step.frame

    # A single environment has too little work for several threads.
    with own_threads(user_threads() or 1):
        first = next(steps)
        write_clip(options.out, frames(), fps=15, scale=enlargement(first.frame))
    print(f"score {score:g} in {count} steps")
    print(options.out)
    return 0
