"""How frames that lie as they are come from another node: compressed on the way, or not. It is
measured.

Compressing a batch of 512 takes a shard about 10 ms, and spares a network nine tenths of its 25
MB: worth it at 1 Gbit/s, not on every network. What counts is how long the learner waits, so
each way is tried for some rounds, again and again, and the shorter wait wins. Who need not wait
at all compresses: the network may have others to serve.
"""

from statistics import median

TRIAL_ROUNDS = 8
EVERY_ROUNDS = 4096
WORTH_S = 1e-3  # a shorter wait by less than this a round, or than a fifth, is noise


class Wire:
    def __init__(self) -> None:
        self.packed = True
        self._launched = 0
        self._waits: dict[bool, list[float]] = {True: [], False: []}

    def choose(self) -> bool:
        """Whether the next round's frames are to be compressed."""
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
        """How long the learner waited for a round of that kind."""
        # a trial, and what was in flight when it ended
        if self._launched % EVERY_ROUNDS <= 4 * TRIAL_ROUNDS + 2:
            self._waits[packed].append(waited_s)
