"""Tests the transformer of sprite models: its likelihood, its order masks, and its samples."""

import itertools

import pytest
import torch

from genray.gen.sprites.network import FIELDS, GROUP, Sizes, SpriteTransformer
from genray.gen.sprites.quick_sampling import QuickSampler
from genray.gen.sprites.sampling import Support, draw_tokens

TOKENS = [
    (group, y, x, shape, run)
    for group, shape in ((0, 0), (0, 1), (1, 2))
    for y in range(2)
    for x in range(1)
    for run in range(2)
]
"""All tokens of a toy language: two groups, three shapes, two rows, one column, two runs."""


@pytest.fixture(scope="module")
def toy() -> SpriteTransformer:
    torch.manual_seed(0)
    network = SpriteTransformer(
        Sizes(2, 2, 1, 3, 2), 4, width=16, layers=2, heads=2, dropout=0.0, longest=len(TOKENS)
    )
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    network.describe(torch.randint(0, 255, (3, 4)), torch.tensor([0, 0, 1]))
    return network.eval()


def padded(sequences: list[list[tuple[int, ...]]]) -> torch.Tensor:
    longest = max(1, *map(len, sequences))
    return torch.tensor([each + [(2, 0, 0, 0, 0)] * (longest - len(each)) for each in sequences])


def all_sequences() -> list[list[tuple[int, ...]]]:
    ordered = sorted(TOKENS)
    return [
        list(chosen)
        for count in range(len(ordered) + 1)
        for chosen in itertools.combinations(ordered, count)
    ]


@torch.no_grad()
def test_likelihoods_of_all_sequences_add_up_to_1(toy):
    network = toy.double()
    total = network.log_likelihood(padded(all_sequences())).exp().sum().item()
    toy.float()
    assert total == pytest.approx(1.0, abs=1e-9)


@torch.no_grad()
def test_likelihood_of_a_sequence_does_not_depend_on_the_padding(toy):
    sequences = all_sequences()[::97]
    together = toy.log_likelihood(padded(sequences))
    alone = torch.cat([toy.log_likelihood(padded([each])) for each in sequences])
    assert torch.allclose(together, alone, atol=1e-4)


@torch.no_grad()
def test_order_masks_forbid_exactly_what_breaks_the_order(toy):
    sequences = [list(pair) for pair in itertools.product(TOKENS, TOKENS)]
    finite = toy.log_likelihood(padded(sequences)).isfinite().tolist()
    assert finite == [first < second for first, second in sequences]


@torch.no_grad()
def test_draw_tokens_draws_sequences_with_their_likelihood(toy):
    count = 6000
    chance = torch.rand(count, len(TOKENS), FIELDS, generator=torch.Generator().manual_seed(0))
    drawn = draw_tokens(toy, chance, top_p=(1.0,) * 5)
    assert torch.equal(drawn, draw_tokens(toy, chance, top_p=(1.0,) * 5))
    # A row's sequence does not depend on the other rows.
    assert torch.equal(drawn[:50], draw_tokens(toy, chance[:50], top_p=(1.0,) * 5))
    # Expected and drawn numbers of the 30 likeliest sequences.
    sequences = all_sequences()
    share = toy.log_likelihood(padded(sequences)).exp()
    found: dict[tuple, int] = {}
    for row in drawn.tolist():
        key = tuple(tuple(token) for token in row if token[GROUP] != toy.end)
        found[key] = found.get(key, 0) + 1
    for number in share.argsort(descending=True)[:30].tolist():
        expected = count * share[number].item()
        away = abs(found.get(tuple(sequences[number]), 0) - expected)
        assert away <= 4.5 * expected**0.5 + 1, (sequences[number], expected)


@torch.no_grad()
@pytest.mark.parametrize("top_p", [1.0, 0.7])
def test_sequences_drawn_one_by_one_are_those_of_the_batch(toy, top_p):
    chance = torch.rand(300, len(TOKENS), FIELDS, generator=torch.Generator().manual_seed(2))
    # Shape 1 was never seen in row 1, and no shape of group 1 in row 0.
    support = Support(torch.tensor([[1, 1], [1, 0], [0, 1]]).bool(), torch.ones(3, 1).bool())
    arguments = (3.0, (top_p,) * 5, support, torch.tensor([0.1, -0.2, 0.3]))
    batch = draw_tokens(toy, chance, *arguments).tolist()
    sampler = QuickSampler(toy, *arguments)
    alone = [sampler.draw(chance_T5) for chance_T5 in chance.numpy()]
    assert alone == [[token for token in row if token[GROUP] != toy.end] for row in batch]
    assert len(set(map(len, alone))) > 3


@torch.no_grad()
def test_top_p_keeps_the_likeliest_shapes_only(toy):
    chance = torch.rand(300, len(TOKENS), FIELDS, generator=torch.Generator().manual_seed(1))
    greedy = draw_tokens(toy, chance, top_p=(1e-6,) * 5)
    assert (greedy == greedy[:1]).all()
