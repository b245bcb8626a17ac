"""`check_shapes`: what fits the letters of a name, and what does not."""

import numpy as np
import pytest
import torch

from genray.shapes import check_shapes


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
