"""The training loop of pix2pix beside a bare loop over the same networks and losses. `python -m
tests.bench.bench_translation`

CPU time of one thread, of blocks of steps in turns: bare over ours, so that 1 means that genray's
loop (batches, updaters, log lines) costs nothing. Without the moving average, which the bare loop
does not have. The presets' networks and batches, on random pairs.
"""

import argparse
import statistics
from dataclasses import replace

import torch
from torch import nn

from genray.gen.data.types import Data
from genray.gen.training.fit import Fit
from genray.gen.translation.config import Pix2PixConfig
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10, help="of a block")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--quick", action="store_true", help="2 blocks of 2 steps")
    options = parser.parse_args()
    steps, blocks = (2, 2) if options.quick else (options.steps, options.blocks)
    torch.set_num_threads(1)
    print(describe_machine())
    found = compare(*pix2pix_pair(pix2pix_grey(), options.side), steps, blocks)
    middle = statistics.median(found)
    print_table(
        f"bare loop's CPU time over genray's, {blocks} blocks of {steps} steps of 8 pairs of "
        f"{options.side}x{options.side}",
        ["loop", "median", "lowest", "highest"],
        [("pix2pix_grey", f"{middle:.3f}", f"{min(found):.3f}", f"{max(found):.3f}")],
    )
    last_json_line({"bench": "translation", "pix2pix_of_bare": middle})


if __name__ == "__main__":
    main()
