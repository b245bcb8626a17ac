"""Lets an agent play inside a world model: it sees the painted screens as it sees its game's.

Shapes: H height and W width of the screen, P colours of the palette.
"""

from collections.abc import Iterable
from typing import NamedTuple, cast

import numpy as np
import torch

from genray.config import from_dict
from genray.errors import ConfigError
from genray.gen.world.about import recipe_of
from genray.gen.world.dream import grey_of
from genray.gen.world.model import WorldModel
from genray.rl.crop import Crop
from genray.rl.env import FRAME, EnvConfig
from genray.rl.lanes import Lanes
from genray.rl.networks import QNetwork
from serve.errors import BadRequest
from serve.models import Predictor

RECENT = 16
"""Largest number of screens that an agent sees at once (the largest stack of frames)."""


class Seen(NamedTuple):
    """A screen of a game, and how it came about."""

    screen_HW: np.ndarray
    """uint8 palette indices."""
    action: int = 0
    reward: float = 0.0
    """The action before the screen, and what it gave."""


def game_of(predictor: Predictor) -> EnvConfig:
    """Return the game's configuration. Raises BadRequest if the model is not a policy of an Atari
    game.
    """
    try:
        env = from_dict(EnvConfig, predictor.config["env"], "env.")
    except (ConfigError, KeyError, TypeError) as error:
        raise BadRequest(
            f"model {predictor.name!r}: config.json names no game; choose a policy of an Atari game"
        ) from error
    if env.env:
        raise BadRequest(
            f"model {predictor.name!r} plays its own environment, which the service does not "
            "import; choose a policy of an Atari game"
        )
    return env


def check_pilot(predictor: Predictor, world: Predictor) -> EnvConfig:
    """Return the configuration of an agent's game.

    Raises BadRequest unless the agent plays the game of the world model, with the same actions.
    """
    model, game = cast(WorldModel, world.model), game_in(world)
    env = game_of(predictor)
    network, about = cast(QNetwork, predictor.model), f"model {predictor.name!r} plays {env.title}"
    if env.title != game:
        raise BadRequest(f"{about}, and {world.name!r} dreams {game}; choose an agent of {game}")
    protocol = recipe_of(world.config).get("protocol") or {}
    skip = protocol.get("frame_skip", env.frame_skip)
    if env.frame_skip != skip:
        raise BadRequest(
            f"{about} with frame skip {env.frame_skip}, and {world.name!r} has {skip}; choose an "
            f"agent with {skip}"
        )
    if network.num_actions != model.sizes.actions:
        raise BadRequest(
            f"{about} with {network.num_actions} actions, and {world.name!r} has "
            f"{model.sizes.actions}; choose an agent with as many"
        )
    if model.sizes.height - env.crop_top - env.crop_bottom < FRAME[0]:
        raise BadRequest(f"{about} on larger screens than {world.name!r} shows")
    return env


def pilots(world: Predictor, models: Iterable[Predictor]) -> list[str]:
    """Return the names of the agents that can play inside a world model."""
    found = []
    for predictor in models:
        if isinstance(predictor.model, QNetwork):
            try:
                check_pilot(predictor, world)
            except BadRequest:
                continue
            found.append(predictor.name)
    return found


def game_in(world: Predictor) -> str:
    """Return the name of the game that a world model dreams; "" if it is not known."""
    return str(recipe_of(world.config).get("game", ""))


class Pilot:
    """A policy that plays one game inside a world model, always the action of the largest value.

    Args:
        predictor: the policy; see `check_pilot`.
        world: the world model.
        seen: the last screens, up to RECENT, the newest one last.
    """

    def __init__(self, predictor: Predictor, world: Predictor, seen: Iterable[Seen]):
        self.name = predictor.name
        model, env = cast(WorldModel, world.model), check_pilot(predictor, world)
        self._network = cast(QNetwork, predictor.model)
        self._grey_P = grey_of(model.language.palette_P3)
        crop = (env.crop_top, env.crop_bottom)
        self._resize = Crop(model.sizes.height, model.sizes.width, *crop, FRAME)
        first, *others = seen
        self._lanes = Lanes(
            self._frame(first.screen_HW), env, self._network.config.past_actions, None,
            self._network.state_size,
        )  # fmt: skip
        for each in others:
            self.act()  # moves a network's memory on
            self.push(each)

    def act(self) -> int:
        """Return the action of the largest value."""
        values_A = self._lanes.q_values(self._network, torch.device("cpu"))[0]
        return 0 if self._lanes.waits_E[0] else int(values_A.argmax())

    def push(self, seen: Seen) -> None:
        """Show the agent the next screen."""
        self._lanes.push(
            self._frame(seen.screen_HW), np.array([seen.action]), np.zeros(1, bool),
            seen.reward,
        )  # fmt: skip

    def _frame(self, screen_HW: np.ndarray) -> np.ndarray:
        return self._resize(self._grey_P[screen_HW][None])
