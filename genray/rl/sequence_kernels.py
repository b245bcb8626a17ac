"""Contains the loop that assembles drawn sequences without their frames, which Numba compiles.

Shapes: L lanes, C rows per lane, P stored states per lane, B batch, T rows of a sequence, F columns
of a row, S numbers of a state.
"""

from genray.compiling import compiled
from genray.rl.sequences import (
    ACTION,
    AGE,
    DISCOUNT,
    HORIZON,
    LAST_ACTION,
    LAST_REWARD,
    RETURN,
)


@compiled
def fill_sequences(
    row_LC, last_reward_LC, state_LPS, leaf_B, burn_in, length, period, stored, steps_BTF, state_BS
):
    """Write the rows of the sequences that start at the leaves `leaf_B` (lane · C + slot), and
    their first states: the stored ones or, if `stored` is False, zeros.
    """
    rows = row_LC.shape[1]
    for b in range(len(leaf_B)):
        lane, slot = leaf_B[b] // rows, leaf_B[b] % rows
        before = row_LC[lane, (slot - 1) % rows].action
        at = slot
        for t in range(steps_BTF.shape[1]):
            row = row_LC[lane, at]
            steps_BTF[b, t, ACTION] = row.action
            steps_BTF[b, t, LAST_ACTION] = before if row.age > 0 else -1
            steps_BTF[b, t, LAST_REWARD] = last_reward_LC[lane, at]
            steps_BTF[b, t, RETURN] = row.n_return
            steps_BTF[b, t, DISCOUNT] = row.discount
            steps_BTF[b, t, HORIZON] = row.horizon if 0 <= t - burn_in < length else 0
            steps_BTF[b, t, AGE] = row.age
            before = row.action
            at = at + 1 if at + 1 < rows else 0
        if stored:
            state_BS[b] = state_LPS[lane, slot // period]
        else:
            state_BS[b] = 0
