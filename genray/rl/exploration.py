"""Implements ε-greedy exploration: the annealing of ε, Ape-X's ladder of ε, and εz-greedy."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from genray.bounds import bounded, check_bounds
from genray.errors import require


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """The ε of the lanes. ε starts at 1 and anneals linearly to its final value over
    `anneal_steps`; without `anneal_steps` it has its final value from the start.
    """

    exploration: Literal["ladder", "shared"] = "ladder"
    """Final ε of the N lanes. ladder: epsilon^(1 + power·i/(N−1)) for lane i = 0 … N−1 (Ape-X);
    shared: epsilon for every lane.
    """
    epsilon: float = bounded(0.4, min=0.0, max=1.0, example=0.4)
    """Final ε of every lane (shared), or the base of the ladder (ladder)."""
    epsilon_power: float = bounded(7.0, min=0, example=7)
    """The ladder's exponent: 7 in Ape-X, where ε falls from 0.4 to 0.4^8 = 0.00066."""
    anneal_steps: int = bounded(0, min=0)
    """Agent steps of the whole run over which ε falls from 1 to its final value; 0: ε has its final
    value from the start.
    """
    random_steps: int = bounded(0, min=0)
    """Agent steps at the start of the run with ε = 1; the annealing begins after them."""
    persistence: float = 0.0
    """εz-greedy: a random action is repeated for z steps, P(z) ∝ z^−persistence (2 in the paper);
    0: for one step. Helps to find rewards that are several steps away in one direction.
    """
    max_held_steps: int = bounded(100, min=1, example=100)
    """Largest number of steps for which --persistence repeats an action; longer holds are cut."""
    max_held_steps_end: int = bounded(0, min=0, example=10)
    """The same, from the step on at which ε reaches its final value; 0: --max-held-steps always.
    Long holds find first rewards, but lose games that a better policy has begun.
    """

    def validate(self) -> None:
        """Raise ConfigError for an invalid option."""
        check_bounds(self)
        require(
            self.exploration == "shared" or 0.0 < self.epsilon < 1.0,
            f"--epsilon {self.epsilon}: a ladder needs a base inside (0, 1), e.g. 0.4; or choose "
            "--exploration shared",
        )
        require(
            self.persistence == 0 or self.persistence > 1,
            f"--persistence {self.persistence}: must be > 1, e.g. 2 (0: off)",
        )


def longest_hold(config: ExploreConfig, step: int) -> int:
    """Return the largest number of steps for which an action is held, at agent step `step`."""
    if step >= config.random_steps + config.anneal_steps and config.max_held_steps_end:
        return config.max_held_steps_end
    return config.max_held_steps


def ladder(num_lanes: int, base: float = 0.4, power: float = 7.0) -> np.ndarray:
    """Return Ape-X's ε_i = base^(1 + power·i/(N−1)) for lanes i = 0 … N−1, float64 [N].

    A single lane gets `base`.  [Horgan 2018, https://arxiv.org/abs/1803.00933, section 4.1]
    """
    position = np.arange(num_lanes) / max(num_lanes - 1, 1)
    return base ** (1.0 + power * position)


def final_epsilons(config: ExploreConfig, num_lanes: int) -> np.ndarray:
    """Return the final ε of each of the run's lanes; float64 [N]."""
    if config.exploration == "shared":
        return np.full(num_lanes, config.epsilon)
    return ladder(num_lanes, config.epsilon, config.epsilon_power)


def annealed(
    final_E: np.ndarray, step: int, anneal_steps: int, random_steps: int = 0
) -> np.ndarray:
    """Return the lanes' ε at agent step `step` of the run: 1 for `random_steps`, then linear from 1
    to `final_E` over `anneal_steps`, then constant; float64 [E].
    """
    if step < random_steps:
        return np.ones_like(final_E)
    left = max(0.0, 1.0 - (step - random_steps) / anneal_steps) if anneal_steps else 0.0
    return final_E + (1.0 - final_E) * left


class EpsilonGreedy:
    """Acts ε-greedily in E lanes; with `persistence`, a random action is held for several steps
    (εz-greedy).

    Random numbers are drawn for every lane at every step, also for lanes that do not use them.
    [Dabney 2021, https://arxiv.org/abs/2006.01782. Departure: z is at most `max_held`, in the
    paper 10,000.]

    Args:
        num_lanes: E.
        persistence: exponent of the distribution of z; 0: actions are not held.
        max_held: the largest z; may be changed at any time.
    """

    def __init__(self, num_lanes: int, persistence: float = 0.0, max_held: int = 100):
        self._persistence, self.max_held = persistence, max_held
        self.held_E = np.zeros(num_lanes, np.int64)
        """The random action that each lane repeats."""
        self.left_E = np.zeros(num_lanes, np.int64)
        """Number of further steps for which each lane repeats `held_E`."""

    def __call__(
        self,
        q_EA: np.ndarray,
        epsilon_E: np.ndarray,
        rng: np.random.Generator,
        legal_EA: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return actions, int64 [E]: the held action if there is one; else a random one with
        probability ε, which may then be held; else the one with the largest Q-value.

        `legal_EA`: which actions are legal, bool [E, A], at least one in each lane; None: all.
        Random actions are uniform over the legal ones. A held action that has become illegal is
        given up, and the legal action with the largest Q-value is chosen.
        """
        num_lanes, num_actions = q_EA.shape
        begins_E = (rng.random(num_lanes) < epsilon_E) & (self.left_E == 0)
        random_E = (
            rng.integers(num_actions, size=num_lanes)
            if legal_EA is None
            else random_legal(legal_EA, rng)
        )
        steps_E = (
            np.minimum(rng.zipf(self._persistence, num_lanes), self.max_held)
            if self._persistence
            else 1
        )
        self.held_E = np.where(begins_E, random_E, self.held_E)
        self.left_E = np.where(begins_E, steps_E, self.left_E)
        if legal_EA is not None:
            self.left_E *= legal_EA[np.arange(num_lanes), self.held_E]
            q_EA = np.where(legal_EA, q_EA, -np.inf)
        holds_E = self.left_E > 0
        self.left_E -= holds_E
        return np.where(holds_E, self.held_E, q_EA.argmax(axis=1))


def random_legal(legal_EA: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a uniformly random legal action of each lane, int64 [E]."""
    # The k-th legal action, k uniform below their number, is where their count first exceeds k.
    count_EA = legal_EA.cumsum(axis=1)
    k_E = rng.integers(count_EA[:, -1])
    return (count_EA > k_E[:, None]).argmax(axis=1)


def epsilon_greedy(
    q_EA: np.ndarray,
    epsilon_E: np.ndarray,
    rng: np.random.Generator,
    legal_EA: np.ndarray | None = None,
) -> np.ndarray:
    """Return for each lane a random action with probability ε, else the action with the largest
    Q-value; int64 [E]. Only legal actions, if `legal_EA` is given.
    """
    return EpsilonGreedy(len(q_EA))(q_EA, epsilon_E, rng, legal_EA)
