"""Chooses whether frames from another node are compressed for the transfer, by measuring which
choice makes the learner wait less.

Compressing a batch of 512 takes a shard about 10 ms and saves nine tenths of its 25 MB. At 1 Gbit/s
this saves time, but not on every network. Therefore the learner regularly tries both for some
rounds (requests of batches), measures how long it waits, and then uses the one with the shorter
median wait. If the waits are about equal, frames are compressed, so that other programs can use
the network.
"""

from statistics import median

TRIAL_ROUNDS = 8  # rounds in a row with one setting; a trial has four such blocks
EVERY_ROUNDS = 4096  # rounds from the start of one trial to the start of the next
# Seconds per round that uncompressed frames must save, and also a fifth of the wait, to be chosen.
WORTH_S = 1e-3


class CompressionChoice:
    """Alternates between compressed and uncompressed frames in a trial; then keeps the faster."""

    def __init__(self) -> None:
        self.packed = True
        self._launched = 0
        self._waits: dict[bool, list[float]] = {True: [], False: []}

    def choose(self) -> bool:
        """Return whether the frames of the next round should be compressed."""
        place = self._launched % EVERY_ROUNDS
        self._launched += 1
        if place < 4 * TRIAL_ROUNDS:
            return place // TRIAL_ROUNDS % 2 == 0
        if all(len(waits) > TRIAL_ROUNDS for waits in self._waits.values()):
            packed, plain = median(self._waits[True]), median(self._waits[False])
            self.packed = not (plain < 0.8 * packed and plain < packed - WORTH_S)
            self._waits = {True: [], False: []}
        return self.packed

    def note(self, packed: bool, waited_s: float) -> None:
        """Record how many seconds the learner waited for a round; `packed`: it was compressed."""
        # Outside a trial nothing is recorded, except for two rounds that were in flight at its end.
        if self._launched % EVERY_ROUNDS <= 4 * TRIAL_ROUNDS + 2:
            self._waits[packed].append(waited_s)
