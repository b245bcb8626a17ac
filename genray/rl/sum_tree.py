"""Implements a sum tree, which samples index i with probability p_i / Σp in O(log N) time.

Changing a priority p_i also takes O(log N).

Each node has eight float64 children: 64 bytes, one cache line. Parents are *recomputed* from their
children, never adjusted by differences: differences count a duplicate index twice and drift (with
float32 by 1.5% in small subtrees). Whole batches pass through the levels in lockstep, in loops
that Numba compiles (kernels.py).
"""

import numpy as np

from genray.rl import kernels

BRANCH = kernels.BRANCH


class SumTree:
    """Stores a non-negative float64 priority for each index; all priorities are 0 at first.

    Args:
        capacity: number of indices. Raises ValueError below 1.
    """

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"capacity {capacity}: a tree needs at least one leaf")
        self.capacity = capacity
        # Number of families of each level: the leaves' first, the root's single one at the end.
        families = [-(-capacity // BRANCH)]
        while families[-1] > 1 or len(families) == 1:
            families.append(-(-families[-1] // BRANCH))
        if families[-2] > 1:
            families.append(1)
        self._start = np.concatenate([[0], np.cumsum(families)]).astype(np.int64)
        self._flat_F8 = _aligned_zeros(int(self._start[-1]))
        self._root = int(self._start[-2])

    @property
    def total(self) -> float:
        """Σp, exactly the sum that `sample` divides."""
        return float(self._flat_F8[self._root, 0])

    @property
    def flat_F8(self) -> np.ndarray:
        """All levels in one array, the leaves first, for the loops of kernels.py."""
        return self._flat_F8

    @property
    def start(self) -> np.ndarray:
        """Index of each level's first family in `flat_F8`; int64."""
        return self._start

    @property
    def _leaf_N(self) -> np.ndarray:
        return self._flat_F8.reshape(-1)[: self.capacity]

    @property
    def nbytes(self) -> int:
        """Bytes of memory that the tree takes."""
        return self._flat_F8.nbytes

    def get(self, index_B: np.ndarray) -> np.ndarray:
        """Return the priorities at `index_B`; float64 [B]."""
        return self._leaf_N[index_B]

    def set(self, index_B: np.ndarray, priority_B: np.ndarray | float) -> None:
        """Set priorities; the last one counts for an index given twice.

        Raises ValueError for a negative or non-finite priority, or an index outside [0,
        capacity); nothing is changed.
        """
        # Copies, because the loop overwrites the indices, and because Numba would compile the loop
        # again for read-only arrays (Ray's are).
        node_B = np.array(index_B, np.int64)
        leaf_B = np.empty(node_B.shape, np.float64)
        leaf_B[:] = priority_B
        if not kernels.tree_set(self._flat_F8, self._start, self.capacity, node_B, leaf_B):
            if node_B.min() < 0 or node_B.max() >= self.capacity:
                raise ValueError(f"an index lies outside [0, {self.capacity})")
            raise ValueError("priorities must be finite and ≥ 0")

    def find(self, mass_B: np.ndarray) -> np.ndarray:
        """Return the index i whose interval [Σ_{j<i} p_j, Σ_{j≤i} p_j) contains each mass; int64
        [B].

        `mass_B` is in [0, total). Rounding can never select an index of priority 0: such a descent
        is moved to the family's last child with a priority above 0.
        """
        node_B = np.empty(len(mass_B), np.int64)
        kernels.tree_find(self._flat_F8, self._start, np.array(mass_B, np.float64), node_B)
        return node_B

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` indices, stratified: one from each of `count` equal slices of the total;
        int64 [count].

        Stratifying keeps P(i) per sample and lowers the variance of the batch.  [Schaul 2016,
        appendix B.2.1] Raises ValueError when every priority is 0.
        """
        if self.total <= 0:
            raise ValueError("every priority is 0: nothing to sample")
        leaf_B = np.empty(count, np.int64)
        kernels.tree_sample(self._flat_F8, self._start, rng.random(count), leaf_B)
        return leaf_B

    def state(self) -> np.ndarray:
        """Return the leaves, from which the tree is restored bit for bit, since parents depend only
        on them.
        """
        return self._leaf_N.copy()

    def restore(self, leaves: np.ndarray) -> None:
        """Set all leaves to those of `state`; raises ValueError if their number differs."""
        if leaves.shape != (self.capacity,):
            raise ValueError(f"{leaves.shape[0]} leaves do not fit a tree of {self.capacity}")
        self.set(np.arange(self.capacity), leaves)


def _aligned_zeros(families: int) -> np.ndarray:
    """Return float64 zeros [families, 8] aligned to cache lines, so that no family spans two."""
    spare = np.zeros((families + 1) * BRANCH)
    skip = -(spare.ctypes.data // spare.itemsize) % BRANCH
    return spare[skip:][: families * BRANCH].reshape(families, BRANCH)
