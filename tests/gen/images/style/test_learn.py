"""Tests what presets of style models reach with EfficientNet-Lite0 in a short training.

`tests.bench.bench_style` prints the same figures of the full training.
"""

from dataclasses import replace

import pytest

from genray.gen.images.style.presets import style_any
from tests.bench.bench_style import anything, fast


@pytest.mark.learn
@pytest.mark.timeout(1800)
def test_style_fast_loss_is_near_that_of_optimisation():
    """Optimisation of the same objective is the reference. Before training, the loss is 2.3 of that
    of optimisation, and the style loss 0.77 of that of the unstyled contents.
    """
    found = fast(steps=250, opt_steps=60, crops=3)
    assert found["fast_of_optimised_loss"] <= 2.1, found
    assert found["fast_of_unstyled_style"] <= 0.35, found
    assert found["fast_time_of_optimised"] <= 0.01, found
    assert found["fast_over_bare_cpu"] <= 1.2, found


@pytest.mark.learn
@pytest.mark.timeout(1800)
def test_style_any_reduces_the_style_loss_of_new_styles():
    # Before training, the style loss is 0.55 of that of the unstyled contents, and identity 0.18.
    found = anything(steps=120, config=replace(style_any(), features="lite0", num_styles=36))
    assert found["any_style_loss_of_unstyled"] <= 0.45, found
    assert found["any_identity"] <= 0.15, found
