"""Draws the cover of a model: a picture that shows what the model makes, for the page's gallery."""

from collections.abc import Callable
from typing import Any

import numpy as np

from genray.config import from_dict
from genray.errors import ConfigError
from genray.gen.images.photo_index import PhotoIndex
from genray.gen.world.model import WorldModel
from genray.rl.env import EnvConfig
from serve.builtin import KIND
from serve.edits import TRANSLATOR, EditOptions, edit
from serve.errors import BadRequest
from serve.examples import example_rgb
from serve.explore import Explorer, generated, reconstructed, screen_after, sheet
from serve.games import start_screen
from serve.limits import Limits
from serve.models import Predictor

Check = Callable[[], None]

SIDE = 384
"""Least width of a cover of small images, in pixels."""
COUNT, COLUMNS = 12, 4
"""Images of a cover, and images in a row: the page shows covers of 4:3."""
EDITED = 256
"""Longer side of a cover of a style or a dream, in pixels."""


def cover(predictor: Predictor, explorer: Explorer, check: Check) -> np.ndarray:
    """Return the cover of a model, uint8 RGB [H, W, 3].

    A generator shows samples, an autoencoder reconstructions, a classifier test pictures, a style
    network, a dream network or a translator a changed photograph, an index some of its photographs,
    and a policy or a world model a screen of its game. Raises BadRequest for a model without
    pictures, and ConfigError if the picture needs data that are not on this machine.
    """
    model: Any = predictor.model
    if predictor.makes_images:
        return _sheet(generated(predictor, 2 if predictor.kind == "sprites" else COUNT))
    if predictor.kind in (KIND, TRANSLATOR) or predictor.kind.startswith("style_"):
        return _edited(predictor, check)
    if isinstance(model, WorldModel):
        return start_screen(model)
    if "act" in predictor.functions:
        try:
            env = from_dict(EnvConfig, predictor.config["env"], "env.")
        except (ConfigError, KeyError, TypeError) as error:
            raise BadRequest(f"model {predictor.name!r}: config.json names no game") from error
        if env.env:
            raise BadRequest(f"model {predictor.name!r} plays its own environment")
        return screen_after(predictor, env, 90)
    if len(getattr(model, "shape", ())) != 3:
        raise BadRequest(f"model {predictor.name!r} has no pictures")
    if isinstance(model, PhotoIndex):
        return _sheet(explorer.code_map(predictor, COUNT, check)["images"])
    images = explorer.test_rows(predictor, COUNT)["images"]
    if "reconstruct" in predictor.functions:
        images = reconstructed(predictor, images)
    return _sheet(images)


def _sheet(images: list[np.ndarray]) -> np.ndarray:
    columns = min(COLUMNS, len(images))
    return sheet(images, columns, SIDE // columns)


def _edited(predictor: Predictor, check: Check) -> np.ndarray:
    from genray.gen.images.pictures import Picture

    styles = [example_rgb("swirls")] if predictor.kind == "style_any" else []
    model: Any = predictor.model
    prepare = predictor.kind == TRANSLATOR and model.about.get("input") not in ("images", "files")
    options = EditOptions(
        longest=EDITED, steps=8 if predictor.kind == KIND else None, prepare=prepare
    )
    content = Picture(example_rgb("flower"), None, "flower")
    result, _ = edit(
        predictor, content, [Picture(each, None, "style") for each in styles], options, Limits(),
        check,
    )  # fmt: skip
    return result
