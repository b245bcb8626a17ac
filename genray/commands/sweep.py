"""The sweep commands: sweep STUDY, sweep report, sweep promote."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from genray.console import shell_command
from genray.errors import ConfigError, RunFault, require
from genray.options import folder_argument, option_value, parse
from genray.runs.rundir import new_folder
from tuning.plan import SweepConfig


@dataclass(frozen=True, kw_only=True)
class SweepLaunch:
    """Options of `genray sweep` on the output and the machines."""

    out: Path | None = None
    """The sweep's directory; new or empty. Default: runs/sweep-STUDY-MODEL-TIME."""
    resume: Path | None = None
    """Run the remaining trials of this sweep; options cannot change its configuration."""
    address: str | None = None
    """A Ray cluster to run on, `auto` or HOST:PORT; default: a private Ray on this machine."""
    report: bool = True
    """Write the report at the end; for the report, the compared trials are evaluated on the test
    split.
    """


@dataclass(frozen=True, kw_only=True)
class PromoteOptions:
    """Save the best trial of a sweep as a model in a directory of models."""

    name: str
    """Name of the model."""
    models: Path = Path("models")
    """The directory of models, which `genray serve` can read."""
    trial: str = ""
    """The trial to save, e.g. 0007-adam-search. Default: the best trial by validation."""


def sweep(argv: list[str], prog: str) -> int:
    """Run trials on Ray Tune, then write the report. Arguments: STUDY and options."""
    from tuning.presets import STUDIES
    from tuning.sweep import resume_sweep, run_sweep

    @dataclass(frozen=True, kw_only=True)
    class SweepOptions:
        """Compare optimizers, regularisers or architectures under one protocol: genray sweep
        STUDY [options].

        Studies: optimizers, regularisers, gan_stability, architecture, agent.
        """

        launch: SweepLaunch = field(default_factory=SweepLaunch)
        config: SweepConfig = field(default_factory=SweepConfig)

    if argv and not argv[0].startswith("-"):
        argv = ["--study", *argv]
    resume = option_value(argv, "--resume")
    if resume is None and "--help" not in argv and "-h" not in argv:
        named = option_value(argv, "--study")
        require(
            named is not None,
            f"{prog}: name a study first: {', '.join(STUDIES)}; or --resume SWEEP",
        )
    options = parse(SweepOptions, argv, prog)
    launch, config = options.launch, options.config
    # Run the remaining trials of a sweep, or a new sweep.
    if launch.resume is not None:
        if config != SweepConfig():
            raise ConfigError(
                f"--resume {launch.resume}: a sweep continues with its own options; leave all "
                "other options out"
            )
        folder = launch.resume
        _going(folder, lambda: resume_sweep(folder, address=launch.address))
    else:
        study = config.study.replace("_", "-")
        config.validate()  # Errors are reported before a directory is made.
        folder = launch.out or new_folder(f"sweep-{study}-{config.model}")
        _going(folder, lambda: run_sweep(config, folder, address=launch.address))
    if launch.report:
        print(_report(folder))
    print(folder)
    refuse_all_failed(folder)
    return 0


def refuse_all_failed(folder: Path) -> None:
    """Raise RunFault if the sweep has trials and all of them failed."""
    from tuning.trials import read_trials

    rows = read_trials(folder)
    if rows and all(row.status == "failed" for row in rows):
        raise RunFault(f"{folder}: all {len(rows)} trials failed; {rows[0].trial}: {rows[0].error}")


def _going(folder: Path, work: Callable[[], Path]) -> None:
    """Run the trials; after Ctrl-C, print how to continue."""
    try:
        work()
    except KeyboardInterrupt:
        if (folder / "sweep.yaml").exists():
            again = shell_command("genray", "sweep", "--resume", folder)
            print(f"stopped; finished trials are in {folder}/trials.csv; continue with: {again}")
        raise


def report(argv: list[str], prog: str) -> int:
    """Write one page with every table and picture from the trials' files, even if the sweep has not
    ended. Argument: SWEEP.
    """
    folder, rest = folder_argument(argv, prog, "SWEEP", "runs/sweep-optimizers-vae")
    parse(_NoOptions, rest, prog)
    print(_report(folder))
    return 0


@dataclass(frozen=True, kw_only=True)
class _NoOptions:
    """Write SWEEP/report/index.html and its tables."""


def _report(folder: Path) -> Path:
    """Write the table of trials and the report; returns the report's page."""
    from tuning.report.report import write_report
    from tuning.trials import read_trials, write_table

    write_table(folder, read_trials(folder))
    return write_report(folder, say=lambda text: print(text, flush=True))


def promote(argv: list[str], prog: str) -> int:
    """Save the best trial as a model in a directory of models. Arguments: SWEEP --name NAME."""
    from tuning.sweep import promote as promote_trial

    folder, rest = folder_argument(argv, prog, "SWEEP", "runs/sweep-optimizers-vae --name best-vae")
    options = parse(PromoteOptions, rest, prog)
    model = promote_trial(folder, options.name, options.models, options.trial)
    sample = shell_command("genray", "sample", model, "--out", "grid.png")
    print(f"try it: {sample}; {shell_command('genray', 'serve', options.models)}")
    print(model)
    return 0
