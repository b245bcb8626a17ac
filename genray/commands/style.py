"""`genray stylize CONTENT STYLE … --out out.png`: a picture in the manner of others, by optimisation or by a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genray import __version__, modelstore
from genray.config import to_dict
from genray.errors import ConfigError, require
from genray.gen.images.features import open_features
from genray.gen.images.pictures import (
    Picture,
    check_picture_path,
    read_picture,
    scaled,
    to_rgb,
    to_tensor,
    with_colours_of,
    write_picture,
)
from genray.gen.images.style import LEAST, StyleConfig, StyleStep, estimate_seconds, normalised, prepared, sizes_of
from genray.gen.images.style import stylize as optimise
from genray.gen.images.style_net import build_style_any, build_style_fast
from genray.live import Column, Live
from genray.machine import resolve_device
from genray.options import option_value, parse

COLUMNS: tuple[Column, ...] = tuple((name, name, "{:.4f}") for name in ("loss", "style", "content", "tv"))
FOR_MODELS = ("size", "weights", "keep_colours", "seed")
"""The options of StyleConfig that mean something to a trained model, too."""


@dataclass(frozen=True, kw_only=True)
class StyleLaunch:
    """How, and where the result goes."""

    out: Path
    """out.png (what was done is noted inside), .jpg or .webp"""
    model: Path | None = None
    """The run or model directory of a style model (genray train style): seconds, where optimisation takes longer."""
    method: Literal["optimise", "model"] = "optimise"
    """model: what --model means anyway."""
    alpha: float = 1.0
    """Strength of the style: 0 leaves the content, 1 is the whole style."""
    preview: int = 0
    """Every so many steps, write the picture as it stands to OUT-preview; 0: never."""
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def validate(self) -> None:
        require(0 <= self.alpha <= 1, f"--alpha {self.alpha:g}: must lie in 0..1, e.g. 0.8")
        require(self.preview >= 0, f"--preview {self.preview}: must be ≥ 0, e.g. 20")
        require(
            self.method == "optimise" or self.model is not None,
            "--method model: name the model, e.g. --model runs/style",
        )


def stylize(argv: list[str], prog: str) -> int:
    """`genray stylize`."""
    content, styles, argv = _pictures(argv, prog)
    both: Any = make_dataclass(
        "Stylize",
        [("launch", StyleLaunch), ("config", StyleConfig, field(default_factory=StyleConfig))],
        frozen=True,
        kw_only=True,
    )
    both.__doc__ = "A picture in the manner of one or several others."
    options = parse(both, argv, prog)
    launch: StyleLaunch = options.launch
    config: StyleConfig = options.config
    launch.validate()
    if launch.model is None:
        require(len(styles) >= 1, f"{prog}: name a style picture behind the content, or a trained --model")
    config.validate(len(styles) or None)
    check_picture_path(launch.out)
    size = config.size if option_value(argv, "--size") else None
    picture, style_pictures = read_picture(content), [read_picture(path) for path in styles]
    check_picture_path(launch.out, alpha=picture.alpha is not None)
    work = _optimised if launch.model is None else _by_model
    rgb, alpha, about = work(picture, style_pictures, launch, config, size)
    note = {
        "command": "genray stylize",
        "version": __version__,
        "content": picture.name,
        "styles": [style.name for style in style_pictures],
        **about,
    }
    print(write_picture(launch.out, rgb, alpha, note))
    return 0


def _pictures(argv: list[str], prog: str) -> tuple[Path, list[Path], list[str]]:
    """(the content, the styles, the other words)."""
    count = next((number for number, word in enumerate(argv) if word.startswith("-")), len(argv))
    names, rest = [Path(word) for word in argv[:count]], argv[count:]
    if names:
        return names[0], names[1:], rest
    if "-h" in argv or "--help" in argv:
        print(f"{prog} CONTENT STYLE [STYLE …] --out out.png [options]   JPEG, PNG or WebP\n")
        return Path(), [], argv
    raise ConfigError(f"{prog}: name the content and a style first, e.g. {prog} photo.jpg painting.jpg --out out.png")


def _sized(picture: Picture, longest: int, enlarge: bool) -> Picture:
    alpha = None if picture.alpha is None else scaled(picture.alpha, longest, enlarge=enlarge)
    return Picture(scaled(picture.rgb, longest, enlarge=enlarge), alpha, picture.name)


# -- by optimisation ---------------------------------------------------------------------------------------------------


def _optimised(
    picture: Picture, styles: Sequence[Picture], launch: StyleLaunch, config: StyleConfig, size: int | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(uint8 [H, W, 3], alpha or None, what was done)."""
    device = resolve_device(launch.device)
    # Enlarged only where somebody asked for a size.
    picture = _sized(picture, config.size, enlarge=size is not None)
    content = to_tensor(picture.rgb).to(device)
    height, width = content.shape[-2:]
    # As large as they are compared at: a camera's whole picture would fill the memory for nothing.
    longest = max(height, width) * config.style_scale
    manners = [to_tensor(_fitting(style.rgb, longest)).to(device) for style in styles]
    seen, palette = prepared(content, manners, config)
    features = open_features(
        config.features, seed=config.seed, calibrate=[seen, *palette], palette=palette, say=print
    ).to(device)
    label = f"{features.name} features" + ("" if features.trained else " (colour and texture, not semantics)")
    seconds = estimate_seconds(content, manners, config, features)
    print(f"{width}x{height} pixels, {label}: about {_spoken(seconds)} on {device}")
    newest: dict[str, float] = {}
    scales = len(sizes_of(height, width, config.scales, max(features.min_side, LEAST)))
    with Live("styling", scales * config.steps, COLUMNS) as live:

        def progress(step: StyleStep) -> None:
            before = newest.get("step", 0)
            newest.update(step.values, step=step.step)
            live.update(step.values, step.step)
            if launch.preview and step.step // launch.preview > before // launch.preview:
                write_picture(launch.out.with_stem(f"{launch.out.stem}-preview"), to_rgb(step.image()))

        result = optimise(content, manners, config, features, progress)
    about = {
        "method": "optimise",
        "features": features.about,
        "options": {**to_dict(config), "features": features.name, "size": max(height, width), "alpha": launch.alpha},
        "weights": list(normalised(config.weights, len(styles))),
        "loss": {name: newest[name] for name, _, _ in COLUMNS},
    }
    return to_rgb(_blend(content, result, launch.alpha)), picture.alpha, about


def _fitting(rgb: np.ndarray, longest: float) -> np.ndarray:
    """A style with its longest side at `longest`, its shortest at 32 pixels or more."""
    factor = max(longest / max(rgb.shape[:2]), 32 / min(rgb.shape[:2]))
    return scaled(rgb, round(factor * max(rgb.shape[:2])), enlarge=True)


def _blend(content_1CHW: Tensor, styled_1CHW: Tensor, alpha: float) -> Tensor:
    return content_1CHW + alpha * (styled_1CHW - content_1CHW)


def _spoken(seconds: float) -> str:
    """A time in the unit that a person would say it in."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


# -- by a trained model ------------------------------------------------------------------------------------------------


def _by_model(
    picture: Picture, styles: Sequence[Picture], launch: StyleLaunch, config: StyleConfig, size: int | None
) -> tuple[np.ndarray, np.ndarray | None, dict[str, Any]]:
    """(uint8 [H, W, 3], alpha or None, what was done)."""
    assert launch.model is not None
    idle = {name: value for name, value in to_dict(config).items() if name not in FOR_MODELS}
    plain = to_dict(StyleConfig())
    for name, value in idle.items():
        require(
            value == plain[name], f"--{name.replace('_', '-')}: belongs to optimisation; leave it out beside --model"
        )
    require(launch.preview == 0, f"--preview {launch.preview}: a model takes one step; leave it out beside --model")
    folder = launch.model / "model" if (launch.model / "model").is_dir() else launch.model
    loaded, card = modelstore.load_model(folder, {"style_fast": build_style_fast, "style_any": build_style_any})
    device = resolve_device(launch.device)
    model: Any = loaded.to(device)
    longest = size or min(model.max_side, max(picture.rgb.shape[:2]))
    require(longest <= model.max_side, f"--size {longest}: this model takes at most {model.max_side} pixels a side")
    picture = _sized(picture, longest, enlarge=size is not None)
    content = to_tensor(picture.rgb).to(device)
    manners = [to_tensor(scaled(style.rgb, model.max_side)).to(device) for style in styles]
    with torch.no_grad():
        rgb = to_rgb(model.stylize(content, manners, weights=config.weights, alpha=launch.alpha).clamp(0, 1))
    if config.keep_colours:
        rgb = with_colours_of(rgb, picture.rgb)
    about = {
        "method": card["kind"],
        "model": folder.parent.name if folder.name == "model" else folder.name,
        "features": getattr(model, "about", {}),
        "options": {"size": longest, "alpha": launch.alpha, "keep_colours": config.keep_colours},
        "weights": list(normalised(config.weights, len(styles))) if styles else [],
    }
    return rgb, picture.alpha, about
