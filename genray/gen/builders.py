"""Builds a stored model from its config, and imports only the modules that the model's kind needs.

A service or a command that loads models needs neither the other kinds nor their training tasks:
importing all of them takes seconds and 100 MB.
"""

import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

Builder = Callable[[dict[str, Any]], nn.Module]


def _builder(module: str, name: str) -> Builder:
    def build(config: dict[str, Any]) -> nn.Module:
        function: Builder = getattr(importlib.import_module(module), name)
        return function(config)

    return build


BUILDERS: dict[str, Builder] = {
    "autoencoder": _builder("genray.gen.autoencoder.model", "build_autoencoder"),
    "vae": _builder("genray.gen.vae.model", "build_vae"),
    "gan": _builder("genray.gen.gan.networks", "build_generator"),
    "sprites": _builder("genray.gen.sprites.model", "build_sprites"),
    "translator": _builder("genray.gen.translation.model", "build_translator"),
    "world": _builder("genray.gen.world.model", "build_world"),
    "classifier": _builder("genray.gen.images.classifier", "build_classifier"),
    "style_fast": _builder("genray.gen.images.style.transformer_net", "build_style_fast"),
    "style_any": _builder("genray.gen.images.style.adain_net", "build_style_any"),
    "photographs": _builder("genray.gen.images.photo_index", "build_photo_index"),
}
"""Functions that build a model from its config, by the model's kind, for the model store."""
