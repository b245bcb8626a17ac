"""`genray train dqn`: starts the engine, trains in a run directory, and prints how to resume."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from genray import config as configs
from genray.bounds import bounded, check_bounds
from genray.console import shell_command
from genray.errors import GenrayError, UsageError, disk_error, require
from genray.machine import resolve_device
from genray.options import option_value, parse
from genray.paths import PathOrUrl
from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.columns import columns_of
from genray.rl.config import DQNConfig, RunConfig
from genray.rl.engine import Engine, probe_env
from genray.rl.evaluate import Evaluation
from genray.rl.train import Trainer, check_disk, check_memory, milestones
from genray.runs.live import Live
from genray.runs.remote_run import checkpoint_step, create_run, open_run
from genray.runs.rundir import RUNS, RunDir, new_folder
from genray.runs.storage import Place, as_place
from genray.threads import free_cores, user_threads


@dataclass(frozen=True, kw_only=True)
class LaunchConfig:
    """Options of a DQN training on the run directory, the engine and the cluster."""

    preset: str = "dqn"
    """A named configuration: dqn, road_runner_quick, road_runner, pong_quick, apex_breakout,
    dqn_nature, rainbow, der, drq_eps, bbf, bbf_lite, btr, r2d2, r2d2_lite, catch, blind_catch,
    cartpole, acrobot, lunar_lander, minigrid, doorkey, minatar. Other options change it.
    """
    out: PathOrUrl | None = None
    """The run directory; new or empty. Default: runs/NAME-TIME. On a cluster: a directory on a disk
    that every machine shares, or a URL (s3://BUCKET/NAME, gs://…, file:///…).
    """
    resume: PathOrUrl | None = None
    """Continue this run from its newest checkpoint; other options change its configuration."""
    local: bool = False
    """Run the same algorithm in one process, without Ray."""
    address: str | None = None
    """A Ray cluster to run on: `auto` or HOST:PORT; default: a private Ray on this machine."""
    wait_s: float = bounded(120.0, min=0, note="seconds", example=120)
    """With --address: seconds to wait until the cluster has resources for every actor; after that
    the run is refused.
    """
    learner_threads: int = bounded(0, min=0, note="(0: as many as fit)")
    """PyTorch threads of each learner on a CPU. 0: OMP_NUM_THREADS if set; otherwise the free
    cores (without --local, minus half a core for each collector) divided among the learners; one
    thread for a small network.
    """

    def validate(self, config: DQNConfig) -> None:
        """Raise ConfigError for options that are invalid or do not suit `config`, ResourceError if
        this machine has fewer GPUs than learners that need one.
        """
        check_bounds(self)
        require(
            not (self.local and self.address),
            f"--address {self.address}: --local runs without Ray; leave one of the options out",
        )
        learners = config.learner.learners
        require(
            not (self.local and learners > 1),
            f"--learners {learners}: --local has one learner; leave one of the options out",
        )
        if learners > 1 and self.address is None:
            import torch

            from genray.distributed.session import gpus_each

            gpus_each(config, torch.cuda.device_count())

    def resume_command(self, run: Place) -> str:
        """Return the command that continues `run`."""
        place = ["--address", self.address] if self.address else ["--local"] * self.local
        return shell_command("genray", "train", "dqn", "--resume", run, *place)


BYTES_BESIDE_OBSERVATION = 21
"""Bytes of a stored transition for action, age, horizon, return, discount and priority (see
genray/rl/replay.py).
"""


def storage_note(config: DQNConfig) -> list[str]:
    """Return a line with the bytes of a stored transition, for an environment other than Atari."""
    if not config.env.env:
        return []
    height, width = probe_env(config.env).frame_shape
    each, capacity = height * width + BYTES_BESIDE_OBSERVATION, config.replay.capacity
    packed = ", before compression" if config.replay.replay_store == "lz4" else ""
    return [
        f"replay: {each:,} bytes for each transition, {height * width:,} of them its observation; "
        f"{capacity:,} transitions: {each * capacity / 1e6:,.1f} MB{packed}"
    ]


def slug(config: DQNConfig) -> str:
    """Return the run's name in file names."""
    return "dqn-" + config.env.title.rpartition(":")[2].replace("/", "-").lower()


@contextmanager
def open_engine(
    config: DQNConfig, launch: LaunchConfig, place: Place | None = None
) -> Iterator[Engine]:
    """Yield the engine that `launch` selects; start or join Ray if the engine needs it.

    The engine and Ray are closed at the end. On a cluster, every machine must be able to access
    `place`, the run directory. Raises ResourceError if the machines do not have what `config`
    needs.
    """
    if launch.local:
        agent = LocalAgent(config, launch.learner_threads)
        try:
            yield agent
        finally:
            agent.close()
        return
    from genray.distributed.coordinator import Coordinator
    from genray.distributed.session import ray_session

    threads = launch.learner_threads or user_threads()
    # Free cores are counted before Ray's processes use the CPU.
    free = None if threads or launch.address else free_cores()
    with ray_session(launch.address):
        if launch.address and place is not None:
            from genray.distributed.preflight import await_roles, check_machines

            await_roles(config, launch.address, launch.wait_s)
            check_machines(place, launch.address, config.env.env)
        coordinator = Coordinator(config, threads or None, free_cores=free)
        try:
            yield coordinator
        finally:
            coordinator.close()


def if_head_is_lost(settings: RunConfig, start_step: int | None, resume_command: str) -> str:
    """Return one line that says how to continue the run if the head node fails.

    `start_step`: the step of the checkpoint from which the run is resumed; None for a new run,
    which cannot be continued before its first checkpoint.
    """
    if start_step is not None:
        return f"if the head node fails, continue with: {resume_command}"
    first = next(milestones(0, settings.steps, settings.evaluate_every, settings.checkpoint_every))
    if first < settings.steps:
        return (
            f"if the head node fails, continue with: {resume_command} (its first checkpoint comes "
            f"at step {first:,})"
        )
    return (
        "if the head node fails, the run is lost: it writes no checkpoint before its end "
        "(--checkpoint-every N makes some)"
    )


def train_in(run: RunDir, config: DQNConfig, launch: LaunchConfig, *, resumed: bool) -> Evaluation:
    """Train in `run`, from its newest checkpoint if `resumed`. Returns the last evaluation.

    A new run directory without a checkpoint is removed after a UsageError, and after another error
    of genray, an OSError or Ctrl-C if training has not begun.
    """
    with run:
        try:
            checkpoint = run.latest_checkpoint() if resumed else None
            with open_engine(config, launch, run.place) as engine:
                if checkpoint:
                    episodes_go_on = engine.load(checkpoint)
                    print(
                        f"resuming from {checkpoint}"
                        + "; lanes begin new episodes" * (not episodes_go_on)
                    )
                start = checkpoint_step(checkpoint) if checkpoint else None
                # This line is printed before training: if the head node fails, Ray ends this
                # process without a message.
                if launch.address:
                    print(if_head_is_lost(config.run, start, launch.resume_command(run.place)))
                configs.save_yaml(config, run.path / "config.yaml")
                with Live(
                    config.env.title, config.run.steps, columns_of(config), "agent steps"
                ) as live:
                    trainer = Trainer(config, engine, run, live, launch.resume_command(run.place))
                    return trainer.run(start)
        except BaseException as error:
            # Remove a new run without results. After Ctrl-C, print how to continue, or where the
            # metrics are.
            if not resumed and not run.list_checkpoints():
                if isinstance(error, GenrayError | KeyboardInterrupt | OSError):
                    # A refused request leaves nothing, even if collectors had begun to play.
                    run.discard(begun=isinstance(error, UsageError))
                if isinstance(error, KeyboardInterrupt) and run.began:
                    print(
                        "stopped before its first checkpoint; the metrics so far are in "
                        f"{run.place}"
                    )
                if isinstance(error, OSError):
                    raise disk_error(run.place, error) from error
            elif isinstance(error, KeyboardInterrupt):
                print(f"stopped; continue with: {launch.resume_command(run.place)}")
            raise


@dataclass(frozen=True, kw_only=True)
class _TrainDQN:
    """Train double/dueling DQN with distributed prioritized replay (Ape-X)."""

    launch: LaunchConfig = field(default_factory=LaunchConfig)
    config: DQNConfig = field(default_factory=DQNConfig)


def train_dqn(argv: list[str], prog: str) -> int:
    """Run `genray train dqn`; returns the exit status."""
    # The options change the configuration of a resumed run, or a preset.
    resumed = _resumed_run(argv)
    if resumed is not None:
        default = configs.load_yaml(DQNConfig, resumed.path / "config.yaml")
    else:
        default = presets.preset(
            option_value(argv, "--preset") or "dqn", option_value(argv, "--game")
        )
    options = parse(_TrainDQN, argv, prog, default=_TrainDQN(config=default))
    launch, config = options.launch, options.config
    if config.env.env.startswith("dream:"):
        from genray.distributed.dream_env import resolve_dream

        config = replace(config, env=resolve_dream(config.env))
    # Check everything before the run directory is created.
    config.validate()
    if resumed is None:
        config.check_learns()
    else:
        config.check_resumes(default)
        _check_more_steps(resumed, config, argv)
    launch.validate(config)
    # On a cluster, the device and memory of this machine do not matter.
    if launch.address is None:
        resolve_device(config.run.device)
        check_memory(config)
    # Create the run directory, then train.
    run = resumed or _new_run(launch, config)
    for note in [*config.notes(), *storage_note(config)]:
        print(note)
    train_in(run, config, launch, resumed=resumed is not None)
    print(run.place)
    return 0


def _resumed_run(argv: list[str]) -> RunDir | None:
    """Open the run of --resume; None without the option."""
    resume = option_value(argv, "--resume")
    if resume is None:
        return None
    for name in ("--out", "--preset"):
        value = option_value(argv, name)
        require(
            value is None,
            f"{name} {value}: a resumed run keeps its value; leave {name} out, or leave "
            "--resume out",
        )
    return open_run(as_place(resume))


def _check_more_steps(run: RunDir, config: DQNConfig, argv: list[str]) -> None:
    """Raise ConfigError if --steps is not more than the steps of the newest checkpoint."""
    if option_value(argv, "--steps") and (folders := run.list_checkpoints()):
        made = checkpoint_step(folders[-1])
        require(
            config.run.steps > made,
            f"--steps {config.run.steps}: the run has already made {made:,} steps; give a larger "
            "number",
        )


def _new_run(launch: LaunchConfig, config: DQNConfig) -> RunDir:
    """Create the run directory, if its disk has enough space."""
    out = as_place(launch.out) if launch.out else None
    if not isinstance(out, str):
        check_disk(config, out or RUNS)
    return create_run(out or new_folder(slug(config)))
