"""`check_shapes` and `check_equal_shapes`: which shapes they accept and refuse."""

import numpy as np
import pytest
import torch

from genray.shapes import check_equal_shapes, check_shapes


def test_check_shapes_takes_arrays_and_tensors_that_fit():
    check_shapes(q_BA=torch.zeros(4, 3), action_B=np.zeros(4), frame_BHW=np.zeros((4, 8, 9)))
    check_shapes(q_BA=torch.zeros(0, 3), action_B=torch.zeros(0))


@pytest.mark.parametrize(
    ("q", "action", "name"),
    [((4, 3), (4, 1), "action_B"), ((4, 3), (3,), "action_B"), ((4,), (4,), "q_BA")],
)
def test_check_shapes_names_the_array_and_all_shapes(q: tuple, action: tuple, name: str):
    with pytest.raises(ValueError, match=name) as caught:
        check_shapes(q_BA=torch.zeros(q), action_B=torch.zeros(action))
    assert f"q_BA {list(q)}, action_B {list(action)}" in str(caught.value)


def test_check_equal_shapes_takes_any_number_of_axes():
    check_equal_shapes(rebuilt=torch.zeros(4, 1, 2), target=np.zeros((4, 1, 2)))
    check_equal_shapes(rebuilt=torch.zeros(()), target=torch.zeros(()))


@pytest.mark.parametrize("target", [(4, 1), (1,), (), (3,)])
def test_check_equal_shapes_refuses_shapes_that_would_broadcast(target: tuple):
    with pytest.raises(ValueError, match="rebuilt and target need equal shapes") as caught:
        check_equal_shapes(rebuilt=torch.zeros(4), target=torch.zeros(target))
    assert f"rebuilt [4], target {list(target)}" in str(caught.value)
