"""Contains loops over compressed frames, which Numba compiles and which call LZ4's C functions.

Shapes: N frames, L lanes, C rows per lane, B batch, S stack, T frames of a block, P pixels.

The Python functions of the `lz4` package take and return bytes objects, which takes longer than
decompressing a frame. The package's shared library exports the C functions of LZ4, and this module
finds them there by name.
"""

from typing import Any

import llvmlite.binding
import lz4.block
import numpy as np
from numba import types

from genray.errors import ResourceError
from genray.rl.kernels import _memcpy, compiled, copy_bytes

llvmlite.binding.load_library_permanently(lz4.block._block.__file__)
for _name in (
    "LZ4_compress_default",
    "LZ4_compress_HC_extStateHC",
    "LZ4_sizeofStateHC",
    "LZ4_decompress_safe",
):
    if not llvmlite.binding.address_of_symbol(_name):  # LLVM would end the process at the call
        raise ResourceError(
            f"this build of the lz4 package does not export {_name}; reinstall it (pip install "
            "--force-reinstall lz4)"
        )
# int LZ4_…(const char* source, char* target, int source_bytes, int target_bytes) returns the bytes
# written, or ≤ 0 after a failure.
_SIGNATURE = types.int32(types.uintp, types.uintp, types.int32, types.int32)
_compress: Any = types.ExternalFunction("LZ4_compress_default", _SIGNATURE)
_compress_hard: Any = types.ExternalFunction(
    "LZ4_compress_HC_extStateHC",
    types.int32(types.uintp, types.uintp, types.uintp, types.int32, types.int32, types.int32),
)
_state_bytes: Any = types.ExternalFunction("LZ4_sizeofStateHC", types.int32())
# Level 2 of "high compression" takes 16 µs per frame instead of 2.5, but its output has 15% fewer
# bytes, and decompressing it takes a third less time. A frame is compressed once, but decompressed
# whenever one of the 7 transitions that contain it is sampled (stack 4, n = 3).
LEVEL = 2
_decompress: Any = types.ExternalFunction("LZ4_decompress_safe", _SIGNATURE)


@compiled
def _pack(frame_P, target, at, state):
    """Compress a frame into target[at:] and return the compressed length.

    Returns P if the frame does not get smaller; the caller then has to copy it. Returns ≤ 0 if the
    target is too small. `state`: memory for the slow "high compression"; empty: use the fast one.
    """
    source, to, capacity = frame_P.ctypes.data, target.ctypes.data + at, len(target) - at
    if len(state):
        written = _compress_hard(state.ctypes.data, source, to, len(frame_P), capacity, LEVEL)
    else:
        written = _compress(source, to, len(frame_P), capacity)
    return min(written, len(frame_P))


@compiled
def compress(frame_NP, target, length_N):
    """Compress the frames into `target`, one after the other, and write their lengths into
    `length_N`; return the total number of bytes, or −1 if `target` is too small.

    A frame that does not get smaller is stored uncompressed; its length is then P.
    """
    pixels, at, state = frame_NP.shape[1], 0, np.empty(_state_bytes(), np.uint8)
    for n in range(len(frame_NP)):
        length = _pack(frame_NP[n], target, at, state)
        if length <= 0:
            return -1
        if length == pixels:
            copy_bytes(frame_NP, n * pixels, target, at, pixels)
        length_N[n] = length
        at += length
    return at


@compiled
def _unpack(address, length, target_TP, t):
    """Decompress one frame into target_TP[t]; return False for damaged bytes.

    Address 0 stands for a slot that was never written, and gives a blank frame.
    """
    pixels = target_TP.shape[1]
    if address == 0:
        target_TP[t] = 0
        return True
    if length == pixels:
        _memcpy(target_TP.ctypes.data + t * pixels, address, pixels)
        return True
    return _decompress(address, target_TP.ctypes.data + t * pixels, length, pixels) == pixels


@compiled
def unpack_rows(address_C, length_C, target_CP):
    """Decompress the first len(target_CP) slots of a lane; return False for damaged bytes."""
    fine = True
    for c in range(len(target_CP)):
        fine &= _unpack(address_C[c], length_C[c], target_CP, c)
    return fine


@compiled
def _observe(address_C, length_C, slot, age, history, later, repeat, target_TP):
    """Decompress rows slot − history … slot + later of one lane; return False for damaged bytes.

    As in kernels._observe, rows before the episode's first row are copies of that row if `repeat`,
    else blank.
    """
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
def gather_stacks(
    address_LC, length_LC, leaf_B, age_B, horizon_B, next_age_B, repeat, obs_BSP, next_obs_BSP
):
    """Do the same as kernels.gather_stacks, from compressed frames; return False for damaged bytes.

    A frame that both observations contain is decompressed once.
    """
    fine, rows, history = True, address_LC.shape[1], next_obs_BSP.shape[1] - 1
    later = obs_BSP.shape[1] - 1 - history
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        age, horizon, next_age = (
            np.int64(age_B[b]),
            np.int64(horizon_B[b]),
            np.int64(next_age_B[b]),
        )  # in Numba, int() of a uint8 gives uint64
        fine &= _observe(
            address_LC[lane], length_LC[lane], slot, age, history, later, repeat, obs_BSP[b]
        )
        for t in range(history + 1):
            offset = t - history
            if offset < -next_age and not repeat:
                next_obs_BSP[b, t] = 0
                continue
            from_slot = horizon + max(offset, -next_age)
            if -min(history, age) <= from_slot <= later:
                pixels = obs_BSP.shape[2]
                copy_bytes(
                    obs_BSP,
                    (b * obs_BSP.shape[1] + history + from_slot) * pixels,
                    next_obs_BSP,
                    (b * (history + 1) + t) * pixels,
                    pixels,
                )
            else:
                row = (slot + from_slot) % rows
                fine &= _unpack(address_LC[lane, row], length_LC[lane, row], next_obs_BSP[b], t)
    return fine


# --- slices: the frames of transitions, to be sent over a network ---------------------------------


@compiled
def slice_lengths(length_LC, leaf_B, age_B, horizon_B, history, start_B, length_BT):
    """Write the lengths of each transition's frames into `length_BT`, and return their sum.

    The frames of a transition are the rows slot − known … slot + horizon, with known =
    min(history, age). The other entries of `length_BT` are 0. `start_B` receives the offset of each
    transition's first byte when the bytes of all transitions are joined.
    """
    rows, total = length_LC.shape[1], 0
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        known = min(history, np.int64(age_B[b]))
        start_B[b], frames = total, known + 1 + np.int64(horizon_B[b])
        for t in range(length_BT.shape[1]):
            length_BT[b, t] = length_LC[lane, (slot - known + t) % rows] if t < frames else 0
            total += length_BT[b, t]
    return total


@compiled
def copy_slices(address_LC, leaf_B, age_B, history, start_B, length_BT, data_N):
    """Copy the frames whose lengths `slice_lengths` wrote into `data_N`. Frames that are contiguous
    in memory are copied in one call.
    """
    rows = address_LC.shape[1]
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        first, at, t = slot - min(history, np.int64(age_B[b])), start_B[b], 0
        while t < length_BT.shape[1] and length_BT[b, t]:
            begin = address_LC[lane, (first + t) % rows]
            end = begin + length_BT[b, t]
            t += 1
            while (
                t < length_BT.shape[1]
                and length_BT[b, t]
                and address_LC[lane, (first + t) % rows] == end
            ):
                end += length_BT[b, t]
                t += 1
            _memcpy(data_N.ctypes.data + at, begin, end - begin)
            at += end - begin


@compiled
def slice_rows(frame_LCP, leaf_B, age_B, horizon_B, history, packed, start_B, length_BT, data_N):
    """Do the same as `slice_lengths` and `copy_slices`, from uncompressed frames, which are
    compressed if `packed`. Returns the number of bytes, or −1 if `data_N` is too small.
    """
    rows, pixels, total, no_state = frame_LCP.shape[1], frame_LCP.shape[2], 0, np.empty(0, np.uint8)
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        known = min(history, np.int64(age_B[b]))
        start_B[b], frames = total, known + 1 + np.int64(horizon_B[b])
        for t in range(length_BT.shape[1]):
            length_BT[b, t] = 0
            if t >= frames:
                continue
            row = frame_LCP[lane, (slot - known + t) % rows]
            length = _pack(row, data_N, total, no_state) if packed else pixels
            if length <= 0 or total + length > len(data_N):
                return -1
            if length == pixels:
                _memcpy(data_N.ctypes.data + total, row.ctypes.data, pixels)
            length_BT[b, t] = length
            total += length
    return total


@compiled
def unpack_slices(
    address, size, start_B, length_BT, age_B, horizon_B, next_age_B, repeat, obs_BSP, next_obs_BSP
):
    """Write both observations from the `size` bytes of slices at `address`; return False for
    damaged bytes. Each frame of a transition is decompressed once.
    """
    fine, history, pixels = True, next_obs_BSP.shape[1] - 1, obs_BSP.shape[2]
    later = obs_BSP.shape[1] - 1 - history
    for b in range(len(start_B)):
        horizon = np.int64(horizon_B[b])
        known = min(history, np.int64(age_B[b]))
        next_known = min(min(history, np.int64(next_age_B[b])), known + horizon)
        at, frame, next_frame = start_B[b], b * obs_BSP.shape[1], b * (history + 1)
        frames = known + max(horizon, later) + 1
        if frames > length_BT.shape[1]:
            return False
        for t in range(frames):
            length = length_BT[b, t]
            if length <= 0 or at < 0 or at + length > size:  # damaged, e.g. by the network
                return False
            place, next_place = history - known + t, history - known + t - horizon
            in_next = history - next_known <= next_place <= history
            if t <= known + later:
                fine &= _unpack(address + at, length, obs_BSP[b], place)
                if in_next:
                    copy_bytes(
                        obs_BSP,
                        (frame + place) * pixels,
                        next_obs_BSP,
                        (next_frame + next_place) * pixels,
                        pixels,
                    )
            elif in_next:
                fine &= _unpack(address + at, length, next_obs_BSP[b], next_place)
            at += length
        _begin(obs_BSP[b], history - known, repeat)
        _begin(next_obs_BSP[b], history - next_known, repeat)
    return fine


@compiled
def _begin(target_TP, missing, repeat):
    """Write the `missing` frames before an episode's first frame: copies of the first frame if
    `repeat`, else blank frames.
    """
    for t in range(missing):
        if repeat:
            target_TP[t] = target_TP[missing]
        else:
            target_TP[t] = 0


def compress_bound(frames: int, pixels: int) -> int:
    """Return the largest number of bytes that `compress` may write (LZ4_COMPRESSBOUND of lz4.h)."""
    return frames * (pixels + pixels // 255 + 16)


def empty_target(frames: int, pixels: int) -> np.ndarray:
    """Return an uninitialized buffer that is large enough for `compress`."""
    return np.empty(compress_bound(frames, pixels), np.uint8)
