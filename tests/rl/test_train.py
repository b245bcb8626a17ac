"""Tests what a run refuses before it begins, how it trains, and what its model records."""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch

from genray import machine
from genray.config import save_yaml
from genray.errors import ConfigError, ResourceError, RunFault
from genray.rl import DQNConfig, presets
from genray.rl.agent import LocalAgent
from genray.rl.catch import CELL, Catch
from genray.rl.env import EnvConfig, Step, make_env
from genray.rl.evaluate import Evaluation
from genray.rl.policy import load_policy, open_policy
from genray.rl.replay import ReplayShard
from genray.rl.train import (
    Trainer,
    check_disk,
    check_memory,
    memory_bytes,
    save_policy,
    transition_bytes,
)
from genray.runs.live import Live
from genray.runs.rundir import RunDir


class TallCatch(Catch):
    """Catch with every pixel drawn as three by two: frames of 252x168."""

    frame_shape = (3 * 12 * CELL, 2 * 12 * CELL)

    def _draw(self) -> np.ndarray:
        return super()._draw().repeat(3, axis=1).repeat(2, axis=2)


CATCH = presets.catch()
TALL = replace(CATCH, env=replace(CATCH.env, env=f"{__name__}:TallCatch"))


def with_capacity(config: DQNConfig, capacity: int) -> DQNConfig:
    return replace(
        config,
        replay=replace(config.replay, capacity=capacity),
        run=replace(config.run, steps=10**12),
    )


@pytest.mark.parametrize(
    ("config", "frame"), [(CATCH, 84 * 84), (TALL, 252 * 168)], ids=["84x84", "252x168"]
)
def test_bytes_of_a_transition_are_those_of_the_replay(config: DQNConfig, frame: int):
    agent = LocalAgent(config)
    try:
        stored = sum(shard.nbytes for shard in agent.shards) / config.replay.capacity
    finally:
        agent.close()
    assert frame < stored <= transition_bytes(config) <= stored + 32


def test_memory_is_that_of_the_environments_own_frames(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "available_memory", lambda root: 10**9)
    check_memory(with_capacity(CATCH, 100_000))  # 0.7 GB
    with pytest.raises(
        ResourceError,
        match=r"--capacity 100000: needs 4.2 GB, 1.0 GB are.*at most --capacity 18876$",
    ):
        check_memory(with_capacity(TALL, 100_000))
    check_memory(with_capacity(TALL, 18_876))


def test_memory_bytes_counts_a_compressed_store(monkeypatch: pytest.MonkeyPatch):
    """The estimate exceeds the memory that real play takes, and is far below that of the raw
    store.
    """
    config = replace(
        CATCH, env=EnvConfig(game="road_runner"), replay=replace(CATCH.replay, replay_store="lz4")
    )
    config = with_capacity(config, 1_000)
    [layout] = replace(
        config, collect=replace(config.collect, collectors=1, envs_per_collector=2)
    ).plan_shards((84, 84))
    shard, env = ReplayShard(config.replay, layout), make_env(config.env, 2, num_threads=1)
    frames, rng = [env.reset(0)], np.random.default_rng(0)
    for _ in range(499):
        frames.append(env.step(rng.integers(env.num_actions, size=2)).frame_EHW.copy())
    env.close()
    shard._frames.write(slice(0, 2), 0, np.stack(frames, axis=1).reshape(2, 500, -1))
    assert shard.nbytes / 1_000 < memory_bytes(config) < transition_bytes(config) / 5
    monkeypatch.setattr(machine, "available_memory", lambda root: 10**9)
    check_memory(with_capacity(config, 700_000))
    with pytest.raises(
        ResourceError, match=r"--capacity 900000: needs 1.1 GB, 1.0 GB are.*at most --capacity \d+$"
    ):
        check_memory(with_capacity(config, 900_000))


def test_disk_is_that_of_the_environments_own_frames(tmp_path: Path):
    free = shutil.disk_usage(tmp_path).free
    copies = CATCH.run.keep + 2
    # with 84x84 a third of what is free, with 252x168 twice as much
    capacity = free // (copies * 20_000)
    check_disk(with_capacity(CATCH, capacity), tmp_path / "run")
    with pytest.raises(
        ResourceError, match="free some, choose another --out, or take a smaller --capacity"
    ):
        check_disk(with_capacity(TALL, capacity), tmp_path / "run")
    without = with_capacity(TALL, capacity)
    check_disk(
        replace(without, run=replace(without.run, checkpoint_replay=False)), tmp_path / "run"
    )


def test_save_policy_records_shapes(tmp_path: Path):
    small = replace(TALL, network=replace(TALL.network, channels=(4, 4, 4), hidden=8))
    agent = LocalAgent(small)
    network = agent.network()
    agent.close()
    result = Evaluation("catch", [1.0], [11], 0.0, None, None, 108_000)
    save_policy(tmp_path, small, network, 7, result)
    assert (
        "[B, 4, 252, 168], oldest first; output: Q-values [B, 3]"
        in (tmp_path / "README.md").read_text()
    )
    assert load_policy(tmp_path)[0].frame_shape == (252, 168)


# --- a run's evaluations --------------------------------------------------------------------------


class FailsAtThree(Catch):
    """Catch that cannot begin with three lanes, which an evaluation of three episodes has."""

    def reset(self, seed: int) -> np.ndarray:
        if self.num_lanes == 3:
            raise OSError(f"no display for {self.num_lanes} lanes")
        return super().reset(seed)


def evaluated(env: type[Catch], episodes: int) -> DQNConfig:
    return replace(
        CATCH,
        env=replace(CATCH.env, env=f"{__name__}:{env.__name__}"),
        network=replace(CATCH.network, channels=(2, 2, 2), hidden=8),
        replay=replace(CATCH.replay, capacity=500, min_size=32, samples_per_insert=1.0),
        run=replace(
            CATCH.run,
            steps=128,
            evaluate_every=64,
            checkpoint_every=64,
            evaluate_episodes=episodes,
            keep=1,
        ),
    )


def trained(config: DQNConfig, run: RunDir, start: int | None = None) -> Evaluation:
    agent = LocalAgent(config)
    try:
        if start is not None:
            agent.load(run.latest_checkpoint())
        return Trainer(config, agent, run, Live("catch", config.run.steps, ())).run(start)
    finally:
        agent.close()


def metrics_of(run: RunDir) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_trainer_logs_a_failing_evaluation_and_continues(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with RunDir.create(tmp_path / "run") as run:
        result = trained(evaluated(FailsAtThree, 9), run)  # 3 episodes on the way, 9 at the end
        assert len(result.scores) == 9
        assert [line["step"] for line in metrics_of(run) if "evaluation_failed" in line] == [64]
        said = capsys.readouterr().out
        assert said.index("step 64: checkpoint") < said.index("step 64: the evaluation failed (")
        manifest = json.loads((run.latest_checkpoint() / "manifest.json").read_text())
        assert manifest["step"] == 128 and manifest["score"] == result.mean


def test_trainer_ends_resumable_after_a_failing_last_evaluation(tmp_path: Path):
    with RunDir.create(tmp_path / "run") as run:
        with pytest.raises(
            RunFault,
            match=r"the evaluation failed \(.*FailsAtThree: its reset failed: OSError: no display "
            ".*00000128; continue with: ",
        ):
            trained(evaluated(FailsAtThree, 3), run)
        assert len(trained(evaluated(Catch, 3), run, 128).scores) == 3  # repaired and resumed


def test_trainer_keeps_the_best_checkpoint_by_its_later_score(tmp_path: Path):
    with RunDir.create(tmp_path / "run") as run:
        for step, score in ((1, 5.0), (2, 9.0), (3, 1.0), (4, None)):
            run.write_checkpoint(step, lambda folder: None, keep=1)
            if score is not None:
                run.note_score(step, score, keep=1)
        assert [folder.name for folder in run.list_checkpoints()] == ["00000002", "00000004"]
        run.note_score(3, 100.0, keep=1)  # not the newest
        assert json.loads((run.latest_checkpoint() / "manifest.json").read_text())["score"] is None


def test_trainer_resume_makes_each_step_and_metric_once(tmp_path: Path):
    config = evaluated(Catch, 3)
    with RunDir.create(tmp_path / "run") as run:
        trained(replace(config, run=replace(config.run, steps=64)), run)
        with (run.path / "metrics.jsonl").open("a") as file:  # as a process that was killed at 96
            file.write('{"step": 96, "seconds": 1e6, "updates": 1}\n')
        trained(config, run, 64)
        steps, seconds = zip(*((line["step"], line["seconds"]) for line in metrics_of(run)))
        assert list(steps) == sorted(steps) and steps[-1] == 128
        assert list(seconds) == sorted(seconds) and seconds[-1] < 1e5


def test_trainer_makes_an_evaluation_that_a_kill_took_away(tmp_path: Path):
    config = evaluated(Catch, 3)
    with RunDir.create(tmp_path / "run") as run:
        trained(replace(config, run=replace(config.run, steps=64)), run)
        log = run.path / "metrics.jsonl"
        kept = [line for line in log.read_text().splitlines(True) if "evaluation_" not in line]
        log.write_text("".join(kept))  # killed after the checkpoint of step 64
        trained(config, run, 64)
        assert [row["step"] for row in metrics_of(run) if "evaluation_mean" in row] == [64, 128]


class ArrivesLate(LocalAgent):
    """An engine in which a chunk arrives while it settles, as with collectors on Ray."""

    def settle(self) -> int:
        self.collect()
        return super().settle()


def test_trainer_evaluates_the_weights_of_a_late_chunk_once(tmp_path: Path):
    config = evaluated(Catch, 3)
    config = replace(config, run=replace(config.run, evaluate_every=32, checkpoint_every=32))
    with RunDir.create(tmp_path / "run") as run:
        agent = ArrivesLate(config)
        Trainer(config, agent, run, Live("catch", config.run.steps, ())).run()
        agent.close()
        steps = [row["step"] for row in metrics_of(run) if "evaluation_mean" in row]
        assert steps == sorted(set(steps)) and len(steps) == 2, steps


def test_training_ends_after_max_minutes_with_checkpoint_and_evaluation(tmp_path: Path):
    run = replace(
        CATCH.run, steps=10**6, max_minutes=0.05, evaluate_every=0, checkpoint_every=0,
        evaluate_episodes=2,
    )  # fmt: skip
    config = replace(with_capacity(CATCH, 2_000), run=run)
    folder = RunDir.create(tmp_path / "run")
    agent = LocalAgent(config)
    start = time.monotonic()
    try:
        result = Trainer(config, agent, folder, Live("", run.steps, ())).run()
    finally:
        agent.close()
    assert 3 <= time.monotonic() - start < 60
    assert len(result.scores) == 2
    assert folder.model.is_dir() and folder.latest_checkpoint().is_dir()


# --- the best policy ------------------------------------------------------------------------------


class Scripted(Catch):
    """Catch in which all episodes of the n-th evaluation of three episodes score `SCORES[n]`, and
    those of any other evaluation 7.
    """

    SCORES: ClassVar[list[float]] = []
    played: ClassVar[int] = 0

    def reset(self, seed: int) -> np.ndarray:
        self._score = 7.0
        if self.num_lanes == 3:
            self._score = self.SCORES[Scripted.played]
            Scripted.played += 1
        return super().reset(seed)

    def step(self, action_E: np.ndarray) -> Step:
        step = super().step(action_E)
        return step._replace(reward_E=np.where(step.reward_E != 0, self._score, 0.0))


def scripted(scores: list[float], steps: int) -> DQNConfig:
    Scripted.SCORES, Scripted.played = scores, 0
    config = evaluated(Scripted, 9)
    run = replace(config.run, saved_policy="best", steps=steps, keep=1)
    return replace(config, run=run)


def test_saved_policy_best_is_the_one_with_the_best_score(tmp_path: Path):
    with RunDir.create(tmp_path / "run") as run:
        config = scripted([1.0, 5.0, 5.0, 2.0], 256)
        save_yaml(config, run.path / "config.yaml")
        result = trained(config, run)
        assert result.scores == [7.0] * 9  # played again, from other starts
        policy = open_policy(run.path)
        assert policy.step == 192, "the later one of two equals"
        last, best = (open_policy(run.path, step) for step in (256, 192))
        assert last.source != policy.source and best.source == policy.source == run.model
        [kept] = [folder for folder in run.list_checkpoints() if int(folder.name) == 192]
        saved = torch.load(kept / "learner.pt", weights_only=True)["online"]
        for name, tensor in policy.network.state_dict().items():
            assert torch.equal(tensor, saved[name]), name
        changed = last.network.state_dict()
        assert not all(torch.equal(tensor, changed[name]) for name, tensor in saved.items())
        means = [
            (row["step"], row["evaluation_mean"])
            for row in metrics_of(run)
            if "evaluation_mean" in row
        ]
        assert means == [(64, 1.0), (128, 5.0), (192, 5.0), (256, 2.0), (256, 7.0)]
        card = (run.model / "README.md").read_text()
        assert "for 192 agent steps" in card and "by a score of 5.0" in card


def test_saved_policy_best_outlives_a_resume(tmp_path: Path):
    with RunDir.create(tmp_path / "run") as run:
        trained(scripted([3.0], 64), run)
        trained(scripted([1.0, 2.0], 192), run, 64)
        assert open_policy(run.path).step == 64
        trained(scripted([4.0], 256), run, 192)
        assert open_policy(run.path).step == 256


def test_saved_policy_best_of_a_single_evaluation_is_the_last(tmp_path: Path):
    config = scripted([], 64)
    with RunDir.create(tmp_path / "run") as run:
        result = trained(replace(config, run=replace(config.run, evaluate_every=0)), run)
        assert result.scores == [7.0] * 9 and Scripted.played == 0
        assert open_policy(run.path).step == 64


def test_saved_policy_is_last_or_best():
    config = evaluated(Catch, 9)
    with pytest.raises(ConfigError, match="--saved-policy first: must be last or best"):
        replace(config, run=replace(config.run, saved_policy="first")).validate()  # type: ignore[arg-type]
