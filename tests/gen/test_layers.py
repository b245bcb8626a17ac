"""Layers against sums written as loops, PyTorch's own layers, and numbers worked out by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional

from genray.errors import ConfigError
from genray.gen.layers import (
    ACTIVATIONS,
    Maxout,
    SameConv2d,
    SameConvTranspose2d,
    activation_layer,
    fan_out,
    init_for,
    max_pool,
    position_bits,
    same_padding,
    unpool,
)

RANDOM_SHAPES = 200


def random_shapes():
    """Yield 200 random (size, kernel, stride); some kernels are smaller than the stride."""
    generator = np.random.default_rng(0)
    for _ in range(RANDOM_SHAPES):
        yield tuple(int(generator.integers(1, top)) for top in (20, 8, 5))


# -- SAME layers -----------------------------------------------------------------------------------


def test_same_convolutions_have_one_output_for_each_stride():
    for size, kernel, stride in random_shapes():
        expected, x = math.ceil(size / stride), torch.zeros(1, 1, size, size)
        assert SameConv2d(1, 1, kernel, stride)(x).shape[2:] == (expected,) * 2
        before, after = same_padding(size, kernel, stride)
        assert 0 <= after - before <= 1
        padded = functional.pad(x, (before, after, before, after))
        if padded.shape[2] >= kernel:  # false only where the stride skips the last pixels
            assert nn.Conv2d(1, 1, kernel, stride)(padded).shape[2:] == (expected,) * 2
        if stride == 1 and kernel % 2:  # PyTorch warns of even kernels
            assert nn.Conv2d(1, 1, kernel, padding="same")(x).shape[2] == expected


def test_same_transposed_convolutions_multiply_the_size_by_the_stride():
    for size, kernel, stride in random_shapes():
        x = torch.zeros(1, 1, size, size)
        assert SameConvTranspose2d(1, 1, kernel, stride)(x).shape[2:] == (size * stride,) * 2


def test_same_padding_of_dcgan_equals_tensorflows():
    assert same_padding(32, 5, 2) == (1, 2)
    assert same_padding(31, 5, 2) == (2, 2)
    assert same_padding(28, 3, 1) == (1, 1)


def slow_same(x_HW: np.ndarray, w: np.ndarray, stride: int) -> np.ndarray:
    """Return TensorFlow's definition: out[i, j] = Σ w[a, b]·x[i·s + a − before, j·s + b − before],
    zeros outside.
    """
    size, kernel = len(x_HW), len(w)
    out_size = math.ceil(size / stride)
    before = max((out_size - 1) * stride + kernel - size, 0) // 2
    out = np.zeros((out_size, out_size))
    for i, j, a, b in itertools.product(
        range(out_size), range(out_size), range(kernel), range(kernel)
    ):
        row, column = i * stride + a - before, j * stride + b - before
        if 0 <= row < size and 0 <= column < size:
            out[i, j] += w[a, b] * x_HW[row, column]
    return out


@pytest.mark.parametrize(
    "size, kernel, stride", [(8, 5, 2), (7, 5, 2), (6, 3, 1), (9, 4, 3), (5, 1, 2), (6, 2, 3)]
)
def test_same_convolution_equals_tensorflows_sum(size: int, kernel: int, stride: int):
    torch.manual_seed(0)
    layer = SameConv2d(1, 1, kernel, stride, bias=False).double()
    x = torch.randn(1, 1, size, size, dtype=torch.float64)
    expected = slow_same(x[0, 0].numpy(), layer.weight.detach()[0, 0].numpy(), stride)
    np.testing.assert_allclose(layer(x)[0, 0].detach().numpy(), expected, rtol=1e-10)


@pytest.mark.parametrize("kernel, stride", [(5, 2), (4, 2), (3, 1), (2, 3), (1, 2), (7, 4)])
def test_same_transposed_convolution_is_the_adjoint(kernel: int, stride: int):
    """⟨conv x, y⟩ = ⟨x, convᵀ y⟩ defines the transposed layer; a shift by a pixel would fail."""
    torch.manual_seed(0)
    down = SameConv2d(3, 4, kernel, stride, bias=False).double()
    up = SameConvTranspose2d(4, 3, kernel, stride, bias=False).double()
    # Both weights are [4, 3, k, k]: PyTorch stores a transposed layer's weight as in x out.
    up.weight = down.weight
    x, y = torch.randn(2, 3, 4 * stride, 5 * stride).double(), torch.randn(2, 4, 4, 5).double()
    assert down(x).shape == y.shape and up(y).shape == x.shape
    torch.testing.assert_close((down(x) * y).sum(), (x * up(y)).sum())


def test_two_edge_filters_on_a_6x6_image_by_hand():
    """The image is 10 on the left and 0 on the right. The vertical edge filter gives 30 at the
    edge, the horizontal one 0 everywhere.
    """
    image = torch.zeros(1, 1, 6, 6)
    image[..., :3] = 10
    vertical = tensor([[1.0, 0, -1]]).expand(3, 3)
    layer = nn.Conv2d(1, 2, 3, bias=False)
    layer.weight.data = torch.stack([vertical, vertical.T])[:, None]
    out = layer(image)[0]
    assert out.shape == (2, 4, 4)
    assert out[0].tolist() == [[0, 30, 30, 0]] * 4
    assert out[1].tolist() == [[0, 0, 0, 0]] * 4


# -- activations -----------------------------------------------------------------------------------


def test_activations_by_hand():
    x = tensor([[-2.0, -1.0, 0.0, 3.0]])
    expected = {
        "sigmoid": [1 / (1 + math.exp(-v)) for v in (-2, -1, 0, 3)],
        "tanh": [math.tanh(v) for v in (-2, -1, 0, 3)],
        "relu": [0, 0, 0, 3],
        "leaky": [-0.2, -0.1, 0, 3],  # max(0.1·x, x)
        "elu": [math.exp(-2) - 1, math.exp(-1) - 1, 0, 3],
        "maxout": [-1, 3],
    }
    assert set(expected) == set(ACTIVATIONS)
    for name, values in expected.items():
        found = activation_layer(name, slope=0.1)(x)[0].tolist()
        assert found == pytest.approx(values, rel=1e-6), name
    with pytest.raises(
        ConfigError, match="--activation swish: no such activation; there are sigmoid"
    ):
        activation_layer("swish")


def test_maxout_takes_neighbouring_features_of_images():
    x = torch.randn(2, 6, 3, 4)
    expected = torch.stack([x[:, 3 * f : 3 * f + 3].amax(1) for f in range(2)], dim=1)
    assert torch.equal(Maxout(3)(x), expected)
    assert fan_out("maxout", 10, 3) == 30 and fan_out("relu", 10) == 10
    with pytest.raises(ConfigError, match="--pieces 1"):
        Maxout(1)


@pytest.mark.parametrize("name", ["relu", "leaky", "maxout"])
def test_init_for_keeps_the_size_of_activations(name: str):
    """E x² stays within a factor of 10 through 30 layers of 200 units. PyTorch's own initial
    weights make it vanish.
    """
    torch.manual_seed(0)
    x = torch.randn(64, 200)
    for _ in range(30):
        layer = nn.Linear(200, fan_out(name, 200), bias=False)
        init_for(name, layer.weight, slope=0.1)
        x = activation_layer(name, slope=0.1)(layer(x)).detach()
    assert 0.1 < x.square().mean() < 10


# -- pooling ---------------------------------------------------------------------------------------


def test_unpool_puts_the_maxima_back_to_their_positions():
    image = tensor([[1.0, 2, 0, 9], [4, 3, 5, 0], [0, 0, 7, 7], [0, 6, 0, 0]])[None, None]
    pooled, positions = max_pool(image, 2)
    assert pooled[0, 0].tolist() == [[4, 9], [6, 7]]
    assert positions[0, 0].tolist() == [[4, 3], [13, 10]]
    back = unpool(pooled, positions, 4, 4)
    assert back[0, 0].tolist() == [[0, 0, 0, 9], [4, 0, 0, 0], [0, 0, 7, 0], [0, 6, 0, 0]]


@pytest.mark.parametrize("height, width, size", [(8, 8, 2), (9, 7, 2), (9, 9, 3)])
def test_unpool_equals_pytorchs_and_passes_gradients(height: int, width: int, size: int):
    torch.manual_seed(0)
    x = torch.randn(2, 3, height, width, requires_grad=True)
    pooled, positions = max_pool(x, size)
    back = unpool(pooled, positions, height, width)
    assert torch.equal(
        back, functional.max_unpool2d(pooled, positions, size, output_size=(height, width))
    )
    back.sum().backward()
    assert x.grad is not None and x.grad.sum() == pooled.numel()


def test_position_bits_by_hand():
    assert position_bits(1, 8, 8, 2) == 16 * 2  # 16 windows, one of 4 places each
    assert position_bits(3, 9, 9, 3) == pytest.approx(27 * math.log2(9))


# -- oracles of backpropagation --------------------------------------------------------------------


def test_gradient_of_a_weight_with_two_paths_is_the_sum_of_both():
    """h = w·x feeds a = tanh(u·h) and b = sigmoid(v·h); y = a + b; E = ½(y − t)². By hand, then
    by autograd.
    """
    x, target = 0.5, 0.3
    w, u, v = (tensor(value, dtype=torch.float64, requires_grad=True) for value in (0.8, -1.2, 0.7))
    h = w * x
    a, b = torch.tanh(u * h), torch.sigmoid(v * h)
    (0.5 * (a + b - target) ** 2).backward()

    hidden = 0.8 * x
    a_value, b_value = math.tanh(-1.2 * hidden), 1 / (1 + math.exp(-0.7 * hidden))
    error = a_value + b_value - target  # ∂E/∂y
    by_a = error * (1 - a_value**2) * -1.2 * x  # ∂E/∂y · ∂y/∂a · ∂a/∂h · ∂h/∂w
    by_b = error * b_value * (1 - b_value) * 0.7 * x
    assert abs(by_a) > 0.01 and abs(by_b) > 0.01
    assert w.grad is not None and w.grad.item() == pytest.approx(by_a + by_b, rel=1e-12)
    assert u.grad is not None and u.grad.item() == pytest.approx(
        error * (1 - a_value**2) * hidden, rel=1e-12
    )
    assert v.grad is not None and v.grad.item() == pytest.approx(
        error * b_value * (1 - b_value) * hidden, rel=1e-12
    )


def test_squared_error_under_softmax_has_a_tiny_gradient_for_a_certain_mistake():
    """∂/∂logits: cross-entropy p − y; squared error J(p − y) with softmax's J = diag p − p·pᵀ,
    which vanishes.
    """

    def gradients(logits: list[float]) -> tuple[Tensor, Tensor, Tensor]:
        z = tensor(logits, dtype=torch.float64, requires_grad=True)
        y = tensor([1.0, 0, 0], dtype=torch.float64)
        p = z.softmax(0)
        (crossed,) = torch.autograd.grad(-(y * p.log()).sum(), z, retain_graph=True)
        (squared,) = torch.autograd.grad((p - y).square().sum() / 2, z)
        p = p.detach()
        torch.testing.assert_close(crossed, p - y)
        torch.testing.assert_close(squared, (p.diag() - p.outer(p)) @ (p - y))
        return crossed, squared, p

    crossed, squared, p = gradients([-10.0, 10.0, 0.0])  # sure, and wrong
    assert p[1] > 0.9999
    assert crossed.norm() > 1.4 and squared.norm() < 1e-3
    crossed, squared, _ = gradients([0.0, 0.0, 0.0])
    assert squared.norm() > 0.3 * crossed.norm()


def test_dropout_at_test_time_is_the_mean_of_all_subnetworks():
    """One linear layer of 6 inputs: the 64 masks, each with its probability, average to what
    evaluation computes.
    """
    torch.manual_seed(0)
    layer, drop, x = nn.Linear(6, 3).double(), 0.3, torch.randn(6, dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64)
    for mask in itertools.product([0, 1], repeat=6):
        probability = math.prod(1 - drop if kept else drop for kept in mask)
        mean += probability * layer(x * tensor(mask) / (1 - drop)).detach()
    network = nn.Sequential(nn.Dropout(drop), layer)
    torch.testing.assert_close(network.eval()(x), mean)
    # Behind a nonlinearity this is an approximation only.
    assert not torch.allclose(network(x).relu().detach(), network.train()(x).relu().detach())
