"""Why greedy pretraining was invented: the gradient of a deep sigmoid network vanishes, unless its
layers are trained one by one first (`tests/bench/bench_pretraining.py` has the whole comparison).
"""

from genray.gen.training.fit import evaluating
from tests.bench.bench_pretraining import gradient_norms, open_run


def test_gradient_vanishes_without_greedy_pretraining_and_not_with_it():
    """64-128-64-32-16 and back: the ratio of the first layer's gradient to the last layer's."""
    task, fit = open_run("random weights")
    norms = gradient_norms(task, fit)
    assert len(norms) == 8 and norms[0] < 1e-4 * norms[-1]
    assert (norms[1:] > 1.5 * norms[:-1]).all(), "each layer passes back less than it gets"
    # The first pair of layers alone has a gradient that is thousands of times as large.
    task, fit = open_run("greedy", epochs=4)
    alone = gradient_norms(task, fit)
    assert len(alone) == 2 and alone[0] > 1000 * norms[0]
    for step in fit:
        if step.last_of_stage and step.stage == "layer-4":
            break
    pretrained = gradient_norms(task, fit)
    assert task.stages[task._stage] == "whole" and pretrained[0] > 0.05 * pretrained[-1]
    # The error of all layers, before they are trained together, is below that of the mean image.
    x = fit.whole_data.test.all()
    with evaluating(task, 0):
        error = (task.model(x) - x).square().mean()
    assert error < 0.8 * (x - fit.train.all().mean(0)).square().mean()
