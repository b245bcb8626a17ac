"""A small GAN's configuration and its images, for the tests of GANs."""

import functools

from genray.gen.gan.config import GANConfig, GANModelConfig
from genray.gen.training.config import FitConfig
from tests.helpers import gen as helpers

spots = functools.partial(helpers.spots, low=-1.0)
CONV = {
    "network": "conv",
    "generator_widths": (8, 6),
    "discriminator_widths": (5, 7),
    "kernel": 3,
    "slope": 0.2,
    "generator_norm": "batch",
}


def small(**changes) -> GANConfig:
    fit = {
        "steps": 12,
        "batch_size": 20,
        "validate_every": 4,
        "log_every": 4,
        **changes.pop("fit", {}),
    }
    model = {
        "latent": 4,
        "generator_widths": (16,),
        "discriminator_widths": (16,),
        **changes.pop("model", {}),
    }
    return GANConfig(fit=FitConfig(**fit), model=GANModelConfig(**model), **changes)
