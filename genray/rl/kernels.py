"""The replay's inner loops, compiled by Numba on their first call: the sum tree, and putting
observations together.

Shapes: F families of 8 nodes, B batch, L lanes, C rows a lane, S stack, T frames of a block, P
pixels, K past actions.

They stand in one file because Numba's cache on disk notices changes in the file of the function
that it loads, not in those of the functions that this one calls. What they check is what memory
safety needs; who calls them says what is wrong.
"""

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

# Numba gives the compiler itself as the first argument, which types cannot say
intrinsic: Any = extending.intrinsic
# void* memcpy(void* target, const void* source, size_t bytes), found in the process by its name
_memcpy = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
# A row beside its frame, in one piece: drawn from a random place it is one cache line, not one of
# each column.
ROW = np.dtype(
    [
        ("n_return", "f4"),
        ("discount", "f4"),
        ("action", "u1"),
        ("age", "u1"),
        ("horizon", "u1"),
        ("valid", "?"),
    ]
)
BRANCH = 8  # children a node: 64 bytes of float64, one cache line
_SHIFT = 3  # log2(BRANCH)
STREAM_BYTES = 16  # what a frame of 84x84 is a multiple of
# bytes of one array: a batch of 256 does, one of 32 is better off in the cache
STREAM_FROM = 4 * 2**20


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` as machine code, kept on disk where there is a folder to keep it in; it lets
    other Python threads run.

    The folder is Numba's choice: `__pycache__` beside this file if it can be written, else the
    user's cache folder.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:  # neither folder can be written: compiled anew in each process
        return numba.njit(nogil=True)(function)


# --- the sum tree ---
# `flat_F8` holds the families of all levels, leaves first; level k is
# flat_F8[start[k] : start[k + 1]].
# Two indices rather than one: for k in 0 … 7 the compiler sees that no index is negative, and need
# not look.


@compiled
def tree_set(flat_F8, start, capacity, node_B, priority_B):
    """Write leaves, last one wins, and recompute what is above them; False, and nothing changed,
    for bad input.

    Destroys `node_B`, the indices, when it succeeds.
    """
    count = len(node_B)
    for b in range(count):
        if not (0 <= node_B[b] < capacity and 0.0 <= priority_B[b] < np.inf):  # NaN fails, too
            return False
    for b in range(count):
        flat_F8[node_B[b] >> _SHIFT, node_B[b] & (BRANCH - 1)] = priority_B[b]
    for level in range(1, len(start) - 1):
        kept = 0
        for b in range(count):
            node = node_B[b] >> _SHIFT
            # neighbours share parents: sorted batches thin out on the way up
            if kept and node_B[kept - 1] == node:
                continue
            node_B[kept] = node
            kept += 1
        count = kept
        for b in range(count):
            c = flat_F8[start[level - 1] + node_B[b]]
            # in the order of tree_find
            total = ((c[0] + c[1]) + (c[2] + c[3])) + ((c[4] + c[5]) + (c[6] + c[7]))
            flat_F8[start[level] + (node_B[b] >> _SHIFT), node_B[b] & (BRANCH - 1)] = total
    return True


@compiled
def tree_find(flat_F8, start, mass_B, node_B):
    """The leaf whose interval holds each mass, into `node_B`; the batch goes down in lockstep.
    Destroys `mass_B`.

    Level by level, because the cache misses of a level then overlap; one query after the other
    would wait for each. In a family three questions (upper half? upper pair? upper one?),
    answered without branches, which nobody could predict.
    """
    node_B[:] = 0
    for level in range(len(start) - 3, -1, -1):
        for b in range(len(mass_B)):
            family = start[level] + node_B[b]
            c = flat_F8[family]
            mass, pair, upper_pair = mass_B[b], c[0] + c[1], c[4] + c[5]
            half = pair + (c[2] + c[3])
            child = 4 if mass >= half else 0
            pair = upper_pair if mass >= half else pair
            mass -= half if mass >= half else 0.0
            child += 2 if mass >= pair else 0
            mass -= pair if mass >= pair else 0.0
            one = flat_F8[family, child]
            child += 1 if mass >= one else 0
            mass -= one if mass >= one else 0.0
            # rounding led past the interval: its last index with weight will do
            if mass >= flat_F8[family, child]:
                while child > 0 and flat_F8[family, child] <= 0.0:
                    child -= 1
                mass = flat_F8[family, child]
            mass_B[b] = mass
            node_B[b] = (node_B[b] << _SHIFT) + child


@compiled
def tree_sample(flat_F8, start, uniform_B, leaf_B):
    """One leaf from each of B equal slices of the total; `uniform_B` in [0, 1) says where in its
    slice. Destroys it.
    """
    total, count = flat_F8[start[-2], 0], len(uniform_B)
    below = np.nextafter(total, 0.0)
    for b in range(count):
        uniform_B[b] = min((b + uniform_B[b]) * (total / count), below)
    tree_find(flat_F8, start, uniform_B, leaf_B)


# --- observations ---------------------------------------------------------------------------------


@intrinsic
def _stream(typing_context, target, source, count):
    """memcpy past the caches: `target` and `count` are multiples of 16.

    A store first fetches its cache line from memory, and then throws another one out. A batch of
    512 is larger than the caches, so nothing of it would be there when the learner comes:
    non-temporal stores take a third less time.
    """

    def codegen(context, builder, signature, arguments):
        to, source, count = arguments
        vector = ir.VectorType(ir.IntType(8), STREAM_BYTES).as_pointer()
        mark = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        step = ir.Constant(count.type, STREAM_BYTES)
        with cgutils.for_range_slice(
            builder, ir.Constant(count.type, 0), count, step, intp=count.type
        ) as (at, _):
            value = builder.load(builder.inttoptr(builder.add(source, at), vector), align=1)
            store = builder.store(
                value, builder.inttoptr(builder.add(to, at), vector), align=STREAM_BYTES
            )
            store.set_metadata("nontemporal", mark)

    return types.void(types.uintp, types.uintp, types.uintp), codegen


@intrinsic
def _fence(typing_context):
    """Let no other thread see what comes after before what was streamed."""

    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")

    return types.void(), codegen


@intrinsic
def prefetch(typing_context, address):
    """Have the cache line at `address` come while other work goes on. Any address will do: it is
    a hint.
    """

    def codegen(context, builder, signature, arguments):
        number, byte = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        hint = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        read, keep, data = (ir.Constant(number, value) for value in (0, 3, 1))
        builder.call(hint, [builder.inttoptr(arguments[0], byte), read, keep, data])

    return types.void(types.uintp), codegen


@compiled
def copy_bytes(source, source_at, target, target_at, count):
    """C's memcpy: Numba's own loop over bytes takes fifteen times as long. Both arrays are
    uint8, in one piece.
    """
    _memcpy(target.ctypes.data + target_at, source.ctypes.data + source_at, count)


@compiled
def _copy_rows(frame_CP, first, count, target_TP, at, stream):
    """`count` rows of a ring from row `first` on (which may be negative: before the wrap) to
    target_TP[at:].
    """
    rows, pixels = frame_CP.shape
    first %= rows
    before_wrap = min(count, rows - first)
    if stream and before_wrap == count:
        _stream(
            target_TP.ctypes.data + at * pixels,
            frame_CP.ctypes.data + first * pixels,
            count * pixels,
        )
        return
    copy_bytes(frame_CP, first * pixels, target_TP, at * pixels, before_wrap * pixels)
    copy_bytes(frame_CP, 0, target_TP, (at + before_wrap) * pixels, (count - before_wrap) * pixels)


@compiled
def _streams(target):
    """Whether what is gathered into `target` [B, T, P] should go past the caches."""
    return (
        target.size >= STREAM_FROM
        and target.shape[2] % STREAM_BYTES == 0
        and target.ctypes.data % STREAM_BYTES == 0
    )


@compiled
def _observe(frame_CP, slot, age, history, later, repeat, target_TP, stream):
    """Rows slot − history … slot + later of one lane; those before the episode's first are
    blank, or copies of it.
    """
    known = min(history, age)
    missing = history - known
    if missing and repeat:
        for t in range(missing):
            _copy_rows(frame_CP, slot - known, 1, target_TP, t, False)
    elif missing:
        target_TP[:missing] = 0
    _copy_rows(frame_CP, slot - known, known + 1 + later, target_TP, missing, stream)


@compiled
def _past_actions(row_C, slot, age, past_K):
    """The actions of the K rows before, newest first, −1 before the episode's first."""
    for k in range(len(past_K)):
        past_K[k] = row_C[(slot - 1 - k) % len(row_C)].action if k < age else -1


@compiled
def gather_stacks(frame_LCP, leaf_B, age_B, horizon_B, next_age_B, repeat, obs_BSP, next_obs_BSP):
    """The observations at `leaf_B` (= lane · C + slot) and `horizon` rows later, oldest frame
    first.
    """
    rows, history, stream = (
        frame_LCP.shape[1],
        obs_BSP.shape[1] - 1,
        _streams(obs_BSP) and _streams(next_obs_BSP),
    )
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        _observe(frame_LCP[lane], slot, age_B[b], history, 0, repeat, obs_BSP[b], stream)
        _observe(
            frame_LCP[lane],
            slot + horizon_B[b],
            next_age_B[b],
            history,
            0,
            repeat,
            next_obs_BSP[b],
            stream,
        )
    _fence()


@compiled
def gather_blocks(frame_LCP, leaf_B, age_B, history, repeat, block_BTP):
    """Each leaf's frame with the `history` frames before it and as many after it as the block
    has room for.
    """
    rows, later, stream = frame_LCP.shape[1], block_BTP.shape[1] - history - 1, _streams(block_BTP)
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        _observe(frame_LCP[lane], slot, age_B[b], history, later, repeat, block_BTP[b], stream)
    _fence()


@compiled
def draw(
    flat_F8,
    start,
    row_LC,
    head_L,
    uniform_B,
    swap_B,
    leaf_B,
    past_BK,
    next_past_BK,
    action_B,
    return_B,
    discount_B,
    key_B,
    probability_B,
    age_B,
    horizon_B,
    next_age_B,
):
    """Draw leaves as `tree_sample` does, and write everything about their transitions but the
    frames.

    In one call, because at 32 transitions the calls cost as much as the work. `swap_B` in [0, 1)
    shuffles the leaves; empty: they stay in the tree's order. Destroys `uniform_B`.
    """
    lanes, rows = row_LC.shape
    total = flat_F8[start[-2], 0]
    tree_sample(flat_F8, start, uniform_B, leaf_B)
    for b in range(len(swap_B) - 1, 0, -1):  # Fisher and Yates
        other = int(swap_B[b] * (b + 1))
        leaf_B[b], leaf_B[other] = leaf_B[other], leaf_B[b]
    for b in range(len(leaf_B)):
        prefetch(row_LC.ctypes.data + leaf_B[b] * row_LC.itemsize)
    for b in range(len(leaf_B)):
        leaf = leaf_B[b]
        lane, slot = leaf // rows, leaf % rows
        row = row_LC[lane, slot]
        then = (slot + row.horizon) % rows
        next_age = row_LC[lane, then].age
        age_B[b], horizon_B[b], next_age_B[b] = row.age, row.horizon, next_age
        action_B[b], return_B[b], discount_B[b] = row.action, row.n_return, row.discount
        newest = head_L[lane] - 1
        key_B[b] = (newest - (newest - slot) % rows) * lanes + lane
        probability_B[b] = flat_F8[leaf >> _SHIFT, leaf & (BRANCH - 1)] / total
        if past_BK.shape[1]:
            _past_actions(row_LC[lane], slot, row.age, past_BK[b])
            _past_actions(row_LC[lane], then, next_age, next_past_BK[b])


@compiled
def update(flat_F8, start, row_LC, head_L, key_B, delta_B, epsilon, alpha):
    """Give the transitions of `key_B` the priority (|δ| + ε)^α; returns how many are gone, −1
    (nothing done) for bad δ.
    """
    lanes, rows = row_LC.shape
    leaf_B, priority_B, kept = np.empty(len(key_B), np.int64), np.empty(len(key_B), np.float64), 0
    for b in range(len(key_B)):
        row, lane = key_B[b] // lanes, key_B[b] % lanes
        # A row beyond the head is from before this shard restarted, and began again at row 0.
        if head_L[lane] - rows <= row < head_L[lane] and row_LC[lane, row % rows].valid:
            leaf_B[kept] = lane * rows + row % rows
            priority_B[kept] = (abs(delta_B[b]) + epsilon) ** alpha
            kept += 1
    if not tree_set(flat_F8, start, lanes * rows, leaf_B[:kept], priority_B[:kept]):
        return -1
    return len(key_B) - kept
