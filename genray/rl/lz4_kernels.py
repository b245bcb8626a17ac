"""Frames kept compressed: LZ4's own C functions, called from loops that Numba compiles.

Shapes: N frames, L lanes, C rows a lane, B batch, S stack, T frames of a block, P pixels.

The `lz4` package's Python functions take and make bytes objects, which costs more than the decompression of a frame.
The compiled part of that package exports the functions of the LZ4 library; they are found there by their names.
"""

from typing import Any

import llvmlite.binding
import lz4.block
import numpy as np
from numba import types

from genray.errors import ResourceError
from genray.rl.kernels import compiled, copy_bytes

llvmlite.binding.load_library_permanently(lz4.block._block.__file__)
for _name in ("LZ4_compress_default", "LZ4_decompress_safe"):
    if not llvmlite.binding.address_of_symbol(_name):  # LLVM itself would end the process
        raise ResourceError(f"--replay-store lz4: this build of the lz4 package hides {_name}; use --replay-store raw")
# int LZ4_…(const char* source, char* target, int source_bytes, int target_bytes): bytes written, ≤ 0 for failure
_SIGNATURE = types.int32(types.uintp, types.uintp, types.int32, types.int32)
_compress: Any = types.ExternalFunction("LZ4_compress_default", _SIGNATURE)
_decompress: Any = types.ExternalFunction("LZ4_decompress_safe", _SIGNATURE)


@compiled
def compress(frame_NP, target, length_N):
    """Each frame's compressed bytes, one after the other, into `target`; returns how many in all, −1 if it is too small."""
    pixels, at = frame_NP.shape[1], 0
    for n in range(len(frame_NP)):
        written = _compress(frame_NP.ctypes.data + n * pixels, target.ctypes.data + at, pixels, len(target) - at)
        if written <= 0:
            return -1
        length_N[n] = written
        at += written
    return at


@compiled
def _unpack(address, length, target_TP, t):
    """One frame into target_TP[t]; a slot that was never written is blank. False for damaged bytes."""
    pixels = target_TP.shape[1]
    if address == 0:
        target_TP[t] = 0
        return True
    return _decompress(address, target_TP.ctypes.data + t * pixels, length, pixels) == pixels


@compiled
def unpack_rows(address_C, length_C, target_CP):
    """The first rows of a lane, as they lie in the ring; False for damaged bytes."""
    fine = True
    for c in range(len(target_CP)):
        fine &= _unpack(address_C[c], length_C[c], target_CP, c)
    return fine


@compiled
def _observe(address_C, length_C, slot, age, history, later, repeat, target_TP):
    """As kernels._observe: rows slot − history … slot + later; those before the episode's first blank, or copies of it."""
    fine, rows = True, len(address_C)
    for t in range(history + 1 + later):
        offset = t - history
        if offset < -age and not repeat:
            target_TP[t] = 0
            continue
        row = (slot + max(offset, -age)) % rows
        fine &= _unpack(address_C[row], length_C[row], target_TP, t)
    return fine


@compiled
def gather_stacks(address_LC, length_LC, leaf_B, age_B, horizon_B, next_age_B, repeat, obs_BSP, next_obs_BSP):
    """As kernels.gather_stacks; each frame is decompressed once, though both observations may have it."""
    fine, rows, history = True, address_LC.shape[1], obs_BSP.shape[1] - 1
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        age, horizon, next_age = (
            np.int64(age_B[b]),
            np.int64(horizon_B[b]),
            np.int64(next_age_B[b]),
        )  # int() gives uint64
        fine &= _observe(address_LC[lane], length_LC[lane], slot, age, history, 0, repeat, obs_BSP[b])
        for t in range(history + 1):
            offset = t - history
            if offset < -next_age and not repeat:
                next_obs_BSP[b, t] = 0
                continue
            from_slot = horizon + max(offset, -next_age)
            if -min(history, age) <= from_slot <= 0:
                pixels, frames = obs_BSP.shape[2], b * (history + 1)
                copy_bytes(
                    obs_BSP, (frames + history + from_slot) * pixels, next_obs_BSP, (frames + t) * pixels, pixels
                )
            else:
                row = (slot + from_slot) % rows
                fine &= _unpack(address_LC[lane, row], length_LC[lane, row], next_obs_BSP[b], t)
    return fine


@compiled
def gather_blocks(address_LC, length_LC, leaf_B, age_B, history, repeat, block_BTP):
    """As kernels.gather_blocks."""
    fine, rows, later = True, address_LC.shape[1], block_BTP.shape[1] - history - 1
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        fine &= _observe(
            address_LC[lane], length_LC[lane], slot, np.int64(age_B[b]), history, later, repeat, block_BTP[b]
        )
    return fine


def compress_bound(frames: int, pixels: int) -> int:
    """The most bytes that `compress` may need, LZ4_COMPRESSBOUND of lz4.h."""
    return frames * (pixels + pixels // 255 + 16)


def empty_target(frames: int, pixels: int) -> np.ndarray:
    return np.empty(compress_bound(frames, pixels), np.uint8)
