"""Tests how often dreams and style optimisation wait for the device, without a GPU."""

import pytest
import torch

from genray.gen.images.dream import DreamConfig, Objective, ascend, colour_mixing, zoom
from genray.gen.images.features import Features, untrained
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.optimise import StyleStep, stylize
from tests.helpers.device_audit import META, audited

# The audit's made-up value of a comparison makes PyTorch believe that too few pixels were there.
pytestmark = pytest.mark.filterwarnings("ignore:cov")


@pytest.fixture(scope="module")
def features() -> Features:
    return untrained()


def test_dream_steps_never_wait_for_the_device(features: Features):
    features.trained = True
    random = torch.Generator().manual_seed(0)
    with audited() as audit:
        network = features.to(META)
        picture = torch.empty(1, 3, 48, 64, device=META)
        config = DreamConfig(bands=2).completed(network)
        for guide in (None, picture):
            objective = Objective(network, channels=(1, 2), guide_1CHW=guide)
            colours = colour_mixing(picture, 0.5)
            audit.faults.clear()
            ascend(picture, objective, config, random, colours)
            frames = zoom(picture, objective, config, frames=2, steps=1)
            next(frames)  # the first is the picture itself; its colours are measured
            assert not audit.of_kind("upload")
            audit.faults.clear()
            next(frames)
            assert not audit.of_kind("read", "upload")


def test_stylize_by_adam_reads_the_device_twice_a_step(features: Features):
    """One read is of the losses, one of whether the picture is finite.

    L-BFGS is not tested: its line search runs on the host.
    """
    counts: list[int] = []
    with audited() as audit:
        network = features.to(META)
        picture = torch.empty(1, 3, 32, 48, device=META)

        def progress(step: StyleStep) -> None:
            counts.append(len(audit.of_kind("read", "upload")))
            audit.faults.clear()

        stylize(
            picture, [picture], StyleConfig(scales=1, steps=2, optimizer="adam"), network, progress
        )
    assert counts[1:] == [2]
