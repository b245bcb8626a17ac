"""What autoencoders learn, compared with methods that learn nothing (`pytest -m learn`).

The tests take about 3 minutes of one core.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from genray.gen.autoencoder import presets as ae_presets
from genray.gen.autoencoder.task import AEConfig
from genray.gen.data.load import load_data
from genray.gen.data.types import Data, Split
from genray.gen.evaluation.retrieval import baselines, database, evaluate_retrieval
from genray.gen.families import FAMILIES
from genray.gen.training.fit import Fit, evaluating
from tests.helpers.gen import measured, trained

pytestmark = [pytest.mark.learn, pytest.mark.timeout(600)]


@torch.no_grad()
def codes(fit: Fit, split: Split) -> np.ndarray:
    return fit.task.model.eval().encode(split.all()).numpy()


def values(split: Split) -> np.ndarray:
    return split.all().flatten(1).numpy()


def test_linear_autoencoder_finds_the_principal_components():
    config = ae_presets.pca()
    data = load_data(config.data)
    model = trained(config, data).task.model
    train, test = (values(split).astype(np.float64) for split in (data.train, data.test))
    oracle = PCA(config.model.code, svd_solver="full").fit(train)
    expected = np.square(oracle.inverse_transform(oracle.transform(test)) - test).mean()
    with torch.no_grad():
        found = np.square(model(data.test.all()).flatten(1).double().numpy() - test).mean()
    # Any basis of the subspace is a solution, so the subspaces are compared by principal angles.
    columns = np.linalg.qr(model.blocks[0].weight.detach().double().numpy().T)[0]
    sine = np.linalg.norm(columns - oracle.components_.T @ (oracle.components_ @ columns), ord=2)
    angle = np.degrees(np.arcsin(min(1.0, sine)))
    print(
        f"\nlinear AE: test MSE {found:.8f}, PCA {expected:.8f}, largest principal angle "
        f"{angle:.4f}°"
    )
    assert abs(found / expected - 1) < 1e-5
    assert angle < 0.1


@pytest.mark.parametrize(
    ("preset", "share"), [("denoising_digits", 0.5), ("denoising_conv_digits", 0.6)]
)
def test_denoising_autoencoder_beats_the_noisy_input_and_a_median_filter(preset: str, share: float):
    config = FAMILIES["ae"].presets[preset]()
    figures = measured(trained(config, load_data(config.data)))
    print(
        f"\n{preset}: "
        + ", ".join(f"{name} {figures[name]:.4f}" for name in figures if name.endswith("mse"))
    )
    assert figures["denoised_mse"] < share * figures["median_filter_mse"]
    assert figures["median_filter_mse"] < figures["identity_mse"]


def test_greedy_pretraining_beats_random_weights_with_100_labels():
    """Random weights are trained with the preset's small rate of fine-tuning and with the full
    rate, and the better result counts.
    """
    config = ae_presets.stacked_digits()
    data = load_data(config.data)
    blank = replace(config.model, greedy=False, whole=False)
    arms = [config.model, blank, replace(blank, finetune_rate=1.0)]
    accuracy_SA = np.array(
        [
            [
                accuracy(replace(config, model=model, fit=replace(config.fit, seed=seed)), data)
                for model in arms
            ]
            for seed in range(3)
        ]
    )
    gain_S = accuracy_SA[:, 0] - accuracy_SA[:, 1:].max(1)
    greedy, careful, whole = accuracy_SA.mean(0)
    print(
        f"\n100 labels: greedy {greedy:.3f}, random {careful:.3f} and {whole:.3f}; gain over the "
        f"better, seed by seed: {gain_S.round(3)}"
    )
    assert gain_S.min() > 0


def accuracy(config: AEConfig, data: Data) -> float:
    run = trained(config, data)
    with evaluating(run.task, 0):
        return run.task.evaluate(data.test)["accuracy"]


def test_retrieval_codes_of_ten_numbers_beat_pixels_and_principal_components():
    config = ae_presets.retrieval_digits()
    data = load_data(config.data)
    fit = trained(config, data)
    assert config.model.code <= 10 and config.model.finetune_labels == 0
    base, label = database(data), data.test.label.numpy()
    found = evaluate_retrieval(codes(fit, base), base.label.numpy(), codes(fit, data.test), label)
    rivals = baselines(values(base), base.label.numpy(), values(data.test), label, numbers=10)
    print(f"\ndigits, test rows ask for training rows: {found}, {rivals}")
    # The definition of mAP equals scikit-learn's average precision.
    assert rivals["raw"]["map"] == pytest.approx(0.669, abs=0.001)
    assert rivals["pca-10"]["map"] == pytest.approx(0.685, abs=0.001)
    assert found["map"] > rivals["pca-10"]["map"] + 0.03


# P@10 of methods that learn nothing, and how far docstrings of other versions of Python move it.
KNOWN_128 = {"tf-idf": (0.604, 0.02), "lsa-128": (0.608, 0.025), "chance": (0.059, 0.005)}
KNOWN_32 = {"lsa-32-bits": (0.428, 0.02)}


@pytest.mark.parametrize(
    ("preset", "metric", "target", "known"),
    [
        ("text_docs", "cosine", 0.608, KNOWN_128),
        ("hashing_docs", "hamming", 0.428, KNOWN_32),
    ],
)
def test_text_codes_find_docstrings_of_the_same_module(preset, metric, target, known):
    config = FAMILIES["ae"].presets[preset]()
    data = load_data(config.data)
    assert len(data.classes) == 30 and data.shape == (2000,)
    assert 3000 < len(data.train) + len(data.validation) + len(data.test) < 4500
    fit = trained(config, data)
    base, label = database(data), data.test.label.numpy()
    kept, asked = codes(fit, base), codes(fit, data.test)
    if metric == "hamming":
        assert config.model.code == 32 and set(np.unique(kept)) == {-1.0, 1.0}
        kept, asked = kept > 0, asked > 0
    found = evaluate_retrieval(kept, base.label.numpy(), asked, label, metric)
    rivals = baselines(
        values(base),
        base.label.numpy(),
        values(data.test),
        label,
        numbers=config.model.code,
        text=True,
    )
    print(f"\n{preset}: {found}, {rivals}")
    for name, (precision, near) in known.items():
        assert rivals[name]["precision_at_10"] == pytest.approx(precision, abs=near), name
    names = (
        [f"lsa-{config.model.code}-bits"]
        if metric == "hamming"
        else ["tf-idf", f"lsa-{config.model.code}"]
    )
    assert config.model.code <= 128
    assert found["precision_at_10"] > max(
        target, *(rivals[name]["precision_at_10"] for name in names)
    )
