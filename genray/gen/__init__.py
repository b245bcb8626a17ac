"""Generative and representation learning: autoencoders, VAEs, GANs, classifiers and style models.

This package does not use Ray. Its public classes can be imported from here:

    from genray.gen import VAEConfig, open_fit

    fit = open_fit("vae", VAEConfig())
    for step in fit:  # trains
        ...
    model = fit.task.networks["vae"]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genray.gen.ae_task import AEConfig, AETask
    from genray.gen.autoencoders import AEModelConfig, Autoencoder
    from genray.gen.data import Data, DataConfig, Split, load_data
    from genray.gen.families import Family, open_fit
    from genray.gen.fit import Batch, Export, Fit, FitConfig, Step, Task
    from genray.gen.gan import GANConfig, GANTask
    from genray.gen.gan_players import Discriminator, GANModelConfig, Generator
    from genray.gen.generative import GenerativeModel
    from genray.gen.images.classifier import (
        Classifier,
        ClassifierConfig,
        ClassifierModelConfig,
        ClassifierTask,
    )
    from genray.gen.images.style import StyleConfig, stylize
    from genray.gen.images.style_base import StyleTrainConfig
    from genray.gen.images.style_net import AdaINNet, StyleNetConfig, TransformerNet
    from genray.gen.optimizers import OptimizerConfig, Updater
    from genray.gen.vae import VAE, VAEConfig, VAEModelConfig, VAETask
    from genray.gen.world import World

__all__ = [
    "VAE",
    "AEConfig",
    "AEModelConfig",
    "AETask",
    "AdaINNet",
    "Autoencoder",
    "Batch",
    "Classifier",
    "ClassifierConfig",
    "ClassifierModelConfig",
    "ClassifierTask",
    "Data",
    "DataConfig",
    "Discriminator",
    "Export",
    "Family",
    "Fit",
    "FitConfig",
    "GANConfig",
    "GANModelConfig",
    "GANTask",
    "GenerativeModel",
    "Generator",
    "OptimizerConfig",
    "Split",
    "Step",
    "StyleConfig",
    "StyleNetConfig",
    "StyleTrainConfig",
    "Task",
    "TransformerNet",
    "Updater",
    "VAEConfig",
    "VAEModelConfig",
    "VAETask",
    "World",
    "load_data",
    "open_fit",
    "stylize",
]

_PUBLIC = (
    "genray.gen.ae_task.AEConfig",
    "genray.gen.ae_task.AETask",
    "genray.gen.autoencoders.AEModelConfig",
    "genray.gen.autoencoders.Autoencoder",
    "genray.gen.data.Data",
    "genray.gen.data.DataConfig",
    "genray.gen.data.Split",
    "genray.gen.data.load_data",
    "genray.gen.families.Family",
    "genray.gen.families.open_fit",
    "genray.gen.fit.Batch",
    "genray.gen.fit.Export",
    "genray.gen.fit.Fit",
    "genray.gen.fit.FitConfig",
    "genray.gen.fit.Step",
    "genray.gen.fit.Task",
    "genray.gen.gan.GANConfig",
    "genray.gen.gan.GANTask",
    "genray.gen.gan_players.Discriminator",
    "genray.gen.gan_players.GANModelConfig",
    "genray.gen.gan_players.Generator",
    "genray.gen.generative.GenerativeModel",
    "genray.gen.images.classifier.Classifier",
    "genray.gen.images.classifier.ClassifierConfig",
    "genray.gen.images.classifier.ClassifierModelConfig",
    "genray.gen.images.classifier.ClassifierTask",
    "genray.gen.images.style.StyleConfig",
    "genray.gen.images.style.stylize",
    "genray.gen.images.style_base.StyleTrainConfig",
    "genray.gen.images.style_net.AdaINNet",
    "genray.gen.images.style_net.StyleNetConfig",
    "genray.gen.images.style_net.TransformerNet",
    "genray.gen.optimizers.OptimizerConfig",
    "genray.gen.optimizers.Updater",
    "genray.gen.vae.VAE",
    "genray.gen.vae.VAEConfig",
    "genray.gen.vae.VAEModelConfig",
    "genray.gen.vae.VAETask",
    "genray.gen.world.World",
)
_MODULES = {name: module for module, _, name in (path.rpartition(".") for path in _PUBLIC)}


def __getattr__(name: str) -> Any:
    """Import a public class or function at its first use: importing one part loads no other."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
