"""Tests sweeps on Ray: the known best is found, failed trials are recorded, copies are exact."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from ray import tune

from genray import cli
from genray.errors import ResourceError
from genray.gen.families import BUILDERS
from genray.runs import modelstore
from tests.helpers.tuning import check_clones, tiny_gan, tiny_vae
from tuning.plan import SweepConfig
from tuning.presets import Arm, Study
from tuning.spaces import Choice, LogUniform, Space, Switch
from tuning.sweep import measure_test, run_sweep
from tuning.trainable import load_model, trainable
from tuning.trials import read_trials

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_here"), pytest.mark.timeout(240)]

RATE = "optimizer.learning_rate"
TINY = ("model.widths=16", "model.latent=2", "fit.batch_size=64", "optimizer.optimizer=sgd")
PLANTED = (1e-9, 1e-3, 1e9)
"""Learning rates: with the first nothing is learned, and with the last every trial diverges."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Run a comparison of three arms. The best learning rate of `sgd` is known, a trial of `large`
    raises, and all trials of `hopeless` diverge.
    """
    arms = (
        Arm("sgd", Space(Choice(RATE, PLANTED)), {"optimizer.optimizer": "sgd"}, {RATE: 1e-9}),
        Arm(
            "large",
            Space(Choice("fit.batch_size", (16, 5000)), Choice(RATE, (1e-3,))),
            {},
            {RATE: 1e-9},
        ),
        Arm("hopeless", Space(Choice(RATE, (1e9,))), {}, {RATE: 1e-9}),
    )
    config = SweepConfig(search="grid", trials=3, seeds=2, steps=60, looks=3, set=TINY, parallel=2)
    return run_sweep(
        config, tmp_path_factory.mktemp("sweep") / "planted", study=Study("mine", arms)
    )


def test_run_sweep_finds_the_known_best_and_repeats_it_with_new_seeds(planted):
    rows = [row for row in read_trials(planted) if row.arm == "sgd"]
    assert [(row.phase, row.seed) for row in rows] == [
        ("default", 1),
        ("default", 2),
        ("search", 0),
        ("search", 0),
        ("search", 0),
        ("tuned", 1),
        ("tuned", 2),
    ]
    assert all(
        row.params[RATE] == 1e-3 and row.status == "done" for row in rows if row.phase == "tuned"
    )
    assert max(row.best for row in rows if row.phase == "tuned") < min(
        row.best for row in rows if row.phase == "default"
    )
    tested = [measure_test(planted, row)["loss"] for row in rows if row.status == "done"]
    assert all(value > 0 for value in tested) and len(set(tested)) == len(tested)


def test_run_sweep_records_trials_that_diverge_or_raise(planted):
    rows = read_trials(planted)
    diverged = [row for row in rows if row.status == "diverged"]
    assert {(row.arm, row.params[RATE]) for row in diverged} == {("sgd", 1e9), ("hopeless", 1e9)}
    failed = [row for row in rows if row.status == "failed"]
    assert [row.params["fit.batch_size"] for row in failed] == [
        5000
    ] and "--batch-size 5000" in failed[0].error
    assert not [
        row for row in rows if row.arm == "hopeless" and row.phase == "tuned"
    ]  # the search of this arm found no settings
    assert (
        len(
            [
                row
                for row in rows
                if row.arm == "large" and row.phase == "tuned" and row.status == "done"
            ]
        )
        == 2
    )
    assert {row.status for row in rows} == {"done", "diverged", "failed"}
    assert (planted / "trials.parquet").exists() and len(
        (planted / "trials.csv").read_text().splitlines()
    ) == len(rows) + 1


def test_promote_saves_the_best_as_a_model(planted, tmp_path, capsys):
    models = tmp_path / "models"
    assert (
        cli.main(["sweep", "promote", str(planted), "--name", "best", "--models", str(models)]) == 0
    )
    rows = read_trials(planted)
    best = min((row for row in rows if row.status == "done"), key=lambda row: row.best)
    model, config = modelstore.load_model(models / "best", BUILDERS)
    origin = config["origin"]
    assert (origin["trial"], origin["validation"], origin["of_trials"]) == (
        best.trial,
        best.best,
        len(rows),
    )
    assert (
        origin["params"] == best.params
        and origin["study"] == "mine"
        and origin["seed"] == best.seed
    )
    assert config["test"] == pytest.approx(measure_test(planted, best))
    assert f"Trial {best.trial} of the sweep planted" in (models / "best" / "README.md").read_text()
    checkpoint = planted / best.path / "checkpoints" / f"{best.best_step:08d}" / "fit.pt"
    kept = torch.load(checkpoint, weights_only=True)["networks"]
    assert all(
        torch.equal(tensor, kept[f"vae.{name}"]) for name, tensor in model.state_dict().items()
    )
    assert (
        cli.main(
            ["sample", str(models / "best"), "--num", "4", "--out", str(tmp_path / "grid.png")]
        )
        == 0
    )
    assert (tmp_path / "grid.png").stat().st_size > 100


def test_run_sweep_with_pbt_copies_the_best_bit_for_bit(tmp_path):
    space = Space(
        LogUniform(RATE, 1e-5, 1e-1), LogUniform("discriminator_learning_rate", 1e-5, 1e-1)
    )
    config = SweepConfig(
        model="gan",
        scheduler="pbt",
        search="random",
        trials=4,
        seeds=0,
        steps=40,
        looks=4,
        perturb_every=1,
        parallel=2,
        set=(
            "model.network=dense",
            "model.generator_widths=16",
            "model.discriminator_widths=16",
            "model.latent=8",
            "model.generator_norm=none",
            "fit.batch_size=32",
        ),
    )
    sweep = run_sweep(config, tmp_path / "sweep", study=Study("stability", (Arm("all", space),)))
    rows = read_trials(sweep)
    assert [row.status for row in rows] == ["done"] * 4 and all(row.steps == 40 for row in rows)
    assert check_clones(sweep, rows) >= 1


def test_run_sweep_with_optuna_and_asha_stops_worse_trials(tmp_path):
    space = Space(
        LogUniform(RATE, 1e-9, 1e-2), Switch("optimizer.l2", LogUniform("optimizer.l2", 1e-6, 1e-2))
    )
    config = SweepConfig(
        search="optuna",
        scheduler="asha",
        trials=8,
        seeds=0,
        steps=45,
        looks=9,
        reduction=3,
        set=TINY,
        parallel=2,
    )
    rows = read_trials(
        run_sweep(config, tmp_path / "sweep", study=Study("search", (Arm("all", space),)))
    )
    counts = {
        status: sum(row.status == status for row in rows)
        for status in ("done", "stopped", "diverged")
    }
    assert counts["stopped"] >= 2 and counts["done"] >= 1 and sum(counts.values()) == 8
    assert all(len(row.curve) < 9 for row in rows if row.status == "stopped")
    assert len({row.params[RATE] for row in rows}) == 8


def test_trainable_runs_in_tune_as_documented(tmp_path):
    space = Space(
        Choice(RATE, PLANTED), Switch("optimizer.l2", LogUniform("optimizer.l2", 1e-6, 1e-4))
    )
    base = tiny_vae(60, 3, optimizer="sgd")
    found = tune.run(
        trainable("vae", base),
        config={**space.to_tune(), RATE: tune.grid_search(list(PLANTED)), "seed": 3},
        metric="validation_loss",
        mode="min",
        storage_path=str(tmp_path),
        verbose=0,
    )
    assert found.best_config[RATE] == 1e-3 and found.best_result["steps"] == 60
    assert sorted(trial.last_result["status"] for trial in found.trials) == [
        "diverged",
        "done",
        "done",
    ]
    # The checkpoint is in Tune's storage, not in the temporary directory of the session.
    assert found.best_checkpoint.path.startswith(str(tmp_path))
    kept = load_model(found.best_checkpoint).state_dict()
    assert kept and all(bool(torch.isfinite(tensor).all()) for tensor in kept.values())


def test_trainable_runs_in_population_based_training(tmp_path):
    space = Space(LogUniform(RATE, 1e-5, 1e-1))
    scheduler = tune.schedulers.PopulationBasedTraining(
        time_attr="training_iteration",
        perturbation_interval=1,
        hyperparam_mutations=space.to_tune(),
        synch=True,
    )
    found = tune.run(
        trainable("gan", tiny_gan(12, 3)),
        config=space.to_tune(),
        num_samples=4,
        scheduler=scheduler,
        reuse_actors=True,
        metric="validation_loss",
        mode="min",
        storage_path=str(tmp_path),
        verbose=0,
    )
    assert all(trial.last_result["status"] == "done" for trial in found.trials)


def test_run_sweep_refuses_missing_gpus_before_any_trial(tmp_path, capsys):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    config = SweepConfig(arms=("adam",), steps=4, looks=2, gpus_each=1)
    with pytest.raises(ResourceError, match="--gpus-each 1: there are 0 GPUs; leave"):
        run_sweep(config, tmp_path / "sweep")
    assert not (tmp_path / "sweep").exists()


def test_run_sweep_of_an_agent(tmp_path):
    config = SweepConfig(
        study="agent",
        model="dqn",
        search="random",
        trials=2,
        seeds=0,
        steps=1200,
        looks=2,
        parallel=2,
        set=(
            "run.evaluate_episodes=4",
            "replay.min_size=200",
            "network.hidden=16",
            "replay.capacity=2000",
        ),
    )
    rows = read_trials(run_sweep(config, tmp_path / "sweep"))
    assert [row.status for row in rows] == ["done"] * 2, [row.error for row in rows]
    assert all(
        row.metric == "evaluation_return" and len(row.curve) == 2 and -1 <= row.best <= 1
        for row in rows
    )
    assert set(measure_test(tmp_path / "sweep", replace(rows[0]))) == {"return"}
    assert Path(tmp_path / "sweep" / rows[0].path / "config.yaml").exists()
