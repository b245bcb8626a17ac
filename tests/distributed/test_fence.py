"""Who may write to a shard: the latest life of each collector, and of the learner. Without Ray."""

import pytest

from genray.distributed.fence import Epochs, Fence

OLD, NEW, LATER = 101, 102, 103  # incarnations


@pytest.fixture
def fence() -> Fence:
    made = Fence([0, 2])
    made.enter(0, OLD)
    made.enter(2, 7)
    assert made.admits_chunk(0, 0, OLD) and made.admits_chunk(2, 0, 7)
    return made


def test_a_new_life_ends_the_old_one_before_the_coordinator_knows(fence: Fence):
    fence.enter(0, NEW)
    assert not fence.admits_chunk(0, 0, OLD)
    assert fence.admits_chunk(0, 0, NEW)
    assert fence.admits_chunk(2, 0, 7)  # the other collector is nobody's concern
    assert fence.refused == 1


def test_the_coordinators_word_ends_older_epochs(fence: Fence):
    fence.receive(Epochs(collectors={0: 1, 1: 5, 2: 0}, learner=0))
    assert not fence.admits_chunk(0, 0, OLD)
    assert fence.admits_chunk(0, 1, NEW)
    assert not fence.admits_chunk(0, 0, OLD) and not fence.admits_chunk(0, 0, NEW)
    assert fence.admits_chunk(2, 0, 7)
    assert fence.refused == 3


def test_a_chunk_of_a_newer_epoch_is_believed_and_ends_the_older_one(fence: Fence):
    assert fence.admits_chunk(0, 3, NEW)
    assert not fence.admits_chunk(0, 2, LATER) and not fence.admits_chunk(0, 0, OLD)


def test_the_same_life_goes_on_in_a_newer_epoch(fence: Fence):
    """The coordinator took it for dead while only its answer was late."""
    fence.receive(Epochs(collectors={0: 1}, learner=0))
    assert not fence.admits_chunk(0, 0, OLD)  # what was queued before
    assert fence.admits_chunk(0, 1, OLD)


def test_two_lives_in_one_epoch_never_both_write(fence: Fence):
    fence.receive(Epochs(collectors={0: 1}, learner=0))
    assert fence.admits_chunk(0, 1, NEW)
    assert not fence.admits_chunk(0, 1, OLD)
    assert fence.admits_chunk(0, 1, NEW)


def test_late_words_change_nothing(fence: Fence):
    fence.receive(Epochs(collectors={0: 4}, learner=4))
    fence.receive(Epochs(collectors={0: 1}, learner=1))
    assert not fence.admits_chunk(0, 3, NEW)
    assert not fence.admits_learner(3, writes=True)


def test_a_stale_learner_is_refused_and_its_writes_are_counted(fence: Fence):
    assert fence.admits_learner(0, writes=True)
    assert fence.admits_learner(2, writes=False)
    assert not fence.admits_learner(1, writes=False)
    assert fence.refused == 0
    assert not fence.admits_learner(1, writes=True)
    assert fence.refused == 1
    fence.receive(Epochs(collectors={}, learner=3))
    assert not fence.admits_learner(2, writes=True)


def test_a_restarted_shard_waits_for_the_coordinators_word():
    fence = Fence([0], has_epochs=False)
    assert not fence.has_epochs
    fence.receive(Epochs(collectors={0: 1}, learner=1))
    assert fence.has_epochs
    assert not fence.admits_chunk(0, 0, OLD) and fence.admits_chunk(0, 1, NEW)
