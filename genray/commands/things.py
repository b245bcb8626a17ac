"""figures, data, export: what needs no family of its own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genray.errors import ResourceError, require
from genray.media import check_writable
from genray.options import parse
from genray.runs.files import writing_file


@dataclass(frozen=True, kw_only=True)
class FiguresConfig:
    """Pictures of optimisation: optimizers' paths in a valley, gradients by depth, plain against residual depth."""

    out: Path = Path("figures")
    """The folder to write into."""
    seed: int = 0


def figures(argv: list[str], prog: str) -> int:
    from genray.gen.figures import main_figures

    names: list[str] = []
    while argv and not argv[0].startswith("-"):
        names.append(argv.pop(0))
    options = parse(FiguresConfig, argv, prog)
    check_writable(options.out / "figure.png")
    for path in main_figures(options.out, tuple(names), options.seed):
        print(path)
    return 0


def data_atari(argv: list[str], prog: str) -> int:
    from rich.progress import Progress

    from genray.distributed.frames import FramesConfig, collect_frames

    options = parse(FramesConfig, argv, prog)
    options.validate()  # before the bar appears
    with Progress() as bar:
        task = bar.add_task("playing", total=options.frames)
        path, recipe = collect_frames(options, lambda done, wanted: bar.update(task, completed=done, total=wanted))
    for name, value in recipe.items():
        print(f"{name}: {value}")
    print(path)
    return 0


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """A model for other programs. A generator maps latents to images, an encoder images to codes."""

    out: Path
    """model.onnx"""
    format: Literal["onnx"] = "onnx"
    part: Literal["auto", "generator", "encoder", "classifier"] = "auto"
    """auto: the generator of a vae or gan, the encoder of an autoencoder, a classifier's logits."""


class _Method(torch.nn.Module):
    """One method of a model as a module, which is what exporters take."""

    def __init__(self, model: torch.nn.Module, method: str):
        super().__init__()
        self.model, self._method = model, method

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return getattr(self.model, self._method)(x)


def export(argv: list[str], prog: str) -> int:
    from genray.commands.codes import refuse_positions
    from genray.commands.models import load, model_argument

    folder, argv = model_argument(argv, prog)
    options = parse(ExportConfig, argv, prog)
    require(options.out.suffix == ".onnx", f"--out {options.out}: must end in .onnx")
    check_writable(options.out)
    model, config = load(folder)
    kind = config["kind"]
    parts = {"generator": "generate", "encoder": "encode", "classifier": "forward"}
    has = [part for part in parts if hasattr(model, parts[part]) and (part != "classifier" or kind == "classifier")]
    part: str = options.part
    if part == "auto":
        require(
            bool(has), f"{folder}: a model of kind {kind!r} has no part to export; use a vae, gan, ae or classifier"
        )
        part = {"classifier": "classifier"}.get(kind, has[0])
    require(part in has, f"--part {part}: a model of kind {kind!r} has none; use --part {' or '.join(has) or 'auto'}")
    if part == "encoder":
        refuse_positions(folder, config)
    one = torch.zeros(2, model.latent) if part == "generator" else torch.zeros(2, *config["shape"])
    write_onnx(_Method(model, parts[part]).eval(), one, options.out, "latent" if part == "generator" else "x")
    print(options.out)
    return 0


def write_onnx(module: torch.nn.Module, example: torch.Tensor, path: Path, input_name: str) -> None:
    """Write `module` as ONNX with a free batch size, whole or not at all.

    Raises ResourceError when the exporter's packages are not installed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ResourceError(f"genray export: {error.name} is not installed; pip install 'genray[export]'") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    batch = torch.export.Dim("batch", min=1)
    program = torch.onnx.export(
        module, (example,), dynamo=True, input_names=[input_name], output_names=["y"],
        dynamic_shapes=({0: batch},), verbose=False,
    )  # fmt: skip
    assert program is not None
    with writing_file(path) as temporary:
        program.save(str(temporary), external_data=False)
