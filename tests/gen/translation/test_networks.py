"""Networks, losses and the pool of pix2pix and CycleGAN, against numbers found by other means."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.training.world import World
from genray.gen.translation.config import CycleGANConfig, TranslatorModelConfig
from genray.gen.translation.losses import adversarial_loss, discriminator_loss, l1_loss
from genray.gen.translation.model import Translator, build_translator, translator_config
from genray.gen.translation.networks import Norm, PatchDiscriminator, make_generator
from genray.gen.translation.pool import ImagePool
from tests.helpers.translation import RESNET, UNET


def without_statistics(network: torch.nn.Module) -> torch.nn.Module:
    """Let the norms use constants, because an image's own statistics depend on all its pixels."""
    for module in network.modules():
        if isinstance(module, Norm):
            module.statistics = torch.zeros(module.num_features), torch.ones(module.num_features)
    return network.eval()


def pixels_of(network: torch.nn.Module, channels: int, side: int, at: int) -> tuple[int, int]:
    """Return the first and the last row of pixels on which an output pixel depends."""
    x = torch.randn(1, channels, side, side, requires_grad=True)
    network(x)[0, 0, at, at].backward()
    assert x.grad is not None
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    return int(rows.min()), int(rows.max())


@pytest.mark.parametrize(("layers", "patch"), [(1, 16), (2, 34), (3, 70)])
def test_patch_discriminator_receptive_field_is_that_of_the_paper(layers: int, patch: int):
    config = TranslatorModelConfig(discriminator_width=2, discriminator_layers=layers)
    network = without_statistics(PatchDiscriminator(config, 3))
    assert network.patch == patch
    side = 144
    first, last = pixels_of(network, 3, side, network(torch.zeros(1, 3, side, side)).shape[-1] // 2)
    assert last - first + 1 == patch


def test_patch_discriminator_of_256_pixels_has_30x30_logits_and_the_papers_widths():
    network = PatchDiscriminator(TranslatorModelConfig(), 6)
    widths = [layer.out_channels for layer in network.layers if hasattr(layer, "out_channels")]
    assert widths == [64, 128, 256, 512, 1]
    assert sum(isinstance(layer, Norm) for layer in network.layers) == 3
    small = replace(TranslatorModelConfig(), discriminator_width=1)
    assert PatchDiscriminator(small, 6)(torch.zeros(1, 6, 256, 256)).shape == (1, 1, 30, 30)


@pytest.mark.parametrize("config", [UNET, RESNET], ids=["unet", "resnet"])
def test_generator_output_depends_on_pixels_within_its_halo(config: TranslatorModelConfig):
    network = without_statistics(make_generator(config, 1, 3))
    side = 160
    assert network(torch.zeros(1, 1, side, side)).shape == (1, 3, side, side)
    middle, multiple = side // 2, config.multiple
    for at in (middle, middle + 1, middle + multiple // 2, middle + multiple - 1):
        first, last = pixels_of(network, 1, side, at)
        assert network.halo / 4 < max(at - first, last - at) <= network.halo


def test_unet_has_the_papers_dropout_and_skip_connections():
    network = make_generator(
        replace(TranslatorModelConfig(), widths=(1, 1, 1, 2, 2, 2, 2, 2)), 3, 3
    )
    dropped = [any(isinstance(each, torch.nn.Dropout) for each in layer) for layer in network.up]
    assert dropped == [True] * 3 + [False] * 5
    inputs = [layer[1].in_channels for layer in network.up]
    assert inputs == [2, 4, 4, 4, 4, 2, 2, 2]
    # Without an input to the innermost layer, the skip connections alone carry the picture.
    network.eval()
    torch.nn.init.zeros_(network.down[-1][1].weight)
    x = torch.randn(2, 3, 256, 256)
    first, second = network(x)
    assert (first - second).abs().max() > 1e-3


def test_norm_uses_the_same_statistics_in_training_and_evaluation():
    norm, x = Norm(2), torch.randn(3, 2, 4, 4) * 5 + 1
    torch.testing.assert_close(norm.train()(x), norm.eval()(x))
    plain = (x - x.mean((2, 3), keepdim=True)) / (
        x.var((2, 3), keepdim=True, unbiased=False) + 1e-5
    ).sqrt()
    torch.testing.assert_close(norm(x), plain, rtol=1e-4, atol=1e-5)
    one = x[:1]
    norm.statistics = one.mean((0, 2, 3)), one.var((0, 2, 3), unbiased=False)
    torch.testing.assert_close(norm(one), plain[:1], rtol=1e-4, atol=1e-5)


def test_batch_norm_is_saved_with_the_model_and_refused_for_two_domains():
    config = replace(UNET, norm="batch")
    model = Translator(config, (3, 16, 16), 3)
    saved = translator_config(config) | {
        "shape": [3, 16, 16], "channels_out": 3, "directions": ["a_to_b"], "about": {}
    }  # fmt: skip
    again = build_translator(saved)
    again.load_state_dict(model.state_dict())
    assert any(isinstance(each, torch.nn.BatchNorm2d) for each in again.modules())
    assert not any(isinstance(each, Norm) for each in again.modules())
    # Models of before do not name their norm.
    del saved["norm"]
    assert any(isinstance(each, Norm) for each in build_translator(saved).modules())
    with pytest.raises(ConfigError, match="--norm batch: a batch of CycleGAN has images of two"):
        CycleGANConfig(model=replace(RESNET, norm="batch")).validate()


def test_losses_by_hand():
    logits = torch.tensor([2.0, -1.0]).reshape(1, 1, 1, 2)
    assert adversarial_loss("lsgan", logits, True).item() == pytest.approx((1 + 4) / 2)
    assert adversarial_loss("lsgan", logits, False).item() == pytest.approx((4 + 1) / 2)
    for real in (True, False):
        torch.testing.assert_close(
            adversarial_loss("non-saturating", logits, real),
            F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real))),
        )
    fake = torch.tensor([0.5]).reshape(1, 1, 1, 1)
    assert discriminator_loss("lsgan", logits, fake).item() == pytest.approx((2.5 + 0.25) / 2)
    a, b = torch.tensor([[1.0, -1.0]]), torch.tensor([[0.5, 1.0]])
    assert l1_loss(a, b).item() == pytest.approx((0.5 + 2) / 2)
    with pytest.raises(ValueError, match=r"\(1, 2\) and \(2,\)"):
        l1_loss(a, b[0])


def numbered(first: int, count: int) -> Tensor:
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1)


def test_image_pool_fills_up_and_then_returns_old_images_half_of_the_time():
    torch.manual_seed(0)
    pool = ImagePool(5, (1, 1, 1))
    assert torch.equal(pool.exchange(numbered(0, 5)), numbered(0, 5)) and pool.filled == 5
    ages = []
    for first in range(5, 4005, 4):
        new, found = numbered(first, 4), pool.exchange(numbered(first, 4))
        ages += (new - found).flatten().tolist()
    ages = torch.tensor(ages)
    # Half of the returned images are new; an old one leaves with probability 1/10 at each image.
    # The age of a returned old image is geometric with the mean 10, and 4 images are one batch.
    assert (ages == 0).float().mean().item() == pytest.approx(0.5, abs=0.04)
    assert ages[ages > 0].mean().item() == pytest.approx(10, rel=0.1)
    assert len(pool.images.unique()) == 5  # no image twice


def test_image_pool_of_two_workers_is_the_pool_of_one():
    class Half(World):
        """A worker whose group's rows are given."""

        def gather(self, rows: Tensor) -> Tensor:
            return everything

    whole, halves = ImagePool(3, (1, 1, 1)), [ImagePool(3, (1, 1, 1), Half(n, 2)) for n in (0, 1)]
    for number in range(6):
        everything = numbered(4 * number, 4)
        found = []
        for pool, rows in zip((whole, *halves), (everything, everything[:2], everything[2:])):
            torch.manual_seed(number)
            found.append(pool.exchange(rows))
        assert torch.equal(found[0], torch.cat(found[1:]))
    assert torch.equal(whole.images, halves[0].images)


def test_image_pool_state_is_restored_and_size_0_changes_nothing():
    torch.manual_seed(0)
    pool, again = ImagePool(4, (1, 1, 1)), ImagePool(4, (1, 1, 1))
    pool.exchange(numbered(0, 3))
    again.load_state_dict(pool.state_dict())
    assert again.filled == 3 and torch.equal(again.images, pool.images)
    assert torch.equal(ImagePool(0, (1, 1, 1)).exchange(numbered(3, 2)), numbered(3, 2))
