"""A sum tree: draw index i with probability p_i / Σp in O(log N), and change any p_i in O(log N).

Eight children a node, float64: a node's children are 64 bytes, one cache line. Parents are *recomputed* from their
children, never adjusted by differences: differences count a duplicate index twice and drift (with float32 by 1.5% in
small subtrees). Whole batches move through the levels in lockstep, so a batch costs a handful of NumPy calls a level.
"""

import numpy as np

BRANCH = 8


class SumTree:
    """Non-negative float64 priorities of `capacity` indices, all 0 at first."""

    def __init__(self, capacity: int):
        if capacity < 1:
            raise ValueError(f"capacity {capacity}: a tree needs at least one leaf")
        self.capacity = capacity
        sizes = [-(-capacity // BRANCH) * BRANCH]  # every level padded to whole families of eight
        while sizes[-1] > BRANCH:
            sizes.append(-(-(sizes[-1] // BRANCH) // BRANCH) * BRANCH)
        # levels[0] are the leaves, levels[-1] the (at most eight) nodes whose sum is the total.
        self._levels = [np.zeros(size) for size in sizes]

    @property
    def total(self) -> float:
        """Σp. Exactly the sum that `sample` divides."""
        return float(self._levels[-1].sum())

    @property
    def nbytes(self) -> int:
        return sum(level.nbytes for level in self._levels)

    def get(self, index_B: np.ndarray) -> np.ndarray:
        """The priorities at `index_B`; float64 [B]."""
        return self._levels[0][index_B]

    def set(self, index_B: np.ndarray, priority_B: np.ndarray | float) -> None:
        """Set priorities; of an index given twice the last one counts.

        Raises ValueError for a negative or non-finite priority, or an index outside [0, capacity); nothing is changed.
        """
        index_B = np.asarray(index_B, np.int64)
        priority_B = np.broadcast_to(np.asarray(priority_B, np.float64), index_B.shape)
        if index_B.size == 0:
            return
        if not (np.isfinite(priority_B).all() and (priority_B >= 0).all()):
            raise ValueError("priorities must be finite and ≥ 0")
        if index_B.min() < 0 or index_B.max() >= self.capacity:
            raise ValueError(f"an index lies outside [0, {self.capacity})")
        self._levels[0][index_B] = priority_B
        node_B = index_B
        for child, parent in zip(self._levels, self._levels[1:], strict=False):
            node_B = node_B // BRANCH
            parent[node_B] = child.reshape(-1, BRANCH)[node_B].sum(axis=1)

    def find(self, mass_B: np.ndarray) -> np.ndarray:
        """The index i whose interval [Σ_{j<i} p_j, Σ_{j≤i} p_j) holds each mass; int64 [B].

        `mass_B` lies in [0, total). Rounding can never land on an index of priority 0: a descent that would is moved to
        the family's last child with weight.
        """
        mass_B = np.array(mass_B, np.float64)
        row = np.arange(len(mass_B))
        node_B = np.zeros(len(mass_B), np.int64)
        for level in reversed(self._levels):
            family_BF = level.reshape(-1, BRANCH)[node_B]
            right_edge_BF = family_BF.cumsum(axis=1)
            child_B = (right_edge_BF <= mass_B[:, None]).sum(axis=1)
            last_B = BRANCH - 1 - (family_BF[:, ::-1] > 0).argmax(axis=1)
            child_B = np.minimum(child_B, last_B)
            mass_B -= right_edge_BF[row, child_B] - family_BF[row, child_B]
            np.maximum(mass_B, 0.0, out=mass_B)
            node_B = node_B * BRANCH + child_B
        return node_B

    def sample(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` indices, stratified: one from each of `count` equal slices of the total; int64 [count].

        Stratifying keeps P(i) per draw and lowers the variance of the batch.  [Schaul 2016, appendix B.2.1]
        Raises ValueError when every priority is 0.
        """
        total = self.total
        if total <= 0:
            raise ValueError("every priority is 0: nothing to sample")
        mass_B = (np.arange(count) + rng.random(count)) * (total / count)
        return self.find(np.minimum(mass_B, np.nextafter(total, 0)))

    def state(self) -> np.ndarray:
        """The leaves; enough to restore the tree bit for bit, since parents are pure functions of them."""
        return self._levels[0][: self.capacity].copy()

    def restore(self, leaves: np.ndarray) -> None:
        if leaves.shape != (self.capacity,):
            raise ValueError(f"{leaves.shape[0]} leaves do not fit a tree of {self.capacity}")
        self.set(np.arange(self.capacity), leaves)
