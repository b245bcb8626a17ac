"""Bounds the number of games that run at a time, and plays inside world models without HTTP.

Shapes: H height and W width of the screen, P colours of the palette.
"""

import json
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np

from genray.gen.world.about import action_names
from genray.gen.world.dream import Dream
from genray.gen.world.model import Start, WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import Sampling
from serve.errors import BadRequest, Busy
from serve.models import Predictor
from serve.pilots import RECENT, Pilot, Seen
from serve.routes.common import png_text


class Places:
    """Counts the games that run now, streamed and dreamed ones.

    Args:
        most: largest number of games at a time.
    """

    def __init__(self, most: int):
        self.most, self.taken = most, 0

    def take(self) -> None:
        """Take a place. Raises Busy if there is none."""
        if self.taken >= self.most:
            raise Busy(f"{self.taken} games are streamed already", retry_after_s=10)
        self.taken += 1

    def give_back(self) -> None:
        """Give a place back."""
        self.taken -= 1

    @contextmanager
    def place(self) -> Iterator[None]:
        """Take a place for as long as a block runs. Raises Busy."""
        self.take()
        try:
            yield
        finally:
            self.give_back()


class Dreams:
    """Begins games inside world models. Games of one model share what is computed from its weights:
    20 MB for Road Runner.
    """

    def __init__(self) -> None:
        self._drawers: weakref.WeakKeyDictionary[WorldModel, QuickDrawer] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.Lock()

    def begin(self, predictor: Predictor, start: int, seed: int, limit: int) -> "DreamedGame":
        """Begin a game; the first one of a model takes a quarter of a second.

        Args:
            predictor: a world model; see `check_world`.
            start: the number of one of the model's real starts.
            seed: of the decisions.
            limit: most steps.
        """
        model = cast(WorldModel, predictor.model)
        with self._lock:
            if model not in self._drawers:
                self._drawers[model] = QuickDrawer(model, Sampling())
            drawer = self._drawers[model]
        dream = Dream(model, limit=limit, drawer=drawer)
        first = model.start(start)
        dream.begin([first], seed)
        return DreamedGame(predictor, dream, first)


def check_world(predictor: Predictor) -> None:
    """Raise BadRequest unless the model is a world model."""
    if not isinstance(predictor.model, WorldModel):
        raise BadRequest(
            f"model {predictor.name!r} ({predictor.kind}) is not a world model; train one with "
            "`genray train world`",
            param="model",
        )


class DreamedGame:
    """One game inside a world model. Every message is a line of JSON."""

    def __init__(self, predictor: Predictor, dream: Dream, start: Start):
        self._dream, self._model, self.predictor = dream, dream.model, predictor
        self._palette_P3 = self._model.language.palette_P3
        self._names = action_names(predictor.config, self._model.sizes.actions)
        self._reward, self._lives, self.step_number = 0.0, 0, 0
        self._pilot: Pilot | None = None
        self._seen: deque[Seen] = deque(maxlen=RECENT)
        # The real screens before the first step. A start is the same for all games.
        self._seen += [
            Seen(self._model.paint(sprites), action)
            for sprites, action in zip(start.screens, [0, *start.actions])
        ]
        self.ended = ""
        """Why the game has ended; empty while it goes on."""

    @property
    def num_actions(self) -> int:
        """A."""
        return self._model.sizes.actions

    def first(self, agents: Sequence[str] = ()) -> str:
        """Return the message about the game, with the real screen from which it starts.

        `agents`: names of agents that can play the game.
        """
        usual, limit = (round(each, 2) for each in self._model.surprise.tolist())
        return json.dumps(
            {
                "actions": self._names, "starts": self._model.config.starts,
                "limit": self._dream.limit, "usual": usual, "unusual": limit,
                "agents": list(agents), **self._shown(),
            }
        )  # fmt: skip

    def step(self, action: int, agent: Predictor | None = None) -> str:
        """Make one step with the player's action, or with an agent's, and return its message."""
        if agent is None:
            self._pilot = None
        else:
            if self._pilot is None or self._pilot.name != agent.name:
                self._pilot = Pilot(agent, self.predictor, self._seen)
            action = self._pilot.act()
        given = self._dream.step([action])[0]
        self._seen.append(Seen(self._dream.screen(), action, given.reward))
        if self._pilot is not None:
            self._pilot.push(self._seen[-1])
        self._reward += given.reward
        self._lives += given.life_lost
        self.step_number += 1
        if given.done:
            self.ended = "The game is over."
        elif self.step_number == self._dream.limit:
            self.ended = f"The dream has made {self.step_number:,} steps, its limit."
        about = {
            "action": self._names[action], "nats": round(given.nats, 2),
            "known": self._dream.known(given.nats), "lost": given.life_lost,
            "agent": self._pilot.name if self._pilot else "",
        }  # fmt: skip
        return json.dumps({**self._shown(), **about})

    def _shown(self) -> dict[str, Any]:
        png = png_text(self._palette_P3[self._seen[-1].screen_HW])
        return {
            "step": self.step_number, "score": self._reward, "lives_lost": self._lives, "png": png
        }  # fmt: skip


def start_screen(model: WorldModel) -> np.ndarray:
    """Return a real screen from which games start, uint8 RGB [H, W, 3]."""
    screen_HW = model.paint(model.start(0).screens[-1])
    rgb: np.ndarray = model.language.palette_P3[screen_HW]
    return rgb
