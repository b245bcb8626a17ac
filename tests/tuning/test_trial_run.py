"""Tests one trial without Ray: its row, resuming, the sealed test split, exact copies."""

import json
from dataclasses import replace

import pytest
import torch

from genray.errors import RunFault, SealedError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.families import open_fit
from genray.gen.vae import VAETask
from tests.helpers.tuning import new_trial, tiny_gan, tiny_vae, to_the_end, track
from tuning.sweep import measure_test
from tuning.trial_run import WORST, TrialRun, digest
from tuning.trials import read_trial


def test_trial_run_writes_its_row_and_best_checkpoint(tmp_path):
    trial = new_trial(tmp_path, tiny_vae(), params={"optimizer.learning_rate": 1e-2}, seed=3)
    first = trial.advance()
    assert (
        first["look"] == 1
        and not first["done"]
        and first["validation_loss"] == trial.row.curve[0][2]
    )
    row = to_the_end(trial)
    assert row == read_trial(tmp_path / row.path / "trial.json")
    assert (
        row.status == "done"
        and [step for step, _, _ in row.curve] == [4, 8, 12]
        and row.steps == 12
    )
    assert row.best == min(value for _, _, value in row.curve) and row.last == row.curve[-1][2]
    assert 0 < row.curve[0][1] < row.curve[-1][1] <= row.seconds
    folder = tmp_path / row.path
    assert (folder / "checkpoints" / f"{row.best_step:08d}" / "manifest.json").exists()
    assert (
        "learning_rate: 0.01" in (folder / "config.yaml").read_text()
        and "seed: 3" in (folder / "config.yaml").read_text()
    )
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["validation_loss"] == row.last and list((folder / "tensorboard").iterdir())


@pytest.mark.parametrize(
    ("optimizer", "bytes_each"), [("sgd", 0), ("momentum", 4), ("adam", 8), ("adagrad-da", 12)]
)
def test_trial_run_measures_the_optimizer_state(tmp_path, optimizer, bytes_each):
    row = to_the_end(new_trial(tmp_path, tiny_vae(4, 1, optimizer=optimizer)))
    # The state also has PyTorch's count of steps.
    assert row.state_bytes_per_parameter == pytest.approx(bytes_each, abs=0.2)


def test_trial_run_records_divergence(tmp_path):
    trial = new_trial(
        tmp_path, tiny_vae(), params={"optimizer.optimizer": "sgd", "optimizer.learning_rate": 1e4}
    )
    row = to_the_end(trial)
    assert row.status == "diverged" and "lower --learning-rate" in row.error
    again = trial.advance()
    assert again["done"] and again["validation_loss"] == WORST and again["status"] == "diverged"


def test_trial_run_records_an_exception(tmp_path):
    row = to_the_end(new_trial(tmp_path, tiny_vae(), params={"fit.batch_size": 5000}))
    assert row.status == "failed" and "--batch-size 5000" in row.error and row.best is None
    assert read_trial(tmp_path / row.path / "trial.json") == row


def test_sealed_data_refuse_all_access_to_the_test_split():
    data = load_data(DataConfig()).sealed()
    assert data.is_sealed and data.to(torch.device("cpu")).is_sealed and len(data.train) == 1167
    for ask in (
        len,
        lambda split: split.values,
        lambda split: split.all(),
        lambda split: split.first(1),
        lambda split: split.low,
    ):
        with pytest.raises(SealedError, match="test split: sealed"):
            ask(data.test)
    # The other rows do not share memory with the test rows.
    assert data.train.values.untyped_storage().nbytes() == data.train.values.nbytes


def test_trial_run_fails_if_a_task_reads_the_test_split(tmp_path, monkeypatch):
    evaluate = VAETask.evaluate

    def cheating(self, split):
        return {**evaluate(self, split), "test": evaluate(self, self.data_of_the_test.test)["loss"]}

    def begin_stage(self, stage, data, total_updates, begin=VAETask.begin_stage):
        self.data_of_the_test = data
        return begin(self, stage, data, total_updates)

    monkeypatch.setattr(VAETask, "evaluate", cheating)
    monkeypatch.setattr(VAETask, "begin_stage", begin_stage)
    assert "test" in open_fit("vae", tiny_vae()).test()  # unsealed data allow the access
    row = to_the_end(new_trial(tmp_path, tiny_vae()))
    assert (
        row.status == "failed"
        and row.error.startswith("SealedError: test split: sealed")
        and row.best is None
    )


@pytest.mark.parametrize("binarise", ["fixed", "none"])
def test_measure_test_equals_the_test_of_an_unsealed_fit(tmp_path, binarise):
    base = tiny_vae(24)
    base = replace(base, model=replace(base.model, binarise=binarise))
    row = to_the_end(new_trial(tmp_path, base))
    assert row.status == "done", row.error
    figures = measure_test(tmp_path, row)
    fit = open_fit("vae", replace(base, fit=replace(base.fit, seed=row.seed)))
    for step in fit:
        if step.step == row.best_step:
            break
    assert figures == fit.test() and figures["loss"] != row.best


def test_trial_run_resumes_after_a_kill_bit_for_bit(tmp_path):
    whole = to_the_end(new_trial(tmp_path / "whole", tiny_gan(), "gan"))
    trial = new_trial(tmp_path / "cut", tiny_gan(), "gan")
    trial.advance()
    trial.advance()
    trial._run.__exit__(None, None, None)  # the kernel releases the lock of a killed process
    trial._locked = trial._training = None
    # The trial was killed after its last checkpoint and before it wrote the row. Its log has lines
    # of later steps.
    log = tmp_path / "cut" / whole.path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"step": 12, "seconds": 1, "loss": 1}\n{"step": 1')
    row = read_trial(tmp_path / "cut" / whole.path / "trial.json")
    assert row.status == "running" and len(row.curve) == 2
    torch.manual_seed(999)
    end = to_the_end(track(TrialRun(tmp_path / "cut", row, tiny_gan())))
    assert [(step, value) for step, _, value in end.curve] == [
        (step, value) for step, _, value in whole.curve
    ]
    assert (end.best, end.best_step, end.status) == (whole.best, whole.best_step, "done")
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == sorted(set(steps)) and steps[-1] == 12


def test_trial_run_killed_after_its_last_evaluation_only_ends(tmp_path):
    trial = new_trial(tmp_path, tiny_vae())
    row = to_the_end(trial)
    again = track(TrialRun(tmp_path, replace(row, status="running"), tiny_vae()))
    if row.best_step == 12:  # the newest checkpoint is then that of the last evaluation
        assert to_the_end(again).curve == row.curve


@pytest.fixture
def pair(tmp_path):
    """Return (a GAN's trial after two evaluations, a trial with other settings, a saved state)."""
    settings = {
        "optimizer.learning_rate": 5e-4,
        "discriminator_learning_rate": 3e-4,
        "label_smoothing": 0.2,
    }
    source = new_trial(tmp_path, tiny_gan(16, 4), "gan", "0000-all-search")
    clone = new_trial(tmp_path, tiny_gan(16, 4), "gan", "0001-all-search", params=settings, seed=5)
    source.advance()
    source.advance()
    (tmp_path / "handed").mkdir()
    source.save(tmp_path / "handed")
    return source, clone, tmp_path / "handed"


def test_trial_run_load_copies_both_networks_and_keeps_its_own_settings(pair):
    source, clone, handed = pair
    clone.advance()
    weights = clone.open().fit.task.networks.state_dict()["generator.layers.0.weight"].clone()
    clone.load(handed)
    one, other = source.open().fit, clone.open().fit
    # Both trials share this process's random generator, so the saved state is read from the file.
    torch.manual_seed(0)
    state = torch.load(handed / "fit.pt", weights_only=True)
    assert not torch.equal(weights, other.task.networks.state_dict()["generator.layers.0.weight"])
    # The networks include the moving average and the discriminator.
    for name, tensor in one.task.networks.state_dict().items():
        assert torch.equal(tensor, other.task.networks.state_dict()[name]), name
    for player in ("generator", "discriminator"):
        mine, theirs = (fit.task.updaters[player].state_dict() for fit in (one, other))
        assert mine["updates"] == theirs["updates"] == 8
        # Adam's state has two moments and the number of steps.
        for number, moments in mine["optimizer"]["state"].items():
            assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(
                torch.equal(moments[name], theirs["optimizer"]["state"][number][name])
                for name in moments
            )
    assert other.task.updaters["generator"].optimizer.param_groups[0]["lr"] == 5e-4
    assert other.task.updaters["discriminator"].optimizer.param_groups[0]["lr"] == 3e-4
    assert other.step == one.step == state["step"] == 8 and other.task.config.label_smoothing == 0.2


def test_trial_run_load_with_equal_settings_makes_the_same_steps(tmp_path, pair):
    _, _, handed = pair
    same = new_trial(tmp_path, tiny_gan(16, 4), "gan", "0002-all-search")
    torch.manual_seed(123)
    same.load(handed)
    after = [(step, value) for step, _, value in to_the_end(same).curve]
    whole = to_the_end(new_trial(tmp_path, tiny_gan(16, 4), "gan", "0003-all-search"))
    assert after == [(step, value) for step, _, value in whole.curve[2:]]


def test_trial_run_load_restores_the_random_state(pair):
    _, clone, handed = pair
    torch.manual_seed(77)
    clone.load(handed)
    assert torch.equal(
        torch.get_rng_state(), torch.load(handed / "fit.pt", weights_only=True)["random"]
    )


def test_trial_run_load_records_the_copy_and_saves_a_checkpoint(tmp_path, pair):
    source, clone, handed = pair
    for _ in range(2):
        clone.advance()
    clone.load(handed)
    folder = tmp_path / clone.row.path
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    told = json.loads((folder / "clones.jsonl").read_text())
    assert (
        told["of"] == "0000-all-search"
        and told["step"] == 8
        and told["settings"] == clone.row.params
    )
    assert line["cloned"] == 1 and line["step"] == 8 and line["label_smoothing"] == 0.2
    kept = torch.load(folder / "checkpoints" / "00000008" / "fit.pt", weights_only=True)
    assert digest(kept["networks"].values()) == digest(
        source.open().fit.task.networks.state_dict().values()
    )
    assert len(clone.row.curve) == 2 and clone.row.best <= min(
        value for _, _, value in clone.row.curve
    )


def test_trial_run_load_refuses_a_damaged_state(pair):
    _, clone, handed = pair
    state = torch.load(handed / "fit.pt", weights_only=True)
    state["networks"]["generator.layers.0.weight"][0, 0] += 1e-3
    torch.save(state, handed / "fit.pt")
    with pytest.raises(RunFault, match="differs from the state that 0000-all-search saved"):
        clone.load(handed)


def test_trial_run_load_restarts_a_diverged_member(tmp_path, pair):
    _, _, handed = pair
    dead = new_trial(
        tmp_path,
        tiny_gan(16, 4),
        "gan",
        "0004-all-search",
        params={"optimizer.learning_rate": 1e38},
    )
    while not dead.advance()["done"]:
        pass
    assert dead.row.status == "diverged"
    (tmp_path / "note").mkdir()
    dead.save(tmp_path / "note")  # as Tune does when it pauses a trial
    dead.load(tmp_path / "note")
    assert dead.row.status == "diverged" and list((tmp_path / "note").iterdir()) == [
        tmp_path / "note" / "clone.json"
    ]
    dead.row.params["optimizer.learning_rate"] = 1e-3
    dead.load(handed)
    assert dead.row.status == "running" and dead.advance()["steps"] == 12
