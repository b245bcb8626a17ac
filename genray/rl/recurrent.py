"""Cuts long sequences into windows, and computes LSTMs over sequences of several episodes.

Shapes: N steps of one long sequence, B rows (sequences of a batch), T steps of a row, W steps of a
window, P parts of rows, L steps of the longest part, I inputs, U units, A actions, F features.

The state of an LSTM is one tensor, float32 [B, 2U]: the hidden values h, then the cell values c.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from genray.shapes import check_shapes

FORGET_BIAS = 1.0
MOST_WINDOWS = 4
"""With more than one window for this many steps, steps are computed one by one."""


def rows_of(sequence_N: Sequence[Any] | Tensor, batch: int) -> list[Any]:
    """Cut one long sequence into `batch` rows of equal length, so that row b continues row b − 1.

    [1 … 12] as 2 rows is [[1 … 6], [7 … 12]]. Steps that do not fill a row are left out. Raises
    ValueError when the sequence has fewer steps than rows.
    """
    length = len(sequence_N) // batch
    if length < 1:
        raise ValueError(f"a sequence of {len(sequence_N)} steps has no {batch} rows")
    return [sequence_N[row * length : (row + 1) * length] for row in range(batch)]


def windows_of(rows_BT: Sequence[Sequence[Any]] | Tensor, length: int) -> Iterator[list[Any]]:
    """Yield windows of `length` steps of all rows, oldest first; the last one may be shorter.

    [[1 … 6], [7 … 12]] in windows of 3 is [[1, 2, 3], [7, 8, 9]], then [[4, 5, 6], [10, 11, 12]].
    Row b of a window continues row b of the window before, so the state of row b is carried from
    window to window. A gradient goes back to the start of its window only (truncated
    backpropagation through time).
    """
    for first in range(0, len(rows_BT[0]), length):
        yield [row_T[first : first + length] for row_T in rows_BT]


class LSTMCell(nn.Module):
    """One step of an LSTM, written out as four layers: three with a sigmoid, one with tanh.

    [Hochreiter 1997; with a forget gate: Gers 2000, https://doi.org/10.1162/089976600300015015]
    It computes what `torch.nn.LSTM` computes, which is faster and is used for training.

    Args:
        inputs: I.
        units: U, the number of hidden units of each of the four layers.
    """

    def __init__(self, inputs: int, units: int):
        super().__init__()
        self.input_gate = nn.Linear(inputs + units, units)
        self.forget_gate = nn.Linear(inputs + units, units)
        self.candidate = nn.Linear(inputs + units, units)
        self.output_gate = nn.Linear(inputs + units, units)

    def forward(self, input_BI: Tensor, hidden_BU: Tensor, cell_BU: Tensor) -> tuple[Tensor, ...]:
        """Return (h, c) after one step, both float32 [B, U]."""
        both = torch.cat([input_BI, hidden_BU], dim=1)
        i = torch.sigmoid(self.input_gate(both))  # how much of the candidate is added
        f = torch.sigmoid(self.forget_gate(both))  # how much of the old cell stays
        g = torch.tanh(self.candidate(both))
        o = torch.sigmoid(self.output_gate(both))  # how much of the cell is shown
        cell_BU = f * cell_BU + i * g
        return o * torch.tanh(cell_BU), cell_BU

    @torch.no_grad()
    def copy_from(self, lstm: nn.LSTM) -> LSTMCell:
        """Copy the weights of a `torch.nn.LSTM` of one layer; return self.

        PyTorch keeps the four layers in one matrix, in the order input, forget, candidate, output,
        and has two biases, of which only the sum matters.
        """
        stored = lstm.state_dict()
        weight_GI = torch.cat([stored["weight_ih_l0"], stored["weight_hh_l0"]], dim=1)
        bias_G = stored["bias_ih_l0"] + stored["bias_hh_l0"]
        layers = (self.input_gate, self.forget_gate, self.candidate, self.output_gate)
        for layer, weight_UI, bias_U in zip(layers, weight_GI.chunk(4), bias_G.chunk(4)):
            layer.weight.copy_(weight_UI)
            layer.bias.copy_(bias_U)
        return self


def unroll(
    lstm: nn.LSTM, input_BTI: Tensor, state_BS: Tensor, begins_BT: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the hidden values of an LSTM at every step, float32 [B, T, U], and its last state.

    `begins_BT`: bool; the state is set to zero before each step at which an episode begins. The
    steps between two such steps of any row are one window, which is computed in one call. If there
    are many windows, steps are computed one by one, which then takes half the time.
    """
    check_shapes(input_BTI=input_BTI, state_BS=state_BS, begins_BT=begins_BT)
    steps = input_BTI.shape[1]
    cuts = begins_BT.any(dim=0).nonzero().flatten().tolist()
    outputs = []
    if steps == 1 or len(cuts) * MOST_WINDOWS > steps:
        hidden_BU, cell_BU = state_BS.chunk(2, dim=1)
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [lstm.get_parameter(name) for name in names]
        for step in range(steps):
            begins_B1 = begins_BT[:, step, None]
            both = (hidden_BU.masked_fill(begins_B1, 0), cell_BU.masked_fill(begins_B1, 0))
            hidden_BU, cell_BU = torch.lstm_cell(input_BTI[:, step], both, *weights)
            outputs.append(hidden_BU)
        return torch.stack(outputs, dim=1), torch.cat([hidden_BU, cell_BU], dim=1)
    for first, last in pairwise(sorted({0, *cuts, steps})):
        state_BS = state_BS.masked_fill(begins_BT[:, first, None], 0.0)
        # PyTorch's states have a first dimension for the layers, of which there is one.
        hidden_1BU, cell_1BU = (part[None].contiguous() for part in state_BS.chunk(2, dim=1))
        output_BWU, (hidden_1BU, cell_1BU) = lstm(input_BTI[:, first:last], (hidden_1BU, cell_1BU))
        state_BS = torch.cat([hidden_1BU[0], cell_1BU[0]], dim=1)
        outputs.append(output_BWU)
    return torch.cat(outputs, dim=1), state_BS


def hidden_values(lstm: nn.LSTM, input_BTI: Tensor, state_BS: Tensor, begins_BT: Tensor) -> Tensor:
    """Return the hidden values of an LSTM at every step, float32 [B, T, U], as `unroll` does.

    Rows are cut where episodes begin, and all parts are computed side by side in one call. This
    takes less time than `unroll`, but does not give the last states.
    """
    check_shapes(input_BTI=input_BTI, state_BS=state_BS, begins_BT=begins_BT)
    if not begins_BT[:, 1:].any():
        return unroll(lstm, input_BTI, state_BS, begins_BT)[0]
    starts_BT = begins_BT.clone()
    starts_BT[:, 0] = True
    # The number of each step's part, and of the step within its part.
    part_BT = starts_BT.flatten().cumsum(0).view_as(starts_BT) - 1
    step_T = torch.arange(starts_BT.shape[1], device=input_BTI.device)
    within_BT = step_T - torch.where(starts_BT, step_T, 0).cummax(dim=1).values
    parts, longest = int(part_BT[-1, -1]) + 1, int(within_BT.max()) + 1
    input_PLI = input_BTI.new_zeros(parts, longest, input_BTI.shape[2])
    input_PLI[part_BT, within_BT] = input_BTI
    state_PS = state_BS.new_zeros(parts, state_BS.shape[1])
    state_PS[part_BT[:, 0]] = state_BS.masked_fill(begins_BT[:, :1], 0.0)
    hidden_1PU, cell_1PU = (part[None].contiguous() for part in state_PS.chunk(2, dim=1))
    output_PLU, _ = lstm(input_PLI, (hidden_1PU, cell_1PU))
    return output_PLU[part_BT, within_BT]


class Memory(nn.Module):
    """The recurrent layer of a Q-network. Its inputs are the encoder's features, the last action
    and the last reward.

    [Kapturowski 2019, https://openreview.net/forum?id=r1lyTjAqYX] The reward is that of the game,
    through tanh, so that acting needs no option of the training. Weights begin as in PyTorch, with
    1 added to the bias of the forget gate, so that the cell keeps its values at first. [Jozefowicz
    2015, https://proceedings.mlr.press/v37/jozefowicz15.html]

    Args:
        features: F.
        num_actions: A.
        units: U.
    """

    def __init__(self, features: int, num_actions: int, units: int):
        super().__init__()
        self.num_actions = num_actions
        self.lstm = nn.LSTM(features + num_actions + 1, units, batch_first=True)
        with torch.no_grad():
            self.lstm.get_parameter("bias_ih_l0")[units : 2 * units] += FORGET_BIAS

    @property
    def state_size(self) -> int:
        """Numbers in the state of a row, 2U."""
        return 2 * self.lstm.hidden_size

    def forward(
        self,
        features_BTF: Tensor,
        last_action_BT: Tensor,
        last_reward_BT: Tensor,
        state_BS: Tensor,
        begins_BT: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return (hidden values [B, T, U], state after the last step [B, 2U]), both float32.

        `last_action_BT`: −1 at an episode's first step. `last_reward_BT`: 0 there. `begins_BT`: the
        steps at which an episode begins.
        """
        input_BTI = self.inputs(features_BTF, last_action_BT, last_reward_BT)
        # In float32 also where other products are in bfloat16: rounding would add up over steps.
        with torch.autocast(input_BTI.device.type, enabled=False):
            return unroll(self.lstm, input_BTI, state_BS, begins_BT)

    def hidden(
        self,
        features_BTF: Tensor,
        last_action_BT: Tensor,
        last_reward_BT: Tensor,
        state_BS: Tensor,
        begins_BT: Tensor,
    ) -> Tensor:
        """Return the hidden values alone, in less time than `forward`."""
        input_BTI = self.inputs(features_BTF, last_action_BT, last_reward_BT)
        with torch.autocast(input_BTI.device.type, enabled=False):
            return hidden_values(self.lstm, input_BTI, state_BS, begins_BT)

    def inputs(
        self, features_BTF: Tensor, last_action_BT: Tensor, last_reward_BT: Tensor
    ) -> Tensor:
        """Return the inputs of the LSTM, float32 [B, T, I]; arguments as for `forward`."""
        action_BT = last_action_BT.long()
        one_hot_BTA = functional.one_hot(action_BT.clamp(min=0), self.num_actions)
        one_hot_BTA = one_hot_BTA * (action_BT >= 0)[..., None]
        reward_BT1 = last_reward_BT.float().tanh()[..., None]
        return torch.cat([features_BTF.float(), one_hot_BTA.float(), reward_BT1], dim=2)
