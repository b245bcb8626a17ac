"""The ELBO and the likelihoods of VAEs against integrals by hand, and the order of the bounds."""

import math

import pytest
import torch
from torch import Tensor, nn

from genray.gen.training.fit import fixed_randomness
from genray.gen.vae import (
    VAE,
    VAEModelConfig,
    binarised,
    gaussian_kl,
    gaussian_log_density,
)


class LinearGaussian(VAE):
    """A VAE of one pixel and one latent.

    z ~ N(0, 1), x given z ~ N(w z, s²), q(z given x) = N(a x, e^(2c)).
    """

    def __init__(self, w: float, s: float, a: float, c: float):
        super().__init__(
            VAEModelConfig(latent=1, widths=(1,), likelihood="gaussian", decoder_std=s), (1, 1, 1)
        )
        self.w, self.a, self.c = (nn.Parameter(torch.tensor(value)) for value in (w, a, c))

    def posterior(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        mean = self.a * x_BCHW.flatten(1)
        return mean, (2 * self.c).expand_as(mean)

    @property
    def decoder(self):
        return lambda z_BZ: (self.w * z_BZ)[:, :, None, None]

    @decoder.setter
    def decoder(self, network) -> None:
        pass

    def __setattr__(self, name, value):
        if name != "decoder":
            super().__setattr__(name, value)


W, S, A, C, X = 0.8, 0.5, 0.6, -0.4, 1.3


def elbo_by_hand() -> tuple[float, dict[str, float]]:
    """Return the ELBO and its derivatives, with every expectation integrated by hand.

    E ln p(x given z) = −½ ln 2πs² − ((x − w a x)² + w² e^(2c)) / 2s²;  KL = ½ (a²x² + e^(2c) − 1
    − 2c).
    """
    v = math.exp(2 * C)
    rest = X - W * A * X
    value = -0.5 * math.log(2 * math.pi * S**2) - (rest**2 + W**2 * v) / (2 * S**2)
    value -= 0.5 * (A**2 * X**2 + v - 1 - 2 * C)
    slopes = {
        "w": (rest * A * X - W * v) / S**2,
        "a": rest * W * X / S**2 - A * X**2,
        "c": -(W**2) * v / S**2 - v + 1,
    }
    return value, slopes


def balanced_noise(rows: int = 2000) -> Tensor:
    """Return pairs ±ε with a second moment of 1, which integrate quadratic functions exactly."""
    half = torch.randn(
        rows // 2, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    noise = torch.cat([half, -half])
    return noise / noise.square().mean().sqrt()


def test_elbo_and_its_gradient_by_hand():
    model = LinearGaussian(W, S, A, C).double()
    noise_BZ = balanced_noise()
    x_BCHW = torch.full((len(noise_BZ), 1, 1, 1), X, dtype=torch.float64)
    # log_likelihood rounds the decoder's output to float32.
    likelihood_B, kl_BZ = model.elbo_terms(x_BCHW, noise_BZ)
    elbo = (likelihood_B - kl_BZ.sum(1)).mean()
    elbo.backward()
    value, slopes = elbo_by_hand()
    assert elbo.item() == pytest.approx(value, rel=1e-5)
    for name, slope in slopes.items():
        assert getattr(model, name).grad.item() == pytest.approx(slope, rel=1e-4), name


def test_importance_bound_is_between_the_elbo_and_the_likelihood_and_grows():
    """x ~ N(0, w² + s²) exactly."""
    model = LinearGaussian(W, S, A, C)
    x_BCHW = torch.full((4000, 1, 1, 1), X)
    variance = W**2 + S**2
    exact = -0.5 * (math.log(2 * math.pi * variance) + X**2 / variance)
    with fixed_randomness([0]), torch.no_grad():
        bounds = [model.importance_bound(x_BCHW, samples).mean().item() for samples in (1, 5, 50)]
    elbo, _ = elbo_by_hand()
    assert bounds[0] == pytest.approx(elbo, abs=0.05)  # with one sample, the bound is the ELBO
    assert elbo < bounds[1] < bounds[2] < exact + 1e-3
    assert bounds[2] == pytest.approx(exact, abs=0.02)


def test_importance_bound_with_the_true_posterior_is_the_likelihood():
    precision = 1 + W**2 / S**2
    model = LinearGaussian(W, S, W / S**2 / precision, -0.5 * math.log(precision))
    variance = W**2 + S**2
    exact = -0.5 * (math.log(2 * math.pi * variance) + X**2 / variance)
    found = model.importance_bound(torch.full((3, 1, 1, 1), X), 1)
    torch.testing.assert_close(found, torch.full((3,), exact), rtol=1e-5, atol=1e-5)


def test_gaussian_kl_equals_pytorchs():
    mean, log_variance = torch.randn(2, 5, 3).unbind()
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, (0.5 * log_variance).exp()),
        torch.distributions.Normal(0.0, 1.0),
    )
    torch.testing.assert_close(gaussian_kl(mean, log_variance), theirs)


def test_kl_and_density_refuse_shapes_that_would_broadcast():
    mean, column = torch.zeros(5, 3), torch.zeros(5, 1)
    for call in (
        lambda: gaussian_kl(mean, column),
        lambda: gaussian_kl(column, mean),
        lambda: gaussian_kl(mean[0], mean[0]),
        lambda: gaussian_log_density(mean, column, mean),
        lambda: gaussian_log_density(mean, mean, column),
        lambda: binarised(mean, "dynamic", column),
    ):
        with pytest.raises(ValueError, match=r"fit its name|need equal shapes"):
            call()


@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian", "gaussian-diagonal"])
@pytest.mark.filterwarnings("ignore:Using a target size")  # PyTorch's warning of a broadcast
def test_elbo_terms_and_likelihood_refuse_shapes_that_would_broadcast(likelihood: str):
    model = VAE(VAEModelConfig(latent=2, widths=(4,), likelihood=likelihood), (1, 4, 4))  # type: ignore[arg-type]
    x, z = torch.rand(3, 1, 4, 4), torch.randn(3, 2)
    for call in (
        lambda: model.elbo_terms(x, z[:, :1]),  # one number of noise for both latents
        lambda: model.elbo_terms(x, z[:1]),
        lambda: model.log_likelihood(x[:1], z),
        lambda: model.log_likelihood(x[:, 0], z),
    ):
        with pytest.raises(ValueError, match="its shape does not fit its name"):
            call()


@pytest.mark.parametrize("network", ["dense", "conv"])
@pytest.mark.parametrize("likelihood", ["bernoulli", "gaussian"])
def test_log_likelihood_is_that_of_the_decoded_mean(network: str, likelihood: str):
    model = VAE(
        VAEModelConfig(network=network, latent=3, widths=(4, 5), likelihood=likelihood), (2, 8, 8)
    )
    model.log_std.data.fill_(-0.7)
    x_BCHW, z_BZ = torch.rand(6, 2, 8, 8), torch.randn(6, 3)
    mean = model.decode(z_BZ)
    if likelihood == "bernoulli":
        x_BCHW = x_BCHW.round()
        each = torch.distributions.Bernoulli(probs=mean).log_prob(x_BCHW)
    else:
        each = torch.distributions.Normal(mean, math.exp(-0.7)).log_prob(x_BCHW)
    torch.testing.assert_close(
        model.log_likelihood(x_BCHW, z_BZ), each.flatten(1).sum(1), rtol=1e-4, atol=1e-3
    )


def test_diagonal_gaussian_decoder_against_a_calculation_by_hand():
    """Two pixels, a decoder that ignores z: means .5 and .2, σ of 1 and of the limit."""
    config = VAEModelConfig(latent=1, widths=(1,), likelihood="gaussian-diagonal", least_std=0.1)
    model = VAE(config, (1, 1, 2))
    last = model.decoder[-2]
    last.weight.data.zero_()
    # Outputs are [mean, mean, ln σ, ln σ] before the limit: σ = .1 (1 + e^(r − ln .1)).
    # e^(r + ln 10) = 9 gives σ = 1; r = −30 gives σ = .1.
    last.bias.data = torch.tensor([0.5, 0.2, math.log(0.9), -30.0])
    x_BCHW, z_BZ = torch.tensor([[[[1.5, 0.3]]]]), torch.zeros(1, 1)
    # −½ ln 2π − ln 1 − ½ 1² and −½ ln 2π − ln .1 − ½ (.1 / .1)²
    by_hand = -math.log(2 * math.pi) - 0.5 - math.log(0.1) - 0.5
    assert model.log_likelihood(x_BCHW, z_BZ).item() == pytest.approx(by_hand, abs=1e-5)
    torch.testing.assert_close(model.decode(z_BZ), torch.tensor([[[[0.5, 0.2]]]]))
    drawn = model.draw(torch.zeros(20_000, 1), torch.Generator().manual_seed(0)).flatten(1)
    torch.testing.assert_close(drawn.mean(0), torch.tensor([0.5, 0.2]), atol=0.03, rtol=0)
    torch.testing.assert_close(drawn.std(0), torch.tensor([1.0, 0.1]), atol=0.03, rtol=0)


def test_diagonal_gaussian_vae_learns_the_variance_of_each_pixel():
    """Noise of σ = .02 on the left and .3 on the right: the decoder finds both."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400, 1, 4, 4, generator=generator)
    x = 0.5 + noise * torch.tensor([0.02, 0.02, 0.3, 0.3])
    config = VAEModelConfig(latent=1, widths=(8,), likelihood="gaussian-diagonal", least_std=0.01)
    with fixed_randomness([0]):
        model = VAE(config, (1, 4, 4))
        adam = torch.optim.Adam(model.parameters(), 0.02)
        for _ in range(400):
            likelihood_B, kl_BZ = model.elbo_terms(x, torch.randn(400, 1))
            adam.zero_grad()
            (kl_BZ.sum(1) - likelihood_B).mean().backward()
            adam.step()
    found = model.sample(2000, noise=True).std(0)[0]
    torch.testing.assert_close(found[:, :2], torch.full((4, 2), 0.02), atol=0.01, rtol=0)
    torch.testing.assert_close(found[:, 2:], torch.full((4, 2), 0.3), atol=0.05, rtol=0)


def test_samples_with_noise_have_the_same_latents():
    model = VAE(VAEModelConfig(latent=2, widths=(4,)), (1, 4, 4))
    mean, drawn = model.sample(5, seed=1), model.sample(5, seed=1, noise=True)
    assert set(drawn.unique().tolist()) <= {0.0, 1.0}
    chance = torch.rand(mean.shape, generator=_after_latents(5, 2))
    assert torch.equal(drawn, (chance < mean).float())


def _after_latents(num: int, latent: int) -> torch.Generator:
    generator = torch.Generator().manual_seed(1)
    torch.randn(num, latent, generator=generator)
    return generator
