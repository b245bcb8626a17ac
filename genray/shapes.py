"""Checks shapes by the letters at the end of names: `return_B` and `discount_B` have equal lengths.

Without the check, a [B, 1] target beside a [B] prediction would be broadcast to [B, B], and the
loss would be wrong without an error.
"""

from typing import Any


def check_shapes(**arrays: Any) -> None:
    """Raise ValueError unless the arrays' or tensors' shapes fit their names.

    The letters after a name's last underscore are its axes: `q_BA` has two. An axis of one letter
    has the same length in all arrays of the call.
    """
    lengths: dict[str, int] = {}
    for name, array in arrays.items():
        axes = name.rpartition("_")[2]
        shape = array.shape
        if len(shape) != len(axes) or any(
            lengths.setdefault(axis, length) != length
            for axis, length in zip(axes, shape, strict=True)
        ):
            shapes = ", ".join(f"{each} {list(value.shape)}" for each, value in arrays.items())
            raise ValueError(f"{name}: its shape does not fit its name; shapes: {shapes}")
