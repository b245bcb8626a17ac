"""Names of Atari games: what ALE ships, what its vector environment can play, and what to say
about a typing error.
"""

import difflib
import re
from functools import cache

from genray.errors import ConfigError

# Two-player games: their ROMs ship with ALE (0.12), but its vector environment cannot start them
# and ends the process.
REFUSED = ("combat", "joust", "maze_craze", "warlords")


@cache
def supported_games() -> tuple[str, ...]:
    """Every game that can be played, in snake case, sorted."""
    from ale_py import roms

    return tuple(sorted(name for name in roms.get_all_rom_ids() if name not in REFUSED))


def resolve_game(name: str) -> str:
    """ALE's own name of a game: `ALE/RoadRunner-v5`, `RoadRunner` and `road_runner` all give
    `road_runner`.

    Raises ConfigError with the nearest names for an unknown game, and with the reason for a
    refused one.
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
