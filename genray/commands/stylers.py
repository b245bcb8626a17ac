"""The two ways in which `genray stylize` styles a picture, or one frame of a clip after the other.

Pictures are uint8 RGB [H, W, 3].
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genray.config import to_dict
from genray.errors import require
from genray.gen.images.features import open_features
from genray.gen.images.pictures import Picture, scaled, to_rgb, to_tensor, with_colours_of
from genray.gen.images.style.networks import build_style_any, build_style_fast
from genray.gen.images.style.optimise import (
    LEAST,
    StyleConfig,
    StyleStep,
    estimate_seconds,
    normalised,
    prepared,
    sizes_of,
)
from genray.gen.images.style.optimise import stylize as optimise
from genray.machine import resolve_device
from genray.runs import modelstore

LOSSES = ("loss", "style", "content", "tv")
FOR_MODELS = ("size", "weights", "keep_colours", "seed")
"""The options of StyleConfig that mean something to a trained model, too."""


@dataclass(frozen=True, kw_only=True)
class StyleLaunch:
    """How, and where the result goes."""

    out: Path
    """out.png (what was done is noted inside), .jpg or .webp; of a clip .gif or .mp4"""
    model: Path | None = None
    """The run or model directory of a style model (genray train style): seconds, where
    optimisation takes longer.
    """
    method: Literal["optimise", "model"] = "optimise"
    """model: what --model means anyway."""
    alpha: float = 1.0
    """Strength of the style: 0 leaves the content, 1 is the whole style."""
    preview: int = 0
    """Every so many steps, write the picture as it stands to OUT-preview; 0: never."""
    frames: int = 0
    """Of a clip, the first so many; 0: all."""
    frame_steps: int = 20
    """Of a clip by optimisation, the steps of each frame after the first: it begins with the
    frame before.
    """
    blend: float = 0.0
    """Of a clip, the share of the frame before where the content stands still, against flicker;
    below 1.
    """
    max_minutes: float = 10.0
    """Of a clip by optimisation: one that would take longer is refused."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def validate(self) -> None:
        require(0 <= self.alpha <= 1, f"--alpha {self.alpha:g}: must lie in 0..1, e.g. 0.8")
        require(self.preview >= 0, f"--preview {self.preview}: must be ≥ 0, e.g. 20")
        require(self.frames >= 0, f"--frames {self.frames}: must be ≥ 0, e.g. 30")
        require(self.frame_steps >= 1, f"--frame-steps {self.frame_steps}: must be ≥ 1, e.g. 20")
        require(0 <= self.blend < 1, f"--blend {self.blend:g}: must lie in 0..1, below 1, e.g. 0.6")
        require(self.max_minutes > 0, f"--max-minutes {self.max_minutes:g}: must be > 0, e.g. 30")
        require(
            self.method == "optimise" or self.model is not None,
            "--method model: name the model, e.g. --model runs/style",
        )


class Styler:
    """Styles pictures of one size. `longest`: their longest side, pixels; smaller ones grow only
    if `enlarge`.
    """

    longest: int
    enlarge: bool

    def sized(self, rgb: np.ndarray) -> np.ndarray:
        """A picture, or its alpha, as large as it is worked at."""
        return scaled(rgb, self.longest, enlarge=self.enlarge)

    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        """A sized picture in the styles; `before`: the styled frame before it, if it is a
        clip's.
        """
        raise NotImplementedError

    def seconds(self, frames: int = 1) -> float:
        """Roughly how long so many frames will take."""
        raise NotImplementedError

    def about(self) -> dict[str, Any]:
        """What was done, JSON-able."""
        raise NotImplementedError


def open_styler(
    first: np.ndarray,
    styles: Sequence[Picture],
    launch: StyleLaunch,
    config: StyleConfig,
    size: int | None,
) -> Styler:
    """The way that the options name, for pictures like `first`; `size` is --size where it was
    given.
    """
    way = ByOptimisation if launch.model is None else ByModel
    return way(first, styles, launch, config, size)


class ByOptimisation(Styler):
    """Gatys'. The features are calibrated on the first picture and the styles, and serve all
    frames alike.
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
        # As large as they are compared at: a camera's whole picture would fill the memory for
        # nothing.
        longest = max(content.shape[-2:]) * config.style_scale
        self._manners = [self._tensor(_fitting(style.rgb, longest)) for style in styles]
        seen, palette = prepared(content, self._manners, config)
        self._features = open_features(
            config.features,
            seed=config.seed,
            calibrate=[seen, *palette],
            palette=palette,
            say=print,
        ).to(self._device)
        self._first = content
        self.newest: dict[str, float] = {}
        self.progress: Callable[[StyleStep], None] = lambda step: None

    def _tensor(self, rgb: np.ndarray) -> Tensor:
        return to_tensor(rgb).to(self._device)

    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        content, config = self._tensor(rgb), self._config
        start = None if before is None else self._tensor(before)
        if start is not None:
            config = replace(config, steps=self._launch.frame_steps)

        def told(step: StyleStep) -> None:
            self.newest = step.values
            self.progress(step)

        result = optimise(content, self._manners, config, self._features, told, start=start)
        return to_rgb(content + self._launch.alpha * (result - content))

    @property
    def steps(self) -> int:
        """Of one picture, over all scales."""
        scales = sizes_of(
            self._height, self._width, self._config.scales, max(self._features.min_side, LEAST)
        )
        return len(scales) * self._config.steps

    def seconds(self, frames: int = 1) -> float:
        one = estimate_seconds(self._first, self._manners, self._config, self._features)
        if frames == 1:
            return one
        later = replace(self._config, scales=1, steps=self._launch.frame_steps)
        return one + (frames - 1) * estimate_seconds(
            self._first, self._manners, later, self._features
        )

    def __str__(self) -> str:
        kind = "" if self._features.trained else " (colour and texture, not semantics)"
        return f"{self._width}x{self._height} pixels, {self._features.name} features{kind}"

    def about(self) -> dict[str, Any]:
        options = {
            "features": self._features.name,
            "size": max(self._height, self._width),
            "alpha": self._launch.alpha,
        }
        return {
            "method": "optimise",
            "features": self._features.about,
            "options": {**to_dict(self._config), **options},
            "weights": list(normalised(self._config.weights, self._styles)),
            "loss": {name: self.newest[name] for name in LOSSES},
        }


class ByModel(Styler):
    """A trained network, in one pass."""

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
                f"--{name.replace('_', '-')}: belongs to optimisation; leave it out beside --model",
            )
        require(
            launch.preview == 0,
            f"--preview {launch.preview}: a model takes one step; leave it out beside --model",
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
        self._manners = [to_tensor(scaled(style.rgb, most)).to(self._device) for style in styles]

    @torch.no_grad()
    def style(self, rgb: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        content = to_tensor(rgb).to(self._device)
        styled = self._model.stylize(
            content, self._manners, weights=self._config.weights, alpha=self._launch.alpha
        )
        result = to_rgb(styled.clamp(0, 1))
        return with_colours_of(result, rgb) if self._config.keep_colours else result

    def seconds(self, frames: int = 1) -> float:
        return 0.0  # not worth a warning

    def __str__(self) -> str:
        return f"{self._kind} model {self._name}"

    @property
    def _name(self) -> str:
        return self._folder.parent.name if self._folder.name == "model" else self._folder.name

    def about(self) -> dict[str, Any]:
        styles = len(self._manners)
        return {
            "method": self._kind,
            "model": self._name,
            "features": getattr(self._model, "about", {}),
            "options": {
                "size": self.longest,
                "alpha": self._launch.alpha,
                "keep_colours": self._config.keep_colours,
            },
            "weights": list(normalised(self._config.weights, styles)) if styles else [],
        }


def _fitting(rgb: np.ndarray, longest: float) -> np.ndarray:
    """A style with its longest side at `longest`, its shortest at 32 pixels or more."""
    factor = max(longest / max(rgb.shape[:2]), 32 / min(rgb.shape[:2]))
    return scaled(rgb, round(factor * max(rgb.shape[:2])), enlarge=True)


def spoken(seconds: float) -> str:
    """A time in the unit that a person would say it in."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
