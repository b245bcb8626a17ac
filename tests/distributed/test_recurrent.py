"""Tests an LSTM with two learners: in one process against a single learner, and on Ray, where a
collector and a shard die.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import torch

from genray.distributed import data_parallel
from genray.distributed.coordinator import Coordinator
from genray.distributed.data_parallel import Group
from genray.rl.agent import LocalAgent
from genray.rl.chunk import Sample
from genray.rl.engine import Progress
from genray.rl.evaluate import evaluate
from genray.rl.recurrent_learner import RecurrentLearner
from tests.distributed.test_learner_group import same, weights
from tests.rl.test_recurrent_learner import BLIND, batch_of, learner_of


class Threads:
    """The part of torch.distributed that a `Group` uses, between two threads of this process."""

    def __init__(self) -> None:
        self.ReduceOp = torch.distributed.ReduceOp
        self._rank, self._barrier = threading.local(), threading.Barrier(2, timeout=20)
        self._given: list[torch.Tensor] = [torch.zeros(0)] * 2

    def init_process_group(self, *args, rank: int, **options) -> None:
        self._rank.number = rank

    def all_gather(self, out: list[torch.Tensor], mine: torch.Tensor) -> None:
        self._given[self._rank.number] = mine
        self._barrier.wait()
        for tensor, given in zip(out, self._given, strict=True):
            tensor.copy_(given)  # raises if another learner is at another tensor
        self._barrier.wait()

    def all_reduce(self, tensor: torch.Tensor) -> None:
        both = [torch.empty_like(tensor) for _ in range(2)]
        self.all_gather(both, tensor)
        tensor.copy_(both[0] + both[1])


def test_two_recurrent_learners_update_as_one_with_all_sequences(monkeypatch):
    """Episodes begin in the sequences of the second learner alone, whose backward pass has another
    order; and fewer of its rows are learned from.
    """
    monkeypatch.setattr(data_parallel, "dist", Threads())
    monkeypatch.setattr(data_parallel, "_choose_interface", lambda address: None)

    def learn(learner: RecurrentLearner, part: slice, group: Group | None) -> RecurrentLearner:
        for number in range(4):
            batch: Sample = batch_of(number).rows(part)
            if group:
                group.begin_update(group.shares([batch], True)[0], 0.4)
            learner.update(batch, 1_000, 0.4)
        return learner

    def member(learner: RecurrentLearner, rank: int) -> RecurrentLearner:
        group = Group(rank, 2, "", "cpu", learner.trained)
        learner.share_gradients = group.average_gradients
        return learn(learner, slice(3) if rank == 0 else slice(3, 5), group)

    whole, *both = (learner_of() for _ in range(3))
    learn(whole, slice(None), None)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(member, both, range(2))
    states = [each.online.state_dict() for each in (whole, first, second)]
    assert same(states[1], states[2])
    start = learner_of().online.state_dict()
    assert not any(torch.equal(start[name], states[0][name]) for name in start if "weight" in name)
    for name, expected in states[0].items():
        torch.testing.assert_close(states[1][name], expected, rtol=1e-3, atol=1e-6, msg=name)


CONFIG = replace(
    BLIND,
    replay=replace(BLIND.replay, shards=1, replay_store="lz4"),
    learner=replace(BLIND.learner, learners=2),
    collect=replace(BLIND.collect, collectors=1, envs_per_collector=4),
    run=replace(BLIND.run, publish_every=5, learner_snapshot_s=0.5),
)


def advance(engine: Coordinator, until: Callable[[Progress], bool]) -> Progress:
    """Advance until `until` holds; collect all events."""
    events: list[str] = []
    stop = time.monotonic() + 200
    while True:
        progress = engine.advance(engine.steps + 100, seconds=0.5)
        events += progress.events
        if until(progress):
            return replace(progress, events=events)
        assert time.monotonic() < stop, f"stuck at {progress}: {events}"


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_recurrent_run_on_ray_with_two_learners_survives_deaths(ray_here, tmp_path: Path):
    engine = Coordinator(CONFIG, learner_threads=1)
    try:
        before = advance(engine, lambda progress: progress.updates > 20)
        assert before.restarts == 0, before.events
        ray.kill(engine._collectors[0].actor, no_restart=False)
        ray.kill(engine.shards[0], no_restart=False)
        after = advance(engine, lambda progress: progress.restarts >= 2)
        after = advance(engine, lambda progress: progress.updates > after.updates + 40)
        assert after.restarts == 2 and after.replay_size >= 100, after
        engine.save(tmp_path)
        first, second = weights(engine)
        assert same(first, second)
        assert same(torch.load(tmp_path / "learner.pt", weights_only=True)["online"], first)
        network = engine.network()
        assert len(evaluate(network, CONFIG.env, episodes=4).scores) == 4
    finally:
        engine.close()
    # One process continues the checkpoint, with the stored states.
    one = LocalAgent(replace(CONFIG, learner=replace(CONFIG.learner, learners=1)), threads=1)
    one.load(tmp_path)
    assert same(one.network().state_dict(), network.state_dict())
    assert one.shards[0]._sequences.state_LPS.any()
    updates = one.learner.updates
    one.advance(one.steps + 200, 60)
    assert one.learner.updates > updates
    one.close()
