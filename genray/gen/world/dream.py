"""Plays inside a world model: several dreams in lockstep, each from a few real screens.

Shapes: E lanes, H height and W width of the screen.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from genray.errors import ConfigError, require
from genray.gen.world.model import Start, WorldModel
from genray.gen.world.quick_sampling import QuickDrawer
from genray.gen.world.sampling import CHANCES, Drawer, Drawn, Sampling
from genray.gen.world.state import State
from genray.gen.world.tracks import MEMORY, Track

MOST_STEPS = 10_000
"""Largest number of steps of a dream."""
FEW = 16
"""So many dreams are drawn faster one after another in NumPy than together in PyTorch: on a slow
core, 16 dreams made 124 steps a second one by one and 139 together, 32 dreams 86 and 172."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a grey frame."""
NUMBERS = ("look", "previous", "y", "x", "age", "unseen", "same_look", "same_y")
"""Fields of a saved track, before its moves."""


class DreamStep(NamedTuple):
    """What one step of a dream gave."""

    reward: float
    life_lost: bool
    """Whether a life was lost, also the last one."""
    done: bool
    nats: float
    """−ln p of the step; `Dream.known` compares it with real steps."""


class Dream:
    """E dreams of one model. The same seed and the same actions give the same dream.

    Args:
        model: a trained model, in evaluation mode on the CPU.
        sampling: how decisions are drawn.
        limit: largest number of steps from a start.
        drawer: draws the steps of few dreams, as `sampling` says; dreams of one model may share
            it. Default: a new one.
    """

    def __init__(
        self,
        model: WorldModel,
        sampling: Sampling | None = None,
        limit: int = MOST_STEPS,
        drawer: QuickDrawer | None = None,
    ):
        require(1 <= limit <= MOST_STEPS, f"a dream of {limit} steps: must lie in 1..{MOST_STEPS}")
        self.model, self.limit = model, limit
        self._sampling = sampling or Sampling()
        self._quick = drawer
        self._together: Drawer | None = None
        self.states: list[State] = []
        self.steps: list[int] = []
        """Steps of each lane since its last real screen."""
        self._random: list[np.random.Generator] = []

    @property
    def num_lanes(self) -> int:
        """E."""
        return len(self.states)

    def begin(self, starts: Sequence[Start], seed: int) -> None:
        """Begin one dream from each start."""
        self.states = [self.model.begun(start) for start in starts]
        self.steps = [0] * len(starts)
        self._random = [np.random.default_rng([seed, lane]) for lane in range(len(starts))]

    def begin_lane(self, lane: int, start: Start) -> None:
        """Begin a new dream in one lane; its random numbers go on."""
        self.states[lane], self.steps[lane] = self.model.begun(start), 0

    def random_start(self, lane: int) -> Start:
        """Choose one of the model's starts by the lane's random numbers."""
        return self.model.start(int(self._random[lane].integers(2**31)))

    def step(self, actions: Sequence[int], lanes: Sequence[int] | None = None) -> list[DreamStep]:
        """Make one step in all lanes, or in `lanes`, one action for each.

        Raises ConfigError at the limit, and for an action that the game does not have.
        """
        chosen = list(range(self.num_lanes) if lanes is None else lanes)
        for lane, action in zip(chosen, actions):
            require(
                self.steps[lane] < self.limit,
                f"the dream has made {self.steps[lane]:,} steps, its limit; begin a new one",
            )
            require(
                0 <= action < self.model.sizes.actions,
                f"action {action}: the game has the actions 0..{self.model.sizes.actions - 1}",
            )
            self.states[lane].act(action)
        shape = (self.model.sizes.decisions, CHANCES)
        chance = np.stack([self._random[lane].random(shape, np.float32) for lane in chosen])
        drawn = self._draw([self.states[lane] for lane in chosen], chance)
        for lane, each in zip(chosen, drawn):
            self.states[lane].follow(each.outcome, each.events.life)
            self.steps[lane] += 1
        return [
            DreamStep(
                float(self.model.rewards[each.events.reward]), each.events.life, each.events.done,
                each.nats,
            )
            for each in drawn
        ]  # fmt: skip

    def _draw(self, states: Sequence[State], chance_ES4: np.ndarray) -> list[Drawn]:
        if len(states) <= FEW:
            if self._quick is None:
                self._quick = QuickDrawer(self.model, self._sampling)
            return self._quick.draw(states, chance_ES4)
        if self._together is None:
            self._together = Drawer(self.model, self._sampling)
        return self._together.draw(states, torch.from_numpy(chance_ES4))

    def known(self, nats: float) -> bool:
        """Return whether a step is as likely as 99.5% of real steps are."""
        limit = float(self.model.surprise[1])
        return limit <= 0 or nats <= limit

    def screen(self, lane: int = 0) -> np.ndarray:
        """Return what a lane shows, palette indices uint8 [H, W]."""
        return self.model.paint(self.states[lane].sprites())

    # -- saving ------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """Return the whole state as JSON values."""
        return {
            "steps": list(self.steps),
            "random": [each.bit_generator.state for each in self._random],
            "lanes": [
                {
                    "actions": list(state.actions),
                    "clocks": list(state.clocks),
                    "tracks": [
                        [*(getattr(track, name) for name in NUMBERS), track.moves]
                        for track in state.tracks
                    ],
                }
                for state in self.states
            ],
        }

    def load(self, saved: dict[str, Any]) -> None:
        """Continue from what `save` returned. Raises ConfigError for values of another model."""
        try:
            self.steps = list(saved["steps"])
            self._random = [np.random.default_rng() for _ in saved["random"]]
            for random, state in zip(self._random, saved["random"]):
                random.bit_generator.state = state
            self.states = []
            for lane in saved["lanes"]:
                state = self.model.new_state()
                state.actions, state.clocks = list(lane["actions"]), list(lane["clocks"])
                state.tracks = [
                    Track(
                        **dict(zip(NUMBERS, numbers)),
                        moves=_moves(moves),
                    )
                    for *numbers, moves in lane["tracks"]
                ]
                self.states.append(state)
        except (LookupError, TypeError, ValueError) as error:
            raise ConfigError(f"a saved dream does not fit this model: {error}") from error


def _moves(saved: Sequence[Sequence[int] | None]) -> tuple[tuple[int, int] | None, ...]:
    """Return a track's moves. An earlier version saved fewer, and no clocks of tracks."""
    moves = [None if each is None else (each[0], each[1]) for each in saved[:MEMORY]]
    return tuple([*moves, *[None] * (MEMORY - len(moves))])


def grey_of(palette_P3: np.ndarray) -> np.ndarray:
    """Return the grey of each colour, as agents see it, uint8 [P]."""
    grey: np.ndarray = np.rint(palette_P3 @ np.array(LUMA)).astype(np.uint8)
    return grey
