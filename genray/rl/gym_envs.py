"""Makes environments of packages that need a wrapper, for `--env genray.rl.gym_envs:NAME`."""

import gymnasium

from genray.errors import ConfigError


def minigrid(name: str = "MiniGrid-Empty-5x5-v0", render_mode: str | None = None) -> gymnasium.Env:
    """Make an environment of the package minigrid without its text: the agent's view of 7x7 cells
    (type, colour, state) and its direction.

    Raises ConfigError without the package.
    """
    try:
        import minigrid as registers  # noqa: F401 - registers its environments
    except ImportError as error:
        raise ConfigError("preset minigrid: needs a package: pip install minigrid") from error
    env = gymnasium.make(name, disable_env_checker=True, render_mode=render_mode)
    return gymnasium.wrappers.FilterObservation(env, ["image", "direction"])


def minatar(game: str = "breakout", render_mode: str | None = None) -> gymnasium.Env:
    """Make a game of the package MinAtar with its minimal set of actions.

    Raises ConfigError without the package.
    """
    try:
        from minatar.gym import BaseEnv
    except ImportError as error:
        raise ConfigError("preset minatar: needs a package: pip install MinAtar") from error
    return BaseEnv(game=game, use_minimal_action_set=True, render_mode=render_mode)
