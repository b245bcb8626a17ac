"""Tests the training for steady clips: the disturbed contents, the loss, and that it helps."""

from dataclasses import replace

import pytest
import torch

from genray.gen.images.style.base import StyleTask
from genray.gen.images.style.one_style_task import style_task
from genray.gen.images.style.steadiness import MARGIN, NOISE, disturb, unsteadiness
from genray.gen.training.fit import Fit
from genray.gen.training.world import ALONE
from tests.gen.images.style.test_tasks import SIDE, data, small, trained

__all__ = ["data"]  # pytest finds the fixture by its name here


def test_disturb_adds_noise_and_a_rectangle_that_the_mask_leaves_out():
    torch.manual_seed(0)
    content = torch.linspace(0.2, 0.8, 64).expand(16, 3, 48, 64).contiguous()
    found, mask = disturb(content, ALONE)
    assert found.shape == content.shape and mask.shape == (16, 1, 48, 64)
    change = (found - content).abs()
    outside = mask.expand_as(change) == 1
    assert change[outside].max() < 6 * NOISE
    assert change[outside].square().mean().sqrt() == pytest.approx(NOISE, rel=0.05)
    for row in range(16):
        tall, wide = (1 - mask[row, 0]).amax(1).sum(), (1 - mask[row, 0]).amax(0).sum()
        assert 12 <= tall <= 24 + 2 * MARGIN and 16 <= wide <= 32 + 2 * MARGIN
    assert change[mask.expand_as(change) == 0].square().mean().sqrt() > 3 * NOISE


def test_unsteadiness_by_hand():
    first, other = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    other[..., :2, :] = 2 * NOISE
    other[..., 2:, :] = 9.0  # left out
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2, :] = 1
    assert float(unsteadiness(first, other, mask)) == pytest.approx(4)
    assert float(unsteadiness(first, other, 0 * mask)) == 0


def steady(task: StyleTask, data) -> float:
    """Return the unsteadiness of the task's network on fixed contents."""
    torch.manual_seed(5)
    content = torch.cat([data.train.all()] * 4)
    other, mask = disturb(content, ALONE)
    with torch.no_grad():
        return float(unsteadiness(task.model(content), task.model(other), mask))


def test_steadiness_reduces_the_change_of_the_result(data):
    fit = {"steps": 25, "validate_every": 25}
    found = []
    for weight in (0.0, 30.0):
        task = trained(small(steadiness=weight, fit=fit), data).task
        assert isinstance(task, StyleTask)
        found.append(steady(task, data))
    assert found[1] < 0.75 * found[0], found


@pytest.mark.parametrize("method", ["style_fast", "style_any", "style_micro"])
def test_steadiness_resumes_bit_for_bit_and_is_logged(tmp_path, data, method: str):
    config = replace(small(method), steadiness=0.5)
    whole, part = trained(config, data), trained(config, data, steps=2)
    part.save(tmp_path)
    again = Fit(style_task(config), data, config.fit)
    again.load(tmp_path)
    values = [step.values for step in again]
    assert whole.step == again.step and data.shape[-1] == SIDE
    assert all(step["unsteady"] > 0 for step in values)
    for name, tensor in whole.task.networks.state_dict().items():
        assert torch.equal(tensor, again.task.networks.state_dict()[name]), name
