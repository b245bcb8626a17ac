"""`genray anomalies` with the likelihood of a VAE."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from genray import cli
from genray.commands.anomalies import surprise
from genray.gen import presets
from genray.gen.autoencoder import presets as ae_presets
from genray.gen.data.types import Split
from genray.gen.families import open_fit
from genray.gen.training.run import save_export
from genray.gen.vae import VAE, VAEModelConfig


def untrained(binarise: str = "none") -> VAE:
    torch.manual_seed(0)
    config = VAEModelConfig(latent=2, widths=(8,), binarise=binarise)  # type: ignore[arg-type]
    return VAE(config, (1, 4, 4)).eval()


def test_surprise_of_a_decoder_that_ignores_z_is_the_entropy():
    """With logits of 0, each of 16 binary pixels has −ln p = ln 2; the posterior is the prior."""
    model = untrained("threshold")
    for parameter in (*model.encoder[-1].parameters(), *model.decoder[-2].parameters()):
        torch.nn.init.zeros_(parameter)
    split = Split(torch.rand(30, 1, 4, 4), None, 0.0, 1.0)
    np.testing.assert_allclose(surprise(model, split), 16 * math.log(2), rtol=1e-5)


def test_surprise_binarises_as_in_training_and_is_the_same_each_time():
    split = Split(torch.rand(30, 1, 4, 4), None, 0.0, 1.0)
    model = untrained("dynamic")
    first = surprise(model, split)
    assert first.shape == (30,) and np.array_equal(first, surprise(model, split))
    assert not np.allclose(first, surprise(untrained(), split))


def test_anomalies_by_the_likelihood_of_a_vae(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = presets.vae_digits()
    config = replace(config, data=replace(config.data, without="3"))
    folder = save_export(tmp_path / "vae", open_fit("vae", config), {})
    out = tmp_path / "odd.png"
    command = ["anomalies", str(folder), "--score", "likelihood", "--out", str(out)]
    assert cli.main(command) == 0 and out.exists()
    printed = capsys.readouterr().out
    assert "bound of -ln p (50 samples): " in printed and "AUROC 0." in printed
    assert cli.main(["anomalies", str(folder)]) == 0
    assert "mean squared error" in capsys.readouterr().out


def test_anomalies_refuses_the_likelihood_of_an_autoencoder(tmp_path: Path, capsys):
    config = ae_presets.ae_digits()
    config = replace(config, data=replace(config.data, without="3"))
    folder = save_export(tmp_path / "ae", open_fit("ae", config), {})
    assert cli.main(["anomalies", str(folder), "--score", "likelihood"]) == 2
    assert "a model of kind 'autoencoder' has no likelihood" in capsys.readouterr().err
