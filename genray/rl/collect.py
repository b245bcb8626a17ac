"""Collects experience: acts ε-greedily in E lanes and packs the result into chunks.

Shapes: E lanes, T rows, S stack, H height, W width, A actions, K past actions.
"""

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from genray.errors import RunFault
from genray.rl.augment import generator_of
from genray.rl.chunk import DIES, ENDS, GOES_ON, Chunk
from genray.rl.collect_config import CollectConfig as CollectConfig
from genray.rl.env import EnvConfig, FrameVectorEnv, SavesState
from genray.rl.exploration import (
    EpsilonGreedy,
    ExploreConfig,
    annealed,
    final_epsilons,
    longest_hold,
)
from genray.rl.lanes import Lanes as Lanes
from genray.rl.networks import QNetwork
from genray.rl.noisy import draw_noise
from genray.rl.nstep import n_step
from genray.rl.observation import observation_of
from genray.rl.targets import rescaled, unrescaled


@dataclass(frozen=True)
class Episode:
    """One finished episode."""

    score: float
    """The game's own score: the sum of unclipped rewards."""
    steps: int
    epsilon: float
    """The lane's ε at the end of the episode."""


LARGEST_REWARD = 1e18
"""Largest reward after --reward-clip. Its square, which the squared loss computes, must be far
below the largest float32, 3.4e38.
"""

# Values of each row from which n-step returns and first priorities are computed. The last n rows of
# a chunk are kept for the next chunk.
_ROW_FIELDS = {
    "reward": np.float32,  # after --reward-clip
    "discount": np.float32,  # γ, or 0 after a termination
    "ends": bool,  # an n-step return adds no reward after this row
    "valid": bool,  # the policy acted on this row, so a transition may start here
    "q_taken": np.float32,  # Q-value of the action taken
    "q_best": np.float32,  # largest Q-value
}


def _new_incarnation() -> int:
    return secrets.randbits(62) | 1  # never 0, which means "no collector yet" in a shard


class Collector:
    """Plays E lanes and makes chunks: rows with n-step returns and first TD errors.

    The first priority of a transition comes from |δ| = |R + D · max_a Q(s', a) − Q(s, a)|, with the
    n-step return R and the effective discount D. The collector's own weights give both Q(s, a) and
    Q(s', a); these Q-values were already computed for acting (Ape-X,
    https://arxiv.org/abs/1803.00933, section 3.1).

    Args:
        env: an environment of E lanes.
        network: the network that chooses actions. It is not copied, so a caller that changes its
            weights changes the policy.
        env_config: the configuration of the environment.
        config: the size of chunks, and the rules of returns.
        explore: the ε of the lanes.
        index: the collector's number among `config.collectors`; selects the lanes' ε and the random
            numbers.
        seed: the seed of the run.
        device: where Q-values are computed.
        state_period: rows between stored states of a network with an LSTM.
    """

    def __init__(
        self,
        env: FrameVectorEnv,
        network: QNetwork,
        env_config: EnvConfig,
        config: CollectConfig,
        explore: ExploreConfig,
        *,
        index: int = 0,
        seed: int = 0,
        device: str = "cpu",
        state_period: int = 1,
    ):
        self.env, self.network, self.config = env, network, config
        self._state_period = state_period
        self._explore, self._index = explore, index
        self._device = torch.device(device)
        self._rng = np.random.default_rng(np.random.SeedSequence([seed, index]))
        self._incarnation = _new_incarnation()
        first = index * env.num_lanes
        self._final_epsilon_E = final_epsilons(explore, config.total_lanes)[
            first : first + env.num_lanes
        ]
        self._env_config = env_config
        self._begin_episodes()
        self.weight_version = 0
        self.run_step = 0
        """Agent steps of the whole run so far, by which ε anneals. The caller sets this number, and
        `collect` adds to it as if all collectors played at the same speed.
        """

    def _begin_episodes(self) -> None:
        """Start new episodes in all lanes and discard all state of the old episodes."""
        num_lanes, config = self.env.num_lanes, self.config
        frame_EHW = self.env.reset(int(self._rng.integers(2**31 - num_lanes)))
        self.lanes = Lanes(
            frame_EHW,
            self._env_config,
            self.network.config.past_actions,
            observation_of(self.env),
            self.network.state_size,
        )
        self._choose = EpsilonGreedy(num_lanes, self._explore.persistence)
        self._row = 0
        self._over_E = np.zeros(num_lanes, bool)  # the current frame is an episode's last one
        self._score_E = np.zeros(num_lanes)
        self._length_E = np.zeros(num_lanes, np.int64)
        window = (num_lanes, config.n_step + config.chunk_rows)
        self._rows = {name: np.zeros(window, dtype) for name, dtype in _ROW_FIELDS.items()}

    @property
    def incarnation(self) -> int:
        """Random number that identifies this start of the collector. A shard joins only rows of
        the same incarnation, and may refuse the chunks of other incarnations.
        """
        return self._incarnation

    @property
    def epsilon_E(self) -> np.ndarray:
        """The lanes' ε now; float64 [E]."""
        explore = self._explore
        return annealed(
            self._final_epsilon_E, self.run_step, explore.anneal_steps, explore.random_steps
        )

    def set_weights(self, weights: dict[str, torch.Tensor], version: int) -> None:
        """Load `weights` into the collector's network and remember their version."""
        self.network.load_state_dict(weights)
        self.weight_version = version

    def collect(self) -> tuple[Chunk, list[Episode]]:
        """Play `chunk_rows` steps in every lane; return (a chunk in new arrays, ended episodes).

        Raises RunFault when a user's environment fails, or gives a reward too large to learn from.
        """
        num_lanes, num_rows, n = self.env.num_lanes, self.config.chunk_rows, self.config.n_step
        frame_ETHW = np.empty((num_lanes, num_rows, *self.env.frame_shape), np.uint8)
        action_ET = np.empty((num_lanes, num_rows), np.uint8)
        age_ET = np.empty((num_lanes, num_rows), np.uint8)
        recurrent: dict[str, list[np.ndarray]] = {"last_reward_ET": [], "state_EPS": []}
        episodes: list[Episode] = []
        # Copy the last n rows of the previous chunk to the front of the window, then play. The
        # frame of a row is read before the action on it is chosen.
        for rows in self._rows.values():
            rows[:, :n] = rows[:, num_rows:]
        for t in range(num_rows):
            frame_ETHW[:, t] = self.lanes.stack_ESHW[:, -1]
            age_ET[:, t] = np.minimum(self.lanes.age_E, 255)
            if self.network.state_size:
                recurrent["last_reward_ET"].append(self.lanes.last_reward_E.copy())
                if t % self._state_period == 0:
                    recurrent["state_EPS"].append(self.lanes.state_EN.copy())
            action_ET[:, t] = self._step(n + t, episodes)
        r = self._rows
        largest = float(np.abs(r["reward"]).max())
        if largest > LARGEST_REWARD:
            raise RunFault(
                f"{self._env_config.title}: its step gave a reward of {largest:g}, more than the "
                f"{LARGEST_REWARD:g} that float32 can learn from; use --reward-clip clip, or scale "
                "it"
            )
        # All transitions that start at the first `num_rows` rows of the window are complete now.
        steps = n_step(r["reward"], r["discount"], r["ends"], n, num_rows)
        # Compute the first |δ| from the Q-values that were computed for acting.
        bootstrap_T = np.arange(num_rows) + steps.horizon_ET
        q_next_ET = np.take_along_axis(r["q_best"], bootstrap_T, axis=1)
        target_ET = self._target(steps.return_ET, steps.discount_ET, q_next_ET)
        delta_ET = target_ET - r["q_taken"][:, :num_rows]
        chunk = Chunk(
            source=self._index,
            incarnation=self._incarnation,
            first_row=self._row,
            weight_version=self.weight_version,
            frame_ETHW=frame_ETHW,
            action_ET=action_ET,
            age_ET=age_ET,
            return_ET=steps.return_ET,
            discount_ET=steps.discount_ET,
            horizon_ET=steps.horizon_ET,
            delta_ET=np.abs(delta_ET),
            valid_ET=r["valid"][:, :num_rows].copy(),
            **self._newest_rows(),
            **{name: np.stack(each, axis=1) for name, each in recurrent.items() if each},
        )
        self._row += num_rows
        return chunk, episodes

    def _target(
        self, return_ET: np.ndarray, discount_ET: np.ndarray, q_next_ET: np.ndarray
    ) -> np.ndarray:
        if not self.network.config.value_rescaling:
            return return_ET + discount_ET * q_next_ET
        next_ET = unrescaled(torch.from_numpy(q_next_ET)).numpy()
        return rescaled(torch.from_numpy(return_ET + discount_ET * next_ET)).numpy()

    def _newest_rows(self) -> dict[str, np.ndarray]:
        """Return the fields of a chunk from which a shard computes returns, if n or γ is
        annealed.
        """
        if not self.config.anneals_returns:
            return {}
        new = slice(self.config.n_step, None)
        rows = {name: self._rows[name][:, new] for name in ("reward", "discount", "ends")}
        end_ET = np.where(rows["discount"] == 0, DIES, np.where(rows["ends"], ENDS, GOES_ON))
        return {"reward_ET": rows["reward"].copy(), "end_ET": end_ET.astype(np.uint8)}

    def _step(self, column: int, episodes: list[Episode]) -> np.ndarray:
        """Act once in all lanes and fill column `column` of the window; return actions, int [E].

        Appends the episodes that end to `episodes`.
        """
        if self.network.config.noisy:
            draw_noise(self.network, generator_of(int(self._rng.integers(2**62))))
        q_EA = self.lanes.q_values(self.network, self._device)
        epsilon_E = self.epsilon_E
        waits_E, over_E = self.lanes.waits_E, self._over_E
        self._choose.max_held = longest_hold(self._explore, self.run_step)
        choice_E = self._choose(q_EA, epsilon_E, self._rng, self.lanes.legal_EA)
        action_E = np.where(waits_E, 0, choice_E)
        step = self.env.step(action_E)
        ends_E = step.terminated_E | step.truncated_E
        dies_E = step.terminated_E | (step.life_lost_E & (self._env_config.life_loss == "terminal"))

        # Where the current frame was an episode's last one (over_E), this step only restarted the
        # lane, so no transition starts at this row.
        row = {name: array[:, column] for name, array in self._rows.items()}
        row["reward"][:] = self._clip(step.reward_E)
        row["discount"][:] = np.where(dies_E, 0.0, self.config.gamma)
        row["ends"][:] = ends_E | dies_E | over_E
        row["valid"][:] = ~(over_E | waits_E)
        row["q_taken"][:] = q_EA[np.arange(len(action_E)), action_E]
        row["q_best"][:] = q_EA.max(axis=1)

        # Update the policy's inputs, and collect the episodes that ended.
        self.lanes.push(step.frame_EHW, action_E, over_E, step.reward_E)
        self._score_E += step.reward_E
        self._length_E += ~over_E
        for lane in np.flatnonzero(ends_E):
            episodes.append(
                Episode(
                    float(self._score_E[lane]), int(self._length_E[lane]), float(epsilon_E[lane])
                )
            )
            self._score_E[lane] = self._length_E[lane] = 0
        self._over_E = ends_E.copy()
        self.run_step += self.config.total_lanes
        return action_E

    def _clip(self, reward_E: np.ndarray) -> np.ndarray:
        if self.config.reward_scale != 1:
            reward_E = reward_E * np.float32(self.config.reward_scale)
        if self.config.reward_clip == "none":
            return reward_E
        if self.config.reward_clip == "sqrt":
            return np.sign(reward_E) * np.sqrt(np.abs(reward_E))
        return np.clip(reward_E, -1, 1) if self.config.reward_clip == "clip" else np.sign(reward_E)

    # -- checkpoints: exact if the environment can save its state ----------------------------------

    _STATE = ("_incarnation", "_row", "weight_version", "run_step")
    _STATE_ARRAYS = ("_over_E", "_score_E", "_length_E")
    _LANE_ARRAYS = ("stack_ESHW", "past_EK", "age_E")
    _STATE_LANE_ARRAYS = ("state_EN", "last_action_E", "last_reward_E")
    _CHOICE_ARRAYS = ("held_E", "left_E")

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"row_{name}": rows for name, rows in self._rows.items()}
        for owner, names in (
            (self, self._STATE_ARRAYS),
            (self.lanes, self._LANE_ARRAYS),
            (self._choose, self._CHOICE_ARRAYS),
            (self.lanes, self._STATE_LANE_ARRAYS if self.network.state_size else ()),
        ):
            arrays |= {name: getattr(owner, name) for name in names}
        return arrays

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Return the state as (JSON values, arrays).

        For an environment that cannot save its state, only the random state and the step count are
        returned: after `restore`, new episodes begin.
        """
        values: dict[str, Any] = {"rng": self._rng.bit_generator.state, "run_step": self.run_step}
        if not isinstance(self.env, SavesState):
            return values, {}
        values |= {name: getattr(self, name) for name in self._STATE} | {"env": self.env.state()}
        return values, {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
        """Continue from `state`; return True if the episodes continue, False if new ones begin.

        New episodes begin if the environment cannot save its state, or if a changed option
        (n_step, chunk_rows, lanes …) changes the arrays' shapes.
        """
        self._rng.bit_generator.state = values["rng"]
        self.run_step = values["run_step"]
        mine = self._arrays()
        fits = all(
            name in arrays and arrays[name].shape == array.shape for name, array in mine.items()
        )
        if "env" not in values or not isinstance(self.env, SavesState) or not fits:
            if self._row:  # a shard must not join earlier rows to new rows
                self._incarnation = _new_incarnation()
            # The restored random state gives other episodes than the run's first ones.
            self._begin_episodes()
            return False
        self.env.restore(values["env"])
        for name in self._STATE:
            setattr(self, name, values[name])
        for name, array in mine.items():
            array[:] = arrays[name]
        return True
