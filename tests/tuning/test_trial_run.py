"""One trial without Ray: its row whatever happens, going on bit for bit, the sealed test split,
a clone's exactness.
"""

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


def test_a_trial_leaves_its_row_its_curve_and_its_best_checkpoint(tmp_path):
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
def test_the_optimizer_state_is_weighed(tmp_path, optimizer, bytes_each):
    row = to_the_end(new_trial(tmp_path, tiny_vae(4, 1, optimizer=optimizer)))
    # PyTorch counts steps, too
    assert row.state_bytes_per_parameter == pytest.approx(bytes_each, abs=0.2)


def test_a_trial_that_diverges_is_a_row(tmp_path):
    trial = new_trial(
        tmp_path, tiny_vae(), params={"optimizer.optimizer": "sgd", "optimizer.learning_rate": 1e4}
    )
    row = to_the_end(trial)
    assert row.status == "diverged" and "lower --learning-rate" in row.error
    again = trial.advance()
    assert again["done"] and again["validation_loss"] == WORST and again["status"] == "diverged"


def test_a_trial_that_raises_is_a_row(tmp_path):
    row = to_the_end(new_trial(tmp_path, tiny_vae(), params={"fit.batch_size": 5000}))
    assert row.status == "failed" and "--batch-size 5000" in row.error and row.best is None
    assert read_trial(tmp_path / row.path / "trial.json") == row


def test_sealed_data_refuse_every_question_about_the_test_split():
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
    # Nor do the other rows hold on to memory that the test rows are in.
    assert data.train.values.untyped_storage().nbytes() == data.train.values.nbytes


def test_a_task_that_reads_the_test_split_fails_in_a_trial(tmp_path, monkeypatch):
    evaluate = VAETask.evaluate

    def cheating(self, split):
        return {**evaluate(self, split), "test": evaluate(self, self.data_of_the_test.test)["loss"]}

    def begin_stage(self, stage, data, total_updates, begin=VAETask.begin_stage):
        self.data_of_the_test = data
        return begin(self, stage, data, total_updates)

    monkeypatch.setattr(VAETask, "evaluate", cheating)
    monkeypatch.setattr(VAETask, "begin_stage", begin_stage)
    assert "test" in open_fit("vae", tiny_vae()).test()  # unsealed it works
    row = to_the_end(new_trial(tmp_path, tiny_vae()))
    assert (
        row.status == "failed"
        and row.error.startswith("SealedError: test split: sealed")
        and row.best is None
    )


@pytest.mark.parametrize("binarise", ["fixed", "none"])
def test_the_seal_is_opened_once_at_the_end(tmp_path, binarise):
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


def test_a_killed_trial_goes_on_as_if_nothing_had_happened(tmp_path):
    whole = to_the_end(new_trial(tmp_path / "whole", tiny_gan(), "gan"))
    trial = new_trial(tmp_path / "cut", tiny_gan(), "gan")
    trial.advance()
    trial.advance()
    trial._run.__exit__(None, None, None)  # the kernel lets go of a dead process's lock
    trial._locked = trial._training = None
    # Killed after its last checkpoint, whose look it had not reported; lines of its log are ahead
    # of the checkpoint.
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


def test_a_trial_killed_before_its_last_word_only_says_it(tmp_path):
    trial = new_trial(tmp_path, tiny_vae())
    row = to_the_end(trial)
    again = track(TrialRun(tmp_path, replace(row, status="running"), tiny_vae()))
    if row.best_step == 12:  # then the newest checkpoint is the last
        assert to_the_end(again).curve == row.curve


@pytest.fixture
def pair(tmp_path):
    """(a GAN's trial after two looks, another one with other settings)."""
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


def test_a_clone_has_both_players_bit_for_bit_and_its_own_settings(pair):
    source, clone, handed = pair
    clone.advance()
    weights = clone.open().fit.task.networks.state_dict()["generator.layers.0.weight"].clone()
    clone.load(handed)
    one, other = source.open().fit, clone.open().fit
    # source and clone share this process's generator: what was handed over is in the file
    torch.manual_seed(0)
    state = torch.load(handed / "fit.pt", weights_only=True)
    assert not torch.equal(weights, other.task.networks.state_dict()["generator.layers.0.weight"])
    # the average and the discriminator among them
    for name, tensor in one.task.networks.state_dict().items():
        assert torch.equal(tensor, other.task.networks.state_dict()[name]), name
    for player in ("generator", "discriminator"):
        mine, theirs = (fit.task.updaters[player].state_dict() for fit in (one, other))
        assert mine["updates"] == theirs["updates"] == 8
        # both of Adam's moments, and its count
        for number, moments in mine["optimizer"]["state"].items():
            assert moments.keys() == {"step", "exp_avg", "exp_avg_sq"}
            assert all(
                torch.equal(moments[name], theirs["optimizer"]["state"][number][name])
                for name in moments
            )
    assert other.task.updaters["generator"].optimizer.param_groups[0]["lr"] == 5e-4
    assert other.task.updaters["discriminator"].optimizer.param_groups[0]["lr"] == 3e-4
    assert other.step == one.step == state["step"] == 8 and other.task.config.label_smoothing == 0.2


def test_a_clone_with_the_same_settings_makes_the_same_steps(tmp_path, pair):
    _, _, handed = pair
    same = new_trial(tmp_path, tiny_gan(16, 4), "gan", "0002-all-search")
    torch.manual_seed(123)
    same.load(handed)
    after = [(step, value) for step, _, value in to_the_end(same).curve]
    whole = to_the_end(new_trial(tmp_path, tiny_gan(16, 4), "gan", "0003-all-search"))
    assert after == [(step, value) for step, _, value in whole.curve[2:]]


def test_a_clone_starts_from_the_random_state_that_was_saved(pair):
    _, clone, handed = pair
    torch.manual_seed(77)
    clone.load(handed)
    assert torch.equal(
        torch.get_rng_state(), torch.load(handed / "fit.pt", weights_only=True)["random"]
    )


def test_a_clone_says_whose_it_is_and_keeps_what_it_took_over(tmp_path, pair):
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


def test_a_damaged_hand_over_is_refused(pair):
    _, clone, handed = pair
    state = torch.load(handed / "fit.pt", weights_only=True)
    state["networks"]["generator.layers.0.weight"][0, 0] += 1e-3
    torch.save(state, handed / "fit.pt")
    with pytest.raises(RunFault, match="differs from what 0000-all-search saved"):
        clone.load(handed)


def test_a_diverged_member_of_a_population_is_revived(tmp_path, pair):
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
    dead.save(tmp_path / "note")  # what Tune does when it pauses a trial
    dead.load(tmp_path / "note")
    assert dead.row.status == "diverged" and list((tmp_path / "note").iterdir()) == [
        tmp_path / "note" / "clone.json"
    ]
    dead.row.params["optimizer.learning_rate"] = 1e-3
    dead.load(handed)
    assert dead.row.status == "running" and dead.advance()["steps"] == 12
