"""Tests the network of world models: its probabilities, and that drawing agrees with training."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.gen.world.episodes import (
    rows_of,
)
from genray.gen.world.model import WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import CHANCES, Drawer, Sampling
from genray.gen.world.state import DONE, TO_MOVE, TRACK, MoveTable
from genray.gen.world.task import corrupted, part_weights
from tests.helpers.world import MOST_BIRTHS, untrained


@pytest.fixture(scope="module", params=[False, True], ids=["events last", "events first"])
def toy(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """An untrained model, and the toy game's steps."""
    return untrained(tmp_path_factory.mktemp("toy"), events_first=request.param)


def test_probabilities_of_moves_births_and_ends_sum_to_1(toy):
    network = toy[0].network
    tables, state = network.tables(), torch.randn(2, 16)
    assert torch.allclose(network.move_logits(state).softmax(1).sum(1), torch.ones(2))
    # All births and "no more": p(group) p(y) p(x) p(look), over all values.
    group_p = network.group_logits(state).softmax(1)
    total = group_p[:, network.no_more].clone()
    for group in range(network.sizes.groups):
        chosen = torch.full((2,), group)
        if not (network.group_of == group).any():
            total += group_p[:, group]
            continue
        context = state + network.group_in(chosen)
        y_p = network.y_logits(context).softmax(1)
        for y in range(network.sizes.height):
            at_y = context + tables.y[y]
            x_p = network.x_logits(at_y).softmax(1)
            at_x = (at_y[:, None] + tables.x).flatten(0, 1)
            look_p = network.born_logits(at_x, chosen.repeat_interleave(len(tables.x)), tables)
            look_p = look_p.softmax(1).sum(1).view(2, -1)
            total += group_p[:, group] * y_p[:, y] * (x_p * look_p).sum(1)
    assert torch.allclose(total, torch.ones(2), atol=1e-4)
    for logits in network.event_logits(state, torch.tensor([0, 1]), torch.tensor([1, 0])):
        assert torch.allclose(logits.softmax(1).sum(1), torch.ones(2))


def chances(model: WorldModel, lanes: int) -> np.ndarray:
    shape = (lanes, model.sizes.decisions, CHANCES)
    return np.random.default_rng(0).random(shape, np.float32)


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("quick", [False, True])
def test_a_drawn_step_has_the_likelihood_of_training(toy, quick: bool, greedy: bool):
    """Drawing decides one thing after another; training computes all decisions at once."""
    model, steps = toy
    chosen = steps[:150]
    sampling = Sampling(top_p=1.0, floor=0.0, greedy=greedy)
    drawer = (QuickDrawer if quick else Drawer)(model, sampling)
    drawer._repeat = 0.0  # otherwise drawn events are corrected for repeated steps
    chance = chances(model, len(chosen))
    drawn = drawer.draw(
        [step.state for step in chosen], chance if quick else torch.from_numpy(chance)
    )
    assert greedy or any(each.outcome.births for each in drawn)
    made = [type(step)(step.state, each.outcome, each.events) for step, each in zip(chosen, drawn)]
    # A sprite that would reach over the border is moved inside: its row has another place.
    shapes = model.language.vocabulary.shapes
    exact = []
    for step in made:
        shown = [each for each in step.outcome.sprites if each] + step.outcome.births
        sizes = [shapes[model.looks.pairs[look][0]] for look, _, _ in shown]
        most_y, most_x = model.sizes.height, model.sizes.width
        inside = all(
            0 < y < most_y - size.height and 0 < x < most_x - size.width
            for (_, y, x), size in zip(shown, sizes)
        )
        # After the largest number of births, drawing has no other choice than "no more".
        exact.append(inside and len(step.outcome.births) < MOST_BIRTHS)
    assert sum(exact) >= 4
    rows = rows_of(made, model.sizes.layout, model.move_table, model.sizes.actions)
    nats = -model.network.log_likelihoods(rows).sum(1)
    expected = torch.tensor([each.nats for each in drawn])
    assert torch.allclose(nats[exact].double(), expected[exact].double(), atol=1e-3)


@pytest.mark.parametrize(("alike", "floor", "least"), [(99, 0.0, 20), (1, 0.0, 5), (99, 0.03, 0)])
def test_quick_drawing_takes_the_decisions_of_slow_drawing(
    toy, alike: int, floor: float, least: int
):
    """Slow drawing computes all lanes together, quick drawing each one alone.

    `alike`: a screen has at most so many sprites of a class, so that new ones are forbidden;
    `least`: number of new sprites that must occur.
    """
    model, steps = toy
    states, chance = [step.state for step in steps[:200]], chances(model, 200)
    sampling = Sampling(floor=floor)
    before = model.most_alike.clone()
    model.most_alike.fill_(alike)
    slow = Drawer(model, sampling).draw(states, torch.from_numpy(chance))
    quick = QuickDrawer(model, sampling).draw(states, chance)
    model.most_alike.copy_(before)
    same = [one[:2] == other[:2] for one, other in zip(slow, quick)]
    assert sum(same) >= 198  # rounding may decide differently
    births = sum(len(each.outcome.births) for each in quick)
    assert births >= least
    kept = [each is not None for drawn in quick for each in drawn.outcome.sprites]
    assert 0.1 < np.mean(kept) < 0.95  # some sprites end
    nats = np.array([(one.nats, other.nats) for one, other in zip(slow, quick)])
    assert np.allclose(*nats[same].T, atol=1e-3)


def test_events_that_are_first_do_not_depend_on_the_outcome_and_later_decisions_know_them(toy):
    model, steps = toy
    first = model.config.events_first
    rows = rows_of(steps[:40], model.sizes.layout, model.move_table, model.sizes.actions)
    layout, before = model.sizes.layout, model.network.log_likelihoods(rows)
    # Another outcome: every track is gone.
    gone = rows.clone()
    tracks = gone[:, layout.first_track : layout.first_birth].unflatten(1, (-1, TRACK))
    tracks[..., TO_MOVE] = model.network.gone
    changed = model.network.log_likelihoods(gone)
    assert torch.equal(changed[:, 3], before[:, 3]) == first
    # Other events.
    other = rows.clone()
    other[:, layout.events + DONE] ^= 1
    changed = model.network.log_likelihoods(other)
    assert torch.equal(changed[:, :3], before[:, :3]) != first
    assert not torch.equal(changed[:, 3], before[:, 3])


def test_the_likelihood_of_a_row_does_not_depend_on_the_batch(toy):
    model, steps = toy
    rows = rows_of(steps[:40], model.sizes.layout, model.move_table, model.sizes.actions)
    together = model.network.log_likelihoods(rows)
    alone = torch.cat([model.network.log_likelihoods(row[None]) for row in rows[:6]])
    assert torch.allclose(together[:6], alone, atol=1e-4)
    assert torch.isfinite(together).all()


def test_corrupted_rows_keep_targets_and_counts(toy):
    model, steps = toy
    layout = model.sizes.layout
    rows = rows_of(steps, layout, model.move_table, model.sizes.actions)
    torch.manual_seed(0)
    read = corrupted(rows, model.sizes, 0.5)
    assert read is not None and not torch.equal(read, rows)
    assert torch.equal(read[:, : layout.first_track], rows[:, : layout.first_track])
    assert torch.equal(read[:, layout.first_birth :], rows[:, layout.first_birth :])
    changed = (read != rows).any(1).float().mean()
    assert float(changed) > 0.3 and corrupted(rows, model.sizes, 0.0) is None


def test_rows_with_events_are_repeated_and_unknown_moves_are_the_nearest(toy):
    model, steps = toy
    events = sum(any(step.events) for step in steps)
    rows = rows_of(steps, model.sizes.layout, model.move_table, 3, repeat=4)
    assert events > 0 and len(rows) == len(steps) + 3 * events
    # Repeated rows teach events four times, and everything else once, unless it is learned given
    # the events.
    once = rows_of(steps, model.sizes.layout, model.move_table, 3)
    single = model.network.log_likelihoods(once)
    config = replace(model.config, repeat_events=4, event_weight=2.5)
    weighted = model.network.log_likelihoods(rows) * part_weights(rows, model.sizes, config)
    times = torch.tensor([4.0 if any(step.events) else 1.0 for step in steps])
    others = single[:, :3] * times[:, None] if config.events_first else single[:, :3]
    assert torch.allclose(weighted[:, :3].sum(0), others.sum(0), rtol=1e-4)
    assert torch.allclose(weighted[:, 3].sum(), (2.5 * single[:, 3] * times).sum(), rtol=1e-4)
    table = MoveTable([(0, 0), (0, 4), (4, 0)])
    assert [table.number(move) for move in ((0, 4), (0, 3), (9, 1), (0, 1))] == [1, 1, 2, 0]
