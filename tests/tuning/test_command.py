"""Tests that `genray sweep` refuses bad options in one line, before a trial starts, and leaves no
files.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from genray import cli
from genray.errors import ConfigError, ResourceError
from tests.helpers.tuning import new_trial, tiny_vae, to_the_end
from tuning.driver import check_resources
from tuning.plan import SweepConfig
from tuning.settings import setting
from tuning.sweep import _announcement, prepare
from tuning.trials import write_trial

SMALL = ("--steps", "4", "--looks", "2", "--set", "model.widths=8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name a study first: optimizers, regularisers"),
        (
            ("optimisers",),
            "genray sweep optimisers: no such study; did you mean optimizers, regularisers?",
        ),
        (("optimizers", "--model", "vqvae"), "--model"),
        (("optimizers", "--preset", "vae_digit"), "did you mean vae_digits"),
        (("optimizers", "--data", "digit"), "did you mean digits"),
        (
            ("optimizers", "--arms", "adan"),
            "--arms adan: no such arm of optimizers; did you mean adam",
        ),
        (
            ("optimizers", "--set", "model.laten=3"),
            "model.laten: no such setting of VAEConfig; did you mean model.latent",
        ),
        (("optimizers", "--set", "model.latent"), "write PATH=VALUE"),
        (("optimizers", "--set", "model.latent=many"), "model.latent: 'many' is not a int"),
        (("optimizers", "--trials", "0"), "--trials 0: must be ≥ 1"),
        (
            ("optimizers", "--search", "grid", "--arms", "adam", "--trials", "3"),
            "--trials 3: the grid has at least 12 points",
        ),
        (
            ("optimizers", "--scheduler", "asha"),
            "--scheduler asha: a comparison needs all steps of every trial",
        ),
        (
            ("optimizers", "--scheduler", "pbt", "--seeds", "0"),
            "--scheduler pbt: optimizers compares 11 arms",
        ),
        (
            ("optimizers", "--scheduler", "asha", "--seeds", "0", "--looks", "1"),
            "--looks 1: asha stops trials at an evaluation",
        ),
        (
            ("gan-stability", "--scheduler", "pbt", "--seeds", "0", "--looks", "2"),
            "--perturb-every 2: a trial has 2 evaluations",
        ),
        (
            ("gan-stability", "--model", "vae"),
            "study gan_stability does not support this family; use --model gan",
        ),
        (
            ("agent", "--model", "dqn", "--data", "digits"),
            "--data digits: an agent has no data set",
        ),
        (
            ("optimizers", "--metric", "validation_accuracy", *SMALL),
            "--metric validation_accuracy: trials of arm sgd do not report this metric",
        ),
        (
            ("optimizers", "--set", "data.validation=0", "fit.steps=4"),
            "no validation rows, which a sweep needs",
        ),
        (("optimizers", "--set", "fit.device=cuda", "fit.steps=4"), "trials get no GPU"),
        (("optimizers", "--set", "fit.batch_size=5000"), "--batch-size 5000"),
        (
            ("optimizers", "--set", "optimizer.learning_rate=0.123"),
            "--set optimizer.learning_rate=0.123: arm sgd of optimizers sets it to 0.001 in its "
            "trials; leave it out",
        ),
        (
            ("optimizers", "--set", "optimizer.optimizer=adam"),
            "arm sgd of optimizers sets it to sgd",
        ),
        (("regularisers", "--set", "optimizer.l2=0.1"), "study regularisers sets it to 0.0"),
        (
            ("optimizers", "--set", "fit.seed=7"),
            "--set fit.seed=7: the sweep sets it for each trial; use --seed",
        ),
        (("agent", "--model", "dqn", "--set", "run.evaluate_every=9"), "use --looks"),
        (("optimizers", "--steps", "4", "--set", "fit.epochs=2"), "use --steps alone"),
        (("--resume", "nowhere"), "nowhere: not a"),
        (
            ("--resume", "nowhere", "--trials", "3"),
            "a sweep continues with its own options",
        ),
    ],
)
def test_sweep_command_reports_a_bad_option_in_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    out = () if "--resume" in words else ("--out", "sweep")
    assert cli.main(["sweep", *words, *out]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_sweep_command_names_a_folder_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cli.main(["sweep", "optimizers", "--out", str(tmp_path / "file" / "sweep")]) == 2
    assert "choose a folder that can be written" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("")
    assert cli.main(["sweep", "optimizers", "--out", str(tmp_path / "full")]) == 2
    assert "not empty; choose a new folder" in capsys.readouterr().err
    assert (tmp_path / "full" / "thing").exists()


def test_check_resources_refuses_more_than_the_machine_has():
    sweep = prepare(SweepConfig(arms=("adam",), steps=4, looks=2), Path("unused"))

    def asked(cpus, gpus, **more):
        return check_resources(replace(sweep, config=replace(sweep.config, **more)), cpus, gpus)

    assert asked(4, 0) == 4 and asked(4, 0, parallel=3) == 3 and asked(4, 0, cpus_each=1.5) == 2
    assert (
        asked(8, 2, gpus_each=0.5) == 4
        and asked(8, 2, gpus_each=2) == 1
        and asked(8, 1, gpus_each=0.3) == 3
    )
    for more, said in (
        ({"gpus_each": 1}, "--gpus-each 1: there are 0 GPUs; leave the option out"),
        ({"cpus_each": 8}, "--cpus-each 8: there are 4 CPUs; use at most --cpus-each 4"),
        ({"parallel": 5}, "--parallel 5: 4 CPUs and 0 GPUs are enough for 4 trials at once"),
    ):
        with pytest.raises(ResourceError, match=said):
            asked(4, 0, **more)
    with pytest.raises(
        ResourceError, match="--gpus-each 3: there are 2 GPUs; use at most --gpus-each 2"
    ):
        asked(8, 2, gpus_each=3)


def test_sweep_plan_has_equal_trials_for_all_arms():
    sweep = prepare(
        SweepConfig(arms=("sgd", "ftrl"), trials=5, seeds=3, steps=4, looks=2), Path("unused")
    )
    names = [slot.name for slot in sweep.slots]
    assert (
        names[0] == "0000-sgd-default"
        and names[6] == "0006-sgd-search"
        and names[-1] == "0021-ftrl-tuned"
    )
    assert len(names) == len(set(names)) == 2 * (3 + 5 + 3)
    assert [len(points) for points in sweep.points.values()] == [5, 5]
    assert setting(sweep.base, "fit.steps") == 4 and setting(sweep.base, "fit.validate_every") == 2
    assert sweep.points == prepare(sweep.config, Path("unused")).points
    assert sweep.points != prepare(replace(sweep.config, seed=1), Path("unused")).points


def test_prepare_accepts_set_for_settings_that_the_search_varies():
    words = ("optimizer.learning_rate=3e-4", "model.widths=8")
    sweep = prepare(
        SweepConfig(study="regularisers", arms=("none",), steps=4, looks=2, set=words),
        Path("unused"),
    )
    assert sweep.arm("none").default["optimizer.learning_rate"] == 3e-4
    # The search of adam varies beta1; --set gives its default value.
    words = ("optimizer.beta1=0.5", "model.widths=8")
    sweep = prepare(SweepConfig(arms=("adam",), steps=11, looks=10, set=words), Path("unused"))
    assert setting(sweep.base, "optimizer.beta1") == 0.5
    assert "6 evaluations each instead of 10" in _announcement(sweep)


def test_prepare_takes_the_steps_of_the_preset():
    sweep = prepare(SweepConfig(arms=("adam",), looks=4), Path("unused"))
    assert (
        setting(sweep.base, "fit.steps") == 200 * 11
        and setting(sweep.base, "fit.validate_every") == 550
    )


def test_promote_refuses_bad_names_and_sweeps_without_results(tmp_path, capsys):
    assert cli.main(["sweep", "promote", str(tmp_path), "--name", "best"]) == 2
    assert "not a run directory" in capsys.readouterr().err
    sweep = prepare(
        SweepConfig(arms=("adam",), steps=4, looks=2, set=("model.widths=8",)), tmp_path / "sweep"
    )
    os.mkdir(sweep.path)
    sweep.save()
    models = str(tmp_path / "models")
    for words, said in (
        (("--name", "a/b"), "--name 'a/b': use 1 to 64 characters of A-Z a-z 0-9"),
        (("--name", "bestä"), "--name 'bestä': use"),  # the service refuses such names, too
        (("--name", "a" * 65), "aaa': use"),
        (("--name", "best"), "no trial has ended without an error"),
        (
            ("--name", "best", "--trial", "0007-adam-search"),
            "--trial 0007-adam-search: no such trial in this sweep",
        ),
    ):
        assert cli.main(["sweep", "promote", str(sweep.path), *words, "--models", models]) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "models" / "best").exists()
    to_the_end(new_trial(sweep.path, tiny_vae()))
    (tmp_path / "models" / "best").mkdir(parents=True)
    assert (
        cli.main(["sweep", "promote", str(sweep.path), "--name", "best", "--models", models]) == 2
    )
    assert "exists already; choose another name" in capsys.readouterr().err


def test_prepare_refuses_a_metric_that_no_trial_reports():
    with pytest.raises(ConfigError, match="accuracy_of_nothing"):
        prepare(
            SweepConfig(arms=("adam",), steps=4, looks=2, metric="accuracy_of_nothing"),
            Path("unused"),
        )


@pytest.mark.parametrize(("second", "status"), [("failed", 1), ("diverged", 0)])
def test_sweep_command_ends_with_status_1_if_all_trials_failed(tmp_path, capsys, second, status):
    path = tmp_path / "sweep"
    path.mkdir()
    config = SweepConfig(
        arms=("adam",), trials=2, seeds=0, steps=4, looks=2, set=("model.widths=8",)
    )
    sweep = prepare(config, path)
    sweep.save()
    for (slot, _), fate in zip(sweep.waiting(), ("failed", second), strict=True):
        row = sweep.begin(slot, sweep.points[slot.arm][slot.index])
        write_trial(
            path, replace(row, status=fate, error="ConfigError: --data folder:x: no such folder")
        )
    assert cli.main(["sweep", "--resume", str(path), "--no-report"]) == status
    said = "all 2 trials failed; 0000-adam-search: ConfigError: --data folder:x: no such folder"
    assert (said in capsys.readouterr().err) == bool(status)
