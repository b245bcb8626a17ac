"""The commands of the agent: train dqn, evaluate, play."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from genray.errors import require
from genray.options import folder_argument, option_value, parse


def train_dqn(argv: list[str], prog: str) -> int:
    from genray import config as configs
    from genray.commands.launch import LaunchConfig, slug, train_in
    from genray.machine import resolve_device
    from genray.rl import presets
    from genray.rl.config import DQNConfig
    from genray.rl.train import check_disk, check_memory
    from genray.runs.remote_run import checkpoint_step, create_run, open_run
    from genray.runs.rundir import RUNS, new_folder
    from genray.runs.storage import as_place

    @dataclass(frozen=True, kw_only=True)
    class TrainDQN:
        """Train double/dueling DQN with distributed prioritized replay (Ape-X)."""

        launch: LaunchConfig = field(default_factory=LaunchConfig)
        config: DQNConfig = field(default_factory=DQNConfig)

    resume = option_value(argv, "--resume")
    if resume is not None:
        for name in ("--out", "--preset"):
            value = option_value(argv, name)
            require(
                value is None, f"{name} {value}: a resumed run keeps its own; leave {name} out, or leave --resume out"
            )
        run = open_run(as_place(resume))
        default = configs.load_yaml(DQNConfig, run.path / "config.yaml")
    else:
        default = presets.preset(option_value(argv, "--preset") or "dqn", option_value(argv, "--game"))
    options = parse(TrainDQN, argv, prog, default=TrainDQN(config=default))
    launch, config = options.launch, options.config
    config.validate()
    if resume is None:
        config.check_learns()
    else:
        config.check_resumes(default)
    if resume is not None and (folders := run.list_checkpoints()) and option_value(argv, "--steps"):
        made = checkpoint_step(folders[-1])
        require(
            config.run.steps > made, f"--steps {config.run.steps}: this run has made {made:,} already; ask for more"
        )
    require(0 <= launch.wait_s < 1e6, f"--wait-s {launch.wait_s}: must be ≥ 0 seconds, e.g. 120")
    require(launch.learner_threads >= 0, f"--learner-threads {launch.learner_threads}: must be ≥ 0 (0: as many as fit)")
    require(
        not (launch.local and launch.address), f"--address {launch.address}: --local runs without Ray; leave one out"
    )
    learners = config.learner.learners
    require(not (launch.local and learners > 1), f"--learners {learners}: --local has one; leave either out")
    if learners > 1 and launch.address is None:
        import torch

        from genray.distributed.session import gpus_each

        gpus_each(config, torch.cuda.device_count())
    if launch.address is None:  # a cluster's GPUs and memory are not this machine's
        resolve_device(config.run.device)
        check_memory(config)
    if resume is None:
        out = as_place(launch.out) if launch.out else None
        if not isinstance(out, str):
            check_disk(config, out or RUNS)
        run = create_run(out or new_folder(slug(config)))
    for note in config.notes():
        print(note)
    train_in(run, config, launch, resumed=resume is not None)
    print(run.place)
    return 0


# -- evaluate, play ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Play whole games with a trained policy and report scores under a stated protocol."""

    step: int | None = None
    """Evaluate the policy of this step of the run; default: the newest."""
    episodes: int = 30
    epsilon: float = 0.001
    """Exploration while evaluating; 0: greedy."""
    sticky_actions: float | None = None
    """As trained unless given; 0.25 is Machado's protocol."""
    max_episode_frames: int | None = None
    """As trained unless given; 108000 emulator frames (30 minutes) is the published protocol's."""
    seed: int = 10_000
    device: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True, kw_only=True)
class PlayConfig:
    """Film a policy playing, in the game's own colours."""

    out: Path
    """clip.gif or clip.mp4"""
    step: int | None = None
    """Film the policy of this step of the run; default: the newest."""
    epsilon: float = 0.001
    seed: int = 0
    max_steps: int = 450
    """Agent steps to film at most (15 a second)."""


def evaluate(argv: list[str], prog: str) -> int:
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
    env.validate()
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


def play(argv: list[str], prog: str) -> int:
    import numpy as np

    from genray.media import check_clip_path, write_clip
    from genray.rl.evaluate import PlayedStep, play_steps
    from genray.rl.policy import open_policy
    from genray.threads import own_threads, user_threads

    path, argv = folder_argument(argv, prog, "RUN", "runs/demo")
    options = parse(PlayConfig, argv, prog)
    require(options.seed >= 0, f"--seed {options.seed}: must be ≥ 0, e.g. 0")
    check_clip_path(options.out)
    policy = open_policy(path, options.step)
    print(policy, flush=True)
    steps = play_steps(
        policy.network, policy.env, epsilon=options.epsilon, seed=options.seed, max_steps=options.max_steps
    )
    last: PlayedStep | None = None
    count = 0

    def frames() -> Iterator[np.ndarray]:
        nonlocal last, count
        for step in steps:
            last, count = step, count + 1
            yield step.frame

    with own_threads(user_threads() or 1):  # one lane is too little work for more
        write_clip(options.out, frames(), fps=15)
    assert last is not None
    print(f"score {last.score:g} in {count - 1} steps")  # the first frame is that of the reset
    print(options.out)
    return 0


def doctor(argv: list[str], prog: str) -> int:
    from genray.doctor import main as run_doctor

    return run_doctor()
