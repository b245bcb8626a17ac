"""Turns recorded episodes into what a world model learns from: tracks, step by step.

Shapes: N steps, W columns of a row.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genray.errors import ConfigError, require
from genray.gen.data.episodes import Episode, EpisodesSplit
from genray.gen.sprites.rows import encode_whole
from genray.gen.sprites.tokens import Token, learn_language
from genray.gen.world.config import WorldModelConfig
from genray.gen.world.model import START, Game, Start, WorldModel, observed
from genray.gen.world.state import Events, Layout, MoveTable, State, fill_inputs, fill_targets
from genray.gen.world.tracks import Looks, Outcome, Sprite

LANGUAGE_SCREENS = 4000
"""Number of training screens from which the language is learned."""
MOST_TRACKS, MOST_BIRTHS = 96, 48
"""Longer lists of tracks and of new sprites are cut; a game with more on average is refused."""
MOST_REWARDS = 16
"""Number of different rewards; the most frequent ones."""


@dataclass(frozen=True)
class Step:
    """One real step of a game, with the state before it, in which the action is already known."""

    state: State
    outcome: Outcome
    events: Events


def learn_game(
    config: WorldModelConfig, split: EpisodesSplit, actions: int, name: str
) -> tuple[Game, list[list[Token]]]:
    """Learn language, looks and rewards from the training episodes; the moves are still empty.

    Also returns the tokens of the screens that the language was learned from. Raises ConfigError
    for a game with too many shapes or without sprites.
    """
    total = sum(map(len, split.episodes))
    every = -(-total // LANGUAGE_SCREENS)
    parts, first = [], 0
    for episode in split.episodes:
        parts.append(episode.screens()[first % every :: every])
        first = (first - len(episode)) % every
    screens_NHW = np.concatenate(parts)
    language = learn_language(
        screens_NHW, split.palette_P3, rare=config.rare, most_shapes=config.most_shapes,
        name=name, most_backgrounds=config.most_backgrounds,
    )  # fmt: skip
    tokens = [encode_whole(language, screen_HW) for screen_HW in screens_NHW]
    mean = float(np.mean([len(each) for each in tokens]))
    require(
        mean <= MOST_TRACKS / 2,
        f"--data {name}: {mean:.0f} sprites on a screen on average; a world model follows at most "
        f"{MOST_TRACKS // 2}: choose a game of fewer sprites",
    )
    count = Counter(float(each) for episode in split.episodes for each in episode.reward_T)
    del count[0.0]
    rewards = (0.0, *(reward for reward, _ in count.most_common(MOST_REWARDS - 1)))
    looks = Looks.of(tokens, language)
    return Game(language, looks, (), rewards, actions), tokens


def read_steps(
    model_or_game: "WorldModel | Game", episodes: Sequence[Episode]
) -> Iterator[list[Step]]:
    """Yield the steps of each episode."""
    game = model_or_game
    if isinstance(game, WorldModel):
        rewards = tuple(game.rewards.tolist())
        game = Game(game.language, game.looks, (), rewards, game.sizes.actions)
    shapes = game.language.vocabulary.shapes
    sizes = [shapes[shape].size for shape, _ in game.looks.pairs]
    for episode in episodes:
        screens = [read_sprites(game, screen_HW) for screen_HW in episode.screens()]
        state = State(game.looks, sizes, game.language.groups)
        state.begin(screens[0])
        steps = []
        for t in range(1, len(screens)):
            life = bool(episode.life_lost_T[t] | episode.terminated_T[t])
            reward = reward_number(game.rewards, float(episode.reward_T[t]))
            events = Events(reward, life, bool(episode.terminated_T[t]))
            before = replace(state)
            outcome = observed(state, int(episode.action_T[t]), screens[t], events)
            before.act(int(episode.action_T[t]))
            steps.append(Step(before, outcome, events))
        yield steps


def read_sprites(game: Game, screen_HW: np.ndarray) -> list[Sprite]:
    """Return the sprites of a screen."""
    return game.looks.sprites(encode_whole(game.language, screen_HW), game.language)


def reward_number(rewards: Sequence[float], reward: float) -> int:
    """Return the number of a reward; of an unknown one, the number of the nearest one that is not
    0."""
    if reward == 0 or len(rewards) == 1:
        return 0
    return min(range(1, len(rewards)), key=lambda number: abs(rewards[number] - reward))


def frequent_moves(steps: Sequence[Step], most: int) -> tuple[tuple[int, int], ...]:
    """Return the most frequent moves (dy, dx) of tracks."""
    count = Counter(
        (sprite.y - track.y, sprite.x - track.x)
        for step in steps
        for track, sprite in zip(step.state.tracks, step.outcome.sprites)
        if sprite is not None
    )
    return tuple(move for move, _ in count.most_common(most)) or ((0, 0),)


def longest_lists(steps: Sequence[Step]) -> tuple[int, int]:
    """Return the longest lists of tracks and of births, at most MOST_TRACKS and MOST_BIRTHS."""
    return (
        min(MOST_TRACKS, max(1, *(len(step.state.tracks) for step in steps))),
        min(MOST_BIRTHS, max(1, *(len(step.outcome.births) for step in steps))),
    )


def rows_of(
    steps: Sequence[Step], layout: Layout, moves: MoveTable, actions: int, repeat: int = 1
) -> Tensor:
    """Return the rows of steps, int16 [N, W]; those with an event `repeat` times."""
    rows_NW = np.zeros((len(steps), layout.width), np.int16)
    for row, step in zip(rows_NW, steps):
        fill_inputs(row, step.state, layout, actions)
        fill_targets(row, step.state, step.outcome, step.events, layout, moves)
    times = [repeat if any(step.events) else 1 for step in steps]
    return torch.from_numpy(np.repeat(rows_NW, times, axis=0))


def find_starts(episodes: Sequence[Episode], game: Game, name: str, most: int) -> list[Start]:
    """Return the first screens of at most `most` training episodes, the first ones. Raises
    ConfigError for none.
    """
    long = [episode for episode in episodes if len(episode) > START][:most]
    if not long:
        raise ConfigError(f"--data {name}: all episodes are shorter than {START} screens")
    return [
        Start(
            [read_sprites(game, screen_HW) for screen_HW in episode.screens()[:START]],
            [int(action) for action in episode.action_T[1:START]],
        )
        for episode in long
    ]
