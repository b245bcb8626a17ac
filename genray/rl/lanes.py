"""Keeps the inputs of a policy for several lanes, from which it computes the Q-values.

Shapes: E lanes, S stack, H height, W width, A actions, K past actions, N numbers of a recurrent
state.
"""

import numpy as np
import torch

from genray.rl.env import EnvConfig
from genray.rl.networks import QNetwork
from genray.rl.observation import Observation, stack_of


class Lanes:
    """The policy's inputs for E lanes: frame stacks, ages and past actions; for a network with an
    LSTM also its state, and the last action and reward.

    At an episode's start, the stacks follow the rule `EnvConfig.stack_start`.

    Args:
        frame_EHW: the first frames, uint8.
        config: the start rule and the size of a stack.
        past_actions: K, the number of past actions.
        observation: describes packed records; None: frames are grey frames.
        state_size: N, the numbers in the state of a network with an LSTM; 0: no state.
    """

    def __init__(
        self,
        frame_EHW: np.ndarray,
        config: EnvConfig,
        past_actions: int,
        observation: Observation | None = None,
        state_size: int = 0,
    ):
        self._config, self._observation = config, observation
        self._stack = stack_of(config.stack, observation)
        num_lanes = len(frame_EHW)
        self.stack_ESHW = np.zeros((num_lanes, self._stack, *frame_EHW.shape[1:]), np.uint8)
        self.past_EK = np.full((num_lanes, past_actions), -1, np.int16)
        self.age_E = np.zeros(num_lanes, np.int64)
        self.state_EN = np.zeros((num_lanes, state_size), np.float32)
        self._next_state_EN = np.zeros_like(self.state_EN)  # what `q_values` computed
        self.last_action_E = np.full(num_lanes, -1, np.int16)
        self.last_reward_E = np.zeros(num_lanes, np.float32)
        self._begin(np.ones(num_lanes, bool), frame_EHW)

    def push(
        self,
        frame_EHW: np.ndarray,
        action_E: np.ndarray,
        begins_E: np.ndarray,
        reward_E: np.ndarray | float = 0.0,
    ) -> None:
        """Add the frames and the game's own rewards that followed `action_E`. Where `begins_E` is
        True, the frame is the first one of a new episode.
        """
        self.stack_ESHW[:, :-1] = self.stack_ESHW[:, 1:]
        self.stack_ESHW[:, -1] = frame_EHW
        self.past_EK[:, 1:] = self.past_EK[:, :-1]
        self.past_EK[:, :1] = action_E[:, None]
        self.age_E += 1
        self.state_EN[:] = self._next_state_EN
        self.last_action_E[:], self.last_reward_E[:] = action_E, reward_E
        if begins_E.any():
            self._begin(begins_E, frame_EHW)

    def _begin(self, lanes_E: np.ndarray, frame_EHW: np.ndarray) -> None:
        repeat = self._config.stack_start == "repeat"
        self.stack_ESHW[lanes_E] = frame_EHW[lanes_E, None] if repeat else 0
        self.stack_ESHW[lanes_E, -1] = frame_EHW[lanes_E]
        self.past_EK[lanes_E] = -1
        self.age_E[lanes_E] = 0
        self.state_EN[lanes_E] = 0
        self.last_action_E[lanes_E], self.last_reward_E[lanes_E] = -1, 0

    @property
    def waits_E(self) -> np.ndarray:
        """Lanes that act with no-ops until their stack is full (start rule "wait"); bool [E]."""
        return (self.age_E < self._stack - 1) & (self._config.stack_start == "wait")

    @property
    def legal_EA(self) -> np.ndarray | None:
        """Which actions are legal now; bool [E, A]. None: the environment gives no masks."""
        if self._observation is None:
            return None
        return self._observation.legal(self.stack_ESHW[:, -1])

    def q_values(
        self, network: QNetwork, device: torch.device, chosen_E: np.ndarray | slice = slice(None)
    ) -> np.ndarray:
        """Return the Q-values of all lanes or of the lanes `chosen_E`; float32 [lanes, A]. An
        illegal action has the Q-value `targets.ILLEGAL`. The state of an LSTM moves on with the
        next `push`.
        """
        with torch.inference_mode():
            frames = torch.from_numpy(self.stack_ESHW[chosen_E]).to(device, non_blocking=True)
            if len(self.state_EN[0]):
                before = (self.last_action_E, self.last_reward_E, self.state_EN)
                inputs = [torch.from_numpy(each[chosen_E]).to(device) for each in before]
                q_EA, state_EN = network.step(frames, *inputs)
                self._next_state_EN[chosen_E] = state_EN.cpu().numpy()
                return q_EA.float().cpu().numpy()
            past = torch.from_numpy(self.past_EK[chosen_E]).to(device, non_blocking=True)
            return network(frames, past).float().cpu().numpy()
