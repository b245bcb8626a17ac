"""The roof: one command, `genray`. The only file that may import from every room, and it does so lazily.

Exit status: 0 done, 1 a fault on the way (the message says how to resume), 2 a request that cannot be carried out.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from genray.errors import ConfigError, GenrayError
from genray.options import fail, option_value, parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        name, command, rest = _find(words)
        return command(rest, f"genray {name}")
    except GenrayError as error:
        return fail(error, error.exit_status)
    except KeyboardInterrupt:
        return fail(RuntimeError("stopped"), 130)
    except BrokenPipeError:  # `genray … | head`
        sys.stderr.close()
        return 0


def _find(words: list[str]) -> tuple[str, Callable[[list[str], str], int], list[str]]:
    """The command that the first one or two words name."""
    if not words or words[0] in ("-h", "--help", "help"):
        return "help", _help, []
    if words[0] == "--version":
        return "version", _version, []
    for count in (2, 1):
        name = " ".join(words[:count])
        if name in COMMANDS:
            return name, COMMANDS[name][0], words[count:]
    import difflib

    firsts = [name for name in COMMANDS if name.split()[0] == words[0]]
    near = firsts or difflib.get_close_matches(" ".join(words[:2]), COMMANDS, n=3, cutoff=0.3) or ["demo"]
    raise ConfigError(f"genray {' '.join(words[:2])}: no such command; did you mean {', '.join(near)}?")


def _help(argv: list[str], prog: str) -> int:
    print("usage: genray COMMAND [options]     (each command has --help)\n")
    for name, (_, text) in COMMANDS.items():
        print(f"  {name:<12} {text}")
    return 0


def _version(argv: list[str], prog: str) -> int:
    from genray import __version__

    print(f"genray {__version__}")
    return 0


# -- train dqn ---------------------------------------------------------------------------------------------------------


def train_dqn(argv: list[str], prog: str) -> int:
    from genray import config as configs
    from genray.launch import LaunchConfig, slug, train_in
    from genray.rl import presets
    from genray.rl.agent import resolve_device
    from genray.rl.config import DQNConfig
    from genray.rl.train import check_disk, check_memory
    from genray.rundir import RunDir

    @dataclass(frozen=True, kw_only=True)
    class TrainDQN:
        """Train double/dueling DQN with distributed prioritized replay (Ape-X)."""

        launch: LaunchConfig = field(default_factory=LaunchConfig)
        config: DQNConfig = field(default_factory=DQNConfig)

    resume = option_value(argv, "--resume")
    if resume is not None:
        run = RunDir.open(Path(resume))
        default = configs.load_yaml(DQNConfig, run.path / "config.yaml")
    else:
        default = presets.preset(option_value(argv, "--preset") or "dqn", option_value(argv, "--game"))
    options = parse(TrainDQN, argv, prog, default=TrainDQN(config=default))
    launch, config = options.launch, options.config
    config.validate()
    if launch.address is None:  # a cluster's GPUs and memory are not this machine's
        resolve_device(config.run.device)
        check_memory(config)
    if resume is None:
        out = launch.out or Path("runs") / f"{slug(config)}-{time.strftime('%Y%m%d-%H%M%S')}"
        check_disk(config, out)
        run = RunDir.create(out)
    train_in(run, config, launch, resumed=resume is not None)
    print(run.path)
    return 0


# -- evaluate, play ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play whole games with a trained policy and report scores under a stated protocol."""

    episodes: int = 30
    epsilon: float = 0.001
    """Exploration while evaluating; 0: greedy."""
    sticky_actions: float | None = None
    """As trained unless given; 0.25 is Machado's protocol."""
    seed: int = 10_000
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Film a policy playing, in the game's own colours."""

    out: Path
    """clip.gif or clip.mp4"""
    epsilon: float = 0.001
    seed: int = 0
    max_steps: int = 450
    """Agent steps to film at most (15 a second)."""


def evaluate(argv: list[str], prog: str) -> int:
    import json

    from genray.rl.agent import resolve_device
    from genray.rl.evaluate import evaluate as run_evaluation

    path, argv = _run_argument(argv, prog)
    options = parse(EvaluateConfig, argv, prog)
    network, env = _load_policy(path)
    if options.sticky_actions is not None:
        env = replace(env, sticky_actions=options.sticky_actions)
    env.validate()
    result = run_evaluation(
        network, env, episodes=options.episodes, epsilon=options.epsilon, seed=options.seed,
        device=resolve_device(options.device),
    )  # fmt: skip
    print(result.summary())
    print("per episode: " + " ".join(f"{score:g}" for score in result.scores))
    log = path / "evaluations.jsonl"
    with log.open("a") as stream:
        stream.write(json.dumps(result.to_dict()) + "\n")
    print(log)
    return 0


def play(argv: list[str], prog: str) -> int:
    from genray.media import check_clip_path, write_clip
    from genray.rl.evaluate import play as run_play

    path, argv = _run_argument(argv, prog)
    options = parse(PlayConfig, argv, prog)
    check_clip_path(options.out)
    network, env = _load_policy(path)
    frames, score = run_play(network, env, epsilon=options.epsilon, seed=options.seed, max_steps=options.max_steps)
    write_clip(options.out, frames, fps=15)
    print(f"score {score:g} in {len(frames)} steps")
    print(options.out)
    return 0


def _run_argument(argv: list[str], prog: str) -> tuple[Path, list[str]]:
    """The run (or model) directory in front of the options."""
    if argv and not argv[0].startswith("-"):
        return Path(argv[0]), argv[1:]
    if "-h" in argv or "--help" in argv:
        print(f"{prog} RUN [options]   RUN: a run directory, or a model directory\n")
        return Path(), argv
    raise ConfigError(f"{prog}: name a run directory first, e.g. {prog} runs/demo")


def _load_policy(path: Path):
    """(network, environment configuration) of a run's model, or of a model folder."""
    from genray import modelstore
    from genray.config import from_dict
    from genray.rl.env import EnvConfig
    from genray.rl.networks import build_network

    folder = path / "model" if (path / "model").is_dir() else path
    network, config = modelstore.load_model(folder, {"dqn": build_network})
    return network, from_dict(EnvConfig, config["env"], "env.")


# -- the rest ----------------------------------------------------------------------------------------------------------


def doctor(argv: list[str], prog: str) -> int:
    from genray.doctor import main as run_doctor

    return run_doctor()


def demo(argv: list[str], prog: str) -> int:
    from genray.demo import main as run_demo

    return run_demo(argv, prog)


COMMANDS: dict[str, tuple[Callable[[list[str], str], int], str]] = {
    "demo": (demo, "train, evaluate and film an agent on Road Runner, in minutes"),
    "train dqn": (train_dqn, "double/dueling DQN with distributed prioritized replay (Ape-X)"),
    "evaluate": (evaluate, "RUN: whole games with the trained policy, scores under a stated protocol"),
    "play": (play, "RUN --out clip.gif|mp4: film the policy"),
    "doctor": (doctor, "what is wrong with this installation, and how to mend it"),
}

if __name__ == "__main__":
    sys.exit(main())
