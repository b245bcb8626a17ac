"""Playing to measure: whole episodes, the game's own score, and baselines that a policy must beat.

Shapes: E lanes, A actions, H height, W width.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from genray.errors import RunFault, require
from genray.rl.collect import Lanes
from genray.rl.env import AtariLanes, EnvConfig, make_env
from genray.rl.evaluation import Evaluation as Evaluation
from genray.rl.evaluation import EvaluationStopped, max_episode_steps, num_batches_of
from genray.rl.evaluation import student_t95 as student_t95
from genray.rl.exploration import epsilon_greedy
from genray.rl.networks import QNetwork

Policy = Callable[[Lanes, np.ndarray], np.ndarray]
"""(lanes, playing_E) -> action_E; where `playing_E` is False the action is of no account."""


def evaluate(
    network: QNetwork,
    config: EnvConfig,
    *,
    episodes: int = 30,
    epsilon: float = 0.001,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Play `episodes` whole episodes ε-greedily; `progress(done, episodes)` is called after
    every step of the lanes.

    `network` is moved to `device`. The same seed gives the same episodes. KeyboardInterrupt that
    `progress` raises becomes EvaluationStopped, which holds the scores so far.
    """
    require(0 <= epsilon <= 1, f"--epsilon {epsilon}: must lie in [0, 1], e.g. 0.001")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    policy = greedy_policy(network, epsilon, rng, device)
    return play_out(
        policy, config, episodes=episodes, epsilon=epsilon, seed=seed, progress=progress,
        past_actions=network.config.past_actions,
    )  # fmt: skip


def random_play(config: EnvConfig, episodes: int = 30, seed: int = 0) -> Evaluation:
    """Uniformly random actions under the same protocol: the floor of the scale, measured rather
    than published.
    """
    num_actions = len(action_names(config))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    return play_out(
        lambda lanes, playing_E: rng.integers(num_actions, size=len(playing_E)),
        config, episodes=episodes, epsilon=1.0, seed=seed,
    )  # fmt: skip


def random_score(config: EnvConfig, episodes: int = 30, seed: int = 0) -> float:
    """The mean of `random_play`."""
    return random_play(config, episodes, seed).mean


def constant_action_scores(
    config: EnvConfig, episodes: int = 10, seed: int = 0
) -> dict[str, float]:
    """The mean score of holding each action, by the action's name, all from the same starts.

    The best of them is what a policy must clearly beat to have learned anything: in some games
    holding one direction scores far above random play.
    """
    return {
        name: play_out(
            lambda lanes, playing_E, held=action: np.full(len(playing_E), held),  # type: ignore[misc]
            config,
            episodes=episodes,
            epsilon=0.0,
            seed=seed,
        ).mean
        for action, name in enumerate(action_names(config))
    }


def best_constant_action(config: EnvConfig, episodes: int = 10, seed: int = 0) -> tuple[str, float]:
    """(name, mean score) of the constant action that scores best."""
    return max(constant_action_scores(config, episodes, seed).items(), key=lambda item: item[1])


def action_names(config: EnvConfig) -> list[str]:
    """The joystick's words (NOOP, FIRE, UPLEFT …) in the order of the actions; numbers for an
    own environment.
    """
    if config.env:
        env = make_env(config, 1)
        try:
            return [str(action) for action in range(env.num_actions)]
        finally:
            env.close()
    from ale_py.vector_env import AtariVectorEnv

    game = AtariVectorEnv(
        config.title, 1, num_threads=1, full_action_space=config.full_action_space
    )
    try:
        return [action.name for action in game.ale.get_action_set()]
    finally:
        game.close()


def greedy_policy(
    network: QNetwork,
    epsilon: float,
    rng: np.random.Generator,
    device: str = "cpu",
    watch: Callable[[np.ndarray], None] | None = None,
) -> Policy:
    """ε-greedy in `network`, which is moved to `device`; only the lanes that still play cost a
    forward pass.

    `watch` is shown q_EA float32 before each choice.
    """
    network.to(device).eval()

    def act(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        q_EA = np.zeros((len(playing_E), network.num_actions), np.float32)
        q_EA[playing_E] = lanes.q_values(network, torch.device(device), playing_E)
        if watch:
            watch(q_EA)
        # Over all lanes, so that how much randomness a lane sees does not hang on when the others
        # ended.
        return np.where(
            lanes.waits_E, 0, epsilon_greedy(q_EA, np.full(len(playing_E), epsilon), rng)
        )

    return act


def play_out(
    policy: Policy,
    config: EnvConfig,
    *,
    episodes: int,
    epsilon: float,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
    past_actions: int = 0,
) -> Evaluation:
    """One episode in each of `episodes` lanes, at most `evaluation.MOST_LANES` of them at a time.

    One a lane, because "the first N episodes that end" in fewer lanes would favour short
    episodes, which are bad ones. `epsilon` is only recorded: acting is the policy's business.
    """
    require(episodes >= 1, f"--episodes {episodes}: must be ≥ 1, e.g. 30")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    num_batches = num_batches_of(episodes)
    scores: list[float] = []
    steps: list[int] = []
    num_cut, stopped = 0, False
    for batch in range(num_batches):
        num_lanes = (episodes + batch) // num_batches  # 65 episodes play as 32 + 33
        done = len(scores)

        def report(ended: int, before: int = done) -> None:
            if progress:
                progress(before + ended, episodes)

        env_seed = int(rng.integers(2**31 - num_lanes))
        played = _play_batch(policy, config, num_lanes, env_seed, past_actions, report)
        scores += played.score_E.tolist()
        steps += played.steps_E.tolist()
        num_cut += int(played.cut_E.sum())
        if stopped := played.stopped:
            break
    result = Evaluation(
        game=config.title,
        scores=scores,
        steps=steps,
        epsilon=epsilon,
        sticky_actions=None if config.env else config.sticky_actions,
        noop_max=None if config.env else config.noop_max,
        max_episode_frames=config.max_episode_frames,
        num_cut=num_cut,
        stopped=stopped,
    )
    if stopped:
        raise EvaluationStopped(result)
    return result


class _Played(NamedTuple):
    """The first episode of each lane."""

    score_E: np.ndarray  # float64
    steps_E: np.ndarray  # int64
    cut_E: np.ndarray  # bool: truncated, or still running at the stop
    stopped: bool


def _play_batch(
    policy: Policy,
    config: EnvConfig,
    num_lanes: int,
    seed: int,
    past_actions: int,
    report: Callable[[int], None],
) -> _Played:
    """Play until every lane has ended an episode, or until `report` raises KeyboardInterrupt."""
    env = make_env(config, num_lanes)
    # ALE cuts its own episodes; an own environment that never ends would be played for ever.
    limit = max_episode_steps(config) if config.env else math.inf
    try:
        lanes = Lanes(env.reset(seed), config, past_actions)
        playing_E, score_E = np.ones(num_lanes, bool), np.zeros(num_lanes)
        steps_E, cut_E = np.zeros(num_lanes, np.int64), np.zeros(num_lanes, bool)
        while playing_E.any():
            action_E = policy(lanes, playing_E)
            step = env.step(action_E)
            # A lane that has ended goes on into episodes that nobody asked for: their rewards do
            # not count.
            score_E += step.reward_E * playing_E
            steps_E += playing_E
            ended_E = playing_E & (step.terminated_E | step.truncated_E | (steps_E >= limit))
            cut_E |= ended_E & ~step.terminated_E
            playing_E = playing_E & ~ended_E
            lanes.push(step.frame_EHW, action_E, begins_E=np.zeros(num_lanes, bool))
            try:
                report(num_lanes - int(playing_E.sum()))
            except KeyboardInterrupt:
                return _Played(score_E, steps_E, cut_E | playing_E, stopped=True)
        return _Played(score_E, steps_E, cut_E, stopped=False)
    finally:
        env.close()


@dataclass(frozen=True)
class PlayedStep:
    """What one looks at while a policy plays."""

    frame: np.ndarray
    """uint8 RGB: [210, 160, 3] in the game's own colours, which come from a second emulator that
    takes the same actions from the same seed; grey for an own environment.
    """
    action: int | None
    """What led to this frame; None for the first."""
    q_A: np.ndarray | None
    """float32: the policy's values of the actions in the state before; None for the first frame."""
    score: float
    """Of the episode so far."""


def play_steps(
    network: QNetwork,
    config: EnvConfig,
    *,
    epsilon: float = 0.001,
    seed: int = 0,
    max_steps: int = 1800,
    device: str = "cpu",
) -> Iterator[PlayedStep]:
    """One episode as it is played: a frame before the first step and one after each, cut after
    `max_steps` agent steps.

    Raises RunFault when the two emulators part.
    """
    require(max_steps >= 1, f"--max-steps {max_steps}: must be ≥ 1, e.g. 1800")
    require(0 <= epsilon <= 1, f"--epsilon {epsilon}: must lie in [0, 1], e.g. 0.001")
    env_rng, act_rng = (
        np.random.default_rng(np.random.SeedSequence([seed, stream])) for stream in (0, 1)
    )
    values: list[np.ndarray] = []
    policy = greedy_policy(network, epsilon, act_rng, device, values.append)
    env_seed = int(env_rng.integers(2**31 - 1))
    env = make_env(config, 1, num_threads=1)
    screen = None if config.env else AtariLanes(config, 1, num_threads=1, color=True)
    try:
        frame_EHW = env.reset(env_seed)
        lanes = Lanes(frame_EHW, config, network.config.past_actions)
        yield PlayedStep(
            screen.reset(env_seed)[0].copy() if screen else _rgb(frame_EHW[0]), None, None, 0.0
        )
        score, on = 0.0, np.ones(1, bool)
        for number in range(1, max_steps + 1):
            action_E = policy(lanes, on)
            step = env.step(action_E)
            score += float(step.reward_E[0])
            over = bool(step.terminated_E[0] | step.truncated_E[0])
            frame = step.frame_EHW[0]
            if screen:
                seen = screen.step(action_E)
                if (
                    seen.reward_E[0] != step.reward_E[0]
                    or bool(seen.terminated_E[0] | seen.truncated_E[0]) != over
                ):
                    raise RunFault(
                        f"{config.title}: the emulator that draws the picture left the one that "
                        "plays "
                        f"at step {number} (seed {seed}); play again with another --seed"
                    )
                frame = seen.frame_EHW[0]
            yield PlayedStep(
                frame.copy() if screen else _rgb(frame), int(action_E[0]), values.pop()[0], score
            )
            if over:
                break
            lanes.push(step.frame_EHW, action_E, begins_E=~on)
    finally:
        env.close()
        if screen:
            screen.close()


def play(
    network: QNetwork,
    config: EnvConfig,
    *,
    epsilon: float = 0.001,
    seed: int = 0,
    max_steps: int = 1800,
    device: str = "cpu",
) -> tuple[list[np.ndarray], float]:
    """One episode to look at: (its frames as `play_steps` gives them, its score); 1,800 steps
    are two minutes.
    """
    steps = list(
        play_steps(network, config, epsilon=epsilon, seed=seed, max_steps=max_steps, device=device)
    )
    return [step.frame for step in steps], steps[-1].score


def _rgb(frame_HW: np.ndarray) -> np.ndarray:
    return np.repeat(frame_HW[:, :, None], 3, axis=2)
