"""Wraps a stored model as named functions of NumPy arrays. The functions need neither HTTP nor Ray.

The inputs and outputs of a `Function` have a leading axis of rows, so that rows of several requests
can share one call. Shapes: N rows, Z latents, K numbers of a code, C channels, H height, W width, S
stack, A actions.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from genray.errors import CheckpointError, require
from genray.gen.builders import BUILDERS
from genray.gen.generative import GenerativeModel, draw_prior
from genray.gen.world.model import WorldModel
from genray.rl.building import build_network
from genray.rl.networks import QNetwork
from genray.runs import modelstore

Arrays = dict[str, np.ndarray]

STATE_NOTE = (
    "; this policy remembers: begin an episode with a state of zeros, last_action −1 and "
    "last_reward 0, then send the state of each answer with the next request"
)
DTYPES = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}


class TensorSpec(NamedTuple):
    """Name, datatype and shape of one input or output, as in the Open Inference Protocol."""

    name: str
    datatype: str
    """FP32, INT64 or UINT8."""
    shape: tuple[int, ...]
    """The shape of one row, without the axis of rows."""


@dataclass(frozen=True)
class Function:
    """One operation that a model offers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    run: Callable[[Arrays], Arrays]
    """Maps [N, …] arrays to [N, …] arrays; each row is independent of the others."""
    check: Callable[[Arrays], None] = lambda arrays: None
    """Raises ConfigError for invalid values of the right type. It is called before rows of several
    requests are joined.
    """
    note: str = ""
    """What a client must know besides the specification; the end of a message about wrong inputs.
    """


@dataclass(frozen=True)
class Predictor:
    """A loaded model and its functions."""

    name: str
    """The name under which clients ask for the model."""
    kind: str
    """The family, e.g. `vae`."""
    version: str
    """The first 12 hexadecimal digits of the SHA-256 of config.json and model.safetensors."""
    config: dict[str, Any]
    """The content of config.json."""
    card: str
    """The content of README.md; empty if the file does not exist."""
    model: torch.nn.Module
    functions: dict[str, Function] = field(default_factory=dict)
    """Maps a name to a function. Empty for a style model, a translator and a world model.
    """

    @property
    def makes_images(self) -> bool:
        """Whether the model generates images."""
        return "generate" in self.functions

    @property
    def can_walk(self) -> bool:
        """Whether the images change smoothly with their latents."""
        return isinstance(self.model, GenerativeModel) and self.model.can_walk

    def latents(self, seeds: Sequence[int]) -> np.ndarray:
        """Return one latent for each seed, float32 [N, Z]. A latent depends on its own seed only,
        not on the other seeds.
        """
        model = self.model
        assert isinstance(model, GenerativeModel)
        rows = [
            draw_prior(model.prior, 1, model.latent, torch.Generator().manual_seed(seed))
            for seed in seeds
        ]
        return torch.cat(rows).numpy()


def version_of(folder: Path) -> str:
    """Compute `Predictor.version` from the files alone. Raises CheckpointError if the files are
    missing.
    """
    digest = hashlib.sha256()
    try:
        for name in ("config.json", "model.safetensors"):
            digest.update((folder / name).read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"{folder}: {error.strerror} ({Path(error.filename).name})"
        ) from error
    return digest.hexdigest()[:12]


def load_predictor(folder: Path, name: str) -> Predictor:
    """Load the model in `folder` with all its functions. Raises CheckpointError if the model is
    damaged or of an unknown kind.
    """
    version = version_of(folder)
    model, config = modelstore.load_model(folder, {**BUILDERS, "dqn": build_network})
    card = (
        (folder / "README.md").read_text(encoding="utf-8", errors="replace")
        if (folder / "README.md").exists()
        else ""
    )
    if version_of(folder) != version:
        raise CheckpointError(f"{folder}: the model changed while its files were read")
    model.requires_grad_(False)
    predictor = Predictor(name, config["kind"], version, config, card, model)
    predictor.functions.update(_functions(model, config))
    return predictor


def _functions(model: Any, config: dict[str, Any]) -> dict[str, Function]:
    if isinstance(model, QNetwork):
        return {"act": _act(model)}
    functions: dict[str, Function] = {}
    if isinstance(model, GenerativeModel):
        functions["generate"] = _generate(model)
    if config.get("kind") == "classifier":
        functions["classify"] = _classify(model)
    # With `unpool`, the decoder also needs the positions of max-pooling, which are not in the code.
    leaks = config.get("model", {}).get("upsampling") == "unpool"
    if hasattr(model, "encode") and not leaks:
        functions["encode"] = _encode(model)
        if hasattr(model, "decode"):
            functions["decode"] = _decode(model, _code_width(model))
            functions["reconstruct"] = _reconstruct(model)
    return functions


def image_spec(model: Any, name: str = "image") -> TensorSpec:
    """Describe the model's images: uint8 [H, W, C], or for a text model a row of word weights."""
    if len(model.shape) == 3:
        channels, height, width = model.shape
        return TensorSpec(name, "UINT8", (height, width, channels))
    return TensorSpec("row", "FP32", tuple(model.shape))


def to_model(model: Any, values: np.ndarray) -> Tensor:
    """Scale uint8 [N, H, W, C] to the model's range, float32 [N, C, H, W]. Rows of a text model
    stay unchanged.
    """
    # PyTorch has no read-only tensors, so read-only arrays are copied.
    x = torch.from_numpy(np.require(values, requirements=["C", "W"]))
    if len(model.shape) != 3:
        return x.float()
    return (
        x.permute(0, 3, 1, 2)
        .float()
        .mul_((model.high - model.low) / 255.0)
        .add_(model.low)
        .contiguous()
    )


def from_model(model: Any, x: Tensor) -> np.ndarray:
    """Convert float32 [N, C, H, W] in the model's range to uint8 [N, H, W, C].

    Values are rounded, and values outside the range are clipped. Rows of a text model stay
    unchanged.
    """
    if len(model.shape) != 3:
        return x.numpy()
    x = x.reshape(len(x), *model.shape)
    scaled = (
        x.sub(model.low)
        .mul_(255.0 / (model.high - model.low))
        .round_()
        .clamp_(0, 255)
        .to(torch.uint8)
    )
    return scaled.permute(0, 2, 3, 1).contiguous().numpy()


def _generate(model: GenerativeModel) -> Function:
    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return {"image": from_model(model, model.generate(torch.from_numpy(arrays["latent"])))}

    return Function((TensorSpec("latent", "FP32", (model.latent,)),), (image_spec(model),), run)


def _code_width(model: Any) -> int:
    with torch.inference_mode():
        return int(model.encode(torch.zeros(1, *model.shape)).flatten(1).shape[1])


def _encode(model: Any) -> Function:
    source = image_spec(model)

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return {
                "code": model.encode(to_model(model, arrays[source.name]))
                .flatten(1)
                .float()
                .numpy()
            }

    return Function((source,), (TensorSpec("code", "FP32", (_code_width(model),)),), run)


def _decode(model: Any, width: int) -> Function:
    target = image_spec(model)

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return {target.name: from_model(model, model.decode(torch.from_numpy(arrays["code"])))}

    return Function((TensorSpec("code", "FP32", (width,)),), (target,), run)


def _reconstruct(model: Any) -> Function:
    source = image_spec(model)

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return {
                source.name: from_model(
                    model, model.decode(model.encode(to_model(model, arrays[source.name])))
                )
            }

    return Function((source,), (source,), run)


def _classify(model: Any) -> Function:
    source = image_spec(model)

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            return {
                "probability": model(to_model(model, arrays[source.name]))
                .float()
                .softmax(1)
                .numpy()
            }

    return Function((source,), (TensorSpec("probability", "FP32", (model.num_classes,)),), run)


def _act(model: QNetwork) -> Function:
    """Return the function that gives Q-values. A policy with an LSTM gets its state from the client
    and returns the state after the step, so that the service keeps nothing for a client.
    """
    past, state_size = model.config.past_actions, model.state_size
    inputs = [TensorSpec("obs", "UINT8", (model.stack, *model.frame_shape))]
    outputs = [TensorSpec("q", "FP32", (model.num_actions,)), TensorSpec("action", "INT64", ())]
    actions, note = "past_actions", ""
    if past:
        inputs.append(TensorSpec(actions, "INT64", (past,)))
    if state_size:
        actions, note = "last_action", STATE_NOTE
        inputs += [
            TensorSpec(actions, "INT64", ()),
            TensorSpec("last_reward", "FP32", ()),
            TensorSpec("state", "FP32", (state_size,)),
        ]
        outputs.append(TensorSpec("state", "FP32", (state_size,)))

    def check(arrays: Arrays) -> None:
        if actions in arrays:
            least, most = int(arrays[actions].min()), int(arrays[actions].max())
            require(
                least >= -1 and most < model.num_actions,
                f"{actions}: {least if least < -1 else most}; must lie in "
                f"0..{model.num_actions - 1}, or be −1 for no action",
            )

    def run(arrays: Arrays) -> Arrays:
        with torch.inference_mode():
            tensors = [torch.from_numpy(arrays[spec.name]) for spec in inputs]
            q_NA, *after = model.step(*tensors) if state_size else (model(*tensors),)
            found = {"q": q_NA.numpy(), "action": q_NA.argmax(1).numpy()}
            return found | ({"state": after[0].numpy()} if after else {})

    return Function(tuple(inputs), tuple(outputs), run, check, note)


def describe(predictor: Predictor) -> dict[str, Any]:
    """Describe a model for a client, as JSON-serializable values. Paths are never included."""
    known = ("shape", "latent", "prior", "num_classes", "num_actions", "stack", "step", "pictures")
    about = {key: predictor.config[key] for key in known if key in predictor.config}
    data = predictor.config.get("data") or {}
    if isinstance(data, dict):
        about |= {key: data[key] for key in ("name", "licence", "classes", "credit") if key in data}
    if predictor.kind == "translator":
        names = ("method", "input", "domains")
        described = predictor.config.get("about") or {}
        about |= {key: described[key] for key in names if key in described}
        about["directions"] = predictor.config["directions"]
    if predictor.kind == "world":
        about["game"] = (data.get("recipe") or {}).get("game", "")
        about["starts"] = cast(WorldModel, predictor.model).config.starts
    env = predictor.config.get("env") or {}
    # The game of a user's own environment is a default that nobody plays.
    if isinstance(env, dict) and env.get("env"):
        about["environment"] = env["env"]
    elif isinstance(env, dict) and env.get("game"):
        about["game"] = env["game"]
    return json.loads(json.dumps(about, default=str))
