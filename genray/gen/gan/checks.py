"""Checks, before a GAN trains, that its data and its batches fit its options."""

from genray.errors import require
from genray.gen.data.types import Data, need_images
from genray.gen.evaluation.metrics import Extractor
from genray.gen.gan.config import GANConfig


def check_images(config: GANConfig, data: Data) -> None:
    """Raise ConfigError unless the data are square images with values in −1..1, the range of tanh.

    For convolutional networks of n layers, 2ⁿ must divide the side.
    """
    model = config.model
    layers = max(len(model.generator_widths), len(model.discriminator_widths))
    if model.network == "conv":
        need_images(data, f"a GAN with {layers} convolutions of stride 2", 2**layers)
    else:
        need_images(data, "a GAN")
    require(
        (data.train.low, data.train.high) == (-1.0, 1.0),
        f"--data {data.name}: its values lie in {data.train.low:g}..{data.train.high:g}; tanh "
        "needs −1..1",
    )


def check_evaluation(config: GANConfig, data: Data, extractor: Extractor | None) -> None:
    """Raise ConfigError for data on which the evaluation would fail.

    A Fréchet distance needs two images. `extractor` is the classifier of --extractor, or None; the
    images must have the shape that this classifier takes.
    """
    require(
        len(data.validation) != 1,
        f"--data {data.name}: one validation image, and a Fréchet distance needs two; use "
        "--validation 0 or more images",
    )
    require(
        data.is_sealed or len(data.test) >= 2,
        f"--data {data.name}: too few test images for a Fréchet distance, which needs two; "
        "give more images",
    )
    if extractor is not None:
        wanted = tuple(extractor.classifier.shape)
        require(
            wanted == data.shape,
            f"--extractor {config.extractor}: the classifier takes images of shape {wanted}, and "
            f"{data.name} has {data.shape}; train a classifier on images of that shape",
        )


def check_batch(config: GANConfig, data: Data, workers: int) -> None:
    """Raise ConfigError when a worker's share of a batch cannot be packed or normalised.

    `--pack` must divide the share. A batch norm needs more than one value of each channel.
    """
    model, share = config.model, config.fit.batch_size // workers
    require(
        share % model.pack == 0,
        f"--pack {model.pack}: does not divide the {share} rows of a "
        f"{'worker' if workers > 1 else 'batch'}; "
        f"use --batch-size {max(1, round(share / model.pack)) * model.pack * workers}",
    )
    # The discriminator's first layer has no norm.
    discriminator_norm = model.discriminator_norm if len(model.discriminator_widths) > 1 else "none"
    for network, norm, widths, rows in (
        ("generator", model.generator_norm, model.generator_widths, share),
        ("discriminator", discriminator_norm, model.discriminator_widths, share // model.pack),
    ):
        # The smallest feature map has this number of pixels.
        pixels = (data.shape[1] >> len(widths)) ** 2 if model.network == "conv" else 1
        require(
            norm != "batch" or rows * pixels >= 2,
            f"--batch-size {config.fit.batch_size}: --{network}-norm batch needs more than one "
            f"row for each worker; use {2 * model.pack * workers} or more",
        )


def check_updates(config: GANConfig, updates: int) -> None:
    """Raise ConfigError when a run of `updates` updates would never train the generator."""
    require(
        updates >= config.discriminator_steps,
        f"--discriminator-steps {config.discriminator_steps}: the run makes {updates} updates, so "
        f"that the generator would never be trained; use at most {updates}, or more --steps",
    )
