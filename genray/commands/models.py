"""What one does with a trained image or text model: sample, reconstruct, interpolate, encode, map, retrieve, cluster, …

Each command takes a MODEL: a run directory or a model directory.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from genray import modelstore
from genray.config import from_dict
from genray.errors import ConfigError, require
from genray.gen.data import Data, DataConfig, Split, changed, load_data
from genray.gen.families import BUILDERS
from genray.gen.generative import GenerativeModel, image_grid, latent_walk, to_uint8
from genray.media import check_clip_path, check_png_path, check_writable, write_clip, write_png
from genray.options import folder_argument, parse

CHUNK = 512


def model_argument(argv: list[str], prog: str) -> tuple[Path, list[str]]:
    """(the model's folder, the other words)."""
    path, argv = folder_argument(argv, prog, "MODEL", "runs/vae-digits")
    return (path / "model" if (path / "model").is_dir() else path), argv


def load(folder: Path) -> tuple[Any, dict[str, Any]]:
    """(the model, its config). Raises CheckpointError for what is no model of these families."""
    return modelstore.load_model(folder, BUILDERS)


def generator(folder: Path) -> GenerativeModel:
    """Raises ConfigError for a model that cannot generate."""
    model, config = load(folder)
    if not isinstance(model, GenerativeModel):
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} does not generate; use a vae or a gan")
    return model


def encoder(folder: Path) -> tuple[Any, dict[str, Any]]:
    """Raises ConfigError for a model without codes."""
    model, config = load(folder)
    if not hasattr(model, "encode"):
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} has no codes; use an autoencoder or a vae")
    return model, config


def own_data(config: dict[str, Any], data: str) -> Data:
    """The data that a model was trained on, cut and scaled as then; or `data`, in the same form.

    Files that have come or gone since are told of on stderr: another fifth is then held out.
    """
    about = config["data"]
    stored = replace(from_dict(DataConfig, about["options"], "data."), augment=())
    wanted = replace(stored, data=data) if data else stored
    recipe = about.get("recipe", {})
    found = load_data(wanted, low=about["low"], high=about["high"], idf=recipe.get("idf"))
    require(
        list(found.shape) == list(config["shape"]),
        f"--data {wanted.data}: rows of shape {list(found.shape)}, the model takes {list(config['shape'])}; give it the like",
    )
    if changed(recipe.get("rows"), found.about.get("rows")):
        print(
            f"warning: --data {wanted.data}: its files are not those that the model was trained on; rows that are called "
            "held-out may have been trained on",
            file=sys.stderr,
        )
    return found


@torch.no_grad()
def codes_of(model: Any, split: Split) -> np.ndarray:
    """Codes of every row, float32 [N, K]."""
    return torch.cat([model.encode(x).flatten(1).float() for x in split.all().split(CHUNK)]).numpy()


# -- pictures ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Images from a generator (vae, gan) as one grid."""

    out: Path
    """grid.png"""
    num: int = 64
    seed: int = 0


def sample(argv: list[str], prog: str) -> int:
    folder, argv = model_argument(argv, prog)
    options = parse(SampleConfig, argv, prog)
    check_png_path(options.out)
    require(1 <= options.num <= 4096, f"--num {options.num}: must lie in 1..4096, e.g. 64")
    model = generator(folder)
    images = model.sample(options.num, options.seed)
    columns = int(np.ceil(np.sqrt(options.num)))
    print(write_png(options.out, image_grid(images, model.low, model.high, columns)))
    return 0


@dataclass(frozen=True, kw_only=True)
class ReconstructConfig:
    """Held-out images above what the model makes of them."""

    out: Path
    """grid.png"""
    data: str = ""
    """Other data than the model was trained on, e.g. folder:PATH."""
    num: int = 12


def reconstruct(argv: list[str], prog: str) -> int:
    folder, argv = model_argument(argv, prog)
    options = parse(ReconstructConfig, argv, prog)
    check_png_path(options.out)
    require(options.num >= 1, f"--num {options.num}: must be ≥ 1, e.g. 12")
    model, config = encoder(folder)
    if not hasattr(model, "decode"):
        raise ConfigError(f"{folder}: a model of kind {config['kind']!r} does not reconstruct")
    test = own_data(config, options.data).test.first(options.num)
    x = test.all()
    require(x.ndim == 4, f"{folder}: a text model has no pictures; use `genray retrieve`")
    with torch.no_grad():
        again = reconstruction(model, x)
    error = (again - x).square().mean().item()
    print(f"mean squared error of these {len(x)}: {error:.5f}")
    print(write_png(options.out, image_grid(torch.cat([x, again]), test.low, test.high, len(x))))
    return 0


def reconstruction(model: Any, x: Tensor) -> Tensor:
    """What the model makes of x, through its codes alone where it can."""
    again = model.reconstruct(x) if hasattr(model, "reconstruct") else model.decode(model.encode(x))
    return again.reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class InterpolateConfig:
    """A walk through the latents, as a clip."""

    out: Path
    """walk.gif or walk.mp4"""
    stops: int = 5
    """Random latents on the way; the walk ends where it began."""
    frames: int = 16
    """From one stop to the next."""
    seed: int = 0


def interpolate(argv: list[str], prog: str) -> int:
    folder, argv = model_argument(argv, prog)
    options = parse(InterpolateConfig, argv, prog)
    check_clip_path(options.out)
    require(options.stops >= 2 and options.frames >= 1, "--stops must be ≥ 2 and --frames ≥ 1, e.g. 5 and 16")
    model = generator(folder)
    images = latent_walk(model, options.stops, options.frames, options.seed)
    scale = max(1, 128 // images.shape[-1])
    print(write_clip(options.out, list(to_uint8(images, model.low, model.high)), fps=15, scale=scale))
    return 0


# -- codes ---------------------------------------------------------------------------------------------------------------


SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True, kw_only=True)
class EncodeConfig:
    """Codes of a split as a parquet table: row, name, label, code."""

    out: Path
    """codes.parquet"""
    data: str = ""
    """Other data than the model was trained on."""
    split: SplitName = "test"


def encode(argv: list[str], prog: str) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder, argv = model_argument(argv, prog)
    options = parse(EncodeConfig, argv, prog)
    require(options.out.suffix == ".parquet", f"--out {options.out}: must end in .parquet")
    check_writable(options.out)
    model, config = encoder(folder)
    data = own_data(config, options.data)
    split = getattr(data, options.split)
    codes = codes_of(model, split)
    columns: dict[str, Any] = {"row": np.arange(len(codes)), "code": list(codes)}
    if split.names:
        columns["name"] = list(split.names)
    if split.label is not None:
        columns["label"] = [data.classes[i] if data.classes else str(i) for i in split.label.tolist()]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    temporary = options.out.with_name(f".{options.out.name}.tmp")
    pq.write_table(pa.table(columns), temporary)
    temporary.replace(options.out)
    print(f"{codes.shape[0]:,} codes of {codes.shape[1]} numbers")
    print(options.out)
    return 0
