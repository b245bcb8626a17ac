"""Collecting experience: act ε-greedily in E lanes and pack what happened into chunks.

Shapes: E lanes, T rows, S stack, H height, W width, A actions, K past actions.
"""

import secrets
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from genray.errors import RunFault, require
from genray.rl.chunk import Chunk
from genray.rl.env import EnvConfig, FrameVectorEnv, SavesState
from genray.rl.exploration import EpsilonGreedy, ExploreConfig, annealed, final_epsilons
from genray.rl.networks import QNetwork
from genray.rl.nstep import n_step


@dataclass(frozen=True, kw_only=True)
class CollectConfig:
    """Who collects, and in which portions."""

    collectors: int = 2
    """Collecting processes, one CPU core each."""
    envs_per_collector: int = 8
    """Games that a collector plays in lockstep."""
    chunk_rows: int = 32
    """Steps of all a collector's games that travel together (32 steps of 8 games: 1.8 MB)."""
    gamma: float = 0.99
    """Discount a step."""
    n_step: int = 3
    """Rewards summed before the bootstrap."""
    reward_clip: Literal["clip", "sign", "none"] = "clip"
    """What learning sees of a reward: clipped to ±1, its sign, or as it is. Reported returns are
    never clipped.
    """

    def validate(self) -> None:
        require(self.collectors >= 1, f"--collectors {self.collectors}: must be ≥ 1")
        require(
            self.envs_per_collector >= 1,
            f"--envs-per-collector {self.envs_per_collector}: must be ≥ 1, e.g. 8",
        )
        require(self.chunk_rows >= 1, f"--chunk-rows {self.chunk_rows}: must be ≥ 1, e.g. 32")
        require(0 < self.gamma <= 1, f"--gamma {self.gamma}: must lie in (0, 1], e.g. 0.99")
        require(1 <= self.n_step <= 32, f"--n-step {self.n_step}: must lie in 1..32, e.g. 3")

    @property
    def total_lanes(self) -> int:
        return self.collectors * self.envs_per_collector


@dataclass(frozen=True)
class Episode:
    """One finished episode as the game scored it."""

    score: float
    steps: int
    epsilon: float
    """The lane's exploration when it ended."""


class Lanes:
    """What E lanes look like to the policy: stacks, ages and past actions, kept as φ defines
    them at an episode's start.
    """

    def __init__(self, frame_EHW: np.ndarray, config: EnvConfig, past_actions: int):
        self._config = config
        num_lanes = len(frame_EHW)
        self.stack_ESHW = np.zeros((num_lanes, config.stack, *frame_EHW.shape[1:]), np.uint8)
        self.past_EK = np.full((num_lanes, past_actions), -1, np.int16)
        self.age_E = np.zeros(num_lanes, np.int64)
        self._begin(np.ones(num_lanes, bool), frame_EHW)

    def push(self, frame_EHW: np.ndarray, action_E: np.ndarray, begins_E: np.ndarray) -> None:
        """The frames after `action_E`; where `begins_E`, they are the first of a new episode."""
        self.stack_ESHW[:, :-1] = self.stack_ESHW[:, 1:]
        self.stack_ESHW[:, -1] = frame_EHW
        self.past_EK[:, 1:] = self.past_EK[:, :-1]
        self.past_EK[:, :1] = action_E[:, None]
        self.age_E += 1
        if begins_E.any():
            self._begin(begins_E, frame_EHW)

    def _begin(self, lanes_E: np.ndarray, frame_EHW: np.ndarray) -> None:
        repeat = self._config.stack_start == "repeat"
        self.stack_ESHW[lanes_E] = frame_EHW[lanes_E, None] if repeat else 0
        self.stack_ESHW[lanes_E, -1] = frame_EHW[lanes_E]
        self.past_EK[lanes_E] = -1
        self.age_E[lanes_E] = 0

    @property
    def waits_E(self) -> np.ndarray:
        """Lanes that only wait (no-op) for a full stack, under that start rule."""
        return (self.age_E < self._config.stack - 1) & (self._config.stack_start == "wait")

    def q_values(
        self, network: QNetwork, device: torch.device, chosen_E: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Q-values of all lanes, or of the chosen ones alone; float32 [E, A]."""
        with torch.inference_mode():
            frames = torch.from_numpy(self.stack_ESHW[chosen_E]).to(device, non_blocking=True)
            past = torch.from_numpy(self.past_EK[chosen_E]).to(device, non_blocking=True)
            return network(frames, past).float().cpu().numpy()


LARGEST_REWARD = 1e18
"""Of a reward after --reward-clip. Its square must be a float32 (below 3.4e38) in the squared
loss.
"""

# The rows of one lane's life that n-step returns need; the last n of a chunk are carried into the
# next.
_ROW_FIELDS = {
    "reward": np.float32,  # clipped as learning sees it
    "discount": np.float32,  # γ, or 0 after a termination
    "ends": bool,  # the window stops after this row
    "valid": bool,  # a row on which the policy acted and whose outcome may be learned from
    "q_taken": np.float32,
    "q_best": np.float32,
}


def _new_incarnation() -> int:
    return secrets.randbits(62) | 1  # never 0, which a shard takes for "no collector yet"


class Collector:
    """Plays E lanes with its own copy of the network and makes chunks of rows with n-step
    returns and first priorities.

    The priority of a transition is |R + D · max_a Q(s', a) − Q(s, a)| with the collector's own
    weights as w and w⁻, taken from the Q-values that it computed anyway when acting (Ape-X,
    https://arxiv.org/abs/1803.00933, section 3.1).
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
    ):
        self.env, self.network, self.config = env, network, config
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
        """Agent steps of the whole run so far, as far as this collector knows: the clock of ε's
        annealing.
        """

    def _begin_episodes(self) -> None:
        """New episodes in all lanes, and nothing left of those before."""
        num_lanes, config = self.env.num_lanes, self.config
        frame_EHW = self.env.reset(int(self._rng.integers(2**31 - num_lanes)))
        self.lanes = Lanes(frame_EHW, self._env_config, self.network.config.past_actions)
        self._choose = EpsilonGreedy(num_lanes, self._explore.persistence)
        self._row = 0
        self._over_E = np.zeros(num_lanes, bool)  # the frame on show is an episode's last
        self._score_E = np.zeros(num_lanes)
        self._length_E = np.zeros(num_lanes, np.int64)
        window = (num_lanes, config.n_step + config.chunk_rows)
        self._rows = {name: np.zeros(window, dtype) for name, dtype in _ROW_FIELDS.items()}

    @property
    def incarnation(self) -> int:
        """Random number of this life: a shard tells by it which rows belong together, and whom
        it listens to.
        """
        return self._incarnation

    @property
    def epsilon_E(self) -> np.ndarray:
        """The lanes' ε now; float64 [E]."""
        return annealed(self._final_epsilon_E, self.run_step, self._explore.anneal_steps)

    def set_weights(self, weights: dict[str, torch.Tensor], version: int) -> None:
        self.network.load_state_dict(weights)
        self.weight_version = version

    def collect(self) -> tuple[Chunk, list[Episode]]:
        """Play `chunk_rows` steps in every lane; the chunk's arrays are the caller's to keep.

        Raises RunFault when the environment fails, or gives a reward that nothing can be learned
        from.
        """
        num_lanes, num_rows, n = self.env.num_lanes, self.config.chunk_rows, self.config.n_step
        frame_ETHW = np.empty((num_lanes, num_rows, *self.env.frame_shape), np.uint8)
        action_ET = np.empty((num_lanes, num_rows), np.uint8)
        age_ET = np.empty((num_lanes, num_rows), np.uint8)
        episodes: list[Episode] = []
        for rows in self._rows.values():
            rows[:, :n] = rows[:, num_rows:]
        for t in range(num_rows):
            frame_ETHW[:, t] = self.lanes.stack_ESHW[:, -1]
            age_ET[:, t] = np.minimum(self.lanes.age_E, 255)
            action_ET[:, t] = self._step(n + t, episodes)
        r = self._rows
        largest = float(np.abs(r["reward"]).max())
        if largest > LARGEST_REWARD:
            raise RunFault(
                f"{self._env_config.title}: its step gave a reward of {largest:g}, more than the "
                f"{LARGEST_REWARD:g} that float32 can learn from; use --reward-clip clip, or scale "
                "it"
            )
        steps = n_step(r["reward"], r["discount"], r["ends"], n, num_rows)
        bootstrap_T = np.arange(num_rows) + steps.horizon_ET
        q_next_ET = np.take_along_axis(r["q_best"], bootstrap_T, axis=1)
        delta_ET = steps.return_ET + steps.discount_ET * q_next_ET - r["q_taken"][:, :num_rows]
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
        )
        self._row += num_rows
        return chunk, episodes

    def _step(self, column: int, episodes: list[Episode]) -> np.ndarray:
        """Act once in all lanes and note row `column` of the window; returns the actions [E]."""
        q_EA = self.lanes.q_values(self.network, self._device)
        epsilon_E = self.epsilon_E
        waits_E, over_E = self.lanes.waits_E, self._over_E
        action_E = np.where(waits_E, 0, self._choose(q_EA, epsilon_E, self._rng))
        step = self.env.step(action_E)
        ends_E = step.terminated_E | step.truncated_E
        dies_E = step.terminated_E | (step.life_lost_E & (self._env_config.life_loss == "terminal"))

        row = {name: array[:, column] for name, array in self._rows.items()}
        row["reward"][:] = self._clip(step.reward_E)
        row["discount"][:] = np.where(dies_E, 0.0, self.config.gamma)
        row["ends"][:] = ends_E | dies_E | over_E
        row["valid"][:] = ~(over_E | waits_E)
        row["q_taken"][:] = q_EA[np.arange(len(action_E)), action_E]
        row["q_best"][:] = q_EA.max(axis=1)

        self.lanes.push(step.frame_EHW, action_E, begins_E=over_E)
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
        if self.config.reward_clip == "none":
            return reward_E
        return np.clip(reward_E, -1, 1) if self.config.reward_clip == "clip" else np.sign(reward_E)

    # -- checkpoints: bit for bit where the environment can save itself ----------------------------

    _STATE = ("_incarnation", "_row", "weight_version", "run_step")
    _STATE_ARRAYS = ("_over_E", "_score_E", "_length_E")
    _LANE_ARRAYS = ("stack_ESHW", "past_EK", "age_E")
    _CHOICE_ARRAYS = ("held_E", "left_E")

    def _arrays(self) -> dict[str, np.ndarray]:
        arrays = {f"row_{name}": rows for name, rows in self._rows.items()}
        for owner, names in (
            (self, self._STATE_ARRAYS),
            (self.lanes, self._LANE_ARRAYS),
            (self._choose, self._CHOICE_ARRAYS),
        ):
            arrays |= {name: getattr(owner, name) for name in names}
        return arrays

    def state(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """(JSON-able values, arrays). Without `SavesState` only the random state and counters,
        for new episodes.
        """
        values: dict[str, Any] = {"rng": self._rng.bit_generator.state, "run_step": self.run_step}
        if not isinstance(self.env, SavesState):
            return values, {}
        values |= {name: getattr(self, name) for name in self._STATE} | {"env": self.env.state()}
        return values, {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, values: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
        """Continue from `state`; True when the episodes themselves go on, False when the lanes
        begin new ones.

        They do where the environment cannot save itself, and where a changed option (n_step,
        chunk_rows, lanes …) gives the arrays other shapes.
        """
        self._rng.bit_generator.state = values["rng"]
        self.run_step = values["run_step"]
        mine = self._arrays()
        fits = all(
            name in arrays and arrays[name].shape == array.shape for name, array in mine.items()
        )
        if "env" not in values or not isinstance(self.env, SavesState) or not fits:
            if self._row:  # a shard must not join what was played before to what comes
                self._incarnation = _new_incarnation()
            self._begin_episodes()  # other ones than those the run began with
            return False
        self.env.restore(values["env"])
        for name in self._STATE:
            setattr(self, name, values[name])
        for name, array in mine.items():
            array[:] = arrays[name]
        return True
