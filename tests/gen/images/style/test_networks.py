"""Tests the style networks: sizes, mixing of styles, strength, and what the model store keeps."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from genray.errors import ConfigError
from genray.gen.images.features import lite0, untrained
from genray.gen.images.style.adain import match_covariance, mean_std
from genray.gen.images.style.adain_net import (
    AdaINNet,
    build_style_any,
)
from genray.gen.images.style.network_config import StyleNetConfig
from genray.gen.images.style.network_parts import pad_to_multiple
from genray.gen.images.style.transformer_net import TransformerNet, build_style_fast
from genray.runs.modelstore import load_model, save_model

SMALL = StyleNetConfig(widths=(4, 6, 8), residual=1, kernel=3)


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "skips"])
def adain_net(request: pytest.FixtureRequest) -> AdaINNet:
    torch.manual_seed(0)
    config = replace(SMALL, skips=request.param)
    return AdaINNet(config, untrained(0).up_to("conv4"), 32).eval()


@pytest.fixture(scope="module")
def fast_net() -> TransformerNet:
    torch.manual_seed(0)
    net = TransformerNet(SMALL).eval()
    net.begin_with(picture(16, 16))
    return net


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (33, 50), (64, 17)])
def test_stylize_keeps_the_size(
    fast_net: TransformerNet, adain_net: AdaINNet, size: tuple[int, int]
):
    content = picture(*size)
    for result in (fast_net.stylize(content), adain_net.stylize(content, [picture(40, 21, 1)])):
        assert result.shape == content.shape
        assert (
            float(result.min()) >= 0
            and float(result.max()) <= 1
            and bool(torch.isfinite(result).all())
        )


def test_padded_pads_only_right_and_bottom(fast_net: TransformerNet):
    content = picture(22, 27)
    reflected = torch.nn.functional.pad(content, (0, 1, 0, 2), mode="reflect")
    torch.testing.assert_close(pad_to_multiple(content, 4), reflected)
    torch.testing.assert_close(fast_net.stylize(content), fast_net(reflected)[..., :22, :27])


def test_begin_with_transfers_the_colours_of_the_style():
    torch.manual_seed(0)
    net, content = TransformerNet(StyleNetConfig()), picture(64, 64)
    smooth = torch.nn.functional.interpolate(picture(6, 6, 2), 64, mode="bicubic").clamp(0, 1)
    style = 0.3 * smooth + torch.tensor([0.6, 0.1, 0.3])[None, :, None, None]
    with torch.no_grad():
        before = (net(content).mean((2, 3)) - style.mean((2, 3))).abs().max()
        net.begin_with(style)
        after = (net(content).mean((2, 3)) - style.mean((2, 3))).abs().max()
    assert after < 0.06 < before


def test_modulation_begins_neutral_and_reacts_to_contrast(tmp_path: Path):
    nets = []
    for modulated in (False, True):
        torch.manual_seed(0)
        nets.append(TransformerNet(replace(SMALL, modulated=modulated)))
    plain, net = nets
    content = picture(64, 64)
    weak = 0.5 + 0.3 * (content - 0.5)
    assert net.modulation is not None
    with torch.no_grad():
        torch.testing.assert_close(net(content), plain(content))
        unmodulated = (plain(content) - plain(weak)).abs().mean()
        torch.manual_seed(1)
        net.modulation.layers[-1].weight.normal_(std=0.3)
        assert (net(content) - net(weak)).abs().mean() > 5 * unmodulated
        both = torch.cat([content, weak])
        # each picture its own
        torch.testing.assert_close(net(both)[1:], net(weak), atol=1e-5, rtol=0)
    config = {**net.config.__dict__, "widths": [4, 6, 8], "about": {}}
    save_model(tmp_path / "model", "style_fast", config, net.state_dict(), "card")
    torch.testing.assert_close(
        load_model(tmp_path / "model", {"style_fast": build_style_fast})[0](weak), net(weak)
    )
    before = {name: value for name, value in config.items() if name != "modulated"}
    assert build_style_fast(before).modulation is None, "a model of before the option was there"


def test_transformer_net_stylize_mixes_by_alpha_and_refuses_bad_input(fast_net: TransformerNet):
    content = picture(16, 20)
    whole, half = fast_net.stylize(content), fast_net.stylize(content, alpha=0.5)
    torch.testing.assert_close(half, (whole + content) / 2)
    torch.testing.assert_close(fast_net.stylize(content, alpha=0.0), content)
    with pytest.raises(ConfigError, match="leave the style pictures out"):
        fast_net.stylize(content, [content])
    with pytest.raises(ConfigError, match="0..1"):
        fast_net.stylize(content, alpha=1.5)
    with pytest.raises(ConfigError, match="16385x8 pixels"):
        fast_net.stylize(torch.zeros(1, 3, 8, 16_385))
    with pytest.raises(ConfigError, match="one RGB picture"):
        fast_net.stylize(torch.zeros(1, 1, 16, 16))


def test_adain_net_alpha_0_decodes_the_content_and_1_has_the_styles_statistics(adain_net: AdaINNet):
    content, style = picture(32, 32), picture(32, 32, 1) ** 3
    code, wanted = adain_net.encode_picture(content), adain_net.encode_picture(style)
    torch.testing.assert_close(
        adain_net.stylize(content, [style], alpha=0.0), adain_net.decoder(code)
    )
    restyled = adain_net.restyled(code, [wanted], [1.0], 1.0)
    assert len(code) == len(restyled) == (3 if adain_net.config.skips else 1)
    for before, after, style_code in zip(code, restyled, wanted):
        live = (mean_std(before)[1] > 1e-3).flatten()  # a constant channel has only the mean
        for found, target in zip(mean_std(after), mean_std(style_code)):
            tolerance = 5e-2 if adain_net.config.skips else 1e-4  # of the added variance
            torch.testing.assert_close(found[:, live], target[:, live], atol=tolerance, rtol=0)


def test_adain_net_with_skips_begins_near_the_recoloured_content():
    """The decoder adds the restyled pixels to its output, so that training starts with them."""
    torch.manual_seed(0)
    net = AdaINNet(replace(SMALL, skips=True), untrained(0).up_to("conv4"), 32).eval()
    content, style = picture(32, 32), 0.3 + 0.4 * picture(32, 32, 1)
    recoloured, *_ = net.restyled(
        net.encode_picture(content), [net.encode_picture(style)], [1.0], 1.0
    )
    found, expected = (
        torch.nn.functional.avg_pool2d(each, 8)
        for each in (net.stylize(content, [style]), recoloured)
    )
    torch.testing.assert_close(found, expected, atol=0.1, rtol=0)


def test_match_covariance_gives_the_styles_mean_and_covariance():
    content, style = picture(24, 20), 0.2 + 0.5 * picture(16, 30, 1).flip(1) ** 2
    style = style + 0.3 * style.roll(1, 1)  # correlated channels
    content, style = torch.cat([content, 1 - content]), torch.cat([style, style**2])
    found = match_covariance(content, style)
    for one, wanted in zip(found.flatten(2), style.flatten(2)):
        torch.testing.assert_close(one.mean(1), wanted.mean(1), atol=1e-4, rtol=0)
        torch.testing.assert_close(torch.cov(one), torch.cov(wanted), atol=1e-3, rtol=0.02)
    torch.testing.assert_close(match_covariance(style, style), style, atol=1e-3, rtol=0)
    constant = match_covariance(torch.full((1, 3, 4, 4), 2.0), style[:1])
    torch.testing.assert_close(constant, style[:1].mean((2, 3), keepdim=True).expand(1, 3, 4, 4))


def test_adain_net_mixes_styles_by_their_weights(adain_net: AdaINNet):
    content, a, b = picture(32, 32), picture(32, 32, 1), 0.3 * picture(32, 32, 2)
    only_a = adain_net.stylize(content, [a])
    torch.testing.assert_close(adain_net.stylize(content, [a, b], weights=[3, 0]), only_a)
    code, codes = adain_net.encode_picture(content), [adain_net.encode_picture(x) for x in (a, b)]
    one, other = (adain_net.restyled(code, [each], [1.0], 1.0) for each in codes)
    both = [0.25 * first + 0.75 * second for first, second in zip(one, other)]
    torch.testing.assert_close(
        adain_net.stylize(content, [a, b], weights=[1, 3]), adain_net.decoder(both)
    )
    with pytest.raises(ConfigError, match="name one or more style"):
        adain_net.stylize(content)
    with pytest.raises(ConfigError, match="one for each"):
        adain_net.stylize(content, [a, b], weights=[1])


def test_at_training_size_reduces_a_large_style(adain_net: AdaINNet):
    assert adain_net.at_training_size(picture(200, 100)).shape == (1, 3, 64, 32)
    assert adain_net.at_training_size(picture(31, 90)).shape == (1, 3, 31, 90)


def test_up_to_equals_the_beginning_of_the_stack():
    whole, content = untrained(3), picture(32, 32)
    assert [whole.stride_of(layer) for layer in whole.layers] == [1, 1, 2, 2, 4, 4, 4, 8, 8]
    for layer in ("conv2", "conv5", "conv7"):
        short = whole.up_to(layer)
        assert short.layers[-1] == layer
        torch.testing.assert_close(short(content, [layer]), whole(content, [layer]))
    with pytest.raises(ConfigError, match="no such layer"):
        whole.up_to("conv99")


@pytest.mark.parametrize(("layer", "least"), [("exp1", 8), ("exp5", 17)])
def test_adain_net_reports_contents_smaller_than_its_encoder_takes(layer: str, least: int):
    widths = (4, 6) if layer == "exp1" else (4, 6, 8, 8)
    net = AdaINNet(StyleNetConfig(widths=widths, skips=True), lite0().up_to(layer), 32).eval()
    content = picture(least, 40)
    assert net.stylize(content, [picture(9, 70)]).shape == content.shape  # a thin style is enlarged
    with pytest.raises(ConfigError, match=f"takes sides of {least} to 16384") as caught:
        net.stylize(content[..., 1:, :], [content])
    assert "\n" not in str(caught.value)


def test_style_models_are_saved_and_loaded(
    tmp_path: Path, fast_net: TransformerNet, adain_net: AdaINNet
):
    content = picture(24, 20)
    config = {**SMALL.__dict__, "widths": [4, 6, 8], "about": {"method": "style"}}
    extra = {"encoder": adain_net.encoder.config(), "style_side": 32}
    extra["skips"] = adain_net.config.skips
    save_model(tmp_path / "fast", "style_fast", config, fast_net.state_dict(), "card")
    save_model(tmp_path / "any", "style_any", config | extra, adain_net.state_dict(), "card")
    builders = {"style_fast": build_style_fast, "style_any": build_style_any}
    fast: Any = load_model(tmp_path / "fast", builders)[0]
    anything: Any = load_model(tmp_path / "any", builders)[0]
    assert fast.max_side == anything.max_side == 16_384
    torch.testing.assert_close(fast.stylize(content), fast_net.stylize(content))
    torch.testing.assert_close(
        anything.stylize(content, [content]), adain_net.stylize(content, [content])
    )


def test_adain_net_refuses_widths_that_do_not_fit_the_encoder():
    with pytest.raises(ConfigError, match="conv4 has 1/4 of the picture's size; give 3 widths"):
        AdaINNet(
            StyleNetConfig(widths=(4, 8), encoder_layer="conv4"), untrained(0).up_to("conv4"), 32
        )
    with pytest.raises(ConfigError, match="too shallow"):
        AdaINNet(StyleNetConfig(encoder_layer="conv1"), untrained(0), 32)
    for bad in (StyleNetConfig(widths=(4,)), StyleNetConfig(kernel=4), StyleNetConfig(residual=-1)):
        with pytest.raises(ConfigError, match="--"):
            bad.validate()
