"""Compares predictions and dreams with real episodes.

Shapes: H height and W width of the screen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from genray.gen.data.episodes import Episode, EpisodesSplit
from genray.gen.world.dream import Dream
from genray.gen.world.episodes import Step, read_steps
from genray.gen.world.model import START, Start, WorldModel
from genray.gen.world.sampling import Drawer, Sampling
from genray.gen.world.tracks import Sprite

ONE_STEP = 256
"""Number of test steps for which a training predicts the next screen."""
LANES = 32
"""Number of steps that are predicted at a time."""
STRIP, EVERY, LONG = 2, 5, 13
"""A strip of screens has STRIP pairs of rows, LONG screens each, one in EVERY steps."""


@dataclass
class Tally:
    """Counts predicted and real events."""

    both: int = 0
    predicted: int = 0
    real: int = 0

    def add(self, predicted: bool, real: bool) -> None:
        """Count one step."""
        self.both += predicted and real
        self.predicted += predicted
        self.real += real

    @property
    def precision(self) -> float:
        """Share of the predicted events that happened; NaN if none was predicted."""
        return self.both / self.predicted if self.predicted else float("nan")

    @property
    def recall(self) -> float:
        """Share of the real events that were predicted; NaN if none happened."""
        return self.both / self.real if self.real else float("nan")


@dataclass(frozen=True)
class Predicted:
    """A real step, and the greedy prediction of it."""

    step: Step
    sprites: list[Sprite]
    """The predicted next screen."""
    reward: int
    life: bool
    done: bool


def real_sprites(step: Step) -> list[Sprite]:
    """Return the sprites of the real next screen."""
    return [each for each in step.outcome.sprites if each is not None] + step.outcome.births


def predictions(model: WorldModel, steps: Sequence[Step]) -> Iterator[Predicted]:
    """Yield the greedy prediction of each step."""
    drawer = Drawer(model, Sampling(greedy=True))
    for at in range(0, len(steps), LANES):
        part = steps[at : at + LANES]
        for step, drawn in zip(part, drawer.draw([each.state for each in part], None)):
            kept = [each for each in drawn.outcome.sprites if each is not None]
            yield Predicted(step, kept + drawn.outcome.births, *drawn.events)


def one_step(model: WorldModel, split: EpisodesSplit, count: int) -> dict[str, float]:
    """Return figures of greedy predictions of about `count` evenly spaced steps.

    `exact`: share of the screens whose sprites are all right. `copied`: share of the screens that
    are equal to the screen before. Precision and recall of rewards and of lost lives are those of
    all steps with an event, and of as many other steps as there are in `count`; they are left out
    if no step has the event.
    """
    steps = [step for episode in read_steps(model, split.episodes) for step in episode]
    every = max(1, len(steps) // count)
    chosen = steps[::every]
    exact = copied = 0
    for each in predictions(model, chosen):
        real = sorted(real_sprites(each.step))
        exact += sorted(each.sprites) == real
        copied += sorted(each.step.state.sprites()) == real
    figures = {"exact": exact / len(chosen), "copied": copied / len(chosen)}
    reward, life = event_tallies(model, steps, every)
    for name, tally in (("reward", reward), ("life", life)):
        if tally.real:
            figures[f"{name}_recall"] = tally.recall
            figures[f"{name}_precision"] = tally.precision if tally.predicted else 0.0
    return figures


def event_tallies(model: WorldModel, steps: Sequence[Step], every: int) -> tuple[Tally, Tally]:
    """Count rewards and lost lives that greedy predictions find.

    Predicted are all steps with an event, and one in `every` of the others, which count `every`
    times.
    """
    reward, life = Tally(), Tally()
    quiet = [step for step in steps if not any(step.events)][::every]
    for times, part in ((1, [step for step in steps if any(step.events)]), (every, quiet)):
        for each in predictions(model, part):
            for _ in range(times):
                reward.add(each.reward > 0, each.step.events.reward > 0)
                life.add(each.life, each.step.events.life)
    return reward, life


def start_of(model: WorldModel, episode: Episode, at: int) -> Start:
    """Return the start of a dream from the screens `at` to `at` + START − 1 of an episode."""
    screens = episode.screens()[at : at + START]
    actions = [int(action) for action in episode.action_T[at + 1 : at + START]]
    return Start([model.read(screen_HW) for screen_HW in screens], actions)


def film_strip(model: WorldModel, split: EpisodesSplit, seed: int) -> np.ndarray:
    """Return pairs of rows of screens, RGB: real ones above dreamed ones, from the same start and
    with the same actions.
    """
    palette_P3 = model.language.palette_P3
    last = EVERY * (LONG - 1)
    chosen = sorted(split.episodes, key=len, reverse=True)[:STRIP]
    strips = len(chosen)
    # Screens from the middle of each episode, which is shorter than the strip in small data.
    first = [max(0, (len(episode) - START - last) // 2) for episode in chosen]
    dream = Dream(model)
    dream.begin([start_of(model, each, at) for each, at in zip(chosen, first)], seed)
    height, width = model.sizes.height, model.sizes.width
    sheet = np.full((2 * strips, LONG, height + 4, width + 4, 3), 255, np.uint8)
    screens = [episode.screens() for episode in chosen]
    for step in range(last + 1):
        at = [begin + START - 1 + step for begin in first]
        if step:
            ended = [t >= len(each) for t, each in zip(at, chosen)]
            lanes = [lane for lane, over in enumerate(ended) if not over]
            if not lanes:
                break
            dream.step([int(chosen[lane].action_T[at[lane]]) for lane in lanes], lanes)
        for lane, t in enumerate(at):
            if step % EVERY == 0 and t < len(chosen[lane]):
                real, dreamed = palette_P3[screens[lane][t]], palette_P3[dream.screen(lane)]
                sheet[2 * lane, step // EVERY, 2:-2, 2:-2] = real
                sheet[2 * lane + 1, step // EVERY, 2:-2, 2:-2] = dreamed
    return sheet.transpose(0, 2, 1, 3, 4).reshape(2 * strips * (height + 4), -1, 3)
