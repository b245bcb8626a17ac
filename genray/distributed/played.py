"""Plays games for data sets: what a policy, or random play, sees and does, step by step.

Shapes: E lanes, C channels, H height, W width.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np

from genray.rl.collect import Lanes
from genray.rl.env import AtariLanes, EnvConfig, FrameVectorEnv, Step, make_env
from genray.rl.evaluate import Policy, greedy_policy
from genray.rl.policy import load_policy

MOST_LANES = 8
"""Largest number of lanes of a job."""
HOLD = 0.75
"""Probability that random play repeats a lane's last action. With a new action at every step, the
player would stay near one position, and the frames would show little of a game.
"""
HABIT = 64
"""Mean number of steps after which a lane of random play changes its favourite action."""


@dataclass(frozen=True)
class Job:
    """One unit of work: the training frames or the held-out frames of one game."""

    env: EnvConfig
    count: int
    held_out: bool
    size: int
    grey: bool
    seed: int
    model: Path | None = None
    epsilon: float = 0.05
    max_pool: bool = True
    most_lanes: int = MOST_LANES
    hold: float = HOLD
    habit: float = 0.0
    phases: bool = False
    """Whether a policy's random actions come in phases in which an action is held (see
    `with_phases`), instead of one by one."""

    @property
    def lanes(self) -> int:
        """Number of games played in lockstep. A small job has fewer, because each takes time to
        start.
        """
        return min(self.most_lanes, max(1, self.count // 50))

    def generators(self) -> tuple[np.random.Generator, np.random.Generator]:
        """Return the random number generators of the environment and of the actions."""
        entropy = [self.seed, zlib.crc32(self.env.title.encode()), int(self.held_out)]
        env_rng, act_rng = (np.random.default_rng([*entropy, stream]) for stream in (0, 1))
        return env_rng, act_rng


class Moment(NamedTuple):
    """What E lanes show, and what led to it."""

    shown: np.ndarray
    """uint8 pictures: RGB [E, H, W, 3], or grey [E, H, W]."""
    action_E: np.ndarray | None
    """int: the actions before these pictures; None for the first pictures."""
    step: Step | None
    """What followed the actions; None for the first pictures."""


def pictures_of(job: Job, seed: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield the first screens of E lanes and then those after every step, uint8 [E, C, H, W],
    without end.
    """
    for shown, _, _ in moments_of(job, seed, rng):
        yield np.moveaxis(shown, 3, 1) if shown.ndim == 4 else shown[:, None]


def moments_of(job: Job, seed: int, rng: np.random.Generator) -> Iterator[Moment]:
    """Yield the first moment of E lanes and then the one after every step, without end.

    The step after the end of an episode ignores its action and shows the next episode's first
    picture (see `genray.rl.env`).
    """
    colour = not job.grey
    if job.model:
        network, env_config = load_policy(job.model)
        past_actions, state_size = network.config.past_actions, network.state_size
        env: FrameVectorEnv = make_env(env_config, job.lanes, num_threads=1)
        if job.phases:
            greedy = greedy_policy(network, 0.0, rng)
            policy = with_phases(greedy, env.num_actions, job.lanes, rng, job.epsilon, job.hold)
        else:
            policy = greedy_policy(network, job.epsilon, rng)
        # A policy needs grey frames. If the data set is in colour, a second emulator plays the same
        # actions from the same seed. A user's environment shows only its own frames.
        screen = (
            AtariLanes(env_config, job.lanes, 1, color=True, max_pool=job.max_pool)
            if colour and not env_config.env
            else None
        )
    else:
        env_config, past_actions, state_size, screen = job.env, 0, 0, None
        env = (
            make_env(env_config, job.lanes, num_threads=1)
            if env_config.env
            else AtariLanes(env_config, job.lanes, 1, color=colour, max_pool=job.max_pool)
        )
        policy = random_policy(env.num_actions, job.lanes, rng, job.hold, job.habit)
    try:
        frame = env.reset(seed)
        lanes = cast(Lanes, None)
        if job.model:
            lanes = Lanes(frame, env_config, past_actions, state_size=state_size)
        begins_E, playing_E = np.zeros(job.lanes, bool), np.ones(job.lanes, bool)
        yield Moment(_in_colour(screen.reset(seed) if screen else frame, colour), None, None)
        while True:
            action_E = policy(lanes, playing_E)
            step = env.step(action_E)
            shown = screen.step(action_E).frame_EHW if screen else step.frame_EHW
            if job.model:
                lanes.push(step.frame_EHW, action_E, begins_E, step.reward_E)
            # Where an episode has ended, the next frame is the first one of a new episode.
            begins_E = step.terminated_E | step.truncated_E
            yield Moment(_in_colour(shown, colour), action_E, step)
    finally:
        env.close()
        if screen:
            screen.close()


def _in_colour(shown: np.ndarray, colour: bool) -> np.ndarray:
    """Return grey pictures [E, H, W] as RGB ones [E, H, W, 3] if `colour`; others stay."""
    return shown[..., None].repeat(3, axis=3) if colour and shown.ndim == 3 else shown


def random_policy(
    num_actions: int,
    num_lanes: int,
    rng: np.random.Generator,
    hold: float = HOLD,
    habit: float = 0.0,
) -> Policy:
    """Return a policy of random actions. Each lane draws a new action after 1 / (1 − `hold`) steps
    on average.

    Each lane has a favourite action, which changes after HABIT steps on average. A new action is
    the favourite one with probability `habit`, else any action. Random play with a habit gets much
    farther in games that need the same direction for a long time.
    """
    action_E = rng.integers(num_actions, size=num_lanes)
    favourite_E = action_E

    def act(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        nonlocal action_E, favourite_E
        fresh_E = rng.random(len(playing_E)) >= hold
        if habit:
            any_E, drawn_E = rng.integers(num_actions, size=(2, len(playing_E)))
            favourite_E = np.where(rng.random(len(playing_E)) < 1 / HABIT, any_E, favourite_E)
            drawn_E = np.where(rng.random(len(playing_E)) < habit, favourite_E, drawn_E)
            action_E = np.where(fresh_E, drawn_E, action_E)
            return action_E
        action_E = np.where(fresh_E, rng.integers(num_actions, size=len(playing_E)), action_E)
        return action_E

    return act


def with_phases(
    policy: Policy,
    num_actions: int,
    num_lanes: int,
    rng: np.random.Generator,
    epsilon: float,
    hold: float,
) -> Policy:
    """Return `policy` with phases of random play, in which a lane holds one random action.

    A phase ends with probability 1 − `hold` after each step. The share `epsilon` of all steps is in
    phases, so that a data set shows what actions do that the policy never takes for long.
    """
    exploring_E, action_E = np.zeros(num_lanes, bool), rng.integers(num_actions, size=num_lanes)
    begin = epsilon * (1 - hold) / max(1 - epsilon, 1e-9)

    def act(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        nonlocal exploring_E, action_E
        chance_E = rng.random(len(playing_E))
        begins_E = ~exploring_E & (chance_E < begin)
        exploring_E = np.where(exploring_E, chance_E < hold, begins_E)
        action_E = np.where(begins_E, rng.integers(num_actions, size=len(playing_E)), action_E)
        return np.where(exploring_E, action_E, policy(lanes, playing_E))

    return act
