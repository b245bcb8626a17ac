"""A picture in tiles has the translation of the whole picture, and models take any picture."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.generative import to_uint8
from genray.gen.translation.apply import apply_translator, model_input
from genray.gen.translation.config import TranslatorModelConfig
from genray.gen.translation.model import Translator
from genray.gen.translation.networks import Norm, make_generator
from genray.gen.translation.pairs import MASK
from genray.gen.translation.tiles import translate_picture
from tests.helpers.translation import RESNET, UNET

SHALLOW = replace(UNET, widths=(4, 6, 8))


def picture(height: int = 150, width: int = 210, channels: int = 3) -> torch.Tensor:
    """Return a picture whose parts differ, so that the statistics of its tiles do, too."""
    torch.manual_seed(0)
    slope = torch.linspace(-1, 0.6, width).expand(1, channels, height, width)
    return (slope + 0.3 * torch.randn(1, channels, height, width)).clamp(-1, 1)


def trained_like(config: TranslatorModelConfig, channels: int = 3) -> torch.nn.Module:
    """Return a generator with larger weights than at the start, as a trained one has."""
    torch.manual_seed(1)
    network = make_generator(config, channels, 3).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d):
            torch.nn.init.kaiming_normal_(module.weight)
    return network


@pytest.mark.parametrize("config", [SHALLOW, RESNET], ids=["unet", "resnet"])
def test_tiles_equal_the_untiled_picture(config: TranslatorModelConfig):
    network, x = trained_like(config), picture()
    whole = translate_picture(network, x, tile=512)
    tiled = translate_picture(network, x, tile=24)
    assert whole.shape == tiled.shape == (1, 3, 150, 210)
    levels = [to_uint8(each, -1, 1).astype(int) for each in (whole, tiled)]
    assert np.abs(levels[0] - levels[1]).max() <= 1 and levels[0].std() > 10
    # Tiles that are normalised on their own differ visibly.
    part = translate_picture(network, x[..., :96], tile=512)
    assert (part[..., :40] - whole[..., :40]).abs().max() > 4 / 255
    assert all(each.statistics is None for each in network.modules() if isinstance(each, Norm))


def test_tiles_with_batch_norm_equal_the_untiled_picture():
    """Batch norms use their running averages, so that a tile has the whole picture's values."""
    network, x = trained_like(replace(SHALLOW, norm="batch")).train(), picture()
    for _ in range(30):
        network(x[..., :144, :208])  # the running averages become those of such pictures
    network.eval()
    whole = translate_picture(network, x, tile=512)
    assert torch.allclose(whole, translate_picture(network, x, tile=24), atol=1e-4)
    assert whole.std() > 0.05
    # A part of a picture has the same translation as in the whole picture, away from its border.
    core = slice(network.halo, 96 - network.halo)
    part = translate_picture(network, x[..., :128], tile=512)
    assert torch.allclose(part[..., core, core], whole[..., core, core], atol=1e-4)


def test_translate_picture_pads_other_sizes_and_refuses_what_does_not_fit():
    network = trained_like(SHALLOW)
    whole = translate_picture(network, picture(24, 40))
    padded = translate_picture(network, picture(24, 40)[..., :21, :35])
    assert padded.shape == (1, 3, 21, 35) and whole.shape == (1, 3, 24, 40)
    with pytest.raises(ConfigError, match="has 1 channel, and the model takes 3"):
        translate_picture(network, picture(24, 40, channels=1))
    with pytest.raises(ConfigError, match="40x4 pixels; this model takes sides of 5 or more"):
        translate_picture(network, picture(4, 40))


def model(kind: str, channels: int, **about) -> Translator:
    about = {"input": kind, "factor": 2, "edge_sigma": 0.5, **about}
    return Translator(SHALLOW, (channels, 16, 16), 3, about=about).eval()


def photo() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (20, 28, 3), np.uint8)


def test_model_input_of_each_kind():
    rgb = photo()
    plain = model_input(model("images", 3), rgb)
    torch.testing.assert_close(plain, torch.from_numpy(rgb).permute(2, 0, 1)[None] / 127.5 - 1)
    grey = np.full((20, 28, 3), 159, np.uint8)
    grey[:, 14:] = 160  # a drawing becomes black and white
    assert model_input(model("edges", 1), grey)[0, 0, 3].tolist() == [-1.0] * 14 + [1.0] * 14
    drawn = model_input(model("edges", 1), rgb, prepare=True)
    assert set(drawn.unique().tolist()) == {-1.0, 1.0}
    assert model_input(model("low", 3), rgb).shape == (1, 3, 40, 56)
    assert model_input(model("low", 3), rgb, prepare=True).shape == (1, 3, 20, 28)
    alpha = np.full((20, 28), 255, np.uint8)
    alpha[:5] = 0
    masked = model_input(model("masked", 3), rgb, alpha)
    torch.testing.assert_close(masked[..., :5, :], torch.full((1, 3, 5, 28), MASK * 2 / 255 - 1))
    assert torch.equal(masked[..., 5:, :], plain[..., 5:, :])
    with pytest.raises(ConfigError, match="--prepare: this model takes pictures as they are"):
        model_input(model("images", 3), rgb, prepare=True)


def test_apply_translator_returns_a_picture_in_colour():
    result = apply_translator(model("grey", 1), photo())
    assert result.shape == (20, 28, 3) and result.dtype == np.uint8
    with pytest.raises(ConfigError, match="--direction b_to_a"):
        apply_translator(model("grey", 1), photo(), direction="b_to_a")
