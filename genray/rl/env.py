"""Makes environments: Atari, Gymnasium's, and users' own.

An environment plays several games, its lanes, in lockstep. A lane returns uint8 frames, and begins
its next episode by itself.

Shapes: E lanes, H height, W width.

`--env` names a registered environment of Gymnasium (`CartPole-v1`), or `module:attribute`. The
attribute is a `gymnasium.Env` class, a function that returns an instance of one, Gymnasium's
`VectorEnv`, or a class of the project's own protocol, which takes the least time for each step:

* `factory(num_lanes=E)` returns an object with the attributes and methods of `FrameVectorEnv`.
* A lane restarts *one step late* (gymnasium calls this "next-step" autoreset). The step that ends
  an episode returns the episode's final frame. The following step ignores the lane's action and
  returns the next episode's first frame with reward 0. So every frame occurs exactly once, and
  a truncated episode's final frame is available for the bootstrap.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np

from genray.bounds import bounded, check_bounds
from genray.errors import ConfigError, require
from genray.rl.env_checks import CheckedEnv as CheckedEnv
from genray.rl.env_checks import CheckedSavingEnv, brief, broken
from genray.rl.env_checks import check_env as check_env
from genray.rl.env_names import OWN_MODULES as OWN_MODULES
from genray.rl.env_names import load_factory as load_factory
from genray.rl.env_protocol import FrameVectorEnv as FrameVectorEnv
from genray.rl.env_protocol import SavesState as SavesState
from genray.rl.env_protocol import Step as Step
from genray.rl.flicker import Flicker
from genray.rl.games import resolve_game

SCREEN, FRAME = (210, 160), (84, 84)
"""Height and width of Atari's screen, and of the frames that an agent gets."""


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """The game and the rules by which it is played."""

    game: str = "pong"
    """An Atari game: `breakout`, `Breakout` or `ALE/Breakout-v5`."""
    env: str = ""
    """A registered environment of Gymnasium (`CartPole-v1`), or `module:attribute` of a
    `gymnasium.Env` class, a function that makes one, or a class of genray's own protocol (see
    genray/rl/env.py); --game is then ignored.
    """
    env_config: str = ""
    """Arguments of --env as a JSON object, e.g. '{"is_slippery": false}'."""
    sticky_actions: float = bounded(0.0, min=0, below=1, example=0.25)
    """Probability, in each frame, that the emulator repeats the previous action: 0 in DQN and
    Ape-X, 0.25 in Machado 2018.
    """
    life_loss: Literal["ignore", "terminal"] = "ignore"
    """terminal: a lost life ends the return (discount 0) but not the game, as in DQN's training;
    ignore: a lost life has no effect.
    """
    max_episode_frames: int = bounded(108_000, above=0, example=108000)
    """Emulator frames after which an episode is truncated (108,000: 30 minutes at 60 Hz)."""
    noop_max: int = bounded(30, min=0, example=30)
    """Each episode begins with a random number of no-op actions, at most this many."""
    frame_skip: int = bounded(4, min=1, example=4)
    """Emulator frames per agent step. The observed frame is the maximum of the last two."""
    full_action_space: bool = False
    """Use all 18 joystick actions instead of the game's own minimal set."""
    crop_top: int = bounded(0, min=0, max=126, example=34)
    """Rows of Atari's screen, of 210, that are cut from the top before resizing to 84x84, such as
    the line with the score.
    """
    crop_bottom: int = bounded(0, min=0, max=126, example=16)
    """Rows of Atari's screen that are cut from the bottom before resizing."""
    blank_frames: float = bounded(0.0, min=0, below=1, example=0.5)
    """Probability that the agent gets a blank frame instead of Atari's (flickering Atari,
    Hausknecht 2015): a test of memory.
    """
    stack: int = bounded(4, min=1, max=16, example=4)
    """Frames in one observation."""
    stack_start: Literal["blank", "repeat", "wait"] = "blank"
    """What the first stack−1 observations of an episode contain before its first frame: blank:
    blank frames (as in ALE's own vector environment); repeat: copies of the first frame; wait: the
    agent does no-ops, which are excluded from learning, until the stack is full.
    """

    def validate(self) -> None:
        """Raise ConfigError for an unknown game or an invalid option."""
        check_bounds(self)
        options, cropped = self.env_options, self.crop_top + self.crop_bottom
        for name in ("crop_top", "crop_bottom", "blank_frames"):
            require(
                not (self.env and getattr(self, name)),
                f"--{name.replace('_', '-')} {getattr(self, name)}: only for Atari games, and not "
                "with --env; leave it out",
            )
        require(
            cropped <= SCREEN[0] - FRAME[0],
            f"--crop-top {self.crop_top} --crop-bottom {self.crop_bottom}: leave fewer than "
            f"{FRAME[0]} of {SCREEN[0]} rows; cut at most {SCREEN[0] - FRAME[0]}",
        )
        if self.env:
            load_factory(self.env)
        elif options:
            raise ConfigError(
                f"--env-config {self.env_config}: needs --env; the options of an Atari game are "
                "--sticky-actions, --frame-skip and others"
            )
        else:
            resolve_game(self.game)

    @property
    def title(self) -> str:
        """The game in ALE's spelling, or the name of a user's environment."""
        return self.env or resolve_game(self.game)

    @property
    def env_options(self) -> dict[str, Any]:
        """The arguments of `env`. Raises ConfigError if `env_config` is not a JSON object."""
        try:
            options = json.loads(self.env_config or "{}")
        except ValueError as error:
            raise ConfigError(
                f"--env-config {self.env_config}: not JSON ({error}); write e.g. "
                "'{\"is_slippery\": false}'"
            ) from error
        if not isinstance(options, dict):
            raise ConfigError(
                f"--env-config {self.env_config}: not a JSON object; write e.g. "
                "'{\"is_slippery\": false}'"
            )
        return options


class AtariLanes:
    """Plays Atari in ALE's C++ vector environment with DQN's preprocessing: grey frames of 84x84
    pixels, frame skip, and the maximum of the last two frames. With `crop_top` or `crop_bottom`,
    rows of the screen are cut before it is resized.

    Frames are returned without stacking. Collectors stack them, and the replay stores each frame
    once.

    Args:
        config: the game and the rules by which it is played.
        num_lanes: E.
        num_threads: threads of the emulators; 0 lets ALE choose.
        color: for display; True returns the game's own picture instead, RGB [E, 210, 160, 3].
        max_pool: whether a picture is the maximum of the last two frames, or the last frame alone.
    """

    def __init__(
        self,
        config: EnvConfig,
        num_lanes: int,
        num_threads: int = 0,
        *,
        color: bool = False,
        max_pool: bool = True,
    ):
        from ale_py.vector_env import AtariVectorEnv

        # ALE resizes, unless rows are cut before.
        cropped = (config.crop_top > 0 or config.crop_bottom > 0) and not color
        height, width = SCREEN if color or cropped else FRAME
        self._crop: Callable[[np.ndarray], np.ndarray] = np.copy
        if cropped:
            from genray.rl.crop import Crop  # imports Numba, which takes a second

            self._crop = Crop(*SCREEN, config.crop_top, config.crop_bottom, FRAME)
        self._env = AtariVectorEnv(
            resolve_game(config.game),
            num_lanes,
            num_threads=num_threads,
            max_num_frames_per_episode=config.max_episode_frames,
            repeat_action_probability=config.sticky_actions,
            full_action_space=config.full_action_space,
            frameskip=config.frame_skip,
            maxpool=max_pool,
            noop_max=config.noop_max,
            stack_num=1,
            reward_clipping=False,  # clipped rewards would not add up to the game's score
            # True would end the episode at each lost life; `step` finds lost lives from `lives`.
            episodic_life=False,
            img_height=height,
            img_width=width,
            grayscale=not color,
        )
        self.num_lanes = num_lanes
        self.num_actions = int(cast(Any, self._env.single_action_space).n)
        self.frame_shape = FRAME
        self._lives_E = np.zeros(num_lanes, np.int64)

    def reset(self, seed: int) -> np.ndarray:
        obs: Any
        obs, info = self._env.reset(seed=seed)
        self._lives_E = info["lives"].copy()
        return self._crop(obs[:, 0])

    def step(self, action_E: np.ndarray) -> Step:
        obs, reward_E, terminated_E, truncated_E, info = self._env.step(
            np.asarray(action_E, np.int64)
        )
        # `lives` increases when a new episode begins, so a decrease is always a lost life.
        life_lost_E = (info["lives"] < self._lives_E) & ~terminated_E
        self._lives_E = info["lives"].copy()
        # ALE's arrays are views; without copies, they would keep ALE's observation buffer alive.
        return Step(
            self._crop(obs[:, 0]),
            reward_E.astype(np.float32),
            terminated_E.copy(),
            truncated_E.copy(),
            life_lost_E,
        )

    def close(self) -> None:
        self._env.close()


def make_env(
    config: EnvConfig, num_lanes: int, num_threads: int = 0, *, render_mode: str | None = None
) -> FrameVectorEnv:
    """Make the environment that `config` names, with `num_lanes` lanes.

    `num_threads`: threads of ALE's emulators; 0 lets ALE choose. `render_mode`: passed on to an
    environment of Gymnasium. Raises ConfigError for an unknown game, and when a user's environment
    cannot be made, is not supported, or lacks an attribute.
    """
    if not config.env:
        lanes = AtariLanes(config, num_lanes, num_threads)
        return Flicker(lanes, config.blank_frames) if config.blank_frames else lanes
    from genray.rl.env_gym import Kind, gym_lanes, kind_of  # needs Gymnasium, as Atari does not

    factory, options = load_factory(config.env), config.env_options
    kind = kind_of(factory, options)
    env: Any = None
    if kind is Kind.OWN:
        env = _own_lanes(config.env, factory, options, num_lanes)
    if env is not None:
        for name in ("num_lanes", "num_actions", "frame_shape", "reset", "step", "close"):
            if not hasattr(env, name):
                raise ConfigError(
                    f"--env {config.env}: the environment lacks `{name}` (see "
                    "genray.rl.env.FrameVectorEnv)"
                )
    else:
        one = Kind.ONE if kind is Kind.OWN else kind
        env = gym_lanes(config.env, factory, one, options, num_lanes, render_mode)
    checked = CheckedSavingEnv if isinstance(env, SavesState) else CheckedEnv
    return cast(FrameVectorEnv, checked(env, config.env))


def _own_lanes(name: str, factory: Any, options: dict[str, Any], num_lanes: int) -> Any:
    """Return the lanes that `factory` makes; None if it is a function with any keyword arguments
    that passes them on to a class without lanes.
    """
    from genray.rl.env_gym import takes_any_keyword

    try:
        return factory(num_lanes=num_lanes, **options)
    except Exception as error:
        if "'num_lanes'" in str(error) and takes_any_keyword(factory):
            return None
        raise broken(
            name, f"making it with num_lanes={num_lanes} failed: {brief(error)}"
        ) from error
