"""Tests ApexDQN on a private Ray of two CPUs, which the whole file shares."""

import json
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from ray import tune
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from ray.util import placement_group, remove_placement_group

from genray.distributed import session
from genray.distributed.session import even_share
from genray.distributed.waiting import waits_explained
from genray.errors import CheckpointError, ConfigError, ResourceError
from genray.rl.agent import LocalAgent
from genray.rl.config import DQNConfig
from genray.rl.engine import Progress
from genray.rllib import ApexDQN, ApexDQNConfig
from genray.runs import files
from tests.helpers.kills import kill_at_every_instant
from tests.helpers.rllib import small


@pytest.mark.parametrize(
    ("places", "share"),
    [
        ([2.0], 0.66),  # 3 actors on 2 CPUs
        ([8.0], 1.0),
        ([0.66, 0.66, 0.66], 0.66),
        ([1.0, 1.0], 0.5),  # two thirds of a CPU would fit once into each, which is not three times
        ([0.0, 4.0], 1.0),
        ([], 0.0),
    ],
)
def test_even_share_fits_all_actors(places: list[float], share: float):
    assert even_share(DQNConfig(), places) == pytest.approx(share)


def without_ray() -> ApexDQN:
    """Return an algorithm whose engine runs in this process, so that saving needs no Ray."""
    algo = object.__new__(ApexDQN)
    algo.config = small()
    algo._engine, algo._worked = LocalAgent(algo.config.to_dqn()), False
    algo.metrics, algo._progress, algo._episodes = MetricsLogger(), Progress(), deque()
    algo._num_episodes = algo._iteration = 0
    return algo


@pytest.mark.ray  # The test takes half a minute, too long for the default tier.
def test_save_to_path_killed_at_every_instant_leaves_the_old_or_the_new(tmp_path: Path):
    algo, again, place, found = without_ray(), without_ray(), tmp_path / "checkpoint", []

    def check() -> None:
        again.restore_from_path(place)
        # The parts of the engine and of RLlib were saved at the same step.
        assert again._engine.steps == again._progress.steps
        found.append(again._engine.steps)

    algo._engine.collect()
    algo.save_to_path(place)
    check()
    algo._engine.collect()
    steps = algo._engine.steps

    def save() -> None:
        files._cleared.clear()  # as in a new process
        algo.save_to_path(place)

    assert kill_at_every_instant(save, check) > 20
    assert set(found) == {found[0], steps} and found[0] < steps
    assert sorted(path.name for path in place.iterdir()) == [
        "algorithm_state.pkl", "class_and_ctor_args.pkl", "engine", "rllib_checkpoint.json",
    ]  # fmt: skip


def test_restore_from_path_loads_a_checkpoint_of_an_earlier_version(tmp_path: Path):
    """An earlier version wrote RLlib's files only to the directory itself. The directory also has
    a leftover of a killed writer.
    """
    algo, again = without_ray(), without_ray()
    algo._engine.collect()
    place = Path(algo.save_to_path(tmp_path))
    for name in ("algorithm_state.pkl", "class_and_ctor_args.pkl", "rllib_checkpoint.json"):
        (place / "engine" / name).unlink()
    (place / "engine.123.tmp").mkdir()
    again.restore_from_path(place)
    assert again._engine.steps == algo._engine.steps > 0
    again.save_to_path(place)
    assert not list(place.glob("*.tmp"))


@pytest.mark.ray
def test_waits_explained_reports_only_a_wait_for_cpus(two_cpus, capsys):
    with waits_explained("a run", patience_s=0.2):
        time.sleep(0.5)  # no actor waits for CPUs
    assert not capsys.readouterr().err
    holder = placement_group([{"CPU": 2}])
    assert holder.wait(30)
    waiter = placement_group([{"CPU": 1}])
    try:
        with waits_explained("a run", patience_s=0.2):
            assert not waiter.wait(3)
    finally:
        remove_placement_group(waiter)
        remove_placement_group(holder)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("a run waits: Ray is asked for 1 x 1 CPU, but 0 of 2 CPUs are free;")
    assert "algo.stop()" in line


@pytest.mark.ray
def test_apex_dqn_trains_evaluates_and_continues_on_catch(two_cpus, tmp_path: Path, monkeypatch):
    heard: list[str] = []
    config = (
        small()
        .evaluation(evaluation_interval=2, evaluation_duration=8)
        .env_runners(num_env_runners=1)
    )
    config.callbacks(
        on_algorithm_init=lambda **_: heard.append("init"),
        on_train_result=lambda result, **_: heard.append("result"),
        on_evaluate_end=lambda **_: heard.append("evaluated"),
    )
    algo = config.build_algo()
    first, second = algo.train(), algo.train()
    assert heard == ["init", "result", "evaluated", "result"]
    assert first["num_env_steps_sampled_lifetime"] >= 300
    assert second["num_env_steps_sampled_lifetime"] >= 600
    assert second["training_iteration"] == 2
    assert -1 <= second["env_runners"]["episode_return_mean"] <= 1
    assert second["env_runners"]["episode_len_mean"] == 11
    assert second["env_runners"]["num_episodes_lifetime"] > 40
    assert second["learners"]["default_policy"]["total_loss"] > 0
    assert second["updates"] > 0 and second["weight_lag"] >= 0
    assert 0 < second["samples_per_insert"] <= 4.5
    assert "evaluation" not in first
    assert second["evaluation"]["env_runners"]["num_episodes"] == 8

    folder = algo.save_to_path(tmp_path / "checkpoint")
    assert (Path(folder) / "rllib_checkpoint.json").exists()
    assert not list(Path(folder).glob("*.tmp"))
    algo.stop()
    state = json.loads((Path(folder) / "engine" / "state.json").read_text())
    learner = torch.load(Path(folder) / "engine" / "learner.pt", weights_only=True)

    monkeypatch.chdir(tmp_path)
    again = ApexDQN.from_checkpoint("checkpoint")
    assert again.iteration == 2
    assert again._engine.steps == state["steps"] >= second["num_env_steps_sampled_lifetime"]
    report = ray.get(again._engine.learner.learn.remote(0.0))
    assert report.updates == learner["updates"] >= second["updates"]
    assert report.size == sum(shard["counts"]["size"] for shard in state["shards"]) > 500
    assert report.samples_per_insert == pytest.approx(second["samples_per_insert"], abs=0.5)
    for name, tensor in again.network().state_dict().items():
        assert torch.equal(tensor, learner["online"][name]), name
    third = again.train()
    assert third["training_iteration"] == 3
    assert third["num_env_steps_sampled_lifetime"] >= state["steps"] + 300
    assert (
        third["env_runners"]["num_episodes_lifetime"]
        > second["env_runners"]["num_episodes_lifetime"]
    )
    assert third["replay_buffer"]["num_env_steps_stored"] > report.size
    # Population-based training restores trials that have trained already.
    again.restore_from_path(folder)
    assert again.iteration == 2
    assert again._engine.steps == state["steps"]
    assert ray.get(again._engine.learner.learn.remote(0.0)).updates == report.updates
    again.stop()


@pytest.mark.ray
def test_apex_dqn_trains_and_holds_its_cpus_on_pong(two_cpus, tmp_path: Path, monkeypatch):
    config = small("ale_py:ALE/Pong-v5", steps=200).environment(
        env_config={"max_episode_frames": 400}
    )
    config.env_runners(num_env_runners=1)
    algo = config.evaluation(
        evaluation_duration=2, evaluation_config={"explore": False}
    ).build_algo()
    algo.train()
    result = algo.train()
    assert result["num_env_steps_sampled_lifetime"] >= 400
    played = algo.evaluate()
    assert played["env_runners"]["num_episodes"] == 2
    assert -21 <= played["env_runners"]["episode_return_mean"] <= 21
    assert "human_normalised" not in played, "the episodes were cut at 400 frames"
    with pytest.raises(ConfigError, match="local folder"):
        algo.save_to_path("s3://bucket/checkpoint")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        algo.restore_from_path(tmp_path)
    for absent in (algo.get_module, algo.get_policy, algo.compute_single_action):
        with pytest.raises(ConfigError, match=r"algo\.network\(\)"):
            absent()
    weights = algo.get_weights()["default_policy"]
    assert weights.keys() == algo.network().state_dict().keys()
    assert all(isinstance(array, np.ndarray) for array in weights.values())
    monkeypatch.setattr(session, "FREE_S", 1.0)
    with pytest.raises(
        ResourceError, match=r"another run, ApexDQN or sweep holds them; end it \(algo.stop\(\)"
    ):
        small().build_algo()
    algo.stop()
    small().build_algo().stop()


@pytest.mark.ray
def test_default_resource_request_fits_two_cpus(two_cpus):
    request = ApexDQN.default_resource_request({"env": "pong"})
    assert request.head_bundle_is_empty
    assert request.required_resources["CPU"] == pytest.approx(1.98)
    beside = ApexDQN.default_resource_request({"env": "pong", "num_cpus_for_main_process": 1})
    assert beside.bundles == [{"CPU": 1.0}] + [{"CPU": 0.33}] * 3
    halves = ApexDQN.default_resource_request(
        {"env": "pong", "num_env_runners": 1, "num_cpus_per_learner": 1}
    )
    assert halves.bundles == [{"CPU": 1.0}, {"CPU": 1.0}]


@pytest.mark.ray
def test_apex_dqn_config_is_a_param_space_of_the_tuner(two_cpus, tmp_path: Path):
    space = small(steps=100).training(lr=tune.grid_search([1e-3])).env_runners(num_env_runners=1)
    results = tune.Tuner(
        ApexDQN,
        param_space=space,
        run_config=tune.RunConfig(
            stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0
        ),
        tune_config=tune.TuneConfig(metric="env_runners/episode_return_mean", mode="max"),
    ).fit()
    assert not results.errors
    assert results.get_best_result().metrics["config"]["lr"] == 1e-3


@pytest.mark.ray
def test_apex_dqn_refuses_an_unknown_game(two_cpus, tmp_path: Path):
    with pytest.raises(ConfigError, match="did you mean breakout"):
        ApexDQNConfig().environment("ALE/Breakuot-v5").build_algo()
    with pytest.raises(Exception, match="did you mean breakout"):
        tune.run(ApexDQN, config={"env": "breakuot"}, storage_path=str(tmp_path), verbose=0)
