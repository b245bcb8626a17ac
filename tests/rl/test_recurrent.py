"""Tests windows of long sequences, the LSTM written out, and LSTMs over several episodes."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from genray.rl.recurrent import LSTMCell, Memory, hidden_values, rows_of, unroll, windows_of

INPUTS, UNITS = 5, 7


@pytest.fixture
def lstm() -> nn.LSTM:
    torch.manual_seed(3)
    return nn.LSTM(INPUTS, UNITS, batch_first=True)


def test_rows_of_and_windows_of_cut_a_sequence_as_the_source_does():
    rows = rows_of(list(range(1, 13)), 2)
    assert rows == [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
    assert list(windows_of(rows, 3)) == [[[1, 2, 3], [7, 8, 9]], [[4, 5, 6], [10, 11, 12]]]
    assert list(windows_of(rows, 4))[-1] == [[5, 6], [11, 12]]
    with pytest.raises(ValueError, match="no 4 rows"):
        rows_of([1, 2, 3], 4)


def test_lstm_cell_written_out_equals_torch(lstm):
    input_BTI, state = torch.randn(4, 9, INPUTS), torch.randn(2, 4, UNITS)
    expected_BTU, (hidden, cell) = lstm(input_BTI, (state[:1], state[1:]))
    written, (h, c) = LSTMCell(INPUTS, UNITS).copy_from(lstm), state
    for step in range(9):
        h, c = written(input_BTI[:, step], h, c)
        torch.testing.assert_close(h, expected_BTU[:, step], atol=1e-6, rtol=0)
    torch.testing.assert_close(h, hidden[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(c, cell[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("length", [1, 3, 5])
def test_windows_with_carried_state_equal_one_long_pass(lstm, length):
    rows_BTI = torch.stack(rows_of(torch.randn(24, INPUTS), 2))
    never, zeros = torch.zeros(2, 12, dtype=torch.bool), torch.zeros(2, 2 * UNITS)
    whole_BTU, last = unroll(lstm, rows_BTI, zeros, never)
    state, parts = zeros, []
    for window in windows_of(rows_BTI, length):
        part_BWI = torch.stack(window)
        output, state = unroll(lstm, part_BWI, state, never[:, : part_BWI.shape[1]])
        parts.append(output)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole_BTU, atol=1e-6, rtol=0)
    torch.testing.assert_close(state, last, atol=1e-6, rtol=0)


@pytest.mark.parametrize("most", [1, 100])
def test_unroll_begins_each_episode_with_a_state_of_zero(lstm, most, monkeypatch):
    monkeypatch.setattr("genray.rl.recurrent.MOST_WINDOWS", most)  # in windows; step by step
    input_BTI, state = torch.randn(3, 10, INPUTS), torch.randn(3, 2 * UNITS)
    begins_BT = torch.zeros(3, 10, dtype=torch.bool)
    begins_BT[0, 0] = begins_BT[0, 4] = begins_BT[1, 4] = begins_BT[1, 9] = True
    output_BTU, last = unroll(lstm, input_BTI, state, begins_BT)
    side_by_side_BTU = hidden_values(lstm, input_BTI, state, begins_BT)
    torch.testing.assert_close(side_by_side_BTU, output_BTU, atol=1e-6, rtol=0)
    for row, edges in enumerate([[0, 4, 10], [0, 4, 9, 10], [0, 10]]):
        for first, end in pairwise(edges):
            own = state[row] * (not begins_BT[row, first])
            pair = (own[None, None, :UNITS], own[None, None, UNITS:])
            expected, (h, c) = lstm(input_BTI[row : row + 1, first:end], pair)
            torch.testing.assert_close(output_BTU[row, first:end], expected[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(last[row], torch.cat([h[0, 0], c[0, 0]]), atol=1e-6, rtol=0)


def test_memory_adds_the_last_action_and_reward_to_the_features():
    memory = Memory(4, 3, UNITS)
    assert memory.lstm.input_size == 4 + 3 + 1 and memory.state_size == 2 * UNITS
    seen = []
    memory.lstm.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    features_BTF, none = torch.randn(1, 2, 4), torch.zeros(1, 2, dtype=torch.bool)
    action_BT, reward_BT = torch.tensor([[-1, 2]]), torch.tensor([[0.0, -300.0]])
    memory(features_BTF, action_BT, reward_BT, torch.zeros(1, 2 * UNITS), none)
    torch.testing.assert_close(seen[0][0, 0], torch.cat([features_BTF[0, 0], torch.zeros(4)]))
    added = torch.tensor([0.0, 0.0, 1.0, -1.0])  # action 2; tanh of the reward
    torch.testing.assert_close(seen[0][0, 1], torch.cat([features_BTF[0, 1], added]))
