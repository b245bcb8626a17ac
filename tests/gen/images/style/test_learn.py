"""Tests what presets of style models reach with untrained features, without a download.

`tests.bench.bench_style` prints the same figures.
"""

import pytest

from tests.bench.bench_style import anything, fast


@pytest.mark.learn
@pytest.mark.timeout(1800)
def test_style_fast_loss_is_at_most_twice_that_of_optimisation():
    """Optimisation of the same objective is the reference: two minutes of training reach 1.7 times
    its loss.
    """
    found = fast(steps=0, opt_steps=70)
    assert found["fast_of_optimised_loss"] <= 2, found
    assert found["fast_of_unstyled_loss"] <= 0.4, found
    assert found["fast_time_of_optimised"] <= 0.01, found
    assert found["fast_over_bare_cpu"] <= 1.2, found


@pytest.mark.learn
@pytest.mark.timeout(1800)
def test_style_any_halves_the_style_loss_of_new_styles():
    found = anything(steps=0)
    assert found["any_style_loss_of_unstyled"] <= 0.5, found
    assert found["any_identity"] <= 0.25, found
