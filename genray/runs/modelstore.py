"""Reads and writes models on disk, in the Hugging Face layout. Pickle is never used.

    model/
      config.json          {"format": 1, "kind": "dqn", …arguments for the builder of that kind}
      model.safetensors    the tensors
      README.md            the card

Callers of `load_model` pass a builder for each kind, so that this module imports no package of
algorithms.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from genray.errors import CheckpointError, first_line
from genray.runs.files import find_directory, replacing_directory

FORMAT = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Matches a valid name of a model and its folder; the service accepts exactly these names."""
Builder = Callable[[dict[str, Any]], torch.nn.Module]
"""Function that returns the network for a model's config; the weights are loaded afterwards."""


def save_model(
    folder: Path,
    kind: str,
    config: dict[str, Any],
    tensors: Mapping[str, torch.Tensor],
    card: str,
    also: Callable[[Path], None] = lambda folder: None,
) -> Path:
    """Write a model to `folder`, and return `folder`. Raises OSError.

    An existing folder is replaced atomically. `config` contains the builder's arguments; `card` is
    Markdown. `also` writes further files into the folder that it is given, such as a film, before
    the folder gets its name.
    """
    with replacing_directory(folder) as temporary:
        (temporary / "config.json").write_text(
            json.dumps({"format": FORMAT, "kind": kind, **config}, indent=2) + "\n",
            encoding="utf-8",
        )
        # The tensors are serialized in memory first, so that a full disk raises OSError.
        data = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        (temporary / "model.safetensors").write_bytes(data)
        (temporary / "README.md").write_text(card, encoding="utf-8", errors="backslashreplace")
        also(temporary)
    return folder


def model_folder(path: Path) -> Path:
    """Return the model folder of a run directory, or `path` itself if it has no `model/`."""
    model = find_directory(path / "model")
    return model if model.is_dir() else path


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises CheckpointError if the folder is not a model of this format.
    """
    path = find_directory(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CheckpointError(
            f"{folder}: not a model (no config.json); a run keeps its model in RUN/model"
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: damaged (not JSON)") from error
    if not isinstance(config, dict) or config.get("format") != FORMAT or "kind" not in config:
        raise CheckpointError(f"{path}: not a genray model of format {FORMAT}")
    return config


def load_model(
    folder: Path, builders: Mapping[str, Builder]
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Load a model. Returns (the model in evaluation mode on the CPU, its config).

    Raises CheckpointError for a folder that is damaged or not a model, or for a kind that
    `builders` does not contain. A GenrayError of a builder is raised unchanged.
    """
    config = read_config(folder)
    if config["kind"] not in builders:
        raise CheckpointError(
            f"{folder}: a model of kind {config['kind']!r}; name a model of kind "
            f"{' or '.join(builders)}"
        )
    try:
        model = builders[config["kind"]](config)
        model.load_state_dict(load((find_directory(folder) / "model.safetensors").read_bytes()))
    except FileNotFoundError as error:
        raise CheckpointError(f"{folder}: model.safetensors is missing") from error
    except (
        SafetensorError,
        RuntimeError,
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        AssertionError,
    ) as error:
        raise CheckpointError(f"{folder}: damaged model ({first_line(error)})") from error
    return model.eval(), config


def list_models(folder: Path) -> list[Path]:
    """List the model folders directly inside `folder`, sorted by name.

    Hidden folders and folders without a model are omitted.
    """
    found = [path.parent for path in folder.glob("[!.]*/config.json")]
    return sorted(path for path in found if (path / "model.safetensors").exists())
