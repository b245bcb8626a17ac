"""Tests that K learners with parts of a batch equal one learner with the whole batch."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from genray.distributed.data_parallel import rendezvous_address
from tests.distributed import group_member
from tests.distributed.group_member import CONFIG, UPDATES, learn


def flat(state: Any) -> list[torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return [state.double()]
    if isinstance(state, dict):
        return [tensor for key in sorted(state, key=str) for tensor in flat(state[key])]
    return [tensor for each in state for tensor in flat(each)] if isinstance(state, list) else []


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.timeout(180)
def test_two_learners_update_as_one_with_the_whole_batch(tmp_path: Path, weighted: bool):
    place = rendezvous_address("127.0.0.1")
    members = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                group_member.__name__,
                str(rank),
                "2",
                place,
                tmp_path,
                str(int(weighted)),
            ],
            cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]
    whole = learn(replace(CONFIG, importance_weighting=weighted))
    assert [member.wait(timeout=150) for member in members] == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))

    ours, theirs = flat(whole["weights"]), flat(first["weights"])
    start = flat(group_member.network(0).state_dict())
    assert (
        max(float((a - b).abs().max()) for a, b in zip(start, flat(whole["weights"]["online"])))
        > 1e-4
    )
    assert len(ours) == len(theirs) > 30  # w, w⁻, average, both moments
    for mine, other in zip(ours, theirs):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-7)
    # The two learners are equal bit for bit; otherwise they would drift.
    assert all(torch.equal(a, b) for a, b in zip(theirs, flat(second["weights"])))
    for update in range(UPDATES):
        deltas = np.concatenate([first["delta"][update], second["delta"][update]])
        np.testing.assert_allclose(deltas, whole["delta"][update], rtol=1e-4, atol=1e-5)
        # the gradient was clipped, like that of the whole batch
        assert whole["norm"][update] > CONFIG.max_grad_norm
        assert first["norm"][update] == pytest.approx(whole["norm"][update], rel=1e-4)
        assert np.mean([first["loss"][update], second["loss"][update]]) == pytest.approx(
            whole["loss"][update], rel=1e-4
        )
