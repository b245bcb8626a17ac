"""Tests batches on their way to a device: sent once, ahead if requested, and kept until they
arrive.
"""

import gc
import weakref
from itertools import pairwise

import numpy as np
import pytest
import torch

from genray.rl.learner import Learner, LearnerConfig
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import AnySample, DeviceBatch, DeviceSample, Transfers, empty_sample
from tests.helpers.batches import ACTIONS, SIDE, random_batch
from tests.oracles import LAYOUT

CPU = torch.device("cpu")


def same(tensors: DeviceBatch, batch: AnySample) -> bool:
    return all(
        np.array_equal(getattr(tensors, name).cpu(), getattr(batch, name))
        for name in DeviceBatch._fields
    )


def test_on_a_cpu_a_batch_is_not_copied():
    batch, transfers = random_batch(8), Transfers(CPU)
    transfers.start(batch)
    tensors = transfers.take(batch)
    assert same(tensors, batch)
    batch.obs_BSHW[:] = 7
    assert (tensors.obs_BSHW == 7).all()


def test_transfers_take_returns_the_batch_sent_ahead():
    first, second = random_batch(8, 1), random_batch(8, 2)
    wanted = random_batch(8, 1)
    transfers = Transfers(CPU, copies=True)
    transfers.start(first)
    first.obs_BSHW[:] = 7  # too late: the batch was sent already
    assert same(transfers.take(first), wanted)
    assert same(transfers.take(first), first)  # a batch that was taken is not remembered

    transfers.start(first)
    assert same(transfers.take(second), second)  # another batch came first
    first.obs_BSHW[:] = 9
    assert same(transfers.take(first), first)


class Clock:
    """Replaces a CUDA event."""

    def __init__(self) -> None:
        self.over = False

    def query(self) -> bool:
        return self.over


class SlowTransfers(Transfers):
    def __init__(self) -> None:
        super().__init__(CPU, copies=True)
        self.clocks: list[Clock] = []

    def _mark(self):
        self.clocks.append(Clock())
        return self.clocks[-1]


def test_transfers_keep_a_batch_until_its_copy_ends():
    """Otherwise the memory would be reused for another batch in the middle of the copy."""
    transfers, seen = SlowTransfers(), []

    def send(seed: int) -> None:
        batch = random_batch(4, seed)
        seen.append(weakref.ref(batch))
        transfers.start(batch)

    def alive() -> list[bool]:
        gc.collect()
        return [one() is not None for one in seen]

    for seed in range(3):
        send(seed)
    assert alive() == [True] * 3
    transfers.clocks[1].over = True
    send(3)
    assert alive() == [True, False, True, True]
    for clock in transfers.clocks:
        clock.over = True
    send(4)
    assert alive() == [False, False, False, False, True]


def learner(device: str = "cpu") -> Learner:
    torch.manual_seed(3)
    shape = NetworkConfig(channels=(4, 4, 4), hidden=16)
    networks = [QNetwork(shape, ACTIONS, 1, (SIDE, SIDE)) for _ in range(2)]
    return Learner(LearnerConfig(learning_rate=1e-2, target_period_updates=3), *networks, device)


def learned(one: Learner, ahead: bool) -> list[np.ndarray]:
    """Return |δ| of ten updates. `ahead`: each batch is announced during the update before it,
    early or late.
    """
    deltas = []
    for number, (batch, following) in enumerate(
        pairwise([random_batch(8, seed) for seed in range(11)])
    ):
        one.begin(batch, 8, 0.4, following if ahead and number % 2 else None)
        if ahead and number % 3 == 0:
            one.expect(following)
        deltas.append(one.finish().delta_B)
    return deltas


def test_batches_sent_ahead_change_no_bit():
    plain, ahead = learner(), learner()
    ahead._transfers = Transfers(CPU, copies=True)
    for mine, theirs in zip(learned(plain, False), learned(ahead, True), strict=True):
        assert np.array_equal(mine, theirs)


def test_frames_that_are_on_the_device_are_learned_from_as_they_are():
    batch, plain, other = random_batch(8), learner(), learner()
    there = DeviceSample(
        **{name: array for name, array in vars(batch).items() if not name.endswith("BSHW")},
        obs_BSHW=torch.from_numpy(batch.obs_BSHW),
        next_obs_BSHW=torch.from_numpy(batch.next_obs_BSHW),
    )
    assert np.array_equal(plain.update(batch, 8, 0.4).delta_B, other.update(there, 8, 0.4).delta_B)
    half = there.rows(np.arange(8) % 2 == 0)
    assert same(Transfers(CPU).take(half), batch.rows(np.arange(8) % 2 == 0))


@pytest.mark.gpu
def test_learner_on_a_gpu_does_not_depend_on_transfers():
    at_home, plain, ahead = (learned(learner(device), ahead) for device, ahead in
                             (("cpu", False), ("cuda", False), ("cuda", True)))  # fmt: skip
    for cpu, mine, theirs in zip(at_home, plain, ahead, strict=True):
        np.testing.assert_allclose(mine, cpu, rtol=2e-2, atol=2e-2)  # TF32 in the convolutions
        np.testing.assert_allclose(mine, theirs, rtol=2e-2, atol=2e-2)


@pytest.mark.gpu
def test_room_for_a_gpu_is_pinned_and_used_again():
    cuda = torch.device("cuda")
    places = set()
    for _ in range(20):
        room, transfers = empty_sample(64, LAYOUT, cuda), Transfers(cuda)
        assert torch.from_numpy(room.obs_BSHW).is_pinned()
        rng = np.random.default_rng(0)
        for array in (room.obs_BSHW, room.next_obs_BSHW):
            array[:] = rng.integers(256, size=array.shape)
        transfers.start(room)
        assert same(transfers.take(room), room)
        torch.cuda.synchronize()
        places.add(room.obs_BSHW.ctypes.data)
        del room, transfers
    assert len(places) < 10
