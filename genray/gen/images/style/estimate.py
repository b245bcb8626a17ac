"""Estimates the time of a style transfer by optimisation, before it starts."""

import math
import time
from collections.abc import Sequence

from torch import Tensor

from genray.gen.images.features import Features
from genray.gen.images.style.config import StyleConfig
from genray.gen.images.style.objective import StyleObjective
from genray.gen.images.style.sizes import LEAST, resize, sizes_of


def estimate_seconds(
    content_1CHW: Tensor, styles: Sequence[Tensor], config: StyleConfig, features: Features
) -> float:
    """Estimate the seconds that `stylize` will take, within a factor of two.

    The estimate comes from four evaluations at a small size.
    """
    height, width = content_1CHW.shape[-2:]
    factor = min(1.0, max(96, features.min_side) / min(height, width))
    tall, wide = (
        max(round(height * factor), features.min_side),
        max(round(width * factor), features.min_side),
    )
    small = resize(content_1CHW, tall, wide)
    objective = StyleObjective(small, [small], [1.0], config, features)
    x = small.clone().requires_grad_()
    seconds = math.inf
    for _ in range(4):  # the first step includes initialisation
        start = time.perf_counter()
        objective(x)["loss"].backward()
        seconds = min(seconds, time.perf_counter() - start)
    sizes = sizes_of(height, width, config.scales, max(features.min_side, LEAST))
    # L-BFGS needs 1.1 to 1.5 evaluations for each step, because the line search and each call of
    # the optimizer need additional ones.
    evaluations = config.steps * (1.25 if config.optimizer == "lbfgs" else 1.0)
    return seconds * evaluations * sum(tall_ * wide_ for tall_, wide_ in sizes) / (tall * wide)
