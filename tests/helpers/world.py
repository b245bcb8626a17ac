"""A toy game for the tests of world models, and episodes of it."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from genray.gen.data.config import DataConfig
from genray.gen.data.episodes import (
    Episode,
    Episodes,
    EpisodesSplit,
    load_episodes,
    pack,
    write_episodes,
)
from genray.gen.data.types import Data
from genray.gen.world.config import WorldModelConfig
from genray.gen.world.episodes import (
    Step,
    find_starts,
    frequent_moves,
    learn_game,
    longest_lists,
    read_steps,
)
from genray.gen.world.model import WorldModel
from genray.rl import presets
from genray.rl.engine import initial_network, network_card
from genray.rl.env import EnvConfig
from genray.rl.evaluate import Evaluation
from genray.rl.network_config import NetworkConfig
from genray.rl.train import save_policy

PALETTE = np.arange(15, dtype=np.uint8).reshape(5, 3) * 17
HEIGHT, WIDTH = 24, 32
ACTIONS = ("stay", "left", "right")
LEFT, RIGHT = 1, 2
MOST_BIRTHS = 5


class ToyGame:
    """A player moves by two pixels on a row; stones fall, and each stone that meets the player
    gives 1. Every 20th step a life is lost, and the third one ends the game.
    """

    def __init__(self, seed: int):
        self._rng = np.random.default_rng(seed)
        self.x, self.stone, self.steps = 14, (2, 10), 0

    def step(self, action: int) -> tuple[float, bool, bool]:
        """Return (reward, life lost, ended)."""
        self.steps += 1
        self.x = int(np.clip(self.x + (0, -2, 2)[action], 0, WIDTH - 5))
        y, x = self.stone
        met = y >= 15 and abs(x - self.x) < 4
        self.stone = (y + 3, x) if y < 15 else (2, int(self._rng.integers(1, 15)) * 2)
        lost = self.steps % 20 == 0
        return float(met), lost and self.steps < 60, self.steps == 60

    def draw(self) -> np.ndarray:
        """Return the screen, uint8 palette indices [H, W]."""
        screen = np.zeros((HEIGHT, WIDTH), np.uint8)
        screen[22:] = 1
        screen[19:22, self.x : self.x + 5] = 2
        screen[19, self.x] = 3
        y, x = self.stone
        screen[y : y + 2, x : x + 2] = 4
        return screen


def toy_episode(seed: int, longest: int = 200) -> Episode:
    """Play one episode at random."""
    game, rng = ToyGame(seed), np.random.default_rng([seed, 1])
    screens, rows, action, over = [game.draw()], [(0, 0.0, False, False, False)], 0, False
    while not over and len(screens) < longest:
        if rng.random() < 0.3:
            action = int(rng.integers(3))
        reward, life, over = game.step(action)
        screens.append(game.draw())
        rows.append((action, reward, life, over, False))
    kinds = (np.uint8, np.float32, bool, bool, bool)
    columns = [np.array(each, kind) for each, kind in zip(zip(*rows), kinds)]
    stacked = np.stack(screens)
    return Episode(pack(stacked), stacked.shape, *columns)


def toy_file(
    folder: Path, train: int = 6, test: int = 2, scale: int = 1, game: str = "toy"
) -> Path:
    """Write a file of episodes of `game`, with each pixel enlarged `scale` times."""
    file = folder / "episodes-toy.safetensors"
    episodes = [enlarged(toy_episode(seed), scale) for seed in range(train + test)]
    recipe = {"game": game, "actions": list(ACTIONS), "policy": "random"}
    parts = tuple(episodes[:train]), tuple(episodes[train:])
    write_episodes(file, Episodes(*parts, PALETTE, recipe))
    return file


def enlarged(episode: Episode, scale: int) -> Episode:
    """Return an episode with larger pixels."""
    screens = episode.screens().repeat(scale, axis=1).repeat(scale, axis=2)
    return replace(episode, packed=pack(screens), shape=screens.shape)


def toy_data(folder: Path, train: int = 6, test: int = 2, **options: Any) -> Data:
    """Return the episodes as data; `options`: of `toy_file`."""
    return load_episodes(DataConfig(data=f"episodes:{toy_file(folder, train, test, **options)}"))


def untrained(folder: Path, events_first: bool, scale: int = 1) -> tuple[WorldModel, list[Step]]:
    """Return an untrained model of the toy game, whose weights are far from 0, and its steps."""
    split = toy_data(folder, scale=scale).train
    assert isinstance(split, EpisodesSplit)
    config = WorldModelConfig(
        width=16, heads=2, layers=1, dropout=0.0, rare=2, memory=5, track_clocks=True,
        events_first=events_first,
    )  # fmt: skip
    game, tokens = learn_game(config, split, len(ACTIONS), "toy")
    steps = list(itertools.chain(*read_steps(game, split.episodes)))
    game = replace(game, moves=frequent_moves(steps, 99))
    torch.manual_seed(0)
    starts = find_starts(split.episodes, game, "toy", 32)
    longest = (longest_lists(steps)[0], MOST_BIRTHS)
    model = WorldModel.of_game(config, game, longest, tokens, starts).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
        model.network.group_out.bias[-1] += 0 if events_first else 3  # fewer new sprites
        model.network.move_out.bias[-1] += 3  # more sprites that end
    model.most_alike.fill_(99)
    return model, steps


def save_agent(folder: Path, game: str, actions: int) -> None:
    """Save a policy that always goes right."""
    small = NetworkConfig(channels=(4, 4, 4), hidden=8, dueling=False)
    config = replace(presets.road_runner_quick(), env=EnvConfig(game=game), network=small)
    network = initial_network(network_card(config, actions, (84, 84)), seed=0)
    last = network.advantage[-1]
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.arange(actions) == RIGHT)
    save_policy(folder, config, network, 0, Evaluation(game, [0.0], [1], 0.001, 0.0, 30, 18_000))
