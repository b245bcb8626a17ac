"""Tests the table of published scores: complete, in ALE's spelling, and used in the right order."""

import pytest

from genray.rl import scores
from genray.rl.games import supported_games


def test_scores_have_the_57_games_in_ales_spelling():
    assert len(scores._REFERENCE) == 57
    assert set(scores._REFERENCE) <= set(supported_games())
    assert list(scores._REFERENCE) == sorted(scores._REFERENCE)
    assert all(human > random for random, human in scores._REFERENCE.values())


# These numbers were typed a second time from the papers' tables, to find typing errors.
@pytest.mark.parametrize(
    ("game", "random", "human"),
    [
        ("RoadRunner", 11.5, 7845.0),
        ("ALE/CrazyClimber-v5", 10780.5, 35829.4),
        ("krull", 1598.0, 2665.5),
        ("upndown", 533.4, 11693.2),
        ("Breakout", 1.7, 30.5),
        ("PongNoFrameskip-v4", -20.7, 14.6),
        ("skiing", -17098.1, -4336.9),
        ("Montezuma Revenge", 0.0, 4753.3),
    ],
)
def test_reference_finds_a_game_in_any_spelling(game: str, random: float, human: float):
    assert scores.reference(game) == (random, human)
    assert scores.human_normalised(game, random) == 0.0
    assert scores.human_normalised(game, human) == 1.0


def test_halfway_is_one_half():
    assert scores.human_normalised("pong", (-20.7 + 14.6) / 2) == pytest.approx(0.5)


@pytest.mark.parametrize("game", ["adventure", "no_such_game", "genray.rl.catch:Catch"])
def test_human_normalised_without_a_reference_is_none(game: str):
    assert scores.reference(game) is None
    assert scores.human_normalised(game, 100.0) is None
