"""An environment whose observations are packed records with a mask, and which saves its state."""

from typing import Any

import numpy as np

from genray.rl.env import Step
from genray.rl.observation import Field, Observation

TOP, LIMIT = 6, 20  # rungs; steps of an episode

OBSERVATION = Observation(
    fields=(
        Field(name="noise", kind="vector", shape=(2,), dtype="float64"),
        Field(name="rung", kind="classes", shape=(), dtype="uint8", classes=((0, TOP + 1),)),
        Field(name="mask", kind="mask", shape=(3,), dtype="uint8"),
    )
)


class Ladder:
    """E ladders: action 0 climbs, which ends the episode with reward 1 at the top; 1 descends, and
    is illegal on the ground; 2 waits, and is illegal on odd rungs. An illegal action raises.
    """

    num_actions, frame_shape, observation = 3, OBSERVATION.frame_shape, OBSERVATION

    def __init__(self, num_lanes: int):
        self.num_lanes = num_lanes
        self.taken = 0

    def reset(self, seed: int) -> np.ndarray:
        self._rng = np.random.default_rng(seed)
        self._rung_E, self._age_E = np.zeros((2, self.num_lanes), np.int64)
        self._over_E = np.zeros(self.num_lanes, bool)
        return self._draw()

    @property
    def legal_EA(self) -> np.ndarray:
        always = np.ones(self.num_lanes, bool)
        legal_EA = np.stack([always, self._rung_E > 0, self._rung_E % 2 == 0], axis=1)
        return legal_EA | self._over_E[:, None]

    def step(self, action_E: np.ndarray) -> Step:
        begins_E = self._over_E
        assert self.legal_EA[np.arange(self.num_lanes), action_E].all(), "an illegal action"
        self.taken += self.num_lanes
        moved_E = self._rung_E + np.array([1, -1, 0])[action_E]
        self._rung_E = np.where(begins_E, 0, moved_E)
        self._age_E = np.where(begins_E, 0, self._age_E + 1)
        top_E = self._rung_E == TOP
        late_E = ~top_E & (self._age_E == LIMIT)
        self._over_E = top_E | late_E
        none_E = np.zeros(self.num_lanes, bool)
        return Step(self._draw(), top_E.astype(np.float32), top_E, late_E, none_E)

    def close(self) -> None: ...

    def _draw(self) -> np.ndarray:
        self._noise_E2 = self._rng.normal(size=(self.num_lanes, 2))
        return self._frames()

    def _frames(self) -> np.ndarray:
        arrays = {"noise": self._noise_E2, "rung": self._rung_E, "mask": self.legal_EA}
        return OBSERVATION.pack(arrays)

    def state(self) -> dict[str, Any]:
        arrays = {name: getattr(self, name).tolist() for name in ("_rung_E", "_age_E", "_over_E")}
        return {
            "rng": self._rng.bit_generator.state, "noise": self._noise_E2.tolist(), **arrays,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        self._rng = np.random.default_rng()
        self._rng.bit_generator.state = state["rng"]
        self._noise_E2 = np.array(state["noise"])
        for name in ("_rung_E", "_age_E", "_over_E"):
            setattr(self, name, np.array(state[name]))
        return self._frames()
