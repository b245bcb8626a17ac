"""The families of models, each with a training command: configurations and presets."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from genray.errors import ConfigError, require
from genray.gen import presets
from genray.gen.autoencoder import presets as ae_presets
from genray.gen.autoencoder.config import AEConfig
from genray.gen.autoencoder.task import AETask
from genray.gen.builders import BUILDERS as BUILDERS
from genray.gen.data.load import load_data
from genray.gen.gan.config import GANConfig
from genray.gen.gan.task import GANTask
from genray.gen.images.classifier import ClassifierConfig, ClassifierTask
from genray.gen.images.style.base import StyleTrainConfig
from genray.gen.images.style.one_style_task import style_task
from genray.gen.images.style.presets import (
    style_any,
    style_any_full,
    style_best,
    style_fast,
    style_fast_full,
    style_micro,
)
from genray.gen.learned_optimizer.config import LearnedOptimizerConfig
from genray.gen.learned_optimizer.presets import (
    optimizer_digits,
    optimizer_quadratics,
    preset_for,
)
from genray.gen.learned_optimizer.task import LearnedOptimizerTask
from genray.gen.sprites.config import SpriteConfig, sprites
from genray.gen.sprites.task import SpriteTask
from genray.gen.training.fit import Fit
from genray.gen.training.task import Task
from genray.gen.training.world import ALONE, World
from genray.gen.translation import presets as translation_presets
from genray.gen.translation.config import CycleGANConfig, Pix2PixConfig
from genray.gen.translation.task_cyclegan import CycleGANTask
from genray.gen.translation.task_pix2pix import Pix2PixTask
from genray.gen.vae import VAEConfig, VAETask
from genray.gen.world.config import WorldConfig, world
from genray.gen.world.task import WorldTask
from genray.machine import keep_freed_memory, resolve_device


@dataclass(frozen=True)
class Family:
    """A family of models, which `genray train NAME` trains."""

    config: type
    """The class of the configuration."""
    task: Callable[..., Task]
    """Creates the task, from a configuration, a `World` and a device."""
    presets: Mapping[str, Callable[[], Any]]
    """Functions that return a configuration, by the preset's name."""
    about: str
    """What the family is, in a few words, for the help of `genray train`."""
    default: str = ""
    """Name of the preset of `genray train` without --preset and --data. Empty: the first preset."""
    by_data: Callable[[str], str] | None = None
    """Returns the name of the preset for other data than the default preset's. None: the first."""

    @property
    def first(self) -> str:
        """Name of the first preset, which suits many data sets."""
        return next(iter(self.presets))

    def first_for(self, data: str | None) -> str:
        """Return the name of the preset for a data set: the first one, or that of `by_data`."""
        return self.by_data(data) if self.by_data and data else self.first

    def preset(self, name: str | None, data: str | None = None) -> Any:
        """Return the preset `name`, with the data set `data` if given.

        Without a name, it is the default preset if `data` is None or the default preset's data set,
        and `first_for` of other data. Raises ConfigError for an unknown preset; the message
        suggests similar names, or all names.
        """
        if not name:
            name = self.default or self.first
            if data and self.presets[name]().data.data != data:
                name = self.first_for(data)
        if name not in self.presets:
            near = difflib.get_close_matches(name, self.presets, n=3, cutoff=0.4) or list(
                self.presets
            )
            raise ConfigError(f"--preset {name}: no such preset; did you mean {', '.join(near)}?")
        config = self.presets[name]()
        return replace(config, data=replace(config.data, data=data)) if data else config


def _named(*functions: Callable[[], Any]) -> dict[str, Callable[[], Any]]:
    return {function.__name__: function for function in functions}


FAMILIES: dict[str, Family] = {
    "ae": Family(
        AEConfig,
        AETask,
        _named(
            ae_presets.ae_digits,
            ae_presets.pca,
            ae_presets.map_digits,
            ae_presets.denoising_digits,
            ae_presets.denoising_conv_digits,
            ae_presets.conv_digits,
            ae_presets.stacked_digits,
            ae_presets.stacked_source,
            ae_presets.stacked_classifier,
            ae_presets.stacked_conv_digits,
            ae_presets.retrieval_digits,
            ae_presets.retrieval_mnist5k,
            ae_presets.retrieval_cifar10,
            ae_presets.text_docs,
            ae_presets.map_docs,
            ae_presets.hashing_docs,
        ),
        "autoencoders: undercomplete, denoising, convolutional, stacked",
    ),
    "vae": Family(
        VAEConfig,
        VAETask,
        _named(
            presets.vae_digits,
            presets.vae_mnist5k,
            presets.vae_conv_mnist5k,
            presets.vae_conv_digits,
            presets.vae_mnist,
            presets.vae_conv_atari,
        ),
        "variational autoencoders, dense and convolutional",
        default="vae_mnist5k",
    ),
    "gan": Family(
        GANConfig,
        GANTask,
        _named(
            presets.gan_digits,
            presets.gan_mnist5k,
            presets.gan_mnist,
            presets.dcgan_svhn,
            presets.dcgan_atari,
            presets.dcgan_game,
        ),
        "GANs, dense and convolutional (DCGAN)",
        default="gan_mnist5k",
    ),
    "sprites": Family(
        SpriteConfig,
        SpriteTask,
        _named(sprites),
        "sprite models: game screens at full size, as a background and a sequence of sprites",
    ),
    "pix2pix": Family(
        Pix2PixConfig,
        Pix2PixTask,
        _named(
            translation_presets.pix2pix_grey,
            translation_presets.pix2pix_edges,
            translation_presets.pix2pix_256,
        ),
        "image-to-image translation on pairs, such as edges and pictures",
    ),
    "cyclegan": Family(
        CycleGANConfig,
        CycleGANTask,
        _named(translation_presets.cyclegan_small, translation_presets.cyclegan_256),
        "image-to-image translation between two sets of images, without pairs",
    ),
    "world": Family(
        WorldConfig,
        WorldTask,
        _named(world),
        "world models: a game that runs inside a network, from episodes of play",
    ),
    "classifier": Family(
        ClassifierConfig,
        ClassifierTask,
        _named(
            presets.classifier_digits,
            presets.classifier_dense_mnist,
            presets.classifier_atari,
            presets.classifier_cifar10,
        ),
        "an image classifier, convolutional or dense",
    ),
    "style": Family(
        StyleTrainConfig,
        style_task,
        _named(style_fast, style_best, style_any, style_fast_full, style_any_full, style_micro),
        "style models: one style (Johnson) or any (AdaIN, MicroAST) in one pass",
    ),
    "optimizer": Family(
        LearnedOptimizerConfig,
        LearnedOptimizerTask,
        _named(optimizer_quadratics, optimizer_digits),
        "learned optimizers: an LSTM that updates the weights of other networks",
        by_data=preset_for,
    ),
}


def open_fit(family: str, config: Any, world: World = ALONE, *, sealed: bool = False) -> Fit:
    """Load the data and create the task and the `Fit` that `config` describes.

    Iterate over the Fit to train, or restore a checkpoint with `Fit.load`.

    Args:
        family: the family's name in `FAMILIES`.
        config: the family's configuration.
        world: this data-parallel worker.
        sealed: whether to remove the test rows; later access to the test rows raises SealedError.

    Raises:
        ConfigError: the options are invalid or do not fit the data, or the data set is missing.
        CheckpointError: a model that the options name cannot be loaded.
        ResourceError: `--device cuda` without a usable GPU.
    """
    # Check the options, and choose the device.
    config.validate()
    device = torch.device(resolve_device(config.fit.device))
    if device.type == "cpu":
        keep_freed_memory()
    require(
        config.fit.amp != "float16" or device.type == "cuda",
        "--amp float16: needs a GPU; use --amp bfloat16 or off",
    )
    # Load the data in the value range that the task needs. A task with data of its own, such as
    # pairs of images, has a function `load`.
    low, high = getattr(FAMILIES[family].task, "value_range", (0.0, 1.0))
    load = getattr(FAMILIES[family].task, "load", None)
    data = load(config, low, high) if load else load_data(config.data, low=low, high=high)
    data = data.sealed() if sealed else data
    return Fit(FAMILIES[family].task(config, world, device), data, config.fit)
