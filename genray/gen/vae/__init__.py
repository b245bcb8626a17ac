"""Variational autoencoders: configuration, equations, networks and the training task."""

from genray.gen.vae.config import VAEConfig, VAEModelConfig
from genray.gen.vae.equations import binarised, gaussian_kl, gaussian_log_density
from genray.gen.vae.model import VAE, build_vae
from genray.gen.vae.task import VAETask

__all__ = [
    "VAE",
    "VAEConfig",
    "VAEModelConfig",
    "VAETask",
    "binarised",
    "build_vae",
    "gaussian_kl",
    "gaussian_log_density",
]
