"""Base class of the tasks of pix2pix and CycleGAN: checks, updaters, averages and the saved model.

Shapes: B batch, C channels, H height, W width.
"""

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from genray.errors import require
from genray.gen.data.types import Data
from genray.gen.evaluation.metrics import Extractor
from genray.gen.images.classifier import load_extractor
from genray.gen.training.moving_average import MovingAverage
from genray.gen.training.task import Task
from genray.gen.training.updater import Updater
from genray.gen.training.world import ALONE, World
from genray.gen.translation.config import TranslationConfig
from genray.gen.translation.model import translator_config


class TranslationTask(Task):
    """Base class: subclasses name their generators and discriminators.

    Args:
        config: the configuration of pix2pix or CycleGAN.
        world: this data-parallel worker.
        device: the device on which the networks are trained.
    """

    value_range = (-1.0, 1.0)
    progress_of = "inputs"
    config: TranslationConfig

    def __init__(
        self, config: TranslationConfig, world: World = ALONE, device: torch.device | str = "cpu"
    ):
        config.validate()
        super().__init__(world, device, config.fit.amp)
        self.config = config
        self._averages: list[MovingAverage] = []
        self._extractor: Extractor | None = (
            load_extractor(config.extractor, self.device) if config.extractor else None
        )

    def check_images(self, data: Data, channels: int) -> None:
        """Raise ConfigError unless the networks take the images, and --extractor takes images of
        `channels` channels.
        """
        model = self.config.model
        require(
            len(data.shape) == 3,
            f"--data {data.name}: a translation needs images; choose e.g. --data photos",
        )
        _, height, width = data.shape
        multiple, least = model.multiple, model.least_side
        require(
            height % multiple == 0 and width % multiple == 0 and min(height, width) >= least,
            f"--data {data.name}: images of {width}x{height}; a {model.network} of "
            f"{len(model.widths)} widths needs sides that are multiples of {multiple}, and the "
            f"discriminator at least {least} pixels; use --size "
            f"{max(-(-least // multiple), round(height / multiple), 1) * multiple}",
        )
        if self._extractor is not None:
            wanted = tuple(self._extractor.classifier.shape)
            require(
                wanted == (channels, height, width),
                f"--extractor {self.config.extractor}: the classifier takes images of shape "
                f"{wanted}, and the translated images have {(channels, height, width)}; train a "
                "classifier on images of that shape",
            )

    def add_players(
        self,
        generators: Mapping[str, nn.Module],
        discriminators: Mapping[str, nn.Module],
        total_updates: int,
    ) -> None:
        """Add the networks with an updater of all generators and one of all discriminators, and a
        moving average of each generator, if there are any.
        """
        players = {**generators, **discriminators}
        self.networks.update({name: each.to(self.device) for name, each in players.items()})
        self._averages = []
        if self.config.ema:
            for name, generator in generators.items():
                self._averages.append(MovingAverage(generator, self.config.ema))
                self.networks[f"average_{name}"] = self._averages[-1].network
        for name, group in (("generator", generators), ("discriminator", discriminators)):
            if group:
                self.updaters[name] = self._updater(group.values(), total_updates)

    def _updater(self, networks: Iterable[nn.Module], total_updates: int) -> Updater:
        fit = self.config.fit
        return Updater(
            chain.from_iterable(network.parameters() for network in networks),
            self.config.optimizer, total_updates=total_updates, accumulate=fit.accumulate,
            amp=fit.amp, world=self.world,
        )  # fmt: skip

    def best(self, name: str) -> nn.Module:
        """Return the generator `name` that translates: its moving average if there is one."""
        return self.networks[f"average_{name}" if self.config.ema else name]

    def update_generators(self, loss: Tensor) -> None:
        """Make a step of the generators' updater, and of the averages after an update."""
        updater = self.updaters["generator"]
        before = updater.updates
        updater.step(loss)
        if updater.updates > before:
            for average in self._averages:
                average.update(updater.updates)

    def described(self, shape: tuple[int, ...], channels_out: int, **about: Any) -> dict[str, Any]:
        """Return the entries of config.json of a saved model; `shape` is that of its inputs."""
        return {
            **translator_config(self.config.model),
            "shape": list(shape),
            "channels_out": channels_out,
            "low": -1.0,
            "high": 1.0,
            "loss": self.config.loss,
            "ema": self.config.ema,
            "about": about,
        }
