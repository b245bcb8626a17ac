"""Generative and representation learning: autoencoders, VAEs, GANs, sprite models, world models,
image-to-image translation, classifiers and style models.

This package does not use Ray. Its public classes and functions can be imported from here:

    from genray.gen import VAEConfig, open_fit

    fit = open_fit("vae", VAEConfig())
    for step in fit:  # trains
        ...
    model = fit.task.networks["vae"]
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genray.gen.autoencoder.config import AEConfig, AEModelConfig
    from genray.gen.autoencoder.model import Autoencoder
    from genray.gen.autoencoder.task import AETask
    from genray.gen.data.config import DataConfig
    from genray.gen.data.load import load_data
    from genray.gen.data.types import Data, Split
    from genray.gen.families import Family, open_fit
    from genray.gen.gan.config import GANConfig, GANModelConfig
    from genray.gen.gan.networks import Discriminator, Generator
    from genray.gen.gan.task import GANTask
    from genray.gen.generative import GenerativeModel
    from genray.gen.images.class_network import ClassNetwork, open_lite0_classes, open_model_classes
    from genray.gen.images.class_pictures import ImagineConfig, imagine
    from genray.gen.images.classifier import (
        Classifier,
        ClassifierConfig,
        ClassifierModelConfig,
        ClassifierTask,
    )
    from genray.gen.images.embedding import Embedding, open_embedding
    from genray.gen.images.photo_index import PhotoIndex, index_data
    from genray.gen.images.style.adain_net import AdaINNet
    from genray.gen.images.style.base import StyleTrainConfig
    from genray.gen.images.style.config import StyleConfig
    from genray.gen.images.style.network_config import StyleNetConfig
    from genray.gen.images.style.optimise import stylize
    from genray.gen.images.style.transformer_net import TransformerNet
    from genray.gen.learned_optimizer.config import (
        FunctionsConfig,
        LearnedOptimizerConfig,
        LearnedOptimizerModelConfig,
    )
    from genray.gen.learned_optimizer.network import LearnedRule
    from genray.gen.learned_optimizer.task import LearnedOptimizerTask
    from genray.gen.learned_optimizer.use import LearnedOptimizer, load_learned
    from genray.gen.sprites.config import SpriteConfig, SpriteModelConfig
    from genray.gen.sprites.model import SpriteModel
    from genray.gen.sprites.task import SpriteTask
    from genray.gen.sprites.tokens import Language
    from genray.gen.training.config import FitConfig
    from genray.gen.training.fit import Fit, Step
    from genray.gen.training.optimizers import OptimizerConfig
    from genray.gen.training.task import Batch, Export, Task
    from genray.gen.training.updater import Updater
    from genray.gen.training.world import World
    from genray.gen.translation.config import (
        CycleGANConfig,
        Pix2PixConfig,
        TranslatorModelConfig,
    )
    from genray.gen.translation.model import Translator
    from genray.gen.translation.task_cyclegan import CycleGANTask
    from genray.gen.translation.task_pix2pix import Pix2PixTask
    from genray.gen.vae import VAE, VAEConfig, VAEModelConfig, VAETask
    from genray.gen.world.config import WorldConfig, WorldModelConfig
    from genray.gen.world.dream import Dream
    from genray.gen.world.model import WorldModel
    from genray.gen.world.task import WorldTask

__all__ = [
    "VAE",
    "AEConfig",
    "AEModelConfig",
    "AETask",
    "AdaINNet",
    "Autoencoder",
    "Batch",
    "ClassNetwork",
    "Classifier",
    "ClassifierConfig",
    "ClassifierModelConfig",
    "ClassifierTask",
    "CycleGANConfig",
    "CycleGANTask",
    "Data",
    "DataConfig",
    "Discriminator",
    "Dream",
    "Embedding",
    "Export",
    "Family",
    "Fit",
    "FitConfig",
    "FunctionsConfig",
    "GANConfig",
    "GANModelConfig",
    "GANTask",
    "GenerativeModel",
    "Generator",
    "ImagineConfig",
    "Language",
    "LearnedOptimizer",
    "LearnedOptimizerConfig",
    "LearnedOptimizerModelConfig",
    "LearnedOptimizerTask",
    "LearnedRule",
    "OptimizerConfig",
    "PhotoIndex",
    "Pix2PixConfig",
    "Pix2PixTask",
    "Split",
    "SpriteConfig",
    "SpriteModel",
    "SpriteModelConfig",
    "SpriteTask",
    "Step",
    "StyleConfig",
    "StyleNetConfig",
    "StyleTrainConfig",
    "Task",
    "TransformerNet",
    "Translator",
    "TranslatorModelConfig",
    "Updater",
    "VAEConfig",
    "VAEModelConfig",
    "VAETask",
    "World",
    "WorldConfig",
    "WorldModel",
    "WorldModelConfig",
    "WorldTask",
    "imagine",
    "index_data",
    "load_data",
    "load_learned",
    "open_embedding",
    "open_fit",
    "open_lite0_classes",
    "open_model_classes",
    "stylize",
]

_PUBLIC = (
    "genray.gen.autoencoder.config.AEConfig",
    "genray.gen.autoencoder.task.AETask",
    "genray.gen.autoencoder.config.AEModelConfig",
    "genray.gen.autoencoder.model.Autoencoder",
    "genray.gen.data.types.Data",
    "genray.gen.data.config.DataConfig",
    "genray.gen.data.types.Split",
    "genray.gen.data.load.load_data",
    "genray.gen.families.Family",
    "genray.gen.families.open_fit",
    "genray.gen.training.task.Batch",
    "genray.gen.training.task.Export",
    "genray.gen.training.fit.Fit",
    "genray.gen.training.config.FitConfig",
    "genray.gen.training.fit.Step",
    "genray.gen.training.task.Task",
    "genray.gen.gan.config.GANConfig",
    "genray.gen.gan.task.GANTask",
    "genray.gen.gan.networks.Discriminator",
    "genray.gen.gan.config.GANModelConfig",
    "genray.gen.gan.networks.Generator",
    "genray.gen.generative.GenerativeModel",
    "genray.gen.images.class_network.ClassNetwork",
    "genray.gen.images.class_network.open_lite0_classes",
    "genray.gen.images.class_network.open_model_classes",
    "genray.gen.images.class_pictures.ImagineConfig",
    "genray.gen.images.class_pictures.imagine",
    "genray.gen.images.classifier.Classifier",
    "genray.gen.images.classifier.ClassifierConfig",
    "genray.gen.images.classifier.ClassifierModelConfig",
    "genray.gen.images.classifier.ClassifierTask",
    "genray.gen.images.embedding.Embedding",
    "genray.gen.images.embedding.open_embedding",
    "genray.gen.images.photo_index.PhotoIndex",
    "genray.gen.images.photo_index.index_data",
    "genray.gen.images.style.config.StyleConfig",
    "genray.gen.images.style.optimise.stylize",
    "genray.gen.images.style.base.StyleTrainConfig",
    "genray.gen.images.style.adain_net.AdaINNet",
    "genray.gen.images.style.network_config.StyleNetConfig",
    "genray.gen.images.style.transformer_net.TransformerNet",
    "genray.gen.training.optimizers.OptimizerConfig",
    "genray.gen.training.updater.Updater",
    "genray.gen.learned_optimizer.config.FunctionsConfig",
    "genray.gen.learned_optimizer.config.LearnedOptimizerConfig",
    "genray.gen.learned_optimizer.config.LearnedOptimizerModelConfig",
    "genray.gen.learned_optimizer.network.LearnedRule",
    "genray.gen.learned_optimizer.task.LearnedOptimizerTask",
    "genray.gen.learned_optimizer.use.LearnedOptimizer",
    "genray.gen.learned_optimizer.use.load_learned",
    "genray.gen.sprites.config.SpriteConfig",
    "genray.gen.sprites.model.SpriteModel",
    "genray.gen.sprites.config.SpriteModelConfig",
    "genray.gen.sprites.task.SpriteTask",
    "genray.gen.sprites.tokens.Language",
    "genray.gen.vae.VAE",
    "genray.gen.vae.VAEConfig",
    "genray.gen.vae.VAEModelConfig",
    "genray.gen.vae.VAETask",
    "genray.gen.training.world.World",
    "genray.gen.translation.config.CycleGANConfig",
    "genray.gen.translation.config.Pix2PixConfig",
    "genray.gen.translation.config.TranslatorModelConfig",
    "genray.gen.translation.model.Translator",
    "genray.gen.translation.task_cyclegan.CycleGANTask",
    "genray.gen.translation.task_pix2pix.Pix2PixTask",
    "genray.gen.world.config.WorldConfig",
    "genray.gen.world.config.WorldModelConfig",
    "genray.gen.world.dream.Dream",
    "genray.gen.world.model.WorldModel",
    "genray.gen.world.task.WorldTask",
)
_MODULES = {name: module for module, _, name in (path.rpartition(".") for path in _PUBLIC)}


def __getattr__(name: str) -> Any:
    """Import a public class or function when it is first used, so that importing the package is
    fast.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
