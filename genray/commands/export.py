"""`genray export`: writes a model as ONNX, for other programs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genray.errors import ResourceError, require
from genray.media import check_writable
from genray.options import parse
from genray.runs.files import writing_file


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a model as ONNX for other programs. A generator maps latents to images, an encoder
    maps images to codes, and a classifier maps images to logits.
    """

    out: Path
    """model.onnx"""
    format: Literal["onnx"] = "onnx"
    part: Literal["auto", "generator", "encoder", "classifier"] = "auto"
    """The part to export. auto: the generator of a vae or gan, the encoder of an autoencoder, or a
    classifier (logits).
    """


NOT_EXPORTED = ("photographs", "sprites")
"""Kinds whose result is more than the output of a network: an index with its pictures, and a loop
that draws one sprite after the other.
"""


class _Method(torch.nn.Module):
    """Wraps one method of a model as a module, because exporters accept only modules."""

    def __init__(self, model: torch.nn.Module, method: str):
        super().__init__()
        self.model, self._method = model, method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the result of the method."""
        return getattr(self.model, self._method)(x)


def export(argv: list[str], prog: str) -> int:
    """Run `genray export`; returns the exit status."""
    from genray.commands.codes import refuse_positions
    from genray.commands.models import load, model_argument

    folder, argv = model_argument(argv, prog)
    options = parse(ExportConfig, argv, prog)
    require(options.out.suffix == ".onnx", f"--out {options.out}: must end in .onnx")
    check_writable(options.out)
    model, config = load(folder)
    kind = config["kind"]
    # Choose the part. `auto` is the classifier of a classifier, otherwise the first part that the
    # model has.
    parts = {"generator": "generate", "encoder": "encode", "classifier": "forward"}
    has = [
        part
        for part in parts
        if hasattr(model, parts[part])
        and (part != "classifier" or kind == "classifier")
        and kind not in NOT_EXPORTED
    ]
    part: str = options.part
    if part == "auto":
        require(
            bool(has),
            f"{folder}: a model of kind {kind!r} has no part to export; use a vae, gan, ae or "
            "classifier",
        )
        part = {"classifier": "classifier"}.get(kind, has[0])
    require(
        part in has,
        f"--part {part}: a model of kind {kind!r} has no such part; use --part "
        f"{' or '.join(has) or 'auto'}",
    )
    if part == "encoder":
        refuse_positions(folder, config)
    one = torch.zeros(2, model.latent) if part == "generator" else torch.zeros(2, *config["shape"])
    write_onnx(
        _Method(model, parts[part]).eval(),
        one,
        options.out,
        "latent" if part == "generator" else "x",
    )
    print(options.out)
    return 0


def write_onnx(module: torch.nn.Module, example: torch.Tensor, path: Path, input_name: str) -> None:
    """Write `module` as ONNX with a free batch size. The file is replaced atomically.

    Raises ResourceError if the exporter's packages are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ResourceError(
            f"genray export: {error.name} is not installed; pip install 'genray[export]'"
        ) from error
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        module, (example,), dynamo=True, input_names=[input_name], output_names=["y"],
        dynamic_shapes=({0: batch},), verbose=False,
    )  # fmt: skip
    assert program is not None
    with writing_file(path) as temporary:
        program.save(str(temporary), external_data=False)
