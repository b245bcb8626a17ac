"""Tests that large pictures, in strips and tiles, get the result of one pass of the whole."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from genray.gen.images.features import lite0, untrained
from genray.gen.images.style import adain_net, transformer_net
from genray.gen.images.style.adain_net import AdaINNet
from genray.gen.images.style.large_adain import encoder_halo, restyle_in_tiles
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.strips import transformed_in_strips
from genray.gen.images.style.transformer_net import TransformerNet

LEVEL = 1 / 255
SMALL = StyleNetConfig(widths=(4, 6, 8), residual=2, kernel=5)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=generator)
    fine = torch.rand(1, 3, height, width, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return 0.8 * smooth + 0.2 * fine


@pytest.mark.parametrize(
    ("modulated", "strip"), [(False, 1 << 12), (True, 1 << 9), (True, 1 << 20)]
)
def test_transformed_in_strips_equals_one_pass(modulated: bool, strip: int):
    torch.manual_seed(0)
    net = TransformerNet(replace(SMALL, modulated=modulated)).eval()
    with torch.no_grad():
        for parameter in net.parameters():  # norms and modulation that are not neutral
            parameter.add_(0.1 * torch.randn_like(parameter))
        content = picture(44, 60)
        whole = net(content)
        changes = iter(() if net.modulation is None else net.modulation(content))
        found = transformed_in_strips(net.layers, net.skip, content, changes, strip)
    assert whole.std() > 0.01
    torch.testing.assert_close(found, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("encoder", "layer", "skips"),
    [("untrained", "conv4", False), ("untrained", "conv7", True), ("lite0", "exp3", True)],
)
def test_restyle_in_tiles_equals_one_pass(encoder: str, layer: str, skips: bool):
    torch.manual_seed(0)
    features = (lite0() if encoder == "lite0" else untrained(0)).up_to(layer)
    scales = features.stride_of(layer).bit_length() - 1
    config = replace(SMALL, widths=(4, 6, 8, 8)[: scales + 1], skips=skips, encoder_layer=layer)
    net = AdaINNet(config, features, 48).eval()
    content, halo = picture(136, 104), encoder_halo(features)
    assert halo is not None
    with torch.no_grad():
        codes = [net.encode_picture(picture(48, 64, seed)) for seed in (1, 2)]
        found = restyle_in_tiles(
            net, content, codes, [0.3, 0.7], 0.8, halo=halo, tile=40, strip=1 << 10
        )
        # In float64, because float32 loses digits in the roots of the whole pass's covariances.
        net.double()
        again = [[code.double() for code in each] for each in codes]
        code = net.encode_picture(content.double())
        whole = net.decoder(net.restyled(code, again, [0.3, 0.7], 0.8)).float()
    torch.testing.assert_close(found, whole, atol=0.5 * LEVEL, rtol=0)


@pytest.mark.parametrize("kind", ["fast", "any"])
def test_stylize_of_a_large_picture_equals_the_whole(kind: str, monkeypatch):
    torch.manual_seed(0)
    content, styles = picture(61, 75), [picture(40, 32, 1)]
    if kind == "fast":
        net = TransformerNet(SMALL).eval()
        whole = net.stylize(content, alpha=0.9)
        monkeypatch.setattr(transformer_net, "WHOLE", 1000)
        found = net.stylize(content, alpha=0.9)
    else:
        some = AdaINNet(replace(SMALL, skips=True), untrained(0).up_to("conv4"), 32).eval()
        whole = some.stylize(content, styles, alpha=0.9)
        monkeypatch.setattr(adain_net, "WHOLE", 1000)
        found = some.stylize(content, styles, alpha=0.9)
    assert found.shape == content.shape and not torch.equal(found, whole)
    torch.testing.assert_close(found, whole, atol=2 * LEVEL, rtol=0)


def test_encoder_halo_covers_the_receptive_field():
    """A change outside of the halo does not reach an activation, and one inside does."""
    features = lite0().up_to("exp3")
    halo = encoder_halo(features)
    assert halo is not None
    content = picture(2 * halo + 40, 24)
    with torch.no_grad():
        before = features(content, ["exp3"])["exp3"]
        near, far = content.clone(), content.clone()
        row = before.shape[2] - 1
        near[..., 4 * row - halo // 2, :] = 0
        far[..., : 4 * row - halo, :] = 0
        changed = [features(each, ["exp3"])["exp3"][..., row, :] for each in (near, far)]
    assert not torch.equal(changed[0], before[..., row, :])
    torch.testing.assert_close(changed[1], before[..., row, :], atol=1e-5, rtol=0)
