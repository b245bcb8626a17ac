"""`genray train FAMILY`, for all families but dqn: one training function for all of them."""

from dataclasses import dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

from genray import config as configs
from genray.console import shell_command
from genray.errors import UsageError, require
from genray.gen.families import FAMILIES, Family, open_fit
from genray.gen.images import vgg
from genray.gen.images.features import choose_features
from genray.gen.training.fit import Fit
from genray.gen.training.optimizers import OptimizerConfig, is_learned
from genray.gen.training.run import FitRun, columns
from genray.options import given, option_value, parse
from genray.paths import absolute_paths
from genray.runs.live import Live
from genray.runs.rundir import RunDir, new_folder


@dataclass(frozen=True, kw_only=True)
class TrainLaunch:
    """Options of a training on the run directory, the workers and the cluster."""

    preset: str = ""
    """A named configuration; other options change it. Empty: ae_digits, vae_mnist5k, gan_mnist5k,
    sprites, pix2pix_grey, cyclegan_small, classifier_digits, style_fast or optimizer_quadratics;
    with other --data, vae_digits, gan_digits or optimizer_digits.
    """
    out: Path | None = None
    """The run directory; new or empty. Default: runs/NAME-TIME."""
    resume: Path | None = None
    """Continue this run from its newest checkpoint; other options change its configuration."""
    workers: int = 1
    """Data-parallel workers that share each batch, started by Ray Train; 1: train in this process,
    without Ray.
    """
    address: str | None = None
    """With --workers: a Ray cluster to run on, `auto` or HOST:PORT; default: a private Ray on this
    machine.
    """


def train_ae(argv: list[str], prog: str) -> int:
    """Run `genray train ae`; returns the exit status."""
    return _train("ae", argv, prog)


def train_vae(argv: list[str], prog: str) -> int:
    """Run `genray train vae`; returns the exit status."""
    return _train("vae", argv, prog)


def train_gan(argv: list[str], prog: str) -> int:
    """Run `genray train gan`; returns the exit status."""
    return _train("gan", argv, prog)


def train_sprites(argv: list[str], prog: str) -> int:
    """Run `genray train sprites`; returns the exit status."""
    return _train("sprites", argv, prog)


def train_pix2pix(argv: list[str], prog: str) -> int:
    """Run `genray train pix2pix`; returns the exit status."""
    return _train("pix2pix", argv, prog)


def train_cyclegan(argv: list[str], prog: str) -> int:
    """Run `genray train cyclegan`; returns the exit status."""
    return _train("cyclegan", argv, prog)


def train_world(argv: list[str], prog: str) -> int:
    """Run `genray train world`; returns the exit status."""
    return _train("world", argv, prog)


def train_classifier(argv: list[str], prog: str) -> int:
    """Run `genray train classifier`; returns the exit status."""
    return _train("classifier", argv, prog)


def train_style(argv: list[str], prog: str) -> int:
    """Run `genray train style`; returns the exit status."""
    return _train("style", argv, prog)


def train_optimizer(argv: list[str], prog: str) -> int:
    """Run `genray train optimizer`; returns the exit status."""
    return _train("optimizer", argv, prog)


def _train(name: str, argv: list[str], prog: str) -> int:
    """Train the family `name` in a new run, or in the run of --resume."""
    launch, config = _options(name, FAMILIES[name], argv, prog)
    run = RunDir.open(launch.resume) if launch.resume else None
    train_in(
        run or _new_run(name, config, launch.out), name, config, launch, resumed=run is not None
    )
    return 0


def _options(name: str, family: Family, argv: list[str], prog: str) -> tuple[TrainLaunch, Any]:
    """Read and check the options. Returns (the launch options, the configuration)."""
    # The options change a preset, or the configuration of a resumed run.
    resume = option_value(argv, "--resume")
    default: Any
    if resume is not None:
        default = configs.load_yaml(family.config, RunDir.open(Path(resume)).path / "config.yaml")
    else:
        default = family.preset(option_value(argv, "--preset"), option_value(argv, "--data"))
        # A Gaussian decoder models grey pixels, which a preset may binarise for its own decoder.
        grey = option_value(argv, "--likelihood") not in (None, "bernoulli")
        if grey and hasattr(default.model, "binarise"):
            default = replace(default, model=replace(default.model, binarise="none"))
    launch: type = TrainLaunch
    if name == "world":
        from genray.commands.world import WorldLaunch, with_episodes

        launch = WorldLaunch
    both: Any = make_dataclass(
        "Train",
        [
            ("launch", launch, field(default_factory=launch)),
            ("config", family.config),
        ],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = f"Train {family.about}. Presets: {', '.join(family.presets)}."
    options = parse(both, argv, prog, default=both(config=default))
    config: Any = options.config
    if name == "world" and resume is None:
        config = with_episodes(options.launch, config)
    # The steps of a preset or of a resumed run would override --epochs.
    if given(argv, "--epochs") and not given(argv, "--steps"):
        config = replace(config, fit=replace(config.fit, steps=0))
    config.validate()
    if resume is not None:
        _check_resumes(default, config)
    if getattr(config, "features", "") == "auto":
        config = replace(config, features=_features_of_auto(resumed=resume is not None))
    _refuse_idle(config, argv)
    require(options.launch.workers >= 1, f"--workers {options.launch.workers}: must be ≥ 1, e.g. 1")
    return options.launch, config


def _features_of_auto(*, resumed: bool) -> str:
    """Return the name of the features that `--features auto` stands for.

    config.yaml records the name, so that a resumed run has the same features on every machine.
    Runs of older versions recorded "auto"; they had vgg19 if its file was cached, else untrained.
    """
    if resumed:
        return "vgg19" if vgg.cached_file().exists() else "untrained"
    return choose_features(print)


def _refuse_idle(config: Any, argv: list[str]) -> None:
    """Raise ConfigError for an option on the command line that another option makes useless.

    Checked are the optimizer's options with --lbfgs, --patience without validation rows, and
    --decoder-std with a Bernoulli decoder.
    """
    if getattr(config.model, "lbfgs", False):
        for name in ("--" + each.name.replace("_", "-") for each in fields(OptimizerConfig)):
            require(
                not given(argv, name),
                f"{name}: --lbfgs takes no such option; leave it out, or give --no-lbfgs",
            )
    if is_learned(config.optimizer.optimizer):
        for name in ("--learning-rate", "--discriminator-learning-rate"):
            require(
                not given(argv, name),
                f"{name}: a learned optimizer has no learning rate; leave it out, or scale the "
                "updates with --learned-scale",
            )
    if given(argv, "--patience") or given(argv, "--validation"):
        require(
            not config.fit.patience or config.data.validation > 0,
            f"--patience {config.fit.patience}: needs held-out rows, and --validation is 0; give "
            "e.g. --validation 0.1, "
            "or --patience 0",
        )
    if given(argv, "--decoder-std"):
        require(
            config.model.likelihood == "gaussian" or not config.model.decoder_std,
            f"--decoder-std {config.model.decoder_std:g}: a {config.model.likelihood} decoder has "
            "no such number; give --likelihood gaussian, too",
        )
    if given(argv, "--least-std"):
        require(
            config.model.likelihood == "gaussian-diagonal",
            f"--least-std {config.model.least_std:g}: a {config.model.likelihood} decoder has no "
            "such limit; give --likelihood gaussian-diagonal, too",
        )


def _notes(fit: Fit, config: Any) -> list[str]:
    """Return one line for each option without effect because the run is too short."""
    notes, steps = [], fit.total_steps()
    warm, updates = config.optimizer.warmup_updates, steps // config.fit.accumulate
    if warm > updates:
        notes.append(
            f"note: --warmup-updates {warm:,} is longer than a stage of {updates:,} updates, so "
            "the learning rate does not reach its value"
        )
    validations = -(-steps // (config.fit.validate_every or fit.steps_an_epoch(len(fit.train))))
    if config.fit.patience >= validations:
        notes.append(
            f"note: a stage has {validations} validations, so --patience {config.fit.patience} "
            "cannot stop it early"
        )
    return notes


FIXED = ("data", "model")
"""Parts that a resumed run cannot change, except some options of the data (`_check_resumes`)."""
FIXED_OF_FAMILY = (
    "loss", "method", "style", "styles", "num_styles", "style_size", "features", "style_layers",
    "content_layers", "pairs", "edge_detector", "edge_sigma", "edge_threshold", "factor",
    "direction", "to", "domains", "pool",
)  # fmt: skip
"""Options of some families that a resumed run cannot change."""


def _check_resumes(before: Any, now: Any) -> None:
    """Raise ConfigError, which names the option, if a resumed run's data or networks differ.

    The augmentation, the directory of data sets and the path of a folder may differ.
    """
    # Runs of older versions may have relative paths.
    before, now = absolute_paths(before), absolute_paths(now)
    same = replace(now.data, augment=before.data.augment, data_folder=before.data.data_folder)
    kinds = {each.data.data.partition(":")[0] for each in (before, now)}
    # A folder may have moved; its files are compared when the data are loaded.
    if kinds in ({"folder"}, {"folder-text"}, {"pairs"}):
        same = replace(same, data=before.data.data)
    configs.refuse_changes(before, replace(now, data=same), FIXED)
    for name in FIXED_OF_FAMILY:
        if hasattr(now, name):
            configs.refuse_changes(before, now, (name,))


def _new_run(name: str, config: Any, out: Path | None) -> RunDir:
    """Create the run directory."""
    data = config.data.data.partition(":")[0]
    return RunDir.create(out or new_folder(f"{name}-{data}"))


def train_in(
    run: RunDir, name: str, config: Any, launch: TrainLaunch, *, resumed: bool = False
) -> dict[str, float]:
    """Train the family `name` in `run`. Returns the metrics on the test split.

    With several workers the result is empty, and the metrics are in metrics.jsonl.
    A new run directory is removed after a UsageError or Ctrl-C before training has begun.
    """
    # The command that resumes the run, for messages.
    words = ["genray", "train", name, "--resume", run.path]
    words += ["--workers", launch.workers] if launch.workers > 1 else []
    words += ["--address", launch.address] if launch.workers > 1 and launch.address else []
    again = shell_command(*words)
    figures: dict[str, float] = {}
    try:
        checkpoint = run.latest_checkpoint() if resumed else None
        # Train with several workers on Ray, or alone in this process.
        if launch.workers > 1:
            from genray.distributed.coordinator import ray_session
            from genray.distributed.parallel_fit import train_with_workers

            with ray_session(launch.address):
                configs.save_yaml(config, run.path / "config.yaml")
                train_with_workers(
                    name, config, run, launch.workers, resume_command=again, checkpoint=checkpoint
                )
        else:
            with run:
                fit = open_fit(name, config)
                if checkpoint:
                    fit.load(checkpoint)
                    print(f"resuming from {checkpoint}")
                configs.save_yaml(config, run.path / "config.yaml")
                for note in _notes(fit, config):
                    print(note)
                with Live(f"{name} {config.data.data}", fit.planned_steps(), columns(fit)) as live:
                    figures = FitRun(fit, run, live, again).run()
    except BaseException as error:
        # Remove a new run without checkpoints, if it has not begun. After Ctrl-C, print how to
        # continue a run with checkpoints.
        if not resumed and not run.list_checkpoints():
            if isinstance(error, UsageError | KeyboardInterrupt):
                run.discard()  # a run that has begun is kept
        elif isinstance(error, KeyboardInterrupt):
            print(f"stopped; continue with: {again}")
        raise
    print(run.path)
    return figures
