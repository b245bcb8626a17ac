"""Chooses whether frames fetched from another node are compressed in transit, by timing both.

Compressing a batch of 512 takes a shard about 10 ms and saves nine tenths of its 25 MB. This is
worth the time at 1 Gbit/s, but not on every network. The learner's waiting time decides: each
way is tried for some rounds, at intervals, and the way with the shorter median wait is used. If
both waits are about equal, frames are compressed, because other programs may use the network.
"""

from statistics import median

TRIAL_ROUNDS = 8  # in a row with one setting; a trial has four such blocks
EVERY_ROUNDS = 4096  # from the start of one trial to the next
WORTH_S = 1e-3  # a difference smaller than this per round, or than a fifth, is noise


class CompressionChoice:
    """Alternates between compressed and plain frames during a trial, then keeps the faster one."""

    def __init__(self) -> None:
        self.packed = True
        self._launched = 0
        self._waits: dict[bool, list[float]] = {True: [], False: []}

    def choose(self) -> bool:
        """Return whether the next round's frames are to be compressed."""
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
        """Record the seconds that the learner waited for a round of that kind."""
        # Only a trial counts, and the two rounds that were in flight when it ended.
        if self._launched % EVERY_ROUNDS <= 4 * TRIAL_ROUNDS + 2:
            self._waits[packed].append(waited_s)
