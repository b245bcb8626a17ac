"""`genray export`: writes a model as ONNX, a policy as a folder for the Hugging Face Hub, or a
world model as a page that plays without a server.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from genray.bounds import bounded, check_bounds, seed
from genray.errors import CheckpointError, require
from genray.media import check_writable
from genray.options import folder_argument, given, parse
from genray.runs import modelstore

Part = Literal["auto", "generator", "encoder", "classifier", "translator", "translator-back"]


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Export a model for other programs. As ONNX, a generator maps latents to images, an encoder
    maps images to codes, a classifier maps images to logits, a translator maps images to images,
    and a policy maps frames to Q-values. A world model becomes a page on which it is played.
    """

    out: Path
    """model.onnx; with --format huggingface: a folder; with --format html: game.html"""
    format: Literal["onnx", "huggingface", "html"] = "onnx"
    """onnx: one file. huggingface: a policy as a folder that can be uploaded to the Hugging Face
    Hub as it is: weights, a card with scores, a learning curve and a film. html: a world model as
    one page that contains the network, and plays in a browser without a server.
    """
    part: Part = "auto"
    """The part to export. auto: the generator of a vae or gan, the encoder of an autoencoder, a
    classifier (logits), the translator of a pix2pix or CycleGAN (A to B; translator-back: B to A),
    or a policy (Q-values).
    """
    policy: Path | None = None
    """For --format html: a run of the same game, whose policy can take over on the page (key m)."""
    step: int | None = None
    """For a policy: export the policy of this step of the run; default: the newest."""
    film_steps: int = bounded(450, min=0, note="(0: no film)", example=450)
    """For --format huggingface: the largest number of agent steps in the film."""
    seed: int = seed(0)
    """For --format huggingface: the seed of the filmed episode."""


NOT_EXPORTED = ("photographs", "sprites", "world")
"""Kinds whose result is more than the output of a network: an index with its pictures, and loops
that draw one sprite after the other.
"""
_EXPORTED = "a vae, gan, ae, classifier, pix2pix, cyclegan or policy"
_NO_PAGE = "--format html: a model of kind '{kind}' is no game to play; use a world model"
ONLY_POLICIES = ("--film-steps", "--seed")


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
    path, argv = folder_argument(argv, prog, "MODEL", "runs/vae-digits")
    options = parse(ExportConfig, argv, prog)
    check_bounds(options)
    if options.format == "onnx":
        require(options.out.suffix == ".onnx", f"--out {options.out}: must end in .onnx")
    if options.format == "html":
        require(options.out.suffix == ".html", f"--out {options.out}: must end in .html")
    else:
        require(
            options.policy is None,
            f"--policy {options.policy}: only with --format html; leave it out",
        )
    if options.format != "huggingface":
        check_writable(options.out)
    if is_policy(path):
        from genray.commands.export_policy import export_policy

        require(
            options.part == "auto",
            f"--part {options.part}: a model of kind 'dqn' has no such part; use --part auto",
        )
        require(options.format != "html", _NO_PAGE.format(kind="dqn"))
        return export_policy(path, options)
    for name in ONLY_POLICIES if options.policy else ("--step", *ONLY_POLICIES):
        require(not given(argv, name), f"{name}: only for policies; leave it out")
    folder = modelstore.model_folder(path)
    if options.format == "html":
        return _export_page(folder, options)
    require(
        options.format == "onnx",
        f"--format {options.format}: only for policies; {folder} already has this layout (weights, "
        "config.json and a card), so upload it as it is",
    )
    return _export_part(folder, options)


def is_policy(path: Path) -> bool:
    """Return whether `path` is a run of `genray train dqn`, or the directory of a policy."""
    try:
        return modelstore.read_config(modelstore.model_folder(path))["kind"] == "dqn"
    except CheckpointError:  # a run may have checkpoints without a model
        return any(path.glob("checkpoints/*/learner.pt"))


def _export_page(folder: Path, options: ExportConfig) -> int:
    """Write a world model as a page."""
    from genray.commands.models import load
    from genray.commands.world import write_world_page

    kind = modelstore.read_config(folder)["kind"]
    require(kind == "world", _NO_PAGE.format(kind=kind))
    require(options.part == "auto", f"--part {options.part}: not with --format html; leave it out")
    model, config = load(folder)
    print(write_world_page(model, config, options.out, options.policy, options.step))
    return 0


def _export_part(folder: Path, options: ExportConfig) -> int:
    """Write a part of a generator, an encoder, a classifier or a translator as ONNX."""
    from genray.commands.codes import refuse_positions
    from genray.commands.export_onnx import write_onnx
    from genray.commands.models import load

    model, config = load(folder)
    kind = config["kind"]
    # Choose the part. `auto` is the classifier of a classifier, otherwise the first part that the
    # model has.
    parts = {"generator": "generate", "encoder": "encode", "classifier": "forward"}
    parts |= {"translator": "translate", "translator-back": "translate_back"}
    has = [
        part
        for part in parts
        if hasattr(model, parts[part])
        and (part != "classifier" or kind == "classifier")
        and (part != "translator-back" or "b_to_a" in model.directions)
        and kind not in NOT_EXPORTED
    ]
    part: str = options.part
    if part == "auto":
        require(
            bool(has),
            f"{folder}: a model of kind {kind!r} has no part to export; use "
            + ("--format html" if kind == "world" else _EXPORTED),
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
    name = "latent" if part == "generator" else "x"
    write_onnx(_Method(model, parts[part]).eval(), [one], options.out, [name])
    print(options.out)
    return 0
