"""Commands that use a trained image or text model: sample, reconstruct, interpolate, encode.

Each command takes a MODEL: a run directory or a model directory.
"""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor

from genray.bounds import bounded, check_bounds
from genray.commands import sprites
from genray.commands.photographs import names_pictures, open_index
from genray.config import from_dict
from genray.console import escaped
from genray.errors import ConfigError, require
from genray.gen.autoencoder.config import AEModelConfig
from genray.gen.autoencoder.corruption import corrupt
from genray.gen.builders import BUILDERS
from genray.gen.data.config import DataConfig
from genray.gen.data.load import changed, load_data
from genray.gen.data.types import Data, Split
from genray.gen.generative import GenerativeModel, image_grid, to_uint8, walk_frames
from genray.gen.sheets import Tile, draw_sheet
from genray.gen.sprites.model import SpriteModel
from genray.gen.training.fit import fixed_randomness
from genray.media import check_clip_path, check_png_path, check_writable, write_clip, write_png
from genray.options import folder_argument, given, parse
from genray.paths import DATA, DataName
from genray.runs import modelstore
from genray.runs.files import writing_file

CHUNK = 512
"""Number of rows that are encoded at a time."""


def model_argument(argv: list[str], prog: str) -> tuple[Path, list[str]]:
    """Split the arguments into (the model's directory, the other words)."""
    path, argv = folder_argument(argv, prog, "MODEL", "runs/vae-digits")
    return modelstore.model_folder(path), argv


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model, and print its training step if it is recorded. Returns (the model, its config).

    Raises CheckpointError if the directory has no model of a family in BUILDERS.
    """
    model, config = modelstore.load_model(folder, BUILDERS)
    if isinstance(step := config.get("step"), int):
        print(f"model of step {step:,}: {folder}")
    return model, config


def generator(folder: Path) -> GenerativeModel:
    """Load a generator. Raises ConfigError for a model that cannot generate."""
    model, config = load(folder)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(
            f"{folder}: a model of kind {config['kind']!r} does not generate; use a vae, a gan or "
            "sprites"
        )
    return model


def encoder(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Load a model with an encoder. Raises ConfigError for a model without codes."""
    model, config = load(folder)
    if not hasattr(model, "encode"):
        raise ConfigError(
            f"{folder}: a model of kind {config['kind']!r} has no codes; use an autoencoder or a "
            "vae"
        )
    return model, config


def own_data(config: dict[str, Any], data: str) -> Data:
    """Load the data that a model was trained on, or `data` converted to the model's form.

    The training data have the same splits and scale as in training. Of the options of the training
    data, only `words`, `weighting` and `data_folder` also apply to `data`. A message on stderr
    reports a conversion. A warning reports that files or classes of the training data were added or
    removed since training, because the test rows may then have been training rows. Raises
    ConfigError for texts with an image model, images with a text model, or rows of another shape.
    """
    about = config["data"]
    stored = replace(from_dict(DataConfig, about["options"], "data."), augment=())
    wanted, like = stored, cast(Any, None)
    if data and DATA.absolute(data) != DATA.absolute(stored.data):
        kept = {name: getattr(stored, name) for name in ("words", "weighting", "data_folder")}
        wanted = DataConfig(data=data, **kept)
        wanted.validate()
        forms = ("texts, e.g. docs", "images, e.g. digits")
        takes = forms[len(config["shape"]) == 3]
        require(takes == forms[not wanted.is_text], f"--data {data}: the model takes {takes}")
        like = None if wanted.is_text else tuple(config["shape"])
    recipe = about.get("recipe", {})
    found = load_data(
        wanted, low=about["low"], high=about["high"], idf=recipe.get("idf"), like=like
    )
    if found.about.get("converted"):
        say_conversion(f"--data {data}", config)
    require(
        list(found.shape) == list(config["shape"]),
        f"--data {wanted.data}: rows have shape {list(found.shape)}, and the model takes "
        f"{list(config['shape'])}; give data of this shape",
    )
    classes = about.get("classes", []) if wanted is stored else []
    if changed(recipe.get("rows"), found.about.get("rows")) or (
        classes and classes != list(found.classes)
    ):
        print(
            f"warning: --data {wanted.data}: its files differ from the files that the model was "
            "trained on; its held-out rows may have been training rows",
            file=sys.stderr,
        )
    return found


def say_conversion(what: str, config: dict[str, Any]) -> None:
    """Report on stderr that images named by `what` are converted to the form of the model's
    input.
    """
    channels, height, width = config["shape"]
    form = f"{width}x{height} {'grey' if channels == 1 else 'colour'}"
    print(f"{what}: read as {form} images, the form that the model takes", file=sys.stderr)


@torch.no_grad()
def codes_of(model: Any, split: Split) -> np.ndarray:
    """Compute the codes of every row, float32 [N, K]."""
    return torch.cat([model.encode(x).flatten(1).float() for x in split.all().split(CHUNK)]).numpy()


# -- pictures --------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample images from a generator (vae, gan, sprites) and write them as one grid."""

    out: Path
    """grid.png"""
    num: int = 64
    """Number of images."""
    seed: int = 0
    nearest: Path | None = None
    """nearest.png: the samples above their nearest training images. Also prints the share of
    samples that are near-duplicates of training images.
    """
    fld: bool = False
    """Print the Fréchet Lite0 distance (FLD) of the samples and the held-out images. FLD needs
    about 1,000 samples (--num) and 10 to 40 s.
    """
    scale: int = bounded(0, min=0, max=8, example=3)
    """Size of each pixel in the picture; 0: 1, or enough for images of 32 pixels."""
    temperature: float = bounded(1.0, above=0, max=4, example=1)
    """For sprites: divides all logits. Below 1, samples are more alike."""
    top_p: float = bounded(0.99, above=0, max=1, example=0.99)
    """For sprites: shapes and runs are drawn from the likeliest ones with this probability.
    """
    noise: bool = False
    """Whether to draw the pixels from the decoder's distribution (vae), instead of its mean."""


def sample(argv: list[str], prog: str) -> int:
    """Run `genray sample`; returns the exit status."""
    folder, argv = model_argument(argv, prog)
    options = parse(SampleConfig, argv, prog)
    check_png_path(options.out)
    if options.nearest is not None:
        check_png_path(options.nearest, "--nearest")
        require(
            options.nearest != options.out,
            f"--nearest {options.nearest}: is also --out; name another file",
        )
    require(1 <= options.num <= 4096, f"--num {options.num}: must lie in 1..4096, e.g. 64")
    require(
        not options.fld or options.num >= 2,
        f"--num {options.num}: --fld needs two samples or more, e.g. 1000",
    )
    check_bounds(options)
    model = generator(folder)
    if isinstance(model, SpriteModel):
        require(not options.noise, "--noise: only for a vae; leave it out")
        return sprites.sample(folder, model, options)
    for name in ("--temperature", "--top-p"):
        require(not given(argv, name), f"{name}: only for sprite models; leave it out")
    images = model.sample(options.num, options.seed, noise=options.noise)
    if options.nearest is not None or options.fld:
        from genray.commands.samples import compare

        compare(folder, images, options.nearest, options.fld)
    columns = int(np.ceil(np.sqrt(options.num)))
    side = options.scale * model.shape[2] if options.scale else 32
    print(write_png(options.out, image_grid(images, model.low, model.high, columns, side)))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Show held-out images above their reconstructions; for a denoiser, also the noisy images."""

    out: Path
    """grid.png"""
    data: DataName = ""
    """Use other data than the model's training data, e.g. folder:PATH."""
    num: int = 12
    """Number of images."""


def reconstruct(argv: list[str], prog: str) -> int:
    """Run `genray reconstruct`; returns the exit status."""
    folder, argv = model_argument(argv, prog)
    options = parse(ReconstructConfig, argv, prog)
    check_png_path(options.out)
    require(options.num >= 1, f"--num {options.num}: must be ≥ 1, e.g. 12")
    model, config = load(folder) if sprites.is_sprites(folder) else encoder(folder)
    if not hasattr(model, "decode") and not isinstance(model, SpriteModel):
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} does not reconstruct")
    test = own_data(config, options.data).test.first(options.num)
    x = test.all()
    require(x.ndim == 4, f"{folder}: a text model has no pictures; use `genray retrieve`")
    # Reconstruct the images; a denoiser gets noisy images.
    shown = {"original": x}
    noise = _corruption(config)
    with torch.no_grad():
        if noise is not None:
            with fixed_randomness([0]):
                shown[noise.label] = noise(x, test.low, test.high)
            shown["denoised"] = reconstruction(model, shown[noise.label])
        else:
            shown["reconstruction"] = reconstruction(model, x)
        error = (reconstruction(model, x) - x).square().mean().item()
    print(f"mean squared error of these {len(x)}: {error:.5f}")
    title = f"{len(x)} held-out images; mean squared error {error:.5f}"
    if noise is not None:
        before, after = (
            (shown[row] - x).square().mean().item() for row in (noise.label, "denoised")
        )
        print(
            f"mean squared error of the noisy ones: {before:.5f}; of the denoised ones: {after:.5f}"
        )
        title = (
            f"{len(x)} held-out images; mean squared error: noisy {before:.5f}, denoised "
            f"{after:.5f}"
        )
    print(write_png(options.out, _bands(shown, test.low, test.high, title)))
    return 0


BAND = 12
"""Number of images side by side on a sheet of reconstructions."""


def _bands(shown: dict[str, Tensor], low: float, high: float, title: str) -> np.ndarray:
    """Draw a sheet with one row for each entry of `shown`, a label and its images.

    After BAND images, a new group of rows begins below.
    """
    rows, labels = [], []
    count = len(next(iter(shown.values())))
    for at in range(0, count, BAND):
        for label, images in shown.items():
            rows.append([Tile(image) for image in to_uint8(images[at : at + BAND], low, high)])
            labels.append(label)
    return draw_sheet(rows, labels, title)


@dataclass(frozen=True)
class _Noise:
    """The corruption that a denoising model was trained to remove."""

    kind: str
    strength: float

    @property
    def label(self) -> str:
        """Label of the noisy images on a sheet."""
        return f"noisy ({self.kind}, {self.strength:g})"

    def __call__(self, x: Tensor, low: float, high: float) -> Tensor:
        return corrupt(x, self.kind, self.strength, low, high)


def _corruption(config: dict[str, Any]) -> _Noise | None:
    """Return the corruption that a denoising model was trained to remove; None for other models."""
    if "corruption" not in config.get("model", {}):
        return None
    model = from_dict(AEModelConfig, config["model"], "model.")
    if model.corruption_kind == "none":
        return None
    return _Noise(model.corruption_kind, model.corruption_strength)


def reconstruction(model: Any, x: Tensor) -> Tensor:
    """Reconstruct x with the model's `reconstruct`, or without this method, decode its codes."""
    again = model.reconstruct(x) if hasattr(model, "reconstruct") else model.decode(model.encode(x))
    return again.reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig:
    """Render a walk through the latent space as a clip."""

    out: Path
    """walk.gif or walk.mp4"""
    stops: int = 5
    """Number of random latents on the path, which ends where it began."""
    frames: int = 16
    """Number of frames from one latent to the next."""
    seed: int = 0


def interpolate(argv: list[str], prog: str) -> int:
    """Run `genray interpolate`; returns the exit status."""
    folder, argv = model_argument(argv, prog)
    options = parse(InterpolateConfig, argv, prog)
    check_clip_path(options.out)
    require(
        options.stops >= 2 and options.frames >= 1,
        "--stops must be ≥ 2 and --frames ≥ 1, e.g. 5 and 16",
    )
    model = generator(folder)
    require(
        model.can_walk,
        f"{folder}: a sprite model draws a sequence of sprites, and no screen lies between two "
        "others; use `genray sample`, or interpolate a vae or a gan",
    )
    frames = walk_frames(model, options.stops, options.frames, options.seed)
    print(write_clip(options.out, frames, fps=15, scale=max(1, 128 // model.shape[-1])))
    return 0


# -- codes -----------------------------------------------------------------------------------------


SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Write the codes of a split as a parquet table: row, name, label, code. For sprites, write
    the tokens as JSON.
    """

    out: Path
    """codes.parquet; for sprites, tokens.json"""
    data: DataName = ""
    """Use other data than the model's training data. With lite0: the pictures, e.g. folder:PATH."""
    split: SplitName = "test"
    """The split to encode. With lite0, all pictures are encoded."""


def encode(argv: list[str], prog: str) -> int:
    """Run `genray encode`; returns the exit status."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, argv = model_argument(argv, prog)
    options = parse(EncodeConfig, argv, prog)
    tokens = sprites.is_sprites(folder)
    suffix = ".json" if tokens else ".parquet"
    require(options.out.suffix == suffix, f"--out {options.out}: must end in {suffix}")
    check_writable(options.out)
    if tokens:
        return sprites.encode(folder, options.out, options.data, options.split)
    if names_pictures(folder):
        index = open_index(folder, options.data)
        codes, names, classes = index.codes, index.names, index.classes
        label = list(index.labels) or None
    else:
        model, config = encoder(folder)
        data = own_data(config, options.data)
        split = getattr(data, options.split)
        codes, names, classes = codes_of(model, split), split.names, data.classes
        label = None if split.label is None else split.label.tolist()
    columns: dict[str, Any] = {"row": np.arange(len(codes)), "code": list(codes)}
    if names:
        columns["name"] = [escaped(name) for name in names]
        # Names that are not valid text are also stored exactly, as bytes.
        if columns["name"] != list(names):
            columns["name_bytes"] = [os.fsencode(name) for name in names]
    if label is not None:
        columns["label"] = [escaped(classes[i]) if classes else str(i) for i in label]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    # Arrow opens only paths that are valid UTF-8, so Python opens the file.
    with writing_file(options.out) as temporary, temporary.open("wb") as file:
        pq.write_table(pa.table(columns), file)
    print(f"{codes.shape[0]:,} codes of {codes.shape[1]} numbers")
    print(options.out)
    return 0
