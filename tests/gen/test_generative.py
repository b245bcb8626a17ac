"""Tests walks through latents: ends, directions, and lengths under the prior."""

import pytest
import torch

from genray.gen.generative import between


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([1.0], [-1.5]),
        ([1.0, 0.02], [-1.8, 0.02]),
        ([1.0, 0.0], [2.0, 0.0]),
        ([1.0, 0.0], [-2.0, 1e-3]),
    ],
)
def test_between_keeps_the_length_between_those_of_its_ends(a, b):
    walk = between(torch.tensor(a), torch.tensor(b), 16, "normal")
    torch.testing.assert_close(walk[0], torch.tensor(a))
    assert torch.isfinite(walk).all() and walk.norm(dim=1).max() <= torch.tensor(b).norm() + 1e-5


@pytest.mark.parametrize("latent", [2, 3, 10])
def test_between_changes_direction_and_length_at_constant_rates(latent):
    random = torch.Generator().manual_seed(latent)
    for _ in range(100):
        a, b = torch.randn(2, latent, generator=random)
        walk = torch.cat([between(a, b, 8, "normal"), b[None]])
        torch.testing.assert_close(
            walk.norm(dim=1), torch.linspace(float(a.norm()), float(b.norm()), 9)
        )
        turns = torch.nn.functional.cosine_similarity(walk[1:], walk[:-1]).clamp(-1, 1).arccos()
        torch.testing.assert_close(turns, turns.mean().expand(8), atol=2e-3, rtol=0)


def test_between_is_a_line_for_a_uniform_prior():
    walk = between(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 2, "uniform")
    assert walk.tolist() == [[1.0, 0.0], [0.5, 0.5]]
