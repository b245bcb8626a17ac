"""Plays Gymnasium's vector environments that restart an episode within the step that ended it.

The protocol (`genray.rl.env_protocol`) restarts a lane one step late: a step returns the last
observation of an episode, and the next step, whose action is ignored, the first one of the next
episode. An environment with the mode SAME_STEP returns both at once, and its lane goes on in the
next step. So there is one action of which the agent cannot know anything: it is a random legal
one. Its reward is left out, and the observation after it begins the episode.

Shapes: E lanes, N lanes of which an episode has ended, A actions.
"""

from typing import Any

import numpy as np

from genray.errors import RunFault
from genray.rl.env_spaces import MASK, arrays_of, find
from genray.rl.observation import Observation

FINAL, FINAL_INFO = "final_obs", "final_info"
"""Keys of `info` with the last observations of the episodes that ended in this step."""


class HiddenStarts:
    """Chooses the first actions of episodes that the agent does not see, and finds the last
    observations of episodes.

    Args:
        num_lanes, num_actions: E and A.
        observation: the fields of an observation.
        mask_in_info: whether masks are in `info`, not in the observation.
    """

    def __init__(
        self, num_lanes: int, num_actions: int, observation: Observation, mask_in_info: bool
    ):
        self._observation, self._mask_in_info = observation, mask_in_info
        self._begun_E = np.zeros(num_lanes, bool)
        self._legal_EA = np.ones((num_lanes, num_actions), bool)
        self._rng = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        """Begin anew: all lanes show their first observation."""
        self._begun_E[:] = False
        self._rng = np.random.default_rng(seed)

    def actions(self, action_E: np.ndarray) -> np.ndarray:
        """Return the actions, with random legal ones where an episode began unseen."""
        if not self._begun_E.any():
            return action_E
        chance_EA = np.where(self._legal_EA, self._rng.random(self._legal_EA.shape), -1.0)
        return np.where(self._begun_E, chance_EA.argmax(axis=1), action_E)

    def shown(self, *results_E: np.ndarray) -> list[np.ndarray]:
        """Return rewards or ends of a step, with zeros where the action was hidden."""
        return [np.where(self._begun_E, np.zeros_like(each_E), each_E) for each_E in results_E]

    def put_last(self, record_EHW: np.ndarray, info: dict[str, Any], over_E: np.ndarray) -> None:
        """Write the last observations over the first ones of the next episodes, where episodes
        ended. `record_EHW`: packed records. Raises RunFault if `info` lacks last observations.
        """
        self._begun_E = over_E.copy()
        if not over_E.any():
            return
        legal_EA = self._observation.legal(record_EHW)
        if legal_EA is not None:
            self._legal_EA = legal_EA
        lanes: list[int] = np.flatnonzero(over_E).tolist()
        final = info.get(FINAL)
        if final is None:
            raise RunFault(
                f'its info has no "{FINAL}" at the end of an episode, but its autoreset mode is '
                "SameStep"
            )
        batch = {
            field.name: np.stack([_of_lane(final, field.name, lane) for lane in lanes])
            for field in self._observation.fields
            if field.kind != "mask"
        }
        arrays = arrays_of(batch.get("", batch), self._observation, len(lanes))
        mask = self._observation.mask
        if mask is not None:
            arrays[mask.name] = self._last_masks(info, mask.name, lanes)
        record_EHW[lanes] = self._observation.pack(arrays)

    def _last_masks(self, info: dict[str, Any], name: str, lanes: list[int]) -> np.ndarray:
        """Return the masks of last observations, uint8 [N, A]. Nobody acts on them, so a mask that
        is not given or forbids everything allows everything.
        """
        source, path = (info.get(FINAL_INFO), MASK) if self._mask_in_info else (info[FINAL], name)
        shape = (len(lanes), self._legal_EA.shape[1])
        try:
            given = [_of_lane(source, path, lane) for lane in lanes]
            mask_NA = np.stack([np.ravel(each) for each in given]).reshape(shape) != 0
        except (KeyError, TypeError, ValueError):
            mask_NA = np.ones(shape, bool)
        mask_NA[~mask_NA.any(axis=1)] = True
        return mask_NA.astype(np.uint8)


def _of_lane(batch: Any, path: str, lane: int) -> np.ndarray:
    """Return one lane's array. `batch` has arrays for all lanes in a dictionary, or one
    observation for each lane.
    """
    if isinstance(batch, dict):
        return np.asarray(find(batch, path)[lane])
    return np.asarray(find(batch[lane], path))
