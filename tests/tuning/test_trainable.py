"""Tests `trainable` without a cluster: checkpoints need no other file, and mistyped keys raise."""

import json
import shutil

import pytest
import torch

from genray import cli
from genray.errors import CheckpointError, ConfigError
from genray.rl import presets as agent_presets
from tests.helpers.tuning import tiny_vae
from tuning.driver import failure_reason
from tuning.settings import changed
from tuning.trainable import load_model, trainable
from tuning.trial_run import digest

RATE = "optimizer.learning_rate"


@pytest.fixture
def begin(monkeypatch):
    """Return a function that makes a trial as Tune's actor does, each in a new directory. The
    random state of the process differs between trials.
    """
    monkeypatch.setenv("RAY_AIR_NEW_OUTPUT", "0")
    made = []

    def begin(base, family="vae", **config):
        torch.manual_seed(len(made) + 99)
        made.append(trainable(family, base)(config=config))
        return made[-1]

    yield begin
    for each in made:
        each.stop()
        shutil.rmtree(each.logdir, ignore_errors=True)


def to_the_end(trial) -> list[dict]:
    results = [trial.train()]
    while not results[-1]["done"]:
        results.append(trial.train())
    return results


def figures(results: list[dict]) -> list[tuple]:
    return [
        (each["steps"], each["look"], each["best"], each["validation_loss"]) for each in results
    ]


def test_trainable_resumes_bit_for_bit_from_tunes_checkpoint_alone(begin, tmp_path):
    whole = begin(tiny_vae(), **{RATE: 1e-2, "seed": 3})
    expected = figures(to_the_end(whole))
    first = begin(tiny_vae(), **{RATE: 1e-2, "seed": 3})
    made = figures([first.train()])
    first.save(str(tmp_path))
    first.stop()
    shutil.rmtree(first.logdir)  # the directory of a killed Ray session is lost
    again = begin(tiny_vae(), **{RATE: 1e-2, "seed": 3})
    again.restore(str(tmp_path))
    assert made + figures(to_the_end(again)) == expected
    assert digest(again._run.open().state()) == digest(whole._run.open().state())
    assert len(again._run.row.curve) == 3


def test_trainable_leaves_its_model_in_the_checkpoint(begin, tmp_path):
    trial = begin(tiny_vae(), **{RATE: 1e-2})
    results = to_the_end(trial)
    assert results[-1]["should_checkpoint"] and trial._run.row.status == "done"
    assert all(
        each.get("should_checkpoint") for each in results if each["best"] == each["validation_loss"]
    )
    trial.save(str(tmp_path / "checkpoint"))
    kept = trial._run.open().fit.task.networks.state_dict()
    model = load_model(tmp_path / "checkpoint")
    assert all(
        torch.equal(tensor, kept[f"vae.{name}"]) for name, tensor in model.state_dict().items()
    )
    assert json.loads((tmp_path / "checkpoint" / "model" / "config.json").read_text())["test"] == {}
    out = tmp_path / "grid.png"
    assert (
        cli.main(["sample", str(tmp_path / "checkpoint"), "--num", "4", "--out", str(out)]) == 0
        and out.exists()
    )
    # A trial that was killed after its last checkpoint reports again that it is done.
    again = begin(tiny_vae(), **{RATE: 1e-2})
    again.restore(str(tmp_path / "checkpoint"))
    assert figures([again.train()]) == figures(results[-1:])
    again.save(str(tmp_path / "again"))
    load_model(tmp_path / "again")


def test_trainable_that_diverges_has_no_model_to_load(begin, tmp_path):
    trial = begin(tiny_vae(), **{RATE: 1e4, "optimizer.optimizer": "sgd"})
    assert "should_checkpoint" not in to_the_end(trial)[-1]
    trial.save(str(tmp_path))
    with pytest.raises(CheckpointError, match="not a model"):
        load_model(tmp_path)


def test_trainable_leaves_an_agents_policy(begin, tmp_path):
    base = changed(
        agent_presets.preset("catch"),
        {
            "run.steps": 64,
            "run.evaluate_every": 32,
            "run.evaluate_episodes": 1,
            "replay.min_size": 8,
            "replay.capacity": 512,
            "network.hidden": 8,
        },
    )
    trial = begin(base, "dqn")
    trial.train()
    trial.save(str(tmp_path))
    assert load_model(tmp_path).num_actions == 3


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (
            {"optimizer.learningrate": 1e-2},
            "optimizer.learningrate: no such setting of VAEConfig; did you mean optimizer",
        ),
        ({"optimizer.l3?": False, "optimizer.l3": 1.0}, "optimizer.l3: no such setting"),
        ({RATE: "fast"}, "optimizer.learning_rate: 'fast' is not a float"),
    ],
)
def test_trainable_raises_for_a_key_that_is_no_setting(begin, config, said):
    with pytest.raises(ConfigError, match=said):
        begin(tiny_vae(), **config)


RAISED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died because of an error raised in its creation task, \x1b[36mray::Trial.__init__()\x1b[39m (pid=7, ip=127.0.0.1)
  File "/x/tuning/trainable.py", line 70, in setup
    rehearse(self.family, self.base)
genray.errors.ConfigError: --data folder:pics: no such folder
"""  # noqa: E501
KILLED = """Failure # 1 (occurred at 2026-01-01_00-00-00)
The actor died unexpectedly before finishing this task.
\tclass_name: Trial
The actor is dead because its worker process has died. Worker exit detail: End of file. (1) The process is killed by OOM
"""  # noqa: E501


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (RAISED, "ConfigError: --data folder:pics: no such folder"),
        (KILLED, "its process died (out of memory, or killed)"),
        (
            "Task was killed due to the node running low on memory.",
            "its process was killed because its machine ran low",
        ),
        ("The actor died because its node has died.", "its machine was lost"),
        ("", "its process died (out of memory, or killed)"),
    ],
)
def test_failure_reason_is_the_exception_or_how_the_process_died(text, cause):
    assert failure_reason(text).startswith(cause)
