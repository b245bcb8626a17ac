"""Edits a picture: applies a style with a style model, translates it with a pix2pix or CycleGAN, or
makes a dream with a classifier or lite0.

These functions take seconds. They do not depend on HTTP.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from genray.errors import ResourceError
from genray.gen.images.pictures import (
    Picture,
    resized,
    scaled,
    to_rgb,
    to_tensor,
    with_colours_of,
)
from genray.gen.images.style.mask import WHITE, mix, soften
from serve.builtin import KIND, LITE0
from serve.errors import BadRequest
from serve.limits import Limits
from serve.models import Predictor

if TYPE_CHECKING:
    from genray.gen.images.features import Features

TRANSLATOR = "translator"
"""The kind of models of pix2pix and CycleGAN."""

FEATHER = 1.0
"""Width of the soft edge of a mask, in percent of the longer side, as of `genray stylize`."""

Progress = Callable[[int, int], None]
"""Function of the number of finished steps and the total number of steps."""


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """Options of an edit that a client may choose."""

    model: str = ""
    """Name of a style model, translator or classifier, or lite0. Empty: the first style model, or
    the first translator.
    """
    longest: int = 512
    """Longer side of the result in pixels. Pictures are never enlarged."""
    alpha: float = 1.0
    """Strength of the style: 0 returns the picture itself, 1 applies the full style."""
    keep_colours: bool = False
    """Keep the colours of the picture when a style is applied."""
    direction: str = "a_to_b"
    """Direction of a translator: a_to_b, or for CycleGAN also b_to_a."""
    prepare: bool = False
    """Make a translator's input from the picture as in training, such as its edges."""
    layer: str = ""
    """Layer of the network that a dream excites. Empty: the default layer."""
    channels: tuple[int, ...] = ()
    """Channels of the layer that a dream excites. Empty: all channels."""
    steps: int | None = None
    """Gradient steps of a dream at each octave. None: 8 with a classifier, 24 with lite0, but at
    most `Limits.max_steps`.
    """
    seed: int = 0
    """Seed of a dream's random shifts."""

    @staticmethod
    def read(fields: Mapping[str, str], limits: Limits) -> "EditOptions":
        """Parse the fields of a form. Raises BadRequest, which names the field, its value and the
        allowed values.
        """
        size = fields.get("size") or "auto"
        longest = min(512, limits.max_side)
        if size != "auto":
            sides = [_whole(side, "size", 16, limits.max_side) for side in size.lower().split("x")]
            if len(sides) > 2:
                raise BadRequest(
                    f"size {size[:40]!r}: must be `auto` or SIDExSIDE, e.g. 512x512", param="size"
                )
            longest = max(sides)
        if fields.get("n") not in (None, "", "1"):
            raise BadRequest(
                f"n {fields['n'][:20]!r}: must be 1, because an edit returns one picture", param="n"
            )
        return EditOptions(
            model=fields.get("model", "")[:200],
            longest=longest,
            alpha=_number(fields.get("alpha") or "1", "alpha", 0.0, 1.0),
            keep_colours=_switch(fields.get("keep_colours") or "false", "keep_colours"),
            direction=_direction(fields.get("direction") or "a_to_b"),
            prepare=_switch(fields.get("prepare") or "false", "prepare"),
            layer=fields.get("layer", "")[:40],
            channels=_channels(fields.get("channels") or ""),
            steps=_whole(fields["steps"], "steps", 1, limits.max_steps)
            if fields.get("steps")
            else None,
            seed=_whole(fields.get("seed") or "0", "seed", 0, 2**31 - 1),
        )


def edit(
    predictor: Predictor,
    content: Picture,
    styles: Sequence[Picture],
    options: EditOptions,
    limits: Limits,
    check: Callable[[], None] = lambda: None,
    progress: Progress = lambda done, total: None,
    mask: Picture | None = None,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return (the result as uint8 [H, W, 3], a JSON-serializable description of the edit).

    `check` and `progress` are called between the steps of an iterative edit. `mask`: a picture of
    the content's size, where it is transparent the content is edited, and elsewhere it stays as it
    is. Raises BadRequest, ConfigError, and any exception of `check`.
    """
    check()
    rgb = scaled(content.rgb, min(options.longest, max(content.rgb.shape[:2])))
    edited_HW = None if mask is None else _edited_area(mask, content)
    result, about = _edit(predictor, rgb, content, styles, options, limits, check, progress)
    if edited_HW is None:
        return result, about
    weight_HW = soften(edited_HW, FEATHER, *result.shape[:2])
    outside = rgb if rgb.shape == result.shape else resized(rgb, *result.shape[:2])
    return mix(result, outside, weight_HW), {**about, "mask": {"feather": FEATHER}}


def _edited_area(mask: Picture, content: Picture) -> np.ndarray:
    """Return the area that a mask selects, uint8 [H, W], 255 where the mask is transparent. Raises
    BadRequest for another size than the content's, and for a mask without transparent pixels.
    """
    (tall, wide), (height, width) = mask.rgb.shape[:2], content.rgb.shape[:2]
    if (tall, wide) != (height, width):
        raise BadRequest(
            f"mask: {wide}x{tall} pixels, and the image has {width}x{height}; send a mask of the "
            "image's size",
            param="mask",
        )
    if mask.alpha is None or mask.alpha.min() > WHITE:
        raise BadRequest(
            "mask: has no transparent pixels, so that nothing would be edited; make the area to "
            "edit transparent",
            param="mask",
        )
    return 255 - mask.alpha


def _edit(
    predictor: Predictor,
    rgb: np.ndarray,
    content: Picture,
    styles: Sequence[Picture],
    options: EditOptions,
    limits: Limits,
    check: Callable[[], None],
    progress: Progress,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Edit the whole picture. `rgb`: the content at the size of the result."""
    if predictor.kind in ("classifier", KIND):
        return _dream(predictor, rgb, options, limits, check, progress)
    if predictor.kind == TRANSLATOR:
        return _translation(predictor, rgb, content, styles, options)
    # Check that the model and the number of pictures fit together.
    if not predictor.kind.startswith("style_"):
        raise BadRequest(
            f"model {predictor.name!r} ({predictor.kind}) does not edit pictures; name a style "
            f"model, a translator or a classifier, or {LITE0}",
            param="model",
        )
    if predictor.kind == "style_any" and not styles:
        raise BadRequest(
            f"model {predictor.name!r} applies any style: send the style as a second `image`",
            param="image",
        )
    if predictor.kind == "style_fast" and styles:
        raise BadRequest(
            f"model {predictor.name!r} has one fixed style: send one picture", param="image"
        )
    # Apply the styles.
    longest = min(512, limits.max_side)
    tensors = [
        to_tensor(scaled(style.rgb, min(longest, max(style.rgb.shape[:2])))) for style in styles
    ]
    model: Any = predictor.model
    result = to_rgb(model.stylize(to_tensor(rgb), tensors, alpha=options.alpha))
    if options.keep_colours:
        result = with_colours_of(result, rgb)
    return result, {
        "method": predictor.kind,
        "alpha": options.alpha,
        "keep_colours": options.keep_colours,
    }


def features_of(predictor: Predictor) -> "Features":
    """Return the features that a model dreams with. Raises BadRequest if the model does not
    dream.
    """
    from genray.gen.images.features import ModelFeatures

    if predictor.kind == KIND:
        return cast("Features", predictor.model)
    if predictor.kind != "classifier":
        raise BadRequest(
            f"model {predictor.name!r} ({predictor.kind}) does not dream; name a classifier, or "
            f"{LITE0}",
            param="model",
        )
    about = {"features": "model", "kind": predictor.kind}
    return ModelFeatures(cast(Any, predictor.model), predictor.name, about)


def _translation(
    predictor: Predictor,
    rgb: np.ndarray,
    content: Picture,
    styles: Sequence[Picture],
    options: EditOptions,
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the translated picture and its description; transparent pixels of the content are
    missing ones. Raises BadRequest for a second picture, and if `prepare` needs a package that is
    not installed.
    """
    from genray.gen.translation.apply import apply_translator

    if styles:
        raise BadRequest(
            f"model {predictor.name!r} translates one picture: send one picture", param="image"
        )
    alpha = content.alpha
    if alpha is not None and alpha.shape != rgb.shape[:2]:
        alpha = scaled(alpha, max(rgb.shape[:2]))
    model: Any = predictor.model
    try:
        result = apply_translator(
            model, rgb, alpha=alpha, direction=options.direction, prepare=options.prepare
        )
    except ResourceError as error:  # this machine lacks a package that finds edges
        raise BadRequest(str(error), param="prepare") from error
    return result, {
        "method": model.about.get("method", TRANSLATOR),
        "direction": options.direction,
        "prepare": options.prepare,
    }


def _dream(
    predictor: Predictor,
    rgb: np.ndarray,
    options: EditOptions,
    limits: Limits,
    check: Callable[[], None],
    progress: Progress,
) -> tuple[np.ndarray, dict[str, Any]]:
    from genray.gen.images.dream import DreamConfig, Objective, dream

    features = features_of(predictor)
    # A classifier of the user dreams with fewer steps and octaves than lite0.
    if predictor.kind == KIND:
        octaves, default_steps = DreamConfig.octaves, features.dream_steps
    else:
        octaves, default_steps = 4, 8
    steps = min(default_steps, limits.max_steps) if options.steps is None else options.steps
    config = DreamConfig(
        layer=options.layer, channels=options.channels, steps=steps, octaves=octaves,
        seed=options.seed,
    )  # fmt: skip
    objective = Objective(features, config.layer, config.channels)

    def step(done: int, total: int) -> None:
        check()
        progress(done, total)

    result = to_rgb(dream(to_tensor(rgb), objective, config, step))
    return result, {
        "method": "dream",
        "layer": objective.layer,
        **({"channels": list(options.channels)} if options.channels else {}),
        "steps": steps,
        "seed": options.seed,
    }


def _channels(text: str) -> tuple[int, ...]:
    """Parse channels that are separated by commas or spaces. Raises BadRequest."""
    words = text[:400].replace(",", " ").split()
    return tuple(_whole(word, "channels", 0, 100_000) for word in words)


def _whole(text: str, name: str, low: int, high: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise BadRequest(
            f"{name} {text[:40]!r}: must be a whole number in {low}..{high}", param=name
        )
    return int(text)


def _number(text: str, name: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise BadRequest(f"{name} {text[:40]!r}: must lie in {low:g}..{high:g}", param=name)
    return value


def _direction(text: str) -> str:
    if text not in ("a_to_b", "b_to_a"):
        raise BadRequest(f"direction {text[:40]!r}: must be a_to_b or b_to_a", param="direction")
    return text


def _switch(text: str, name: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise BadRequest(f"{name} {text[:40]!r}: must be true or false", param=name)
    return text.lower() in ("true", "1")
