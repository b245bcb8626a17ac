"""Trains world models: maximises the likelihood of the training episodes' steps.

Shapes: B batch, N steps, W columns of a row, M tracks.
"""

from dataclasses import asdict, replace
from typing import cast

import numpy as np
import torch
from torch import Tensor

from genray.errors import require
from genray.gen.data.episodes import EpisodesSplit
from genray.gen.data.types import Data, Split
from genray.gen.training.moving_average import MovingAverage
from genray.gen.training.task import Batch, Export, Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.gen.world.config import WorldConfig, WorldModelConfig
from genray.gen.world.episodes import (
    find_starts,
    frequent_moves,
    learn_game,
    longest_lists,
    read_steps,
    rows_of,
)
from genray.gen.world.evaluation import ONE_STEP, film_strip, one_step
from genray.gen.world.inputs import WorldSizes, split_rows
from genray.gen.world.model import WorldModel
from genray.gen.world.network import PARTS
from genray.gen.world.state import (
    AGE,
    LOOK,
    MOVES,
    PREVIOUS,
    SAME_LOOK,
    SAME_Y,
    TO_MOVE,
    TRACK,
    MoveTable,
    X,
    Y,
)

CHUNK = 128
"""Number of steps that are evaluated at a time."""
UNUSUAL = 0.995
"""Share of real steps that are less surprising than the model's limit of what it knows."""


class WorldTask(Task):
    """Learns the sprites and tables of a game from its training episodes, and trains the network.

    Args:
        config: the world model's configuration.
        world: this data-parallel worker.
        device: the device on which the network is trained.
    """

    shown = ("loss",)
    value_range = (0.0, 1.0)

    def __init__(
        self, config: WorldConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config

    @property
    def model(self) -> WorldModel:
        """The model with the averaged weights, or with the trained ones without an average."""
        return cast(WorldModel, self.networks["average" if self.config.ema else "model"])

    def begin_stage(self, stage: int, data: Data, total_updates: int) -> Data:
        """Learn the game, create the networks, and return the data as rows of steps.

        Raises ConfigError unless the data are episodes of a game with sprites.
        """
        config = self.config
        train = data.train
        require(
            isinstance(train, EpisodesSplit),
            f"--data {data.name}: has no actions; record episodes with `genray data episodes`",
        )
        assert isinstance(train, EpisodesSplit)
        actions = len(data.about["actions"])
        game, tokens = learn_game(config.model, train, actions, data.name)
        steps = [step for episode in read_steps(game, train.episodes) for step in episode]
        game = replace(game, moves=frequent_moves(steps, config.model.most_moves))
        model = WorldModel.of_game(
            config.model, game, longest_lists(steps), tokens,
            find_starts(train.episodes, game, data.name, config.model.starts),
        ).to(self.device)  # fmt: skip
        self.networks["model"] = model
        if config.ema:
            self._average = MovingAverage(model, config.ema)
            self.networks["average"] = self._average.network
        self.updaters["model"] = Updater(
            model.parameters(), config.optimizer, total_updates=total_updates,
            accumulate=config.fit.accumulate, amp=config.fit.amp, world=self.world,
        )  # fmt: skip
        rows_NW = rows_of(
            steps, model.sizes.layout, MoveTable(game.moves), actions, config.model.repeat_events
        )
        return replace(
            data,
            train=Split(rows_NW),
            validation=self._rows(data.validation),
        )

    def _rows(self, split: Split) -> Split:
        """Return the steps of a split as rows."""
        model = cast(WorldModel, self.networks["model"])
        assert isinstance(split, EpisodesSplit)
        steps = [step for episode in read_steps(model, split.episodes) for step in episode]
        sizes = model.sizes
        return Split(rows_of(steps, sizes.layout, model.move_table, sizes.actions))

    def step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the network; returns `loss` in nats for each step of the game."""
        model = cast(WorldModel, self.networks["model"])
        config = self.config.model
        read_BW = corrupted(batch.x, model.sizes, config.wrong_tracks)
        with self.autocast():
            parts_B4 = model.network.log_likelihoods(batch.x, read_BW)
            weight_B4 = part_weights(batch.x, model.sizes, config)
            loss = -(parts_B4 * weight_B4).sum(1).mean()
        updater = self.updaters["model"]
        updater.step(loss)
        if self.config.ema:
            self._average.update(updater.updates)
        return {"loss": loss.detach()}

    def evaluate(self, split: Split) -> dict[str, float]:
        """Return `loss`, −ln p of a step in nats, and its parts."""
        nats_N4 = self._nats(split)
        parts = nats_N4.mean(0).tolist()
        return {"loss": sum(parts), **dict(zip(PARTS, parts))}

    def _nats(self, split: Split) -> Tensor:
        return torch.cat(
            [
                -self.model.network.log_likelihoods(split.take(rows)[0]).double()
                for rows in torch.arange(len(split), device=self.device).split(CHUNK)
            ]
        )

    def test(self, data: Data) -> dict[str, float]:
        """Run `evaluate` on the test steps, and add figures of greedy predictions (see
        `one_step`). Also sets how surprising a real step usually is, from the validation steps.
        """
        model = self.model
        if len(data.validation):
            nats_N = self._nats(self._rows(data.validation).to(self.device)).sum(1)
            usual = torch.stack([nats_N.mean(), nats_N.quantile(UNUSUAL)])
            model.surprise.copy_(usual)
        assert isinstance(data.test, EpisodesSplit)
        figures = self.evaluate(self._rows(data.test).to(self.device))
        return {**figures, **one_step(model, data.test, ONE_STEP)}

    def pictures(self, data: Data) -> dict[str, np.ndarray]:
        """Return pairs of rows of screens: real ones, and dreamed ones from the same start.

        An untrained model has no picture: its dreams are full of sprites, and take long.
        """
        assert isinstance(data.validation, EpisodesSplit)
        if not len(data.validation) or not self.updaters["model"].updates:
            return {}
        return {"dreams": film_strip(self.model, data.validation, self.config.fit.seed)}

    def export(self) -> Export:
        model = self.model
        sizes, store = model.sizes, model.store
        config = {
            "model": asdict(self.config.model),
            "sizes": list(sizes),
            "colours": len(cast(Tensor, store.palette)),
            "shapes": len(cast(Tensor, store.shape_groups)),
            "pixels": len(cast(Tensor, store.shape_pixels)),
            "shape": [3, sizes.height, sizes.width],
        }
        card = (
            f"# World model\n\nPredicts what a game shows next, on screens of {sizes.width}x"
            f"{sizes.height} pixels, given the last screens and {sizes.actions} actions. "
            f"{sizes.looks:,} looks of sprites in {sizes.groups} groups, {sizes.moves} moves, at "
            f"most {sizes.tracks} tracks. `loss` is −ln p of a step in nats. The model knows only "
            "what its training episodes show.\n"
        )
        return Export("world", config, dict(model.state_dict()), card)


def part_weights(rows_BW: Tensor, sizes: WorldSizes, config: WorldModelConfig) -> Tensor:
    """Return the weights of the likelihood's parts, [B, 4].

    Rows with an event are in an epoch `repeat_events` times. The events' own part is corrected for
    that when they are drawn. If they are drawn last, the other parts of such rows have a weight of
    1 / `repeat_events`: otherwise what an event looks like, e.g. an eaten seed, would be dreamed
    too often. If they are drawn first, the other parts are learned given the events, and the
    number of such rows does not change what is learned.
    """
    weight_B4 = torch.ones(len(rows_BW), len(PARTS), device=rows_BW.device)
    if not config.events_first:
        happened_B1 = split_rows(rows_BW, sizes.layout).events_B3.any(1, keepdim=True)
        weight_B4[:, :-1] = torch.where(happened_B1, 1 / config.repeat_events, 1.0)
    weight_B4[:, -1] = config.event_weight
    return weight_B4


def corrupted(rows_BW: Tensor, sizes: WorldSizes, share: float) -> Tensor | None:
    """Return rows in which a share of the tracks is read changed; None for a share of 0.

    A third of the changed tracks is moved by one pixel, a third has no last moves and another age,
    and a third has its last two looks exchanged. The targets stay.
    """
    if not share:
        return None
    rows_BW, layout = rows_BW.clone(), sizes.layout
    track_BMC = rows_BW[:, layout.first_track : layout.first_birth].unflatten(1, (-1, TRACK))
    batch, most = track_BMC.shape[:2]
    device = rows_BW.device
    kind_BM = torch.rand(batch, most, device=device).div(share).mul(3).floor()
    kind_BM[torch.arange(most, device=device) >= rows_BW[:, :1]] = 3
    near_BM2 = torch.randint(-1, 2, (batch, most, 2), device=device, dtype=rows_BW.dtype)
    moved = kind_BM == 0
    for axis, (column, side) in enumerate(((Y, sizes.height), (X, sizes.width))):
        place = (track_BMC[..., column] + near_BM2[..., axis]).clamp(0, side - 1)
        track_BMC[..., column] = torch.where(moved, place, track_BMC[..., column])
    lost = (kind_BM == 1)[..., None]
    track_BMC[..., MOVES:TO_MOVE] = track_BMC[..., MOVES:TO_MOVE].masked_fill(lost, 0)
    for column in (AGE, SAME_LOOK, SAME_Y):
        track_BMC[..., column] = track_BMC[..., column].masked_fill(lost[..., 0], 0)
    swapped = kind_BM == 2
    look, previous = track_BMC[..., LOOK].clone(), track_BMC[..., PREVIOUS].clone()
    track_BMC[..., LOOK] = torch.where(swapped, previous, look)
    track_BMC[..., PREVIOUS] = torch.where(swapped, look, previous)
    return rows_BW
