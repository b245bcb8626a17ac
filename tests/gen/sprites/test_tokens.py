"""Tests the tokenizer of sprite models: exact screens, against obvious oracles and a real game."""

import numpy as np
import pytest
from scipy.sparse import csgraph
from scipy.spatial import distance

from genray.distributed.screens import ScreensConfig, collect_screens, validation_last
from genray.errors import ConfigError
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.screens import read_screens
from genray.gen.sprites.backgrounds import find_backgrounds, mode_background
from genray.gen.sprites.components import TRANSPARENT, find_components
from genray.gen.sprites.groups import group_colours
from genray.gen.sprites.palette import PaletteBuilder, to_rgb
from genray.gen.sprites.runs import SINGLE, Placed, Run, find_runs
from genray.gen.sprites.tokens import Language, learn_language
from genray.gen.sprites.vocabulary import Shape, Vocabulary
from tests.helpers.sprites import PALETTE, toy_screens


@pytest.fixture(scope="module")
def language() -> Language:
    return learn_language(toy_screens(), PALETTE, rare=8, most_shapes=100, name="toy")


def test_find_components_finds_the_components_of_the_graph_of_near_pixels():
    rng = np.random.default_rng(0)
    for gap in (1, 2):
        screen = (rng.random((40, 37)) < 0.06).astype(np.uint8)
        nothing = np.zeros_like(screen)
        found = find_components(screen, nothing, np.zeros(2, np.int64), gap, 100)
        place_K2 = np.argwhere(screen)
        near_KK = distance.cdist(place_K2, place_K2, "chebyshev") <= gap
        count, label_K = csgraph.connected_components(near_KK)
        boxes = []
        for number in range(count):
            low, high = place_K2[label_K == number].min(0), place_K2[label_K == number].max(0)
            boxes.append((*low, *(high - low + 1)))
        assert sorted((each.y, each.x, each.height, each.width) for each in found) == sorted(boxes)


@pytest.mark.parametrize("cell", [5, 100])
def test_find_components_covers_every_foreground_pixel_once(cell):
    rng = np.random.default_rng(1)
    screen, background = rng.integers(0, 4, (2, 30, 40)).astype(np.uint8)
    count, painted = np.zeros((30, 40), int), background.copy()
    for part in find_components(screen, background, np.array([0, 1, 1, 2]), 2, cell):
        pixels = np.frombuffer(part.pixels, np.uint8).reshape(part.height, part.width)
        place = np.s_[part.y : part.y + part.height, part.x : part.x + part.width]
        count[place] += pixels != TRANSPARENT
        painted[place] = np.where(pixels != TRANSPARENT, pixels, painted[place])
        assert max(part.height, part.width) <= cell
    assert np.array_equal(count, screen != background) and np.array_equal(painted, screen)


def test_group_colours_joins_the_colours_of_a_figure_and_leaves_the_ball_alone():
    screens = toy_screens()
    background = mode_background(screens, 6)
    group = group_colours(screens, [background] * len(screens), 6, 2)
    assert group[2] == group[3] and len({group[2], group[4], group[5]}) == 3


def test_find_runs_joins_equal_distances_and_keeps_every_place():
    places = [(0, 5, x) for x in (3, 11, 19, 27)] + [(0, 5, 40), (1, 2, 7), (1, 9, 7), (1, 16, 7)]
    assert find_runs(places) == [
        Placed(0, 5, 3, Run(4, 0, 8)), Placed(0, 5, 40, SINGLE), Placed(1, 2, 7, Run(3, 7, 0)),
    ]  # fmt: skip
    # An unknown run is cut to a known one.
    known = {SINGLE, Run(3, 0, 8)}
    assert find_runs(places[:4], known) == [
        Placed(0, 5, 3, Run(3, 0, 8)), Placed(0, 5, 27, SINGLE)
    ]  # fmt: skip
    rng = np.random.default_rng(2)
    places = [(int(shape), int(y), int(x)) for shape, y, x in rng.integers(0, 8, (300, 3))]
    again = [
        (each.shape, each.y + at * each.run.dy, each.x + at * each.run.dx)
        for each in find_runs(places)
        for at in range(each.run.length)
    ]
    assert sorted(again) == sorted(places)


def test_vocabulary_splits_touching_shapes_and_replaces_an_unknown_one():
    bar, dot = Shape(0, 1, 3, b"\x01\x01\x01"), Shape(0, 1, 1, b"\x02")
    vocabulary = Vocabulary([bar, dot])
    both = Shape(0, 2, 3, b"\x01\x01\x01\xff\x02\xff")
    pieces, wrong = vocabulary.pieces(both)
    assert [tuple(piece) for piece in pieces] == [(0, 0, 0), (1, 1, 1)] and wrong == 0
    assert vocabulary.split(both, 2) == pieces and vocabulary.split(both, 1) is None
    # Two of three pixels of the bar: the bar differs in one pixel, nothing differs in two.
    pieces, wrong = vocabulary.pieces(Shape(0, 1, 2, b"\x01\x01"))
    assert [piece.shape for piece in pieces] == [0] and wrong == 1
    # No shape has this colour: nothing is painted.
    assert vocabulary.pieces(Shape(3, 1, 1, b"\x09")) == ((), 1)


def test_language_decodes_what_it_encodes(language):
    held_out = toy_screens(50, seed=1)
    tokens = [language.encode(screen) for screen in held_out]
    assert np.array_equal(np.stack([language.decode(each) for each in tokens]), held_out)
    assert all(each == sorted(each) for each in tokens)
    # The dashes are background; the figure and the ball are a token each.
    assert max(map(len, tokens)) == 2


def test_find_backgrounds_finds_those_of_both_levels_and_leaves_out_rare_screens():
    screens = toy_screens(300, levels=2)
    screens[:2] = 5  # less than 1% of the screens
    # In every pixel, most screens of a level show the same colour.
    expected = [np.where(np.arange(40) < 30, 0, 1), np.where(np.arange(40) < 30, 1, 0)]
    found = find_backgrounds(screens, 6, 8)
    assert found.shape == (2, 40, 48) and find_backgrounds(screens, 6, 1).shape == (1, 40, 48)
    for background, rows in zip(found, expected):
        assert np.array_equal(background[:, 0], rows)


def test_language_of_two_levels_names_the_background_in_the_first_token():
    screens, held_out = toy_screens(300, levels=2), toy_screens(60, seed=1, levels=2)
    options = {"rare": 8, "most_shapes": 400, "name": "toy"}
    language = learn_language(screens, PALETTE, most_backgrounds=8, **options)
    tokens = [language.encode(screen) for screen in held_out]
    assert np.array_equal(np.stack([language.decode(each) for each in tokens]), held_out)
    level = [1 if at % 3 == 0 else 0 for at in range(60)]
    assert [screen[0] for screen in tokens] == [(0, 0, 0, number, 0) for number in level]
    assert max(map(len, tokens)) == 3 and all(each == sorted(each) for each in tokens)
    # With one background, the other level's sky and stripe are sprites with holes.
    assert len(language.vocabulary) == 4
    assert len(learn_language(screens, PALETTE, **options).vocabulary) > 50
    # The figure and the ball move; the background does not.
    assert (language.moving(held_out).sum((1, 2)) <= 12).all()


def test_unseen_shape_is_shown_by_few_pieces():
    """The vocabulary has only dots, of which hundreds would cover the shape."""
    vocabulary = Vocabulary([Shape(0, 1, 1, b"\x01"), Shape(0, 2, 2, b"\x01" * 4)])
    pieces, wrong = vocabulary.pieces(Shape(0, 20, 20, b"\x01" * 400))
    assert len(pieces) == 12 and {piece.shape for piece in pieces} == {1} and wrong == 400 - 48


def test_validation_screens_are_early_and_late_ones_of_all_lanes():
    order = validation_last(40, 5)
    assert sorted(order) == list(range(200))
    step, lane = np.divmod(order[-20:], 5)
    for number, start in enumerate((36, 27, 18, 9, 0)):
        assert sorted(step[lane == number]) == list(range(start, start + 4))
    assert (np.diff(order[:-20]) > 0).all()


def test_painting_order_puts_the_group_on_top_that_keeps_its_usual_shapes():
    """A large square always covers a small bar; by size alone, the bar would be on top."""
    rng = np.random.default_rng(0)
    screens = np.zeros((300, 30, 40), np.uint8)
    for screen in screens:
        (top, left), (y, x) = rng.integers(0, (20, 30), (2, 2))
        screen[y : y + 3, x : x + 9] = 2
        screen[top : top + 10, left : left + 10] = 1
    language = learn_language(screens, PALETTE, rare=8, most_shapes=400, name="toy")
    assert language.group_P[1] < language.group_P[2]
    assert language.layers.index(language.group_P[1]) > language.layers.index(language.group_P[2])


def test_language_refuses_equal_screens_and_too_many_shapes():
    with pytest.raises(ConfigError, match="all screens are equal"):
        learn_language(toy_screens(1).repeat(9, 0), PALETTE, rare=2, most_shapes=9, name="toy")
    noise = np.random.default_rng(0).integers(0, 6, (40, 30, 30)).astype(np.uint8)
    with pytest.raises(ConfigError, match=r"--data noise: .* more than --most-shapes 9; raise"):
        learn_language(noise, PALETTE, rare=2, most_shapes=9, name="noise")


def test_palette_keeps_every_colour():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 6, (3, 8, 9, 3)).astype(np.uint8) * 40
    builder = PaletteBuilder("--data x")
    indices = np.concatenate([builder.indices(images[:1]), builder.indices(images[1:])])
    assert np.array_equal(to_rgb(indices, builder.palette_P3), images)
    with pytest.raises(ConfigError, match="--data x: has more than 255 colours"):
        builder.indices(rng.integers(0, 256, (1, 40, 40, 3)).astype(np.uint8))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Screens of Breakout: the file and its content."""
    out = tmp_path_factory.mktemp("screens") / "screens-breakout.safetensors"
    return collect_screens(ScreensConfig(game="breakout", frames=200, out=out))


def test_a_games_screens_are_recorded_without_loss_and_decoded_exactly(recorded):
    file, screens = recorded
    again = read_screens(file)
    assert np.array_equal(again.indices_NHW, screens.indices_NHW)
    assert again.indices_NHW.shape == (200, 210, 160) and again.held_out_N.sum() == 40
    train, test = again.indices_NHW[~again.held_out_N], again.indices_NHW[again.held_out_N]
    language = learn_language(train, again.palette_P3, rare=4, most_shapes=500, name="breakout")
    decoded = np.stack([language.decode(language.encode(screen)) for screen in test])
    exact = (decoded == test).all((1, 2))
    moving = language.moving(test)
    assert exact.mean() >= 0.85 and (decoded != test).sum() <= 0.005 * moving.sum()


def test_load_data_reads_screens_as_images(recorded):
    file, screens = recorded
    data = load_data(DataConfig(data="screens:breakout", data_folder=str(file.parent)))
    assert data.shape == (3, 210, 160) and len(data.train) == 144 and len(data.test) == 40
    first = screens.palette_P3[screens.indices_NHW[0]]
    assert np.array_equal(data.train.values[0].permute(1, 2, 0).numpy(), first)
    with pytest.raises(ConfigError, match="record it with: genray data screens --game pong"):
        load_data(DataConfig(data="screens:pong", data_folder=str(file.parent)))
    file.with_name("screens-pong.safetensors").write_bytes(b"x")
    with pytest.raises(ConfigError, match="is damaged"):
        load_data(DataConfig(data="screens:pong", data_folder=str(file.parent)))
