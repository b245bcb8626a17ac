"""Contains the replay's inner loops, which Numba compiles on their first call: the loops of the sum
tree, and the assembly of observations.

Shapes: F families (a family is the 8 children of a node), B batch, L lanes, C rows per lane, S
stack, T frames of a block, P pixels, K past actions.

All loops are in one file. Numba's cache on disk compiles a function again when the function's own
file has changed, but not when the file of a function that it calls has changed. The loops check
only inputs that could make them write outside an array; their callers raise the errors.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils

from genray.compiling import compiled

# Typed as Any, because callers omit the first argument of an intrinsic: Numba itself passes it.
intrinsic: Any = extending.intrinsic
# void* memcpy(void* target, const void* source, size_t bytes), found in the process by its name.
_memcpy = types.ExternalFunction("memcpy", types.uintp(types.uintp, types.uintp, types.uintp))
# One row without its frame, as one record: reading a random row then needs one cache line, not one
# for each field.
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
BRANCH = 8  # children per node: 64 bytes of float64, one cache line
_SHIFT = 3  # log2(BRANCH)
STREAM_BYTES = 16  # bytes that `_stream` copies at once; a frame of 84x84 bytes is a multiple
# Bytes of an array of observations from which `_stream` is used. A batch of 256 is large enough; a
# batch of 32 is faster when it stays in the cache.
STREAM_FROM = 4 * 2**20


# --- the sum tree ---
# `flat_F8` contains the families of all levels, leaves first; level k is
# flat_F8[start[k] : start[k + 1]]. Node i of a level is flat_F8[start[k] + i // 8, i % 8], so the
# compiler knows that the second index is not negative, and omits a check.


@compiled
def tree_set(flat_F8, start, capacity, node_B, priority_B):
    """Set the leaves `node_B` to `priority_B` and recompute their ancestors. If an index occurs
    several times, its last priority counts.

    Returns False, and changes nothing, for an index outside [0, capacity) or a priority that is
    negative or not finite. Overwrites `node_B` when it succeeds.
    """
    count = len(node_B)
    for b in range(count):
        if not (0 <= node_B[b] < capacity and 0.0 <= priority_B[b] < np.inf):  # False for NaN, too
            return False
    for b in range(count):
        flat_F8[node_B[b] >> _SHIFT, node_B[b] & (BRANCH - 1)] = priority_B[b]
    for level in range(1, len(start) - 1):
        kept = 0
        for b in range(count):
            node = node_B[b] >> _SHIFT
            # Skip a parent that equals the previous one, so that sorted leaves need few sums.
            if kept and node_B[kept - 1] == node:
                continue
            node_B[kept] = node
            kept += 1
        count = kept
        for b in range(count):
            c = flat_F8[start[level - 1] + node_B[b]]
            # Add in the same order as tree_find, so that both round in the same way.
            total = ((c[0] + c[1]) + (c[2] + c[3])) + ((c[4] + c[5]) + (c[6] + c[7]))
            flat_F8[start[level] + (node_B[b] >> _SHIFT), node_B[b] & (BRANCH - 1)] = total
    return True


@compiled
def tree_find(flat_F8, start, mass_B, node_B):
    """For each mass, write the leaf whose interval of cumulated priorities contains the mass into
    `node_B`. Overwrites `mass_B`.

    The loop handles the whole batch on one level before it goes to the next level, so that the
    cache misses of a level overlap. In a family, three comparisons find the child: is it in the
    upper half, in the upper pair of that half, the upper one of that pair? The comparisons compile
    to selections instead of branches, because a processor could not predict the branches.
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
            # Rounding may leave a mass too large for the child. Then take this child or, if its
            # priority is 0, the nearest one before it with a priority above 0.
            if mass >= flat_F8[family, child]:
                while child > 0 and flat_F8[family, child] <= 0.0:
                    child -= 1
                mass = flat_F8[family, child]
            mass_B[b] = mass
            node_B[b] = (node_B[b] << _SHIFT) + child


@compiled
def tree_sample(flat_F8, start, uniform_B, leaf_B):
    """Sample one leaf from each of B equal slices of the total, and write the leaves into `leaf_B`.

    `uniform_B`: for each slice, a random position in [0, 1) within the slice; overwritten.
    """
    total, count = flat_F8[start[-2], 0], len(uniform_B)
    below = np.nextafter(total, 0.0)
    for b in range(count):
        uniform_B[b] = min((b + uniform_B[b]) * (total / count), below)
    tree_find(flat_F8, start, uniform_B, leaf_B)


# --- observations ---------------------------------------------------------------------------------


@intrinsic
def _stream(typing_context, target, source, count):
    """Copy `count` bytes with non-temporal stores, which bypass the caches. The address `target`
    and `count` must be multiples of 16.

    An ordinary store first fetches its cache line from memory, and evicts another line. A batch of
    512 is larger than the caches, so it would not be cached when the learner reads it.
    Non-temporal stores take a third less time.
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
    """Make the bytes that `_stream` wrote visible to other threads before any later write."""

    def codegen(context, builder, signature, arguments):
        builder.fence("seq_cst")

    return types.void(), codegen


@intrinsic
def prefetch(typing_context, address):
    """Start to fetch the cache line at `address`, and continue without waiting. An invalid address
    does no harm, because the processor treats a prefetch as a hint.
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
    """Copy `count` bytes with C's memcpy; Numba's own loop takes fifteen times as long. Both arrays
    are contiguous uint8, and `source_at` and `target_at` are byte offsets.
    """
    _memcpy(target.ctypes.data + target_at, source.ctypes.data + source_at, count)


@compiled
def _copy_rows(frame_CP, first, count, target_TP, at, stream):
    """Copy `count` rows of a ring buffer, from slot `first` on, to target_TP[at:].

    `first` is taken modulo the number of slots, so it may be negative. `stream`: use `_stream` if
    the rows do not wrap around the buffer's end.
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
    """Return whether a copy to `target` [B, T, P] should bypass the caches."""
    return (
        target.size >= STREAM_FROM
        and target.shape[2] % STREAM_BYTES == 0
        and target.ctypes.data % STREAM_BYTES == 0
    )


@compiled
def _observe(frame_CP, slot, age, history, later, repeat, target_TP, stream):
    """Copy rows slot − history … slot + later of one lane. Rows before the episode's first row are
    copies of that row if `repeat`, else blank.
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
    """Write the actions of the K rows before `slot`, newest first; −1 for rows before the episode's
    first row.
    """
    for k in range(len(past_K)):
        past_K[k] = row_C[(slot - 1 - k) % len(row_C)].action if k < age else -1


@compiled
def gather_stacks(frame_LCP, leaf_B, age_B, horizon_B, next_age_B, repeat, obs_BSP, next_obs_BSP):
    """Copy the observations at the leaves `leaf_B` (lane · C + slot) into `obs_BSP` and those
    `horizon_B` rows later into `next_obs_BSP`, oldest frame first. The frames that `obs_BSP` has
    more than `next_obs_BSP` get the rows after the leaf.
    """
    rows, history, stream = (
        frame_LCP.shape[1],
        next_obs_BSP.shape[1] - 1,
        _streams(obs_BSP) and _streams(next_obs_BSP),
    )
    later = obs_BSP.shape[1] - 1 - history
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        _observe(frame_LCP[lane], slot, age_B[b], history, later, repeat, obs_BSP[b], stream)
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
    later_BJ,
    age_B,
    horizon_B,
    next_age_B,
):
    """Sample leaves like `tree_sample`, and write all fields of their transitions except frames.

    One call does both, because for 32 transitions a call costs as much as its work. `swap_B`:
    random numbers in [0, 1) that shuffle the leaves; empty: the leaves keep the tree's order.
    Overwrites `uniform_B`.
    """
    lanes, rows = row_LC.shape
    total = flat_F8[start[-2], 0]
    tree_sample(flat_F8, start, uniform_B, leaf_B)
    for b in range(len(swap_B) - 1, 0, -1):  # Fisher and Yates' shuffle
        other = int(swap_B[b] * (b + 1))
        leaf_B[b], leaf_B[other] = leaf_B[other], leaf_B[b]
    # Request all rows from memory before the first is used, so that the cache misses overlap.
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
        for j in range(later_BJ.shape[1]):
            # Up to its next observation, a transition stays in one episode.
            in_episode = j < row.horizon
            later_BJ[b, j] = row_LC[lane, (slot + j) % rows].action if in_episode else -1


@compiled
def returns(
    row_LC,
    reward_LC,
    end_LC,
    leaf_B,
    n,
    gamma,
    return_B,
    discount_B,
    horizon_B,
    next_age_B,
    next_past_BK,
):
    """Compute n-step returns of drawn transitions from the rewards of their rows, and overwrite
    what `draw` wrote for another n and γ.

    A return adds no reward after a row that ends an episode (1), and its discount is 0 after a row
    that terminates it (2). All n rows after a transition that can be drawn are stored.
    """
    rows = row_LC.shape[1]
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        total, discount, k = 0.0, 1.0, 0
        while k < n:
            at = (slot + k) % rows
            total += discount * reward_LC[lane, at]
            discount *= gamma
            k += 1
            if end_LC[lane, at] == 2:
                discount = 0.0
            if end_LC[lane, at] > 0:
                break
        then = (slot + k) % rows
        return_B[b], discount_B[b], horizon_B[b] = total, discount, k
        next_age_B[b] = row_LC[lane, then].age
        if next_past_BK.shape[1]:
            _past_actions(row_LC[lane], then, next_age_B[b], next_past_BK[b])


@compiled
def update(flat_F8, start, row_LC, head_L, key_B, delta_B, epsilon, alpha):
    """Set the priorities of the transitions `key_B` to (|δ| + ε)^α.

    Returns how many of the transitions can no longer be sampled, for example because they were
    overwritten. Returns −1, and changes nothing, for a δ that is not finite.
    """
    lanes, rows = row_LC.shape
    leaf_B, priority_B, kept = np.empty(len(key_B), np.int64), np.empty(len(key_B), np.float64), 0
    for b in range(len(key_B)):
        row, lane = key_B[b] // lanes, key_B[b] % lanes
        # A row at or beyond the head was sampled before the shard restarted with row 0.
        if head_L[lane] - rows <= row < head_L[lane] and row_LC[lane, row % rows].valid:
            leaf_B[kept] = lane * rows + row % rows
            priority_B[kept] = (abs(delta_B[b]) + epsilon) ** alpha
            kept += 1
    if not tree_set(flat_F8, start, lanes * rows, leaf_B[:kept], priority_B[:kept]):
        return -1
    return len(key_B) - kept
