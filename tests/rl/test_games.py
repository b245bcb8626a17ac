"""Tests the names of games: spellings and refusals."""

import re

import numpy as np
import pytest

from genray.errors import ConfigError
from genray.rl.env import AtariLanes, EnvConfig
from genray.rl.games import REFUSED, resolve_game, supported_games


@pytest.mark.parametrize(
    "name",
    [
        "road_runner",
        "RoadRunner",
        "ALE/RoadRunner-v5",
        "ale_py:ALE/RoadRunner-v5",
        "RoadRunnerNoFrameskip-v4",
        "road-runner",
        "road runner",
        "ROAD_RUNNER",
        "roadrunner",
        " RoadRunner ",
    ],
)
def test_spellings_of_one_game(name: str):
    assert resolve_game(name) == "road_runner"


def test_resolve_game_accepts_all_names_of_a_game():
    """All games resolve from snake case and from gymnasium's form, also with digits (hero,
    pitfall2, video_chess, …).
    """
    games = supported_games()
    assert len(games) > 50 and {"breakout", "pong", "ms_pacman", "montezuma_revenge"} <= set(games)
    for game in games:
        camel = "".join(word.capitalize() for word in game.split("_"))
        for name in (game, camel, f"ALE/{camel}-v5"):
            assert resolve_game(name) == game


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("breakot", "breakout"),
        ("Pongg", "pong"),
        ("ALE/RoadRuner-v5", "road_runner"),
        ("space_invader", "space_invaders"),
    ],
)
def test_resolve_game_suggests_the_nearest_names(name: str, near: str):
    with pytest.raises(
        ConfigError, match=f"--game {name}: no such Atari game; did you mean .*{near}"
    ):
        resolve_game(name)
    with pytest.raises(ConfigError, match=near):
        EnvConfig(game=name).validate()


def test_resolve_game_lists_games_for_an_unlike_name():
    with pytest.raises(
        ConfigError,
        match="--game qqqqqq: no such Atari game; did you mean breakout, pong, road_runner?",
    ):
        resolve_game("qqqqqq")


@pytest.mark.parametrize(
    "name", ["joust", "warlords", "Joust", "ALE/Warlords-v5", "MazeCraze", "combat"]
)
def test_resolve_game_refuses_two_player_games(name: str):
    with pytest.raises(
        ConfigError,
        match=f"--game {re.escape(name)}: a two-player game.*choose another, e.g. breakout",
    ):
        resolve_game(name)
    assert not set(REFUSED) & set(supported_games())


@pytest.mark.parametrize("game", ["adventure", "tetris", "video_checkers"])
def test_unusual_games_really_start(game: str):
    """Some of ALE's later games start. The refused games would end the process."""
    env = AtariLanes(EnvConfig(game=game, noop_max=0), 1, num_threads=1)
    assert env.reset(0).any()
    assert env.step(np.zeros(1, np.int64)).frame_EHW.shape == (1, 84, 84)
    env.close()
