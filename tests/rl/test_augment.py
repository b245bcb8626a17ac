"""Tests the augmentation of observations: by a slow loop, and that its draws can be repeated."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.rl.augment import augmented, generator_of, shifted
from genray.rl.networks import NetworkConfig, QNetwork
from genray.rl.transfer import DeviceBatch
from tests.helpers.batches import random_batch


def batch_and_network() -> tuple[DeviceBatch, QNetwork]:
    sample = random_batch(16)
    batch = DeviceBatch(*(torch.from_numpy(getattr(sample, n)) for n in DeviceBatch._fields))
    shape = NetworkConfig(channels=(4, 4, 4), hidden=8, median_frame=True, input_gain=4.0)
    network = QNetwork(shape, 3, 1, (36, 36))
    network.set_median(batch.obs_BSHW.flatten(0, 1))
    return batch, network


def test_augmented_batch_equals_a_slow_loop():
    """Each observation is moved as a whole, its edge pixels are repeated, and it has one factor."""
    batch, network = batch_and_network()
    fast = augmented(batch, network, 4, 0.05, generator_of(7))
    random = generator_of(7)
    for before, after in ((batch.obs_BSHW, fast.obs_BSHW), (batch.next_obs_BSHW, fast[1])):
        corner_B2 = torch.randint(9, (16, 2), generator=random)
        factor_B = 1 + 0.05 * torch.randn(16, generator=random).clamp(-2, 2)
        for b in range(16):
            plain_HW = network.inputs(before[b : b + 1])[0, 0].numpy()
            padded = np.pad(plain_HW, 4, mode="edge")
            top, left = corner_B2[b].tolist()
            slow = padded[top : top + 36, left : left + 36] * factor_B[b].item()
            np.testing.assert_allclose(after[b, 0].numpy(), slow, atol=1e-5)
        assert len(corner_B2.unique(dim=0)) > 8
    # Everything else is unchanged.
    assert all(a is b for a, b in zip(batch[2:], fast[2:]))


@pytest.mark.parametrize(("stack", "shift"), [(1, 3), (3, 16), (4, 3), (4, 40)])
def test_shifted_tensors_equal_the_compiled_loop(stack: int, shift: int):
    """A GPU uses the operations of `shifted`; a CPU uses the compiled loop."""
    batch, network = batch_and_network()
    frames_BSHW = torch.randint(256, (16, stack, 36, 36), dtype=torch.uint8)
    batch = batch._replace(obs_BSHW=frames_BSHW)
    fast = augmented(batch, network, shift, 0.0, generator_of(1))
    random = generator_of(1)
    corner_B2 = torch.randint(2 * shift + 1, (16, 2), generator=random)
    moved = shifted(network.inputs(frames_BSHW), shift, corner_B2)
    torch.testing.assert_close(fast.obs_BSHW, moved, rtol=1e-6, atol=1e-6)


def test_augmentation_draws_depend_on_the_numbers_alone():
    batch, network = batch_and_network()
    torch.manual_seed(1)
    one = augmented(batch, network, 4, 0.05, generator_of(5, 3, 17, 0))
    torch.manual_seed(2)
    again = augmented(batch, network, 4, 0.05, generator_of(5, 3, 17, 0))
    assert torch.equal(one.obs_BSHW, again.obs_BSHW)
    assert torch.equal(one.next_obs_BSHW, again.next_obs_BSHW)
    for numbers in ((5, 3, 18, 0), (6, 3, 17, 0), (5, 3, 17, 1)):
        other = augmented(batch, network, 4, 0.05, generator_of(*numbers))
        assert not torch.equal(one.obs_BSHW, other.obs_BSHW)


def test_augmentation_of_0_only_makes_inputs():
    batch, network = batch_and_network()
    fast = augmented(batch, network, 0, 0.0, generator_of(5))
    torch.testing.assert_close(fast.obs_BSHW, network.inputs(batch.obs_BSHW))
    plain = replace(network.config, median_frame=False, input_gain=1.0)
    fast = augmented(batch, QNetwork(plain, 3, 1, (36, 36)), 0, 0.0, generator_of(5))
    torch.testing.assert_close(fast.obs_BSHW, batch.obs_BSHW / 255)
