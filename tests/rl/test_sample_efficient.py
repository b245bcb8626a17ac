"""Tests the switches of `bbf_lite` together: resume, policies on disk, live columns, errors."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.rl import presets
from genray.rl.agent import LocalAgent
from genray.rl.columns import COLUMNS, columns_of
from genray.rl.config import DQNConfig
from genray.rl.engine import Progress
from genray.rl.evaluate import evaluate
from genray.rl.policy import open_policy
from genray.rl.train import Trainer
from genray.runs.live import Live
from genray.runs.rundir import RunDir
from tests.helpers.efficient import TINY_BBF, TINY_BTR
from tests.oracles import full_state


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def advance(agent: LocalAgent, steps: int) -> None:
    while agent.steps < steps:
        agent.advance(steps, seconds=60)


@pytest.mark.parametrize(
    ("config", "updates"), [(TINY_BBF, 2 * TINY_BBF.learner.reset_every), (TINY_BTR, 20)]
)
def test_resume_with_every_switch_on_equals_no_interruption(tmp_path, config, updates):
    """The checkpoint is made between two resets, while n, γ and the learning rate change, or
    between two copies of w to w⁻.
    """
    whole = LocalAgent(config)
    advance(whole, 160)
    cut = LocalAgent(config)
    advance(cut, 100)
    assert cut.learner.updates % TINY_BBF.learner.reset_every not in (0, 1)
    cut.save(tmp_path / "checkpoint")
    resumed = LocalAgent(config)
    assert resumed.load(tmp_path / "checkpoint")
    advance(resumed, 160)
    assert whole.learner.updates > updates
    expected, found = full_state(whole), full_state(resumed)
    assert expected.keys() == found.keys()
    for name in expected:
        np.testing.assert_array_equal(expected[name], found[name], err_msg=name)
    for agent in (whole, cut, resumed):
        agent.close()


def test_run_writes_a_model_that_plays_without_the_run(tmp_path):
    """The model contains the median frame, encoder and head; the checkpoint's policy is w⁻."""
    with RunDir.create(tmp_path / "run") as run:
        agent = LocalAgent(TINY_BBF)
        from genray.config import save_yaml

        save_yaml(TINY_BBF, run.path / "config.yaml")
        with Live("test", 120, COLUMNS) as live:
            Trainer(TINY_BBF, agent, run, live).run()
        expected = agent.learner.policy()
        agent.close()
    for source in (run.path / "model", run.path):
        policy = open_policy(source)
        found = policy.network.state_dict()
        assert found.keys() == expected.keys() and "median_HW" in found
        assert all(torch.equal(found[name], expected[name]) for name in found)
        assert policy.network.config == TINY_BBF.network
    (run.path / "model").rename(tmp_path / "moved")
    from_checkpoint = open_policy(run.path).network.state_dict()
    assert all(torch.equal(from_checkpoint[name], expected[name]) for name in expected)
    scores = evaluate(open_policy(tmp_path / "moved").network, TINY_BBF.env, episodes=2).scores
    assert len(scores) == 2


def test_live_line_names_the_replay_ratio_and_the_next_reset(tmp_path):
    assert columns_of(presets.dqn()) == COLUMNS
    titles = [title for _, title, _ in columns_of(TINY_BBF)]
    assert titles[-2:] == ["replay ratio", "next reset at"]
    assert columns_of(presets.bbf_lite())[-2:] == columns_of(TINY_BBF)[-2:]
    with RunDir.create(tmp_path / "run") as run, Live("test", 1, COLUMNS) as live:
        trainer = Trainer(TINY_BBF, None, run, live)  # type: ignore[arg-type]
        now = Progress(steps=90, updates=45, samples_per_insert=16.0)
        values = trainer._values(now, Progress(), 1.0)
        assert values["replay_ratio"] == 2.0 and values["next_reset"] == 60
        plain = Trainer(presets.dqn(), None, run, live)  # type: ignore[arg-type]
        assert "next_reset" not in plain._values(now, Progress(), 1.0)


@pytest.mark.parametrize(
    "name", ["bbf_lite", "rainbow_lite", "rainbow", "der", "drq_eps", "bbf", "btr"]
)
def test_preset_is_valid_and_learns(name: str):
    config = presets.preset(name)
    config.validate()
    config.check_learns()
    assert config.notes() == []


def with_learner(**options) -> DQNConfig:
    return replace(TINY_BBF, learner=replace(TINY_BBF.learner, **options))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (with_learner(reset_every=10_000), "--reset-every 10000: the run makes about 240 updates"),
        (with_learner(loss="squared"), "--loss squared: a head c51 has a loss of its own"),
    ],
)
def test_switches_that_contradict_are_refused(config: DQNConfig, words: str):
    with pytest.raises(ConfigError, match=f"^{words}"):
        config.validate()
        config.check_learns()
