"""Draws the pictures of a user's environment, for films of a policy.

Shapes: H height, W width.
"""

from typing import Any

import numpy as np

from genray.errors import ConfigError
from genray.rl.env import EnvConfig, make_env
from genray.rl.env_checks import brief
from genray.rl.env_protocol import FrameVectorEnv
from genray.rl.observation import observation_of

LARGEST_ENLARGED = 256
"""Longest side, in pixels, of pictures that a film enlarges."""


class NotDrawn(ConfigError):
    """An environment draws no pictures, so no film of it can be made."""


def make_drawn_env(config: EnvConfig) -> FrameVectorEnv:
    """Make one lane of a user's environment; an environment of Gymnasium gets the render mode
    "rgb_array".

    Raises NotDrawn if the environment cannot be made with this mode, and the errors of `make_env`.
    """
    try:
        return make_env(config, 1, num_threads=1, render_mode="rgb_array")
    except ConfigError as error:
        make_env(config, 1, num_threads=1).close()  # raises if the mode is not the cause
        why = brief(error.__cause__ or error)
        raise _not_drawn(config, f'it does not accept render_mode="rgb_array" ({why})') from error


def draw(env: FrameVectorEnv, config: EnvConfig, frame_HW: np.ndarray) -> np.ndarray:
    """Return the picture of the first lane, uint8 RGB [H, W, 3]: what the environment's `render`
    returns, or a grey frame of genray's own protocol.

    `frame_HW`: the newest frame. Raises NotDrawn if the environment has no pictures.
    """
    render: Any = getattr(env, "render", None)
    picture = None
    if render is not None:
        try:
            picture = render()
        except Exception as error:  # the environment's own code may raise anything
            raise _not_drawn(config, f"its render failed: {brief(error)}") from error
    if picture is None and observation_of(env) is None:
        return np.repeat(frame_HW[:, :, None], 3, axis=2)
    if picture is None:
        raise _not_drawn(config, "its render returned no picture")
    picture = np.asarray(picture)
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        form = f"{picture.dtype} {list(picture.shape)}"
        raise _not_drawn(config, f"its render returned {form}, not uint8 [height, width, 3]")
    return picture.copy()


def enlargement(picture: np.ndarray) -> int:
    """Return by which factor a film enlarges each pixel: 2 for small pictures, such as Atari's."""
    return 2 if max(picture.shape[:2]) <= LARGEST_ENLARGED else 1


def _not_drawn(config: EnvConfig, why: str) -> NotDrawn:
    return NotDrawn(
        f"{config.title}: cannot be filmed: {' '.join(why.split())}; `genray evaluate` plays "
        "without pictures"
    )
