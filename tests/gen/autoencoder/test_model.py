"""Autoencoders: shapes, ranges, tied weights, pooling positions, stages, resume, saved models and
bad input.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from genray.errors import ConfigError
from genray.gen.autoencoder.evaluation import position_entropy
from genray.gen.autoencoder.model import AEModelConfig, Autoencoder, build_autoencoder
from genray.gen.autoencoder.task import AEConfig, AETask, stage_names
from genray.gen.data.config import DataConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.probes import labelled_rows
from genray.gen.families import FAMILIES
from genray.gen.training.fit import Fit, FitConfig, evaluating
from genray.runs import modelstore
from tests.helpers.gen import measured, small_ae, trained

KINDS = ("undercomplete", "denoising", "conv", "stacked", "stacked-conv")


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data(DataConfig())


# -- the networks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky", "elu", "maxout"])
def test_autoencoder_output_has_the_shape_and_range_of_the_input(kind, activation, digits):
    torch.manual_seed(0)  # with some seeds, no output is below 0
    x = digits.test.first(7).all()
    for low, high in ((0.0, 1.0), (-1.0, 1.0)):
        model = Autoencoder(small_ae(kind, activation=activation).model, (1, 8, 8), low, high)
        y = model(x * (high - low) + low)
        assert y.shape == x.shape and low <= y.min() and y.max() <= high
        assert (y.min() < 0) == (low < 0), "the output activation follows the data's range"
        assert model.encode(x).shape == (7, 5)
        assert torch.equal(model.decode(model.encode(x)), model(x))


@pytest.mark.parametrize("upsampling", ["transposed", "nearest", "unpool"])
@pytest.mark.parametrize("tied", [False, True])
def test_upsampling_doubles_the_size_and_all_weights_get_gradients(upsampling, tied, digits):
    model = Autoencoder(small_ae("conv", upsampling=upsampling, tied=tied).model, (1, 8, 8))
    x = digits.test.first(50).all()
    (model(x) - x).square().mean().backward()
    assert model(x).shape == x.shape
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("kind", ["undercomplete", "conv"])
def test_tied_weights_make_the_decoder_the_adjoint_of_the_encoder(kind):
    plain, tied = (Autoencoder(small_ae(kind, tied=t).model, (1, 8, 8)) for t in (False, True))
    assert len(list(tied.parameters())) == len(list(plain.parameters())) - plain.depth
    block = tied.blocks[0]
    x, h = torch.randn(2, 1, 8, 8), torch.randn(2, *((4, 8, 8) if kind == "conv" else (20,)))
    if kind == "conv":  # before activation and pooling: ⟨W x, h⟩ = ⟨x, Wᵀ h⟩
        up = torch.nn.functional.conv2d(x, block.weight, padding=1)
        down = torch.nn.functional.conv_transpose2d(h, block.weight, padding=1)
    else:
        up = x.flatten(1) @ block.weight.t()
        down = block.decode(h, None)
    assert torch.allclose((up * h).sum(), (x * down).sum(), rtol=1e-4)


def test_binary_codes_are_signs_and_pass_gradients(digits):
    model = Autoencoder(small_ae(binary=True).model, (1, 8, 8))
    x = digits.test.all()
    codes = model.encode(x)
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    (model(x) - x).square().mean().backward()
    weight = model.blocks[0].weight
    assert weight.grad is not None and weight.grad.abs().sum() > 0


def test_unpool_positions_contain_the_image_and_codes_alone_are_refused(digits):
    plain, fit = (
        trained(
            small_ae(
                "conv", epochs=10, learning_rate=2e-2, code=2, widths=(8,), upsampling=upsampling
            ),
            digits,
        )
        for upsampling in ("nearest", "unpool")
    )
    figures = measured(fit)
    assert figures["mse"] < 0.75 * measured(plain)["mse"], (
        "two numbers alone cannot reach this error"
    )
    assert figures["position_bits"] == 8 * 4 * 4 * 2
    assert 0 < figures["position_entropy_bits"] < figures["position_bits"]
    assert "256 bits" in fit.task.export().card
    for use in (fit.task.model.encode, fit.task.model.decode):
        with pytest.raises(
            ConfigError, match="--upsampling unpool.*train with --upsampling nearest"
        ):
            use(digits.test.first(2).all())
    assert "position_bits" not in measured(plain)


def test_position_entropy_equals_numpys(digits):
    fit = trained(small_ae("conv", widths=(1,), upsampling="unpool"), digits)
    found = position_entropy(fit.task.model, digits.test)
    x = digits.test.all()
    positions = fit.task.model.encode_layers(x)[1][0].flatten(1).numpy()
    expected = 0.0
    for window in positions.T:
        share = np.unique(window, return_counts=True)[1] / len(window)
        expected += -(share * np.log2(share)).sum()
    assert found == pytest.approx(expected, rel=1e-9)


# -- stages and resume -----------------------------------------------------------------------------


def test_stage_names_are_in_order():
    assert stage_names(small_ae("undercomplete").model) == ("train",)
    assert stage_names(small_ae("stacked").model) == ("layer-1", "layer-2", "layer-3", "whole")
    model = small_ae("stacked-conv", whole=False, finetune_labels=100).model
    assert stage_names(model) == ("layer-1", "layer-2", "layer-3", "head", "classifier")
    assert stage_names(replace(model, greedy=False)) == ("head", "classifier")
    with pytest.raises(ConfigError, match="nothing is left to train"):
        stage_names(replace(model, greedy=False, finetune_labels=0))


@pytest.mark.parametrize("kind", ["stacked", "stacked-conv"])
def test_greedy_stage_changes_its_own_layer_only_and_lowers_its_loss(kind, digits):
    config = small_ae(kind, epochs=3, corruption="masking", finetune_labels=100)
    task = AETask(config)
    fit = Fit(task, digits, config.fit)
    before = {name: t.clone() for name, t in task.model.state_dict().items()}
    seen: dict[str, list[float]] = {}
    for step in fit:
        if step.held_out:
            seen.setdefault(step.stage, []).append(step.held_out["loss"])
        if step.last_of_stage:
            now = {name: t.clone() for name, t in task.model.state_dict().items()}
            changed = {name for name in now if not torch.equal(now[name], before[name])}
            if step.stage.startswith("layer-"):
                block = f"blocks.{int(step.stage[-1]) - 1}."
                assert changed == {name for name in now if name.startswith(block)}
            elif step.stage == "classifier":
                # The autoencoder does not change: the classifier has a copy of the encoder.
                assert changed and all(name.startswith("classifier.") for name in changed)
            before = now
            if step.stage == "whole":  # the next stage starts with this encoder
                assert torch.equal(now["classifier.blocks.0.weight"], now["blocks.0.weight"])
    assert list(seen) == ["layer-1", "layer-2", "layer-3", "whole", "head", "classifier"]
    assert all(losses[-1] < losses[0] for losses in seen.values())


@pytest.mark.parametrize(
    "config",
    [
        small_ae("stacked", corruption="warp", finetune_labels=100),
        small_ae("conv", contractive=0.01, corruption="salt-pepper", upsampling="unpool"),
        small_ae(lbfgs=True, widths=(), output="linear"),
    ],
    ids=["stacked", "conv", "lbfgs"],
)
def test_autoencoder_resumes_bit_exactly(config, digits, tmp_path):
    whole = trained(config, digits)
    stages, an_epoch = len(whole.task.stages), whole.steps_an_epoch()
    # In the middle of a stage, just before and just after a change of stage, and at the end.
    stops = {5, an_epoch, an_epoch + 1, (stages - 1) * an_epoch, whole.step - 1, whole.step}
    for stop in sorted(step for step in stops if 0 < step <= whole.step):
        first = Fit(AETask(config), digits, config.fit)
        for step in first:
            if step.step == stop:
                break
        folder = tmp_path / str(stop)
        folder.mkdir()
        first.save(folder)
        torch.manual_seed(stop)  # other code may draw numbers in between
        second = Fit(AETask(config), digits, config.fit)
        second.load(folder)
        for _ in second:
            pass
        expected, found = whole.task.networks.state_dict(), second.task.networks.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected), (
            f"interrupted at step {stop}"
        )
    assert measured(second) == measured(whole), "a finished run keeps the stage of its evaluation"


# -- few labels ------------------------------------------------------------------------------------


def test_labelled_rows_are_balanced_and_depend_on_the_seed(digits):
    label = digits.train.label
    rows = labelled_rows(label, 103, seed=0)
    counts = torch.bincount(label[rows], minlength=10)
    assert len(rows.unique()) == 103 and counts.min() == 10 and counts.max() == 11
    assert torch.equal(rows, labelled_rows(label, 103, seed=0))
    assert not torch.equal(rows, labelled_rows(label, 103, seed=1))
    with pytest.raises(ConfigError, match=r"--finetune-labels 9: must lie in 10..1167"):
        labelled_rows(label, 9, seed=0)


def test_autoencoder_test_compares_the_classifier_with_pixels_and_principal_components(digits):
    fit = trained(small_ae("stacked", finetune_labels=100, epochs=3), digits)
    figures = measured(fit)
    assert {
        "accuracy",
        "accuracy_codes",
        "accuracy_pixels",
        "accuracy_pca",
        "mse",
        "pca_mse",
    } <= figures.keys()
    # scikit-learn's softmax regression learns these digits from 100 labels.
    assert (
        0.8 < figures["accuracy_pixels"] < 0.95
        and 0.6 < figures["accuracy_pca"] < figures["accuracy_pixels"]
    )
    x, label = digits.test.all(), digits.test.label
    assert figures["accuracy"] == pytest.approx(
        (fit.task.model.classify(x).argmax(1) == label).float().mean().item()
    )


# -- pictures and saved models ---------------------------------------------------------------------


def test_autoencoder_pictures_show_original_corrupted_and_rebuilt_rows(digits):
    fit = Fit(AETask(small_ae("denoising")), digits, FitConfig())
    with evaluating(fit.task, 0):
        picture = fit.task.pictures(digits)["reconstruction"]
    with evaluating(fit.task, 0):
        again = fit.task.pictures(digits)["reconstruction"]
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    side = (picture.shape[0] + 2) // 3 - 2
    assert side >= 32, "the picture is large enough to see"
    first = digits.validation.first(1).all()[0, 0].mul(255).round().byte().numpy()
    assert np.array_equal(picture[:side:4, :side:4, 0], first)
    assert np.array_equal(picture, again)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_autoencoder_loads_unchanged(kind, digits, tmp_path):
    labels = 100 if kind.startswith("stacked") else 0
    fit = Fit(AETask(small_ae(kind, finetune_labels=labels)), digits, FitConfig())
    export = fit.task.export()
    modelstore.save_model(
        tmp_path / "model", export.kind, export.config, export.tensors, export.card
    )
    model, _ = modelstore.load_model(tmp_path / "model", {"autoencoder": build_autoencoder})
    x = digits.test.first(9).all()
    assert torch.equal(model.encode(x), fit.task.model.encode(x))
    assert torch.equal(model.decode(model.encode(x)), fit.task.model(x))
    if labels:
        assert torch.equal(model.classify(x), fit.task.model.classify(x))
    else:
        with pytest.raises(ConfigError, match="no classifier: train with --finetune-labels"):
            model.classify(x)


PRESETS = FAMILIES["ae"].presets


@pytest.mark.parametrize("name", PRESETS)
def test_autoencoder_presets_are_valid_and_fit_their_data(name):
    config = PRESETS[name]()
    config.validate()
    shape = {"mnist": (1, 28, 28), "docs": (2000,)}.get(config.data.data, (1, 8, 8))
    x = torch.rand(2, *shape)
    assert Autoencoder(config.model, shape)(x).shape == x.shape


def test_stacked_presets_have_the_sizes_of_the_source():
    def sizes(name: str) -> list[int]:
        return [
            block.weight.shape[0]
            for block in Autoencoder(PRESETS[name]().model, (1, 28, 28)).blocks
        ]

    assert sizes("stacked_source") == [300, 150]
    assert sizes("stacked_classifier") == [128, 64, 10, 2]


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"code": 0}, "--code 0"),
        ({"widths": (8, 0)}, "--widths 8 0"),
        ({"kind": "conv", "widths": ()}, r"--widths \(none\)"),
        ({"kind": "denoising", "corruption": "none"}, "--corruption none"),
        ({"upsampling": "unpool"}, "--upsampling unpool: undercomplete has no pooling"),
        ({"corruption": "masking", "corruption_strength": 1.5}, "--corruption-strength 1.5"),
        ({"tied": True, "activation": "maxout"}, "--tied"),
        ({"sparsity": -1.0}, "--sparsity -1.0"),
        ({"finetune_labels": -1}, "--finetune-labels -1"),
        ({"binary": True, "code_activation": "tanh"}, "--code-activation tanh"),
        ({"binary": True, "contractive": 1.0}, "--contractive"),
    ],
)
def test_autoencoder_config_names_the_option_of_a_bad_value(model, words):
    with pytest.raises(ConfigError, match=words) as caught:
        AEModelConfig(**model).validate()
    assert "\n" not in str(caught.value)


def test_autoencoder_refuses_data_that_does_not_fit(digits):
    def refused(config: AEConfig, data: Data = digits) -> str:
        with pytest.raises(ConfigError) as caught:
            Fit(AETask(config), data, config.fit)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def with_train(split: Split) -> Data:
        return replace(digits, train=split)

    assert "rows of shape (1, 8, 8) cannot be halved 4 times" in refused(
        small_ae("conv", widths=(2, 2, 2, 2))
    )
    text = replace(digits, name="words", train=Split(torch.rand(200, 30)))
    assert "for text, --kind undercomplete" in refused(small_ae("conv"), text)
    assert "--corruption warp: words has no images" in refused(small_ae(corruption="warp"), text)
    unlabelled = with_train(replace(digits.train, label=None))
    assert "needs labels" in refused(small_ae("stacked", finetune_labels=100), unlabelled)
    zeros = with_train(
        replace(digits.train, label=torch.zeros(len(digits.train), dtype=torch.int64))
    )
    assert "one class" in refused(small_ae("stacked", finetune_labels=100), zeros)
    assert "use --batch-size 50" in refused(small_ae("stacked", finetune_labels=50))
    signed = with_train(replace(digits.train, low=-1.0))
    assert "--output sigmoid: cannot reach data in -1..1" in refused(
        small_ae(output="sigmoid"), signed
    )
    assert "--reconstruction bce" in refused(small_ae(output="linear", reconstruction="bce"))
