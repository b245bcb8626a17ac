"""Tests class pictures: the logit rises, seeds, spectrum, views, statistics, names of classes."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from genray.errors import CheckpointError, ConfigError
from genray.gen.images.class_network import (
    ClassNetwork,
    open_lite0_classes,
    open_model_classes,
)
from genray.gen.images.class_pictures import (
    ImagineConfig,
    channel_statistics,
    imagine,
    spectrum,
    to_picture,
    view,
)
from genray.runs.modelstore import save_model

QUICK = ImagineConfig(size=64, steps=3)


@pytest.fixture(scope="module")
def lite0() -> ClassNetwork:
    network = open_lite0_classes()
    network.view_sides = (64, 64)  # a sixth of the time
    return network


def test_imagine_raises_the_logit_of_the_class(lite0: ClassNetwork):
    number, shown = lite0.find("goldfish"), list[Tensor]()
    config = replace(QUICK, steps=30)
    picture = imagine(lite0, number, config, lambda done, each: shown.append(each))
    assert picture.shape == (1, 3, 64, 64) and picture.dtype == torch.float32
    assert picture.min() >= 0 and picture.max() <= 1
    assert len(shown) == 30 and torch.equal(shown[-1], picture)
    with torch.no_grad():
        logits = [float(lite0(each)[0, number]) for each in (shown[0], shown[-1])]
    assert logits[1] > logits[0] + 3


def test_imagine_depends_only_on_the_seed(lite0: ClassNetwork):
    number = lite0.find("goldfish")
    picture = imagine(lite0, number, QUICK)
    torch.manual_seed(99)  # the global generator has no part in it
    assert torch.equal(picture, imagine(lite0, number, QUICK))
    assert not torch.equal(picture, imagine(lite0, number, replace(QUICK, seed=1)))
    assert not any(norm._forward_pre_hooks for norm in lite0.norms)


def test_imagine_refuses_bad_options(lite0: ClassNetwork):
    for change, message in (
        ({"size": 31}, "--size 31: must lie in 32..1024"),
        ({"steps": 0}, "--steps 0"),
        ({"rate": float("nan")}, "--rate nan"),
        ({"closest": 0.0}, "--closest 0.0"),
        ({"seed": -1}, "--seed -1"),
    ):
        with pytest.raises(ConfigError, match=message):
            imagine(lite0, 0, ImagineConfig(**change))
    with pytest.raises(ConfigError, match=r"class 1000: lite0 has the classes 0\.\.999"):
        imagine(lite0, 1000, QUICK)


# -- the parts -------------------------------------------------------------------------------------


def test_spectrum_falls_with_the_frequency():
    amplitude_HW = spectrum(64, 1.2)
    assert amplitude_HW.shape == (64, 33)
    assert float(amplitude_HW[0, 2] / amplitude_HW[0, 4]) == pytest.approx(2**1.2)
    assert amplitude_HW[0, 0] == amplitude_HW[0, 1] == amplitude_HW[-1, 0]


def test_to_picture_of_a_grey_network_has_equal_colours():
    coefficients = torch.randn(3, 32, 17, 2, generator=torch.Generator().manual_seed(0))
    grey = to_picture(coefficients, spectrum(32, 1.0), True)
    assert torch.equal(grey[:, 0], grey[:, 1]) and torch.equal(grey[:, 0], grey[:, 2])
    coloured = to_picture(coefficients, spectrum(32, 1.0), False)
    assert (coloured[:, 0] - coloured[:, 2]).abs().mean() > 0.01
    assert torch.equal(to_picture(0 * coefficients, spectrum(32, 1.0), False), grey * 0 + 0.5)


def test_view_without_changes_is_the_picture():
    picture = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    still = ImagineConfig(noise=0, turn=0, shift=0, closest=1)
    seen = [
        view(picture, (40, 40), still, torch.Generator().manual_seed(seed)) for seed in range(3)
    ]
    # The share of a view lies in 1..1.1, so the middle pixels hardly move.
    assert all((each - picture)[..., 19:21, 19:21].abs().max() < 0.1 for each in seen)
    assert view(picture, (24, 16), still, torch.Generator()).shape == (1, 3, 24, 16)


def test_channel_statistics_equal_their_formula_and_are_zero_for_stored_ones():
    norm = nn.BatchNorm2d(2, eps=0.0).eval()
    x = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0)) * 3 + 1
    with channel_statistics([norm]) as distance:
        norm(x)
        found = float(distance())
        norm.running_mean = x.mean((0, 2, 3))
        norm.running_var = x.var((0, 2, 3), unbiased=False)
        norm(x)
        assert float(distance()) == pytest.approx(0, abs=1e-6)
    mean_C, deviation_C = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False).sqrt()
    assert found == pytest.approx(float((mean_C**2 + (deviation_C - 1) ** 2).mean()), rel=1e-4)
    assert not norm._forward_pre_hooks


# -- classes by name -------------------------------------------------------------------------------


def test_find_takes_names_numbers_and_unique_parts(lite0: ClassNetwork):
    assert lite0.find("goldfish") == lite0.find("GoldFish") == lite0.find("1") == 1
    assert lite0.find("great-white_shark") == 2
    assert lite0.classes[lite0.find("persian")] == "Persian cat"
    assert lite0.classes[lite0.find("monarch")] == "monarch"
    assert len(lite0.classes) == 1000 and len(lite0.listed()) == 1000


@pytest.mark.parametrize(
    "word, message",
    [
        ("goldfsh", r"class goldfsh: lite0 has no such class; did you mean goldfish \(1\)"),
        ("shark", r"class shark: 2 classes match; .*great white shark \(2\), tiger shark \(3\)"),
        ("retriever", r"class retriever: \d classes match; .*golden retriever \(207\)"),
        ("qqqqqq", "no such class; genray imagine --list shows all"),
        ("1000", r"class 1000: lite0 has the classes 0\.\.999"),
    ],
)
def test_find_names_the_classes_that_were_probably_meant(
    lite0: ClassNetwork, word: str, message: str
):
    with pytest.raises(ConfigError, match=message) as caught:
        lite0.find(word)
    assert "\n" not in str(caught.value)


def test_open_model_classes_refuses_other_models_in_one_line(tmp_path: Path):
    save_model(tmp_path / "vae", "vae", {}, {"a": torch.zeros(1)}, "")
    with pytest.raises(ConfigError, match="a model of kind vae has no classes; name a run of"):
        open_model_classes(tmp_path / "vae")
    with pytest.raises(CheckpointError, match="not a model"):
        open_model_classes(tmp_path)
    (tmp_path / "vae" / "config.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(CheckpointError, match="not a genray model"):
        open_model_classes(tmp_path / "vae")
