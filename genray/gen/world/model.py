"""A world model: a language of sprites, the tables of a game, and the network that predicts it.

Shapes: H height and W width of the screen, V looks, Q moves, S starts, F screens of a start, P
sprites of a start's screen.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genray.gen.sprites.acceptance import class_of
from genray.gen.sprites.model import shape_features
from genray.gen.sprites.rows import encode_whole
from genray.gen.sprites.tokens import Language, Token
from genray.gen.world.config import WorldModelConfig
from genray.gen.world.inputs import WorldSizes
from genray.gen.world.language_store import LanguageStore
from genray.gen.world.network import WorldNetwork
from genray.gen.world.state import Events, MoveTable, State
from genray.gen.world.tracks import Looks, Outcome, Sprite, match

START = 4
"""F: number of real screens with which a dream begins."""
EMPTY = -1
"""Fills the ends of a start's lists."""


class Start(NamedTuple):
    """The first real screens of a dream, and the actions between them."""

    screens: list[list[Sprite]]
    actions: list[int]
    """One fewer than the screens."""

    def first(self, screens: int) -> "Start":
        """Return the start of which only the first screens are kept."""
        return Start(self.screens[:screens], self.actions[: max(0, screens - 1)])


@dataclass(frozen=True)
class Game:
    """Everything about a game that a world model learns without its network."""

    language: Language
    looks: Looks
    moves: tuple[tuple[int, int], ...]
    rewards: tuple[float, ...]
    """The game's own rewards by number; number 0 is no reward."""
    actions: int
    """Number of actions."""


class WorldModel(nn.Module):
    """Predicts what a game shows next. `Dream` plays in it.

    Args:
        config: the network.
        sizes: of the game.
        store: an empty store for the language.
    """

    def __init__(self, config: WorldModelConfig, sizes: WorldSizes, store: LanguageStore):
        super().__init__()
        self.config, self.sizes, self.store = config, sizes, store
        colours = len(store.palette)  # type: ignore[arg-type]
        features = shape_features(b"\0", 1, 1, colours)
        self.network = WorldNetwork(
            sizes, len(features), width=config.width, layers=config.layers, heads=config.heads,
            dropout=config.dropout, memory=config.memory, track_clocks=config.track_clocks,
            events_first=config.events_first,
        )  # fmt: skip
        self.look_shape = _buffer(self, "look_shape", (sizes.looks,), torch.int64)
        self.rewards = _buffer(self, "rewards", (sizes.rewards,), torch.float32)
        self.most_alike = _buffer(self, "most_alike", (sizes.looks,), torch.int64)
        self.starts = _buffer(self, "starts", (config.starts, START, sizes.tracks, 3), torch.int16)
        self.start_actions = _buffer(self, "start_actions", (config.starts, START - 1), torch.int16)
        self.surprise = _buffer(self, "surprise", (2,), torch.float32)
        """−ln p of real held-out steps, nats: the mean, and the 99.5th percentile."""
        self.starts.fill_(EMPTY)
        self._looks: Looks | None = None

    @classmethod
    def of_game(
        cls, config: WorldModelConfig, game: Game, longest: tuple[int, int],
        screens: Sequence[Sequence[Token]], starts: Sequence[Start],
    ) -> "WorldModel":  # fmt: skip
        """Create an untrained model.

        Args:
            config: the network.
            game: what was learned of the game.
            longest: the longest lists of tracks and of births.
            screens: the tokens of training screens.
            starts: starts of dreams.
        """
        language, looks = game.language, game.looks
        height, width = language.screen_shape
        sizes = WorldSizes(
            language.groups, height, width, len(looks), len(language.runs), len(game.moves),
            game.actions, len(game.rewards), *longest,
        )  # fmt: skip
        model = cls(config, sizes, LanguageStore.of(language))
        shapes = [language.vocabulary.shapes[shape] for shape, _ in looks.pairs]
        colours = len(language.palette_P3)
        features = [
            shape_features(each.pixels, each.height, each.width, colours) for each in shapes
        ]
        shape_V, run_V = (torch.tensor(each) for each in zip(*looks.pairs))
        model.network.describe(
            torch.from_numpy(np.stack(features)), torch.tensor(looks.groups), run_V,
            torch.tensor(game.moves),
        )  # fmt: skip
        model.look_shape.copy_(shape_V)
        model.rewards.copy_(torch.tensor(game.rewards))
        most: Counter[int] = Counter()
        for tokens in screens:
            most |= Counter(class_of(language.vocabulary.shapes[token.shape]) for token in tokens)
        model.most_alike.copy_(torch.tensor([max(1, most[class_of(each)]) for each in shapes]))
        for number in range(config.starts):
            start = starts[number % len(starts)]
            for screen, sprites in zip(model.starts[number], start.screens):
                for line, sprite in zip(screen, sprites):
                    line.copy_(torch.tensor(sprite))
            model.start_actions[number].copy_(torch.tensor(start.actions))
        model._looks = looks
        return model

    @property
    def language(self) -> Language:
        """The language of sprites."""
        return self.store.language

    @property
    def looks(self) -> Looks:
        """The looks of the game."""
        if self._looks is None:
            pairs = list(zip(self.look_shape.tolist(), self.network.run_of.tolist()))
            self._looks = Looks(pairs, self.network.group_of.tolist())
        return self._looks

    @property
    def move_table(self) -> MoveTable:
        """The moves of the game."""
        return MoveTable([(dy, dx) for dy, dx in self.network.move_table.tolist()])

    def start(self, number: int) -> Start:
        """Return a start that the model keeps; `number` may be any integer ≥ 0."""
        number %= self.config.starts
        screens = [
            [Sprite(*line) for line in screen if line[0] != EMPTY]
            for screen in self.starts[number].tolist()
        ]
        return Start(screens, self.start_actions[number].tolist())

    def new_state(self) -> State:
        """Return a state without an episode."""
        shapes = self.language.vocabulary.shapes
        sizes = [shapes[shape].size for shape, _ in self.looks.pairs]
        return State(self.looks, sizes, self.sizes.groups)

    def read(self, screen_HW: np.ndarray) -> list[Sprite]:
        """Return the sprites of a screen, uint8 palette indices of the model's palette."""
        return self.looks.sprites(encode_whole(self.language, screen_HW), self.language)

    def paint(self, sprites: Sequence[Sprite]) -> np.ndarray:
        """Return the screen that shows the sprites, palette indices uint8 [H, W]."""
        return self.language.decode(self.looks.tokens(sprites))

    def begun(self, start: Start) -> State:
        """Return the state after the screens of a start."""
        state = self.new_state()
        state.begin(start.screens[0])
        for action, sprites in zip(start.actions, start.screens[1:]):
            state.act(action)
            state.follow(match(state.tracks, sprites, self.looks), life=False)
        return state


def observed(state: State, action: int, sprites: Sequence[Sprite], events: Events) -> Outcome:
    """Let a state follow a real step, and return what happened to its tracks."""
    state.act(action)
    outcome = match(state.tracks, sprites, state.looks)
    state.follow(outcome, events.life)
    return outcome


def _buffer(module: nn.Module, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    module.register_buffer(name, torch.zeros(shape, dtype=dtype))
    buffer: Tensor = getattr(module, name)
    return buffer


def build_world(config: dict[str, Any]) -> WorldModel:
    """Build the model that a saved model's `config` describes, of the kind "world"."""
    names = WorldModelConfig.__dataclass_fields__.keys() & config["model"].keys()
    sizes = WorldSizes(*config["sizes"])
    store = LanguageStore(
        config["colours"], (sizes.height, sizes.width), sizes.groups, config["shapes"],
        sizes.runs, config["pixels"],
    )  # fmt: skip
    options = WorldModelConfig(**{name: config["model"][name] for name in names})
    return WorldModel(options, sizes, store)
