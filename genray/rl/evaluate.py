"""Plays whole episodes to measure the game's own score, for a policy and for simple baselines.

Shapes: E lanes, A actions, H height, W width.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from genray.errors import RunFault, require
from genray.rl.collect import Lanes
from genray.rl.env import AtariLanes, EnvConfig, make_env
from genray.rl.evaluation import Evaluation as Evaluation
from genray.rl.evaluation import EvaluationStopped, max_episode_steps, num_batches_of
from genray.rl.evaluation import student_t95 as student_t95
from genray.rl.exploration import epsilon_greedy, random_legal
from genray.rl.film import draw, make_drawn_env
from genray.rl.networks import QNetwork
from genray.rl.observation import observation_of

Policy = Callable[[Lanes, np.ndarray], np.ndarray]
"""(lanes, playing_E) -> action_E; where `playing_E` is False, the action does not affect the
result.
"""


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
    """Play `episodes` whole episodes ε-greedily and return their scores.

    `network` is moved to `device`. The same seed gives the same episodes on the same device.
    `progress(done, episodes)` is called after every step of the lanes. If `progress` raises
    KeyboardInterrupt, `evaluate` raises EvaluationStopped, which contains the scores so far. Raises
    ConfigError for an invalid `epsilon` or `episodes`.
    """
    require(0 <= epsilon <= 1, f"--epsilon {epsilon}: must lie in [0, 1], e.g. 0.001")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))
    policy = greedy_policy(network, epsilon, rng, device)
    return play_out(
        policy, config, episodes=episodes, epsilon=epsilon, seed=seed, progress=progress,
        past_actions=network.config.past_actions, state_size=network.state_size,
    )  # fmt: skip


def random_play(config: EnvConfig, episodes: int = 30, seed: int = 0) -> Evaluation:
    """Play uniformly random actions under the protocol of `evaluate`, as the lower baseline for the
    scores of a policy.
    """
    num_actions = len(action_names(config))
    rng = np.random.default_rng(np.random.SeedSequence([seed, 1]))

    def act(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        legal_EA = lanes.legal_EA
        if legal_EA is not None:
            return random_legal(legal_EA, rng)
        return rng.integers(num_actions, size=len(playing_E))

    return play_out(
        act,
        config, episodes=episodes, epsilon=1.0, seed=seed,
    )  # fmt: skip


def random_score(config: EnvConfig, episodes: int = 30, seed: int = 0) -> float:
    """Return the mean score of `random_play`."""
    return random_play(config, episodes, seed).mean


def constant_action_scores(
    config: EnvConfig, episodes: int = 10, seed: int = 0
) -> dict[str, float]:
    """Return {action's name: mean score of repeating this action}; all actions play from the same
    starts. Where the action is illegal, the first legal one is played.

    In some games, holding one direction scores far above random play. A policy has learned
    something only if it clearly exceeds the best score of a constant action.
    """
    return {
        name: play_out(
            partial(_hold, action),
            config,
            episodes=episodes,
            epsilon=0.0,
            seed=seed,
        ).mean
        for action, name in enumerate(action_names(config))
    }


def _hold(action: int, lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
    legal_EA = lanes.legal_EA
    if legal_EA is None:
        return np.full(len(playing_E), action)
    return np.where(legal_EA[:, action], action, legal_EA.argmax(axis=1))


def best_constant_action(config: EnvConfig, episodes: int = 10, seed: int = 0) -> tuple[str, float]:
    """Return (name, mean score) of the constant action that scores best."""
    return max(constant_action_scores(config, episodes, seed).items(), key=lambda item: item[1])


def action_names(config: EnvConfig) -> list[str]:
    """Return the names of the actions, in the order of their numbers: NOOP, FIRE, UPLEFT … for
    Atari, the numbers themselves for a user's environment.
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
    """Return an ε-greedy policy of `network`, which is moved to `device`.

    Q-values are computed only for lanes that still play; the others get 0. `watch` is called with
    the Q-values, float32 [E, A], before each choice of actions.
    """
    network.to(device).eval()

    def act(lanes: Lanes, playing_E: np.ndarray) -> np.ndarray:
        q_EA = np.zeros((len(playing_E), network.num_actions), np.float32)
        q_EA[playing_E] = lanes.q_values(network, torch.device(device), playing_E)
        if watch:
            watch(q_EA)
        # Draw random numbers for all lanes, so that the random actions of one lane do not depend on
        # when the other lanes' episodes end.
        epsilon_E = np.full(len(playing_E), epsilon)
        return np.where(lanes.waits_E, 0, epsilon_greedy(q_EA, epsilon_E, rng, lanes.legal_EA))

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
    state_size: int = 0,
) -> Evaluation:
    """Play one episode in each of `episodes` lanes, at most `evaluation.MOST_LANES` at a time.

    Each lane counts one episode, because the first `episodes` episodes to end would include too
    many short ones, which often have low scores. `epsilon` is only recorded in the result. Raises
    EvaluationStopped when `progress` raises KeyboardInterrupt, and ConfigError when `episodes` is
    below 1.
    """
    require(episodes >= 1, f"--episodes {episodes}: must be ≥ 1, e.g. 30")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 0]))
    num_batches = num_batches_of(episodes)
    scores: list[float] = []
    steps: list[int] = []
    num_cut, stopped = 0, False
    for batch in range(num_batches):
        num_lanes = (episodes + batch) // num_batches  # 65 episodes are played as 32 + 33
        done = len(scores)

        def report(ended: int, before: int = done) -> None:
            if progress:
                progress(before + ended, episodes)

        env_seed = int(rng.integers(2**31 - num_lanes))
        inputs = (past_actions, state_size)
        played = _play_batch(policy, config, num_lanes, env_seed, inputs, report)
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
    """The result of the first episode of each lane."""

    score_E: np.ndarray  # float64
    steps_E: np.ndarray  # int64
    cut_E: np.ndarray  # bool: the episode was truncated, or was still running when stopped
    stopped: bool


def _play_batch(
    policy: Policy,
    config: EnvConfig,
    num_lanes: int,
    seed: int,
    inputs: tuple[int, int],
    report: Callable[[int], None],
) -> _Played:
    """Play until every lane has ended an episode, or until `report` raises KeyboardInterrupt.

    `inputs`: number of past actions, and numbers in a recurrent state, that the policy needs.
    `report` is called after every step with the number of lanes whose episode has ended.
    """
    past_actions, state_size = inputs
    env = make_env(config, num_lanes)
    # ALE cuts its own episodes; a user's environment might play an episode forever.
    limit = max_episode_steps(config) if config.env else math.inf
    try:
        lanes = Lanes(env.reset(seed), config, past_actions, observation_of(env), state_size)
        playing_E, score_E = np.ones(num_lanes, bool), np.zeros(num_lanes)
        steps_E, cut_E = np.zeros(num_lanes, np.int64), np.zeros(num_lanes, bool)
        while playing_E.any():
            action_E = policy(lanes, playing_E)
            step = env.step(action_E)
            # A lane whose episode has ended plays further episodes, whose rewards do not count.
            score_E += step.reward_E * playing_E
            steps_E += playing_E
            ended_E = playing_E & (step.terminated_E | step.truncated_E | (steps_E >= limit))
            cut_E |= ended_E & ~step.terminated_E
            playing_E = playing_E & ~ended_E
            lanes.push(step.frame_EHW, action_E, np.zeros(num_lanes, bool), step.reward_E)
            try:
                report(num_lanes - int(playing_E.sum()))
            except KeyboardInterrupt:
                return _Played(score_E, steps_E, cut_E | playing_E, stopped=True)
        return _Played(score_E, steps_E, cut_E, stopped=False)
    finally:
        env.close()


@dataclass(frozen=True)
class PlayedStep:
    """One step of a policy, for display."""

    frame: np.ndarray
    """uint8 RGB. For Atari: [210, 160, 3] in the game's own colours, from a second emulator that
    plays the same actions from the same seed. For a user's environment: [H, W, 3], what its
    `render` returns, or its grey frames.
    """
    action: int | None
    """The action that led to this frame; None for the first frame."""
    q_A: np.ndarray | None
    """float32 [A]: the Q-values from which this action was chosen; None for the first frame."""
    score: float
    """Score of the episode so far."""


def play_steps(
    network: QNetwork,
    config: EnvConfig,
    *,
    epsilon: float = 0.001,
    seed: int = 0,
    max_steps: int = 1800,
    device: str = "cpu",
) -> Iterator[PlayedStep]:
    """Play one episode and yield its first frame, and then the frame after each agent step.

    Stops after `max_steps` steps if the episode has not ended. Raises RunFault when the two
    emulators disagree, NotDrawn for an environment without pictures, and ConfigError for an invalid
    `max_steps` or `epsilon`.
    """
    require(max_steps >= 1, f"--max-steps {max_steps}: must be ≥ 1, e.g. 1800")
    require(0 <= epsilon <= 1, f"--epsilon {epsilon}: must lie in [0, 1], e.g. 0.001")
    # The agent's frames are grey. A second emulator with the same seed gives frames in colour.
    env_rng, act_rng = (
        np.random.default_rng(np.random.SeedSequence([seed, stream])) for stream in (0, 1)
    )
    values: list[np.ndarray] = []
    policy = greedy_policy(network, epsilon, act_rng, device, values.append)
    env_seed = int(env_rng.integers(2**31 - 1))
    env = make_drawn_env(config) if config.env else make_env(config, 1, num_threads=1)
    screen = None if config.env else AtariLanes(config, 1, num_threads=1, color=True)
    try:
        frame_EHW = env.reset(env_seed)
        past_actions, state_size = network.config.past_actions, network.state_size
        lanes = Lanes(frame_EHW, config, past_actions, observation_of(env), state_size)
        first = screen.reset(env_seed)[0].copy() if screen else draw(env, config, frame_EHW[0])
        yield PlayedStep(first, None, None, 0.0)
        score, on = 0.0, np.ones(1, bool)
        for number in range(1, max_steps + 1):
            action_E = policy(lanes, on)
            step = env.step(action_E)
            score += float(step.reward_E[0])
            over = bool(step.terminated_E[0] | step.truncated_E[0])
            # If the emulators differ in a reward or an end, the pictures show another game.
            if screen:
                seen = screen.step(action_E)
                if (
                    seen.reward_E[0] != step.reward_E[0]
                    or bool(seen.terminated_E[0] | seen.truncated_E[0]) != over
                ):
                    raise RunFault(
                        f"{config.title}: at step {number} (--seed {seed}), the emulator that "
                        "draws the pictures disagreed with the emulator that plays; play again "
                        "with another --seed"
                    )
                frame = seen.frame_EHW[0].copy()
            else:
                frame = draw(env, config, step.frame_EHW[0])
            yield PlayedStep(frame, int(action_E[0]), values.pop()[0], score)
            if over:
                break
            lanes.push(step.frame_EHW, action_E, ~on, step.reward_E)
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
    """Play one episode as `play_steps` does; return (the frames, the score).

    1,800 steps of 4 emulator frames are two minutes of the game.
    """
    steps = list(
        play_steps(network, config, epsilon=epsilon, seed=seed, max_steps=max_steps, device=device)
    )
    return [step.frame for step in steps], steps[-1].score
