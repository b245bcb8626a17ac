"""Tests, without Ray, which incarnations of collectors and learners may write to a shard."""

import pytest

from genray.distributed.fence import Epochs, Fence

OLD, NEW, LATER = 101, 102, 103  # incarnations


@pytest.fixture
def fence() -> Fence:
    made = Fence([0, 2])
    made.enter(0, OLD)
    made.enter(2, 7)
    assert made.accepts_chunk(0, 0, OLD) and made.accepts_chunk(2, 0, 7)
    return made


def test_fence_enter_ends_the_previous_incarnation_at_once(fence: Fence):
    fence.enter(0, NEW)
    assert not fence.accepts_chunk(0, 0, OLD)
    assert fence.accepts_chunk(0, 0, NEW)
    assert fence.accepts_chunk(2, 0, 7)  # the other collector does not write to this shard
    assert fence.refused == 1


def test_fence_receive_ends_older_epochs(fence: Fence):
    fence.receive(Epochs(collectors={0: 1, 1: 5, 2: 0}, learner=0))
    assert not fence.accepts_chunk(0, 0, OLD)
    assert fence.accepts_chunk(0, 1, NEW)
    assert not fence.accepts_chunk(0, 0, OLD) and not fence.accepts_chunk(0, 0, NEW)
    assert fence.accepts_chunk(2, 0, 7)
    assert fence.refused == 3


def test_fence_accepts_a_chunk_of_a_newer_epoch(fence: Fence):
    assert fence.accepts_chunk(0, 3, NEW)
    assert not fence.accepts_chunk(0, 2, LATER) and not fence.accepts_chunk(0, 0, OLD)


def test_fence_accepts_the_same_incarnation_in_a_newer_epoch(fence: Fence):
    """The coordinator took the collector for dead, but only its answer was late."""
    fence.receive(Epochs(collectors={0: 1}, learner=0))
    assert not fence.accepts_chunk(0, 0, OLD)  # chunks that were queued before
    assert fence.accepts_chunk(0, 1, OLD)


def test_fence_accepts_one_of_two_incarnations_in_an_epoch(fence: Fence):
    fence.receive(Epochs(collectors={0: 1}, learner=0))
    assert fence.accepts_chunk(0, 1, NEW)
    assert not fence.accepts_chunk(0, 1, OLD)
    assert fence.accepts_chunk(0, 1, NEW)


def test_late_words_change_nothing(fence: Fence):
    fence.receive(Epochs(collectors={0: 4}, learner=4))
    fence.receive(Epochs(collectors={0: 1}, learner=1))
    assert not fence.accepts_chunk(0, 3, NEW)
    assert not fence.accepts_learner(3, writes=True)


def test_fence_refuses_and_counts_a_stale_learner(fence: Fence):
    assert fence.accepts_learner(0, writes=True)
    assert fence.accepts_learner(2, writes=False)
    assert not fence.accepts_learner(1, writes=False)
    assert fence.refused == 0
    assert not fence.accepts_learner(1, writes=True)
    assert fence.refused == 1
    fence.receive(Epochs(collectors={}, learner=3))
    assert not fence.accepts_learner(2, writes=True)


def test_fence_of_a_restarted_shard_waits_for_epochs():
    fence = Fence([0], has_epochs=False)
    assert not fence.has_epochs
    fence.receive(Epochs(collectors={0: 1}, learner=1))
    assert fence.has_epochs
    assert not fence.accepts_chunk(0, 0, OLD) and fence.accepts_chunk(0, 1, NEW)
