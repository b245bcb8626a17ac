"""Checks shapes, for the functions that compute targets and losses.

`check_shapes` compares shapes with the letters at the end of names: for example, `return_B` and
`discount_B` must have equal lengths. `check_equal_shapes` is for any number of axes.

Without a check, a [B, 1] target and a [B] prediction would be broadcast to [B, B], and the loss
would be wrong without an error.
"""

from typing import Any


def check_shapes(**arrays: Any) -> None:
    """Raise ValueError unless the arrays' or tensors' shapes fit their names.

    The letters after a name's last underscore are its axes; for example, `q_BA` has two axes. Axes
    with the same letter must have the same length in all arrays of the call.
    """
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        axes = name.rpartition("_")[2]
        shape = array.shape
        if len(shape) != len(axes) or any(
            lengths.setdefault(axis, length) != length
            for axis, length in zip(axes, shape, strict=True)
        ):
            raise ValueError(f"{name}: its shape does not fit its name; {_shapes(arrays)}")


def check_equal_shapes(**arrays: Any) -> None:
    """Raise ValueError unless all arrays or tensors have the same shape (any number of axes)."""
    if len({tuple(array.shape) for array in arrays.values()}) > 1:
        raise ValueError(f"{' and '.join(arrays)} need equal shapes; {_shapes(arrays)}")


def _shapes(arrays: dict[str, Any]) -> str:
    each = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    return f"shapes: {each}"
