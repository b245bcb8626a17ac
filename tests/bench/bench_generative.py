"""The training loop against a bare loop over the same modules, a VAE against pythae. `python -m
tests.bench.bench_generative`

Bare: the same networks, batches and random draws, fused Adam, gradients of the player alone
whose turn it is, and nothing else: no configuration, no report, no guard, no order that can be
resumed. It is the limit. Blocks of steps alternate between the two, so that the machine's moods
strike both; the figure is the median of the blocks' ratios of CPU time (one thread: CPU time is
wall time on a quiet core).

pythae: its own trainer and its default MLP VAE (784 inputs, 512 hidden units, 16 latents), batch
100, data in memory. Both minimise the same loss, squares of the error under a standard deviation
of 1; pythae's decoder goes without the sigmoid at its end, which ours does not have.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from genray.gen import presets
from genray.gen.data.types import Data, Split
from genray.gen.gan import losses as gan_losses
from genray.gen.gan.task import GANConfig, GANTask
from genray.gen.training.fit import Fit
from genray.gen.vae import VAETask
from genray.machine import keep_freed_memory
from tests.bench.common import describe_machine, last_json_line, print_table

Advance = Callable[[int], None]
"""Makes so many steps."""


def random_images(rows: int, *shape: int, low: float) -> Data:
    """Values do not matter to the time of a step."""
    values = torch.rand(rows, *shape) * (1.0 - low) + low
    split = Split(values, None, low, 1.0)
    return Data("random", split, split.first(100), split.first(100))


def ours(fit: Fit) -> Advance:
    steps: Iterator[Any] = iter(fit)

    def advance(count: int) -> None:
        for _ in range(count):
            next(steps)

    return advance


def endless(config: Any) -> Any:
    """No looks and no checkpoints inside the measured blocks; reports as often as by default."""
    return replace(config, fit=replace(config.fit, steps=10**9, validate_every=10**9, device="cpu"))


def quarter_dcgan() -> GANConfig:
    """The source's DCGAN, batch 128, at a quarter of its width."""
    config = presets.dcgan_svhn()
    generator, discriminator = (
        tuple(width // 4 for width in widths)
        for widths in (config.model.generator_widths, config.model.discriminator_widths)
    )
    return replace(
        config,
        model=replace(config.model, generator_widths=generator, discriminator_widths=discriminator),
    )


def gan_pair(config: GANConfig, shape: tuple[int, int, int]) -> tuple[Advance, Advance]:
    config = replace(endless(config), ema=0.0)
    data = random_images(2_000, *shape, low=-1.0)
    fit = Fit(GANTask(config), data, config.fit)
    twin = GANTask(config)
    Fit(twin, data, config.fit)
    return ours(fit), bare_gan(twin, data, config)


def bare_gan(task: GANTask, data: Data, config: GANConfig) -> Advance:
    generator, discriminator = (
        task.networks["generator"].train(),
        task.networks["discriminator"].train(),
    )
    rate, betas = config.optimizer.learning_rate, (config.optimizer.beta1, config.optimizer.beta2)
    players = {net: list(net.parameters()) for net in (generator, discriminator)}
    adam = {
        net: torch.optim.Adam(weights, lr=rate, betas=betas, fused=True)
        for net, weights in players.items()
    }
    images, size = data.train.values, config.fit.batch_size

    def step(net: nn.Module, loss: torch.Tensor) -> None:
        adam[net].zero_grad(set_to_none=True)
        loss.backward(inputs=players[net])
        adam[net].step()

    def advance(count: int) -> None:
        for number in range(count):
            start = number * size % (len(images) - size)
            fake = generator(torch.rand(size, config.model.latent).mul_(2.0).sub_(1.0))
            real_B, fake_B = (
                discriminator(images[start : start + size]),
                discriminator(fake.detach()),
            )
            step(
                discriminator,
                gan_losses.discriminator_loss(config.loss, real_B, fake_B, config.label_smoothing),
            )
            step(generator, gan_losses.generator_loss(config.loss, discriminator(fake)))

    return advance


def compare(ours: Advance, other: Advance, steps: int, blocks: int) -> list[float]:
    """Other's CPU time over ours, block by block: how fast ours is beside it."""
    ratios = []
    for advance in (ours, other):
        advance(max(3, steps // 4))
    for block in range(blocks):
        spent = {}
        for advance in (ours, other) if block % 2 else (other, ours):
            start = time.process_time()
            advance(steps)
            spent[advance] = time.process_time() - start
        ratios.append(spent[other] / spent[ours])
    return ratios


# -- pythae ----------------------------------------------------------------------------------------


def vae_fit(images: torch.Tensor, epochs: int) -> Fit:
    """genray's loop on pythae's architecture."""
    config = presets.vae_mnist()
    model = replace(
        config.model,
        network="dense",
        latent=16,
        widths=(512,),
        likelihood="gaussian",
        decoder_std=1.0,
        binarise="none",
        activation="relu",
    )
    config = replace(
        config, model=model, fit=replace(config.fit, epochs=epochs, batch_size=100, device="cpu")
    )
    split = Split(images, None, 0.0, 1.0)
    return Fit(
        VAETask(config), Data("random", split, split.first(100), split.first(100)), config.fit
    )


def vae_epoch_s(images: torch.Tensor, epochs: int) -> float:
    """CPU seconds an epoch of genray's loop, validation and all."""
    fit = vae_fit(images, epochs)
    start = time.process_time()
    for _ in fit:
        pass
    return (time.process_time() - start) / epochs


def bare_vae_epoch_s(images: torch.Tensor) -> float:
    """CPU seconds an epoch of the same networks and loss under fused Adam, rows in their order,
    and nothing else.
    """
    vae = cast(VAETask, vae_fit(images, 1).task).vae.train()
    weights = [weight for weight in vae.parameters() if weight.requires_grad]
    adam = torch.optim.Adam(weights, lr=1e-3, fused=True)
    start = time.process_time()
    for x in images.split(100):
        mean, log_variance = vae.encoder(x).chunk(2, dim=1)
        rebuilt = vae.decoder(mean + (0.5 * log_variance).exp() * torch.randn_like(mean))
        squares = 0.5 * torch.nn.functional.mse_loss(rebuilt, x, reduction="sum")
        kl = 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).sum()
        adam.zero_grad(set_to_none=True)
        ((squares + kl) / len(x)).backward()
        adam.step()
    return time.process_time() - start


def pythae_epoch_s(images: torch.Tensor, epochs: int) -> float:
    """CPU seconds an epoch of pythae's trainer."""
    from pythae.models import VAE, VAEConfig
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    model = VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=16))
    # the linear layer, without the sigmoid behind it
    model.decoder.layers[-1] = model.decoder.layers[-1][0]
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        settings = BaseTrainerConfig(
            output_dir=folder,
            num_epochs=epochs,
            per_device_train_batch_size=100,
            per_device_eval_batch_size=100,
            learning_rate=1e-3,
            no_cuda=True,
            steps_saving=None,
            keep_best_on_train=False,
        )
        trainer = BaseTrainer(model=model, train_dataset=_DataSet(images), training_config=settings)
        start = time.process_time()
        trainer.train()
        return (time.process_time() - start) / epochs


class _DataSet(torch.utils.data.Dataset):
    """What pythae makes of an array in memory (its BaseDataset asks for labels too)."""

    def __init__(self, images: torch.Tensor):
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: int) -> Any:
        from pythae.data.datasets import DatasetOutput

        return DatasetOutput(data=self._images[row])


def vae_over_pythae(rows: int, repeats: int) -> tuple[list[float], list[float]] | None:
    """pythae's CPU time over ours, and over the bare loop's, which is the limit; None where it
    is not installed.
    """
    try:
        import pythae  # noqa: F401
    except ImportError:
        return None
    images = torch.rand(rows, 1, 28, 28)
    pythae_epoch_s(images[:200], 1), vae_epoch_s(images[:200], 1), bare_vae_epoch_s(images[:200])
    ours, bare = [], []
    for _ in range(repeats):
        theirs = pythae_epoch_s(images, 2)
        ours.append(theirs / vae_epoch_s(images, 2))
        bare.append(theirs / bare_vae_epoch_s(images))
    return ours, bare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few blocks: shows that it runs")
    quick = parser.parse_args().quick
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    keep_freed_memory()
    machine = describe_machine()
    blocks = 3 if quick else 11
    dcgan = compare(
        *gan_pair(quarter_dcgan(), (3, 32, 32)), steps=5 if quick else 12, blocks=blocks
    )
    dense = compare(
        *gan_pair(presets.gan_mnist(), (1, 28, 28)), steps=100 if quick else 400, blocks=blocks
    )
    vae = vae_over_pythae(2_000 if quick else 10_000, 1 if quick else 5)
    rows = [
        ("DCGAN, quarter width, batch 128", "bare loop", dcgan),
        ("dense GAN, batch 100", "bare loop", dense),
        ("MLP VAE 784-512-16, batch 100", "pythae", vae and vae[0]),
        ("the same VAE, bare loop", "pythae", vae and vae[1]),
    ]
    print_table(
        f"Speed of genray's loop over the other's, CPU time, 1 thread; {machine}",
        ("model", "beside", "ratio (median)", "spread"),
        [
            (
                model,
                other,
                f"{statistics.median(found):.3f}",
                f"{min(found):.3f} to {max(found):.3f}",
            )
            if found
            else (model, other, "not installed", "–")
            for model, other, found in rows
        ],
    )
    last_json_line(
        {
            "dcgan_of_bare": statistics.median(dcgan),
            "dense_gan_of_bare": statistics.median(dense),
            "vae_over_pythae": statistics.median(vae[0]) if vae else None,
            "bare_vae_over_pythae": statistics.median(vae[1]) if vae else None,
        }
    )


if __name__ == "__main__":
    main()
