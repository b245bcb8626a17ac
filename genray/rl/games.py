"""Resolves names of the Atari games that ALE ships and its vector environment can play."""

import difflib
import re
from functools import cache

from genray.errors import ConfigError

# Two-player games. ALE (0.12) ships their ROMs, but its vector environment ends the process when it
# starts one of them.
REFUSED = ("combat", "joust", "maze_craze", "warlords")


@cache
def supported_games() -> tuple[str, ...]:
    """Return the names of all games that can be played, in snake case, sorted."""
    from ale_py import roms

    return tuple(sorted(name for name in roms.get_all_rom_ids() if name not in REFUSED))


def resolve_game(name: str) -> str:
    """Return the name of a game in snake case: `ALE/RoadRunner-v5`, `RoadRunner` and `road_runner`
    all give `road_runner`.

    Raises ConfigError for an unknown game, with the nearest names, and for a two-player game.
    """
    bare = re.sub(r"^(ale_py:)?ALE/|(NoFrameskip)?-v\d+$", "", name.strip())
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", bare).replace("-", "_").replace(" ", "_").lower()
    if snake in REFUSED:
        raise ConfigError(
            f"--game {name}: a two-player game, which ALE's vector environment cannot start; "
            "choose another, e.g. breakout"
        )
    games = supported_games()
    if snake in games:
        return snake
    squeezed = {game.replace("_", ""): game for game in games}
    if snake.replace("_", "") in squeezed:
        return squeezed[snake.replace("_", "")]
    near = difflib.get_close_matches(snake, games, n=3, cutoff=0.5) or [
        "breakout",
        "pong",
        "road_runner",
    ]
    raise ConfigError(f"--game {name}: no such Atari game; did you mean {', '.join(near)}?")
