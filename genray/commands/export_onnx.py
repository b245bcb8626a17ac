"""Writes PyTorch modules as ONNX."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from genray.errors import ConfigError, ResourceError, first_line
from genray.runs.files import writing_file


class _Positional(torch.nn.Module):
    """Passes its inputs to a module, so that the exporter sees one signature for all modules."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module
        self.training = module.training

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        """Return the outputs of the module."""
        return self.module(*inputs)


def write_onnx(
    module: torch.nn.Module,
    examples: Sequence[torch.Tensor],
    path: Path,
    input_names: Sequence[str],
    output_names: Sequence[str] = ("y",),
) -> None:
    """Write `module` as ONNX with a free batch size. The file is replaced atomically.

    `examples`: inputs with at least two rows each; their other sizes are fixed in the file. Raises
    ResourceError if the exporter's packages are not installed, and ConfigError for a module that
    the exporter cannot write.
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
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter about itself
            program = torch.onnx.export(
                _Positional(module), tuple(examples), dynamo=True, input_names=[*input_names],
                output_names=[*output_names], verbose=False,
                dynamic_shapes=(tuple({0: batch} for _ in examples),),
            )  # fmt: skip
    except torch.onnx.OnnxExporterError as error:
        cause = first_line(error.__cause__ or error)
        raise ConfigError(
            f"--out {path}: PyTorch's exporter cannot write this model as ONNX ({cause}); use "
            "model.safetensors, which genray reads"
        ) from error
    assert program is not None
    # The exporter fixes the batch size without an error if an operation depends on it.
    sizes = [value.shape[0] for value in program.model.graph.inputs if value.shape is not None]
    assert not any(isinstance(size, int) for size in sizes), f"the batch size is fixed: {sizes}"
    with writing_file(path) as temporary:
        program.save(str(temporary), external_data=False)
