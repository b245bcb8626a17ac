"""The methods of `genray stylize`, optimization and a trained model, for pictures and frames, and
their use inside and outside of a mask.

Pictures are uint8 RGB [H, W, 3].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genray.bounds import bounded, check_bounds
from genray.config import to_dict
from genray.errors import require
from genray.gen.images.features import open_features
from genray.gen.images.pictures import Picture, scaled, to_rgb, to_tensor, with_colours_of
from genray.gen.images.style.adain_net import build_style_any
from genray.gen.images.style.config import StyleConfig, normalise_weights
from genray.gen.images.style.estimate import estimate_seconds
from genray.gen.images.style.mask import mix, read_mask, soften
from genray.gen.images.style.optimise import StyleStep, prepared
from genray.gen.images.style.optimise import stylize as optimise
from genray.gen.images.style.sizes import LEAST, sizes_of
from genray.gen.images.style.transformer_net import build_style_fast
from genray.machine import keep_freed_memory, resolve_device
from genray.runs import modelstore

LOSSES = ("loss", "style", "content", "tv")
STYLE_SIDE = 2048
"""Longest side of a style picture for a model, in pixels."""
FOR_MODELS = ("size", "weights", "keep_colours", "seed")
"""The options of StyleConfig that are accepted together with a trained model."""


@dataclass(frozen=True, kw_only=True)
class StyleLaunch:
    """Options of `genray stylize`: the method, the clip, and the output."""

    out: Path | None = None
    """out.png (the options are saved inside), .jpg or .webp; for a clip .gif or .mp4. None:
    photo-styled.png for photo.jpg, in the working directory; an existing file is kept.
    """
    model: Path | None = None
    """The run or model directory of a style model (genray train style). A model takes seconds;
    optimization takes longer.
    """
    method: Literal["optimise", "model"] = "optimise"
    """The method; --model implies `model`."""
    alpha: float = bounded(1.0, min=0, max=1, example=0.8)
    """Strength of the style; 0 leaves the content unchanged, 1 applies the full style."""
    preview: int = bounded(0, min=0, example=20)
    """Number of steps after which the current picture is written to OUT-preview; 0: never."""
    frames: int = bounded(0, min=0, example=30)
    """Number of frames of a clip to style, from the first; 0: all."""
    frame_steps: int = bounded(20, min=1, example=20)
    """Optimization steps of each frame of a clip after the first; each frame starts from the
    previous styled frame.
    """
    blend: float = bounded(0.0, min=0, below=1, example=0.6)
    """Share of the previous frame where the content of a clip does not change, against flicker;
    below 1.
    """
    mask: Path | None = None
    """A picture of the content's size: the style goes where it is white. Elsewhere the content
    stays as it is, or gets the second style. Grey mixes both.
    """
    feather: float = bounded(1.0, min=0, max=50, example=1)
    """Width of the soft edge of --mask, in percent of the longer side; 0: as sharp as the mask."""
    max_minutes: float = bounded(10.0, above=0, example=30)
    """Largest duration of a clip's optimization in minutes; a clip that takes longer is refused."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def validate(self) -> None:
        """Raise ConfigError for invalid options."""
        check_bounds(self)
        require(
            self.method == "optimise" or self.model is not None,
            "--method model: name the model, e.g. --model runs/style",
        )

    @property
    def target(self) -> Path:
        """The output, which must have been chosen."""
        assert self.out is not None
        return self.out


class Styler:
    """Styles pictures of one size.

    `longest`: the longest side of the result in pixels. `enlarge`: whether smaller pictures are
    enlarged to this size.
    """

    longest: int
    enlarge: bool
    steps: int
    """Optimization steps of one picture; 0 for a model."""
    progress: Callable[[StyleStep], None]
    """Called during an optimization."""

    def sized(self, rgb: np.ndarray) -> np.ndarray:
        """Resize a picture, or its alpha channel, to the size of the result."""
        return scaled(rgb, self.longest, enlarge=self.enlarge)

    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """Style a resized picture. `before`: the previous styled frame of a clip, or None."""
        raise NotImplementedError

    def seconds(self, frames: int = 1) -> float:
        """Estimate the seconds in which `frames` frames are styled; 0 if that is short."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """Describe the options as JSON-serializable values."""
        raise NotImplementedError


def open_styler(
    first: np.ndarray,
    styles: Sequence[Picture],
    launch: StyleLaunch,
    config: StyleConfig,
    size: int | None,
) -> Styler:
    """Create the styler that the options select, for pictures like `first`. `size`: the value of
    --size, or None.
    """
    keep_freed_memory()
    method = ByOptimisation if launch.model is None else ByModel
    if launch.mask is None:
        return method(first, styles, launch, config, size)
    require(
        len(styles) <= 2 and not config.weights,
        "--mask: takes one style, or two (inside and outside), without --weights",
    )
    mask_HW = read_mask(launch.mask, *first.shape[:2])
    inside, outside = (
        method(first, some, launch, config, size) if some or not index else None
        for index, some in enumerate((styles[:1], styles[1:]))
    )
    assert inside is not None
    return ByMask(mask_HW, launch.mask.name, launch.feather, inside, outside)


class ByMask(Styler):
    """Styles the inside of a mask with one styler, and the outside with another one, or not.

    Args:
        mask_HW: uint8 [H, W], of the size of the content before `sized`.
        name: the mask's name, for the description.
        feather: see `soften`.
        inside, outside: the stylers; `outside` None leaves the content as it is.
    """

    def __init__(
        self,
        mask_HW: np.ndarray,
        name: str,
        feather: float,
        inside: Styler,
        outside: Styler | None,
    ):
        self.longest, self.enlarge = inside.longest, inside.enlarge
        self._mask_HW, self._name, self._feather = mask_HW, name, feather
        self._stylers = [inside, *([outside] if outside else [])]
        self.steps = sum(each.steps for each in self._stylers)
        self.progress = lambda step: None
        self._before: list[np.ndarray | None] = [None, None]

    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        done, results = 0, []
        for number, styler in enumerate(self._stylers):

            def report(step: StyleStep, done: int = done) -> None:
                self.progress(replace(step, step=done + step.step, total=self.steps))

            styler.progress = report
            # Each styler goes on from its own result of the previous frame.
            own = None if before is None else self._before[number]
            results.append(styler.style(rgb, own))
            self._before[number] = results[-1]
            done += styler.steps
        inside, outside = results[0], results[1] if len(results) > 1 else rgb
        weight_HW = soften(self._mask_HW, self._feather, *inside.shape[:2])
        return mix(inside, outside, weight_HW)

    def seconds(self, frames: int = 1) -> float:
        return sum(each.seconds(frames) for each in self._stylers)

    def __str__(self) -> str:
        return f"{self._stylers[0]}, inside {self._name}"

    def about(self) -> dict[str, Any]:
        outside = "content" if len(self._stylers) == 1 else "the second style"
        mask = {"name": self._name, "feather": self._feather, "outside": outside}
        return {**self._stylers[0].about(), "mask": mask}


class ByOptimisation(Styler):
    """Styles by optimization of the pixels [Gatys 2016].

    The features are calibrated on the first picture and the styles, and used for all frames.
    """

    def __init__(
        self,
        first: np.ndarray,
        styles: Sequence[Picture],
        launch: StyleLaunch,
        config: StyleConfig,
        size: int | None,
    ):
        self.longest, self.enlarge = config.size, size is not None
        self._config, self._launch, self._styles = config, launch, len(styles)
        self._device = resolve_device(launch.device)
        content = self._tensor(self.sized(first))
        self._height, self._width = content.shape[-2:]
        # Styles are scaled to the size at which they are compared with the result, because a
        # camera's full picture would waste memory.
        longest = max(content.shape[-2:]) * config.style_scale
        self._style_tensors = [self._tensor(_fitting(style.rgb, longest)) for style in styles]
        prepared_content, palette = prepared(content, self._style_tensors, config)
        self._features = open_features(
            config.features,
            seed=config.seed,
            calibrate=[prepared_content, *palette],
            palette=palette,
            say=print,
        ).to(self._device)
        self._first = content
        self.newest: dict[str, float] = {}
        self.progress = lambda step: None
        scales = sizes_of(
            self._height, self._width, config.scales, max(self._features.min_side, LEAST)
        )
        self.steps = len(scales) * config.steps

    def _tensor(self, rgb: np.ndarray) -> Tensor:
        return to_tensor(rgb).to(self._device)

    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        content, config = self._tensor(rgb), self._config
        start = None if before is None else self._tensor(before)
        if start is not None:
            config = replace(config, steps=self._launch.frame_steps)

        def report(step: StyleStep) -> None:
            self.newest = step.values
            self.progress(step)

        result = optimise(content, self._style_tensors, config, self._features, report, start=start)
        return to_rgb(content + self._launch.alpha * (result - content))

    def seconds(self, frames: int = 1) -> float:
        one = estimate_seconds(self._first, self._style_tensors, self._config, self._features)
        if frames == 1:
            return one
        later = replace(self._config, scales=1, steps=self._launch.frame_steps)
        return one + (frames - 1) * estimate_seconds(
            self._first, self._style_tensors, later, self._features
        )

    def __str__(self) -> str:
        kind = "" if self._features.trained else " (colour and texture, not semantics)"
        return f"{self._width}x{self._height} pixels, {self._features.name} features{kind}"

    def about(self) -> dict[str, Any]:
        options = {
            "features": self._features.name,
            "content_weight": self._features.style_content_weight
            if self._config.content_weight is None
            else self._config.content_weight,
            "size": max(self._height, self._width),
            "alpha": self._launch.alpha,
        }
        return {
            "method": "optimise",
            "features": self._features.about,
            "options": {**to_dict(self._config), **options},
            "weights": list(normalise_weights(self._config.weights, self._styles)),
            "loss": {name: self.newest[name] for name in LOSSES},
        }


class ByModel(Styler):
    """Styles with a trained network, in one pass."""

    steps = 0

    def __init__(
        self,
        first: np.ndarray,
        styles: Sequence[Picture],
        launch: StyleLaunch,
        config: StyleConfig,
        size: int | None,
    ):
        assert launch.model is not None
        plain = to_dict(StyleConfig())
        for name, value in to_dict(config).items():
            require(
                name in FOR_MODELS or value == plain[name],
                f"--{name.replace('_', '-')}: only for optimisation; leave it out with --model",
            )
        require(
            launch.preview == 0,
            f"--preview {launch.preview}: a model takes one step; leave it out with --model",
        )
        self._folder = modelstore.model_folder(launch.model)
        builders = {"style_fast": build_style_fast, "style_any": build_style_any}
        loaded, card = modelstore.load_model(self._folder, builders)
        self._kind: str = card["kind"]
        self._device = resolve_device(launch.device)
        self._model = cast(Any, loaded.to(self._device))
        most: int = self._model.max_side
        self.longest, self.enlarge = size or min(most, max(first.shape[:2])), size is not None
        require(
            self.longest <= most,
            f"--size {self.longest}: this model takes at most {most} pixels a side",
        )
        self._config, self._launch = config, launch
        self._style_tensors = [
            to_tensor(scaled(style.rgb, STYLE_SIDE)).to(self._device) for style in styles
        ]

    @torch.no_grad()
    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        content = to_tensor(rgb).to(self._device)
        styled = self._model.stylize(
            content, self._style_tensors, weights=self._config.weights, alpha=self._launch.alpha
        )
        result = to_rgb(styled.clamp(0, 1))
        return with_colours_of(result, rgb) if self._config.keep_colours else result

    def seconds(self, frames: int = 1) -> float:
        return 0.0  # One pass is too short for an estimate.

    def __str__(self) -> str:
        return f"{self._kind} model {self._name}"

    @property
    def _name(self) -> str:
        return self._folder.parent.name if self._folder.name == "model" else self._folder.name

    def about(self) -> dict[str, Any]:
        styles = len(self._style_tensors)
        return {
            "method": self._kind,
            "model": self._name,
            "features": getattr(self._model, "about", {}),
            "options": {
                "size": self.longest,
                "alpha": self._launch.alpha,
                "keep_colours": self._config.keep_colours,
            },
            "weights": list(normalise_weights(self._config.weights, styles)) if styles else [],
        }


def _fitting(rgb: np.ndarray, longest: float) -> np.ndarray:
    """Resize a style to a longest side of `longest`, with at least 32 pixels on its shortest
    side.
    """
    factor = max(longest / max(rgb.shape[:2]), 32 / min(rgb.shape[:2]))
    return scaled(rgb, round(factor * max(rgb.shape[:2])), enlarge=True)


def spoken(seconds: float) -> str:
    """Format a duration in seconds, minutes or hours."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
