"""The families that one command each trains: what configures them, what their presets are, and how their models are built."""

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from genray.errors import ConfigError, require
from genray.gen import ae_presets, presets
from genray.gen.ae_task import AEConfig, AETask
from genray.gen.autoencoders import build_autoencoder
from genray.gen.data import load_data
from genray.gen.fit import Fit, Task, resolve_device
from genray.gen.gan import GANConfig, GANTask, build_generator
from genray.gen.images.classifier import ClassifierConfig, ClassifierTask, build_classifier
from genray.gen.vae import VAEConfig, VAETask, build_vae
from genray.gen.world import ALONE, World


@dataclass(frozen=True)
class Family:
    """What `genray train NAME` trains."""

    config: type
    task: Callable[..., Task]
    presets: Mapping[str, Callable[[], Any]]
    """The first is the default."""
    about: str

    def preset(self, name: str | None, data: str | None = None) -> Any:
        """The named preset (the default without a name), on other data if some is named.

        Raises ConfigError with the nearest names for an unknown one.
        """
        name = name or next(iter(self.presets))
        if name not in self.presets:
            near = difflib.get_close_matches(name, self.presets, n=3, cutoff=0.4) or list(self.presets)
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
            ae_presets.ae_digits, ae_presets.pca, ae_presets.map_digits, ae_presets.denoising_digits,
            ae_presets.conv_digits, ae_presets.stacked_digits, ae_presets.stacked_source, ae_presets.stacked_classifier,
            ae_presets.stacked_conv_digits, ae_presets.retrieval_digits, ae_presets.text_docs, ae_presets.hashing_docs,
        ),
        "autoencoders: undercomplete, denoising, convolutional, stacked",
    ),
    "vae": Family(
        VAEConfig,
        VAETask,
        _named(presets.vae_digits, presets.vae_conv_digits, presets.vae_mnist, presets.vae_conv_atari),
        "variational autoencoders, dense and convolutional",
    ),
    "gan": Family(
        GANConfig,
        GANTask,
        _named(presets.gan_digits, presets.gan_mnist, presets.dcgan_svhn, presets.dcgan_atari),
        "GANs, dense and convolutional (DCGAN)",
    ),
    "classifier": Family(
        ClassifierConfig, ClassifierTask, _named(presets.classifier_digits), "a convolutional image classifier"
    ),
}  # fmt: skip

BUILDERS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    "autoencoder": build_autoencoder,
    "vae": build_vae,
    "gan": build_generator,
    "classifier": build_classifier,
}
"""What the model store needs to load these families' models."""


def open_fit(family: str, config: Any, world: World = ALONE) -> Fit:
    """The data, the task and the loop that `config` describes, ready to be iterated over or loaded into.

    Raises ConfigError for options or data that make no sense.
    """
    config.validate()
    device = resolve_device(config.fit.device)
    require(
        config.fit.amp != "float16" or device.type == "cuda", "--amp float16: needs a GPU; use --amp bfloat16 or off"
    )
    low, high = getattr(FAMILIES[family].task, "value_range", (0.0, 1.0))
    data = load_data(config.data, low=low, high=high)
    return Fit(FAMILIES[family].task(config, world, device), data, config.fit)
