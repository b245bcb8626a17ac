"""The training loop of pix2pix beside a bare loop over the same networks and losses. `python -m
tests.bench.bench_translation`

CPU time of one thread, of blocks of steps in turns: bare over ours, so that 1 means that genray's
loop (batches, updaters, log lines) costs nothing. Without the moving average, which the bare loop
does not have. The presets' networks and batches, on random pairs.

`--reference FOLDER` also compares pix2pix's networks of 128x128 pixels at a quarter of their width
with those of pytorch-CycleGAN-and-pix2pix, of which FOLDER is a copy, in the order of updates of
its `Pix2PixModel.optimize_parameters`: batch norm, Adam, its defaults otherwise.
"""

import argparse
import functools
import importlib.util
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genray.gen.data.types import Data
from genray.gen.training.fit import Fit
from genray.gen.translation.config import Pix2PixConfig, TranslatorModelConfig
from genray.gen.translation.losses import adversarial_loss, discriminator_loss, l1_loss
from genray.gen.translation.presets import pix2pix_grey
from genray.gen.translation.task_pix2pix import Pix2PixTask
from tests.bench.bench_generative import Advance, compare, endless, ours, random_images
from tests.bench.common import describe_machine, last_json_line, print_table


def pairs(side: int, rows: int = 200) -> Data:
    """Return random pairs of a grey image and an image in colour."""
    data = random_images(rows, 4, side, side, low=-1.0)
    return replace(data, about={"pairs": {"kind": "grey", "channels": [1, 3]}})


def pix2pix_pair(config: Pix2PixConfig, side: int) -> tuple[Advance, Advance]:
    """Return genray's loop and a bare one over another copy of the networks."""
    config, data = replace(endless(config), ema=0.0), pairs(side)
    fit, twin = Fit(Pix2PixTask(config), data, config.fit), Pix2PixTask(config)
    Fit(twin, data, config.fit)
    return ours(fit), bare_pix2pix(twin, data, config)


def bare_pix2pix(task: Pix2PixTask, data: Data, config: Pix2PixConfig) -> Advance:
    """Return a loop that a user would write: two Adams, the two losses, slices of the images."""
    generator, discriminator = (
        task.networks[name].train() for name in ("generator", "discriminator")
    )
    rate, betas = config.optimizer.learning_rate, (config.optimizer.beta1, config.optimizer.beta2)
    weights = {net: list(net.parameters()) for net in (generator, discriminator)}
    adam = {
        net: torch.optim.Adam(each, lr=rate, betas=betas, fused=True)
        for net, each in weights.items()
    }
    images, size = data.train.values, config.fit.batch_size

    def step(net: nn.Module, loss: torch.Tensor) -> None:
        adam[net].zero_grad(set_to_none=True)
        loss.backward(inputs=weights[net])
        adam[net].step()

    def advance(count: int) -> None:
        for number in range(count):
            start = number * size % (len(images) - size)
            a, b = images[start : start + size].split([1, 3], 1)
            fake = generator(a)
            real = discriminator(torch.cat([a, b], 1))
            fakes = discriminator(torch.cat([a, fake.detach()], 1))
            step(discriminator, discriminator_loss(config.loss, real, fakes))
            again = discriminator(torch.cat([a, fake], 1))
            loss = config.l1_weight * l1_loss(fake, b)
            step(generator, loss + adversarial_loss(config.loss, again, True))

    return advance


# -- the reference ---------------------------------------------------------------------------------

SIDE, WIDTH = 128, 16


def reference_pair(folder: Path) -> tuple[Advance, Advance]:
    """Return genray's loop and the reference's, on networks of the same widths."""
    wide = 8 * WIDTH
    model = TranslatorModelConfig(
        widths=(WIDTH, 2 * WIDTH, 4 * WIDTH, wide, wide, wide, wide), discriminator_width=WIDTH
    )
    config = endless(replace(pix2pix_grey(), model=model, ema=0.0))
    data = pairs(SIDE)
    return ours(Fit(Pix2PixTask(config), data, config.fit)), reference_loop(folder, data, config)


def reference_loop(folder: Path, data: Data, config: Pix2PixConfig) -> Advance:
    """Return a loop over the reference's networks."""
    spec = importlib.util.spec_from_file_location("reference", folder / "models" / "networks.py")
    assert spec is not None and spec.loader is not None
    networks: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(networks)
    norm = functools.partial(nn.BatchNorm2d, affine=True)
    generator = networks.UnetGenerator(1, 3, 7, WIDTH, norm_layer=norm, use_dropout=True)
    discriminator = networks.NLayerDiscriminator(4, WIDTH, n_layers=3, norm_layer=norm)
    adam = [
        torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999))
        for net in (generator, discriminator)
    ]
    adversarial, l1 = nn.BCEWithLogitsLoss(), nn.L1Loss()
    images, size = data.train.values, config.fit.batch_size

    def gan_loss(logits: torch.Tensor, real: bool) -> torch.Tensor:
        return adversarial(logits, torch.tensor(float(real)).expand_as(logits))

    def advance(count: int) -> None:
        for number in range(count):
            start = number * size % (len(images) - size)
            a, b = images[start : start + size].split([1, 3], 1)
            fake = generator(a)
            discriminator.requires_grad_(True)
            adam[1].zero_grad()
            fakes = discriminator(torch.cat((a, fake), 1).detach())
            real = discriminator(torch.cat((a, b), 1))
            ((gan_loss(fakes, False) + gan_loss(real, True)) * 0.5).backward()
            adam[1].step()
            discriminator.requires_grad_(False)
            adam[0].zero_grad()
            again = discriminator(torch.cat((a, fake), 1))
            (gan_loss(again, True) + l1(fake, b) * 100.0).backward()
            adam[0].step()

    return advance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--reference", type=Path, help="a copy of pytorch-CycleGAN-and-pix2pix")
    parser.add_argument("--quick", action="store_true", help="2 blocks of 2 steps")
    options = parser.parse_args()
    steps, blocks = (2, 2) if options.quick else (options.steps, options.blocks)
    torch.set_num_threads(1)
    print(describe_machine())
    found = {
        "bare, pix2pix_grey": compare(*pix2pix_pair(pix2pix_grey(), options.side), steps, blocks)
    }
    if options.reference:
        found["reference"] = compare(*reference_pair(options.reference), steps, blocks)
    middle = {name: statistics.median(ratios) for name, ratios in found.items()}
    print_table(
        f"another loop's CPU time over genray's, {blocks} blocks of {steps} steps of 8 pairs",
        ["loop", "median", "lowest", "highest"],
        [
            (name, *(f"{ratio:.3f}" for ratio in (middle[name], min(ratios), max(ratios))))
            for name, ratios in found.items()
        ],
    )
    last_json_line({"bench": "translation", **middle})


if __name__ == "__main__":
    main()
