"""Implements a sum tree, which samples index i with probability p_i / Σp in O(log N) time.

Changing a priority p_i also takes O(log N).

Each node has eight float64 children, 64 bytes, which are one cache line. Parents are *recomputed*
from their children. Adding a child's change to its parent would count a duplicate index twice, and
rounding errors would grow (with float32, to 1.5% in small subtrees). The loops, which Numba
compiles (kernels.py), handle all of a batch on one level before they go to the next level.
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
        # Number of families (groups of 8 siblings) of each level. The first entry is for the
        # leaves, the last one, 1, for the family that contains the root.
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
        """Σp, exactly as `sample` uses it."""
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
        """Set priorities. If an index occurs several times, its last priority counts.

        Raises ValueError, and changes nothing, for a negative or non-finite priority, or an index
        outside [0, capacity).
        """
        # Copy the arrays, because the loop overwrites the indices, and because arrays from Ray are
        # read-only, for which Numba would compile the loop a second time.
        node_B = np.array(index_B, np.int64)
        leaf_B = np.empty(node_B.shape, np.float64)
        leaf_B[:] = priority_B
        if not kernels.tree_set(self._flat_F8, self._start, self.capacity, node_B, leaf_B):
            if node_B.min() < 0 or node_B.max() >= self.capacity:
                raise ValueError(f"an index lies outside [0, {self.capacity})")
            raise ValueError("priorities must be finite and ≥ 0")

    def find(self, mass_B: np.ndarray) -> np.ndarray:
        """Return for each mass the index i whose interval [Σ_{j<i} p_j, Σ_{j≤i} p_j) contains the
        mass; int64 [B].

        `mass_B` is in [0, total). An index with priority 0 is never returned, even after rounding:
        a neighbour in the same family with a priority above 0 is returned instead.
        """
        node_B = np.empty(len(mass_B), np.int64)
        kernels.tree_find(self._flat_F8, self._start, np.array(mass_B, np.float64), node_B)
        return node_B

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return `count` indices, one from each of `count` equal slices of the total (stratified
        sampling); int64 [count].

        The expected number of draws of each index is the same as without strata, but varies less.
        [Schaul 2016, appendix B.2.1] Raises ValueError when every priority is 0.
        """
        if self.total <= 0:
            raise ValueError("every priority is 0: nothing to sample")
        leaf_B = np.empty(count, np.int64)
        kernels.tree_sample(self._flat_F8, self._start, rng.random(count), leaf_B)
        return leaf_B

    def state(self) -> np.ndarray:
        """Return a copy of the leaves. All other nodes are sums of them, so `restore` gives the
        same tree bit for bit.
        """
        return self._leaf_N.copy()

    def restore(self, leaves: np.ndarray) -> None:
        """Set all leaves to those that `state` returned; raises ValueError if their number differs
        from the capacity.
        """
        if leaves.shape != (self.capacity,):
            raise ValueError(f"{leaves.shape[0]} leaves do not fit a tree of {self.capacity}")
        self.set(np.arange(self.capacity), leaves)


def _aligned_zeros(families: int) -> np.ndarray:
    """Return float64 zeros [families, 8], aligned so that each family is in one cache line."""
    spare = np.zeros((families + 1) * BRANCH)
    skip = -(spare.ctypes.data // spare.itemsize) % BRANCH
    return spare[skip:][: families * BRANCH].reshape(families, BRANCH)
