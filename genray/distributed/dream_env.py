"""A world model as an environment: `genray train dqn --env dream:MODEL` learns inside a dream.

Shapes: E lanes, H height, W width, P colours of the palette.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from genray.errors import ConfigError, require
from genray.gen.builders import BUILDERS
from genray.gen.world.dream import MOST_STEPS, Dream, grey_of
from genray.gen.world.model import START, WorldModel
from genray.paths import absolute_path
from genray.rl.crop import Crop
from genray.rl.env import FRAME, EnvConfig, Step
from genray.runs import modelstore

PREFIX = "dream:"


def open_world(folder: Path) -> tuple[WorldModel, dict[str, Any]]:
    """Load a world model from a run or a model directory; returns (the model, its config).

    Raises CheckpointError for a model of another kind, and for a damaged one.
    """
    builders = {"world": BUILDERS["world"]}
    model, config = modelstore.load_model(modelstore.model_folder(folder), builders)
    return cast(WorldModel, model), config


def resolve_dream(env: EnvConfig) -> EnvConfig:
    """Return `env` with the environment that `dream:MODEL` stands for; other names stay.

    Raises ConfigError without a model, and CheckpointError for a model of another kind.
    """
    if not env.env.startswith(PREFIX):
        return env
    path = env.env.removeprefix(PREFIX)
    require(path != "", f"--env {env.env}: name a world model, e.g. dream:runs/world")
    folder = absolute_path(path)
    open_world(folder)
    options = {"model": str(folder), **env.env_options}
    return replace(env, env=f"{__name__}:{DreamedGame.__name__}", env_config=json.dumps(options))


class DreamedGame:
    """Plays E dreams in lockstep. Implements `FrameVectorEnv` and `SavesState`.

    Frames are grey. They have 84x84 pixels, as Atari's, or the size of the frames of the user's
    environment that the model dreams. A dream ends when the model says that the
    game ended, or after `max_steps` steps. Each dream begins with one of the starts that the model
    keeps. An agent sees nothing before the last of a start's screens.

    Args:
        num_lanes: E.
        model: directory of the run or of the model.
        max_steps: after which a dream is truncated.
        first_screens: real screens with which a dream begins. With 1, an agent plays from the first
            screen on, as in the real game, but the model does not know yet how sprites move.
    """

    def __init__(
        self, num_lanes: int, model: str, max_steps: int = 1000, first_screens: int = START
    ):
        for name, number, most in (
            ("max_steps", max_steps, MOST_STEPS), ("first_screens", first_screens, START)
        ):  # fmt: skip
            if type(number) is not int or not 1 <= number <= most:
                raise ConfigError(f"{name} is {number!r}; it must be an integer from 1 to {most}")
        self.num_lanes, self._max_steps, self._first = num_lanes, max_steps, first_screens
        world, config = open_world(Path(model))
        # A policy of the dream then also plays the user's environment itself.
        own = "env" in ((config.get("data") or {}).get("recipe") or {})
        self.frame_shape = (world.sizes.height, world.sizes.width) if own else FRAME
        self.num_actions = world.sizes.actions
        self._dream = Dream(world)
        self._palette_P3 = world.language.palette_P3
        self._grey_P = grey_of(self._palette_P3)
        self._resize = Crop(world.sizes.height, world.sizes.width, 0, 0, self.frame_shape)
        self._over_E = np.zeros(num_lanes, bool)

    def reset(self, seed: int) -> np.ndarray:
        dream = self._dream
        dream.begin([dream.model.start(0)] * self.num_lanes, seed)
        for lane in range(self.num_lanes):
            self._begin(lane)
        self._over_E = np.zeros(self.num_lanes, bool)
        return self._frames()

    def step(self, action_E: np.ndarray) -> Step:
        dream, begins_E = self._dream, self._over_E
        reward_E = np.zeros(self.num_lanes, np.float32)
        terminated_E, truncated_E, life_lost_E = (np.zeros(self.num_lanes, bool) for _ in range(3))
        for lane in np.flatnonzero(begins_E).tolist():
            self._begin(lane)
        playing = np.flatnonzero(~begins_E).tolist()
        if playing:
            actions = [int(action_E[lane]) for lane in playing]
            for lane, each in zip(playing, dream.step(actions, playing)):
                reward_E[lane] = each.reward
                terminated_E[lane] = each.done
                truncated_E[lane] = not each.done and dream.steps[lane] >= self._max_steps
                life_lost_E[lane] = each.life_lost and not each.done
        self._over_E = terminated_E | truncated_E
        return Step(self._frames(), reward_E, terminated_E, truncated_E, life_lost_E)

    def render(self) -> np.ndarray:
        """Return the screen of the first lane, RGB [H, W, 3]."""
        return self._palette_P3[self._dream.screen(0)]

    def close(self) -> None:
        pass

    def state(self) -> dict[str, Any]:
        return {"dream": self._dream.save(), "over": self._over_E.tolist()}

    def restore(self, state: dict[str, Any]) -> np.ndarray:
        self._dream.load(state["dream"])
        self._over_E = np.array(state["over"], bool)
        return self._frames()

    def _begin(self, lane: int) -> None:
        self._dream.begin_lane(lane, self._dream.random_start(lane).first(self._first))

    def _frames(self) -> np.ndarray:
        screens_EHW = np.stack([self._dream.screen(lane) for lane in range(self.num_lanes)])
        return self._resize(self._grey_P[screens_EHW])
