"""Presets of learned optimizers: each function returns a complete configuration."""

from genray.gen.learned_optimizer.config import (
    QUADRATICS,
    FunctionsConfig,
    LearnedOptimizerConfig,
    LearnedOptimizerModelConfig,
)
from genray.gen.training.config import FitConfig
from genray.gen.training.optimizers import OptimizerConfig


def optimizer_quadratics() -> LearnedOptimizerConfig:
    """Configure an optimizer of random quadratics with 10 coordinates, which reads raw gradients.

    100 steps of 64 functions are 500 updates of the LSTM: less than a minute of one core.

    Departures from the paper's reference code: the loss is the mean logarithm of the values, the
    LSTM's output is multiplied by 0.1, its units begin with memories of 2 to 50 steps, a batch has
    64 functions instead of 128, gradients are clipped, Adam's learning rate falls from 0.01 to 0,
    and the weights with the lowest validation loss are kept.
    """
    return LearnedOptimizerConfig(
        data=FunctionsConfig(data="quadratics"),
        fit=FitConfig(steps=100, batch_size=64, validate_every=5, patience=10, log_every=5),
        optimizer=OptimizerConfig(learning_rate=0.01, grad_clip=1.0, schedule="cosine"),
        model=LearnedOptimizerModelConfig(preprocessing="raw", output_scale=0.1, memory=50.0),
    )


def optimizer_digits() -> LearnedOptimizerConfig:
    """Configure an optimizer of networks with 20 sigmoid units on digits of 8x8 pixels.

    45 steps of one network are 225 updates of the LSTM: less than a minute of one core.

    Departures from the paper's reference code: k = 10, the paper's value, instead of 5. With 5, the
    LSTM does not see the small gradients of the first layer at the start, and does not learn.
    Further, digits have 8x8 pixels, and the departures of optimizer_quadratics except the factor,
    which is 0.01 as in the reference, the memories and the batch.
    """
    return LearnedOptimizerConfig(
        data=FunctionsConfig(data="digits", validation=0.3, functions=512, held_out=4),
        fit=FitConfig(steps=45, batch_size=1, validate_every=9, patience=6, log_every=5),
        optimizer=OptimizerConfig(learning_rate=0.01, grad_clip=1.0, schedule="cosine"),
        model=LearnedOptimizerModelConfig(),
    )


def preset_for(data: str) -> str:
    """Return the name of the preset for quadratics, or for a data set of images."""
    return optimizer_quadratics.__name__ if data in QUADRATICS else optimizer_digits.__name__
