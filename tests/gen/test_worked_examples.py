"""Small examples whose numbers are worked out by hand: convolution as a sparse matrix, sizes and
depths of feature maps, a feed-forward network, backpropagation, joint and conditional tables.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn, tensor
from torch.nn import functional

from genray.gen.images.classifier import Classifier, ClassifierModelConfig, classification_loss
from genray.gen.layers import SameConv2d, SameConvTranspose2d, max_pool

# -- convolution -----------------------------------------------------------------------------------

ROWS = ("100001", "010010", "001100", "100010", "010010", "001010")
IMAGE = tensor([[float(pixel) for pixel in row] for row in ROWS])[None, None]
FILTERS = {
    "diagonal": [[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]],
    "vertical": [[-1.0, 1, -1]] * 3,
}
MAPS = {
    "diagonal": [[3, -1, -3, -1], [-3, 1, 0, -3], [-3, -3, 0, 1], [3, -2, -2, -1]],
    "vertical": [[-1, -1, -1, -1], [-1, -1, -2, 1], [-1, -1, -2, 1], [-1, 0, -4, 3]],
}
POOLED = {"diagonal": [[3, 0], [3, 1]], "vertical": [[-1, 1], [0, 3]]}


def filter_layer(name: str) -> nn.Conv2d:
    layer = nn.Conv2d(1, 1, 3, bias=False)
    layer.weight.data = tensor(FILTERS[name])[None, None]
    return layer


def as_matrix(weight_33: Tensor) -> Tensor:
    """Return the dense layer [16, 36] that equals a 3x3 convolution of 6x6 pixels.

    Row 4·i + j is the output at (i, j). Its nine weights are those of the pixels (i + a, j + b).
    """
    matrix = torch.zeros(16, 36)
    for i, j, a, b in np.ndindex(4, 4, 3, 3):
        matrix[4 * i + j, 6 * (i + a) + j + b] = weight_33[a, b]
    return matrix


@pytest.mark.parametrize("name", FILTERS)
def test_convolution_and_pooling_of_a_6x6_image_by_hand(name: str):
    found = filter_layer(name)(IMAGE)
    assert found[0, 0].tolist() == MAPS[name]
    pooled, _ = max_pool(found, 2)
    assert pooled[0, 0].tolist() == POOLED[name]


def test_convolution_with_two_filters_has_a_feature_map_of_depth_two():
    layer = nn.Conv2d(1, 2, 3, bias=False)
    layer.weight.data = tensor([FILTERS[name] for name in MAPS])[:, None]
    assert layer(IMAGE)[0].tolist() == [MAPS[name] for name in MAPS]


@pytest.mark.parametrize("name", FILTERS)
def test_convolution_is_a_sparse_dense_layer_with_shared_weights(name: str):
    """The matrix has 16 · 9 = 144 weights other than 0 of 16 · 36 = 576, but only 9 of its own."""
    layer = filter_layer(name)
    matrix = as_matrix(layer.weight[0, 0])
    assert matrix.shape == (16, 36) and ((matrix != 0).sum(1) == 9).all()
    assert functional.linear(IMAGE.flatten(1), matrix).reshape(4, 4).tolist() == MAPS[name]
    # The images of single pixels give the matrix's columns: it is the whole of the layer.
    pixels = torch.eye(36).reshape(36, 1, 6, 6)
    assert torch.equal(layer(pixels).flatten(1).T, matrix)


def test_convolution_has_the_sum_of_the_gradients_of_its_shared_weights():
    layer = filter_layer("diagonal")
    error = torch.arange(16.0)  # ∂loss/∂output
    (layer(IMAGE).flatten() * error).sum().backward()
    # As 144 separate weights: each has the gradient error · pixel.
    separate = error[:, None] * IMAGE.flatten()
    expected = torch.stack(
        [separate[as_matrix(one.reshape(3, 3)) != 0].sum() for one in torch.eye(9)]
    )
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad.flatten(), expected)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("height, width", [(28, 28), (9, 14)])
def test_convolution_arithmetic_of_height_width_and_depth(height: int, width: int, stride: int):
    """VALID: ⌈(in − kernel + 1) / stride⌉, SAME: ⌈in / stride⌉, for height and width. The depth is
    the number of filters; each filter has the input's whole depth.
    """
    x, kernel, depth, filters = torch.zeros(1, 3, height, width), 5, 3, 8
    valid = nn.Conv2d(depth, filters, kernel, stride)
    expected = [math.ceil((side - kernel + 1) / stride) for side in (height, width)]
    assert valid(x).shape[1:] == (filters, *expected)
    same = SameConv2d(depth, filters, kernel, stride)
    assert same(x).shape[1:] == (filters, math.ceil(height / stride), math.ceil(width / stride))
    for layer in (valid, same):
        shared = sum(weight.numel() for weight in layer.parameters())
        assert shared == filters * (kernel * kernel * depth + 1)
    # Transposed: SAME in · stride, VALID (in − 1) · stride + kernel for a kernel ≥ the stride.
    up = SameConvTranspose2d(depth, filters, kernel, stride)
    assert up(x).shape[1:] == (filters, height * stride, width * stride)
    up_valid = nn.ConvTranspose2d(depth, filters, kernel, stride)
    assert up_valid(x).shape[1:] == (
        filters, (height - 1) * stride + kernel, (width - 1) * stride + kernel,
    )  # fmt: skip


def test_convolution_of_4x4_with_3x3_gives_2x2_and_transposed_4x4_again():
    down, up = nn.Conv2d(1, 1, 3), nn.ConvTranspose2d(1, 1, 3)
    small = down(torch.zeros(1, 1, 4, 4))
    assert small.shape[2:] == (2, 2) and up(small).shape[2:] == (4, 4)


# -- feed-forward and backpropagation --------------------------------------------------------------


def test_feed_forward_of_a_2_2_2_2_sigmoid_network_by_hand():
    layers = [
        ([[1.0, -2], [-1, 1]], [1.0, 0]),
        ([[2.0, -1], [-2, -1]], [0.0, 0]),
        ([[3.0, -1], [-1, 4]], [-2.0, 2]),
    ]
    config = ClassifierModelConfig(network="dense", widths=(2, 2), activation="sigmoid")
    network = Classifier(config, (1, 1, 2), 2, -1.0, 1.0).eval()
    linear = [layer for layer in network.modules() if isinstance(layer, nn.Linear)]
    for layer, (weight, bias) in zip(linear, layers, strict=True):
        layer.weight.data, layer.bias.data = tensor(weight), tensor(bias)
    x = tensor([[1.0, -1], [0, 0]])[:, None, None]
    assert network.layers[:3](x)[0].tolist() == pytest.approx([0.98, 0.12], abs=0.005)
    assert network.features(x)[0].tolist() == pytest.approx([0.86, 0.11], abs=0.005)
    out = network(x).sigmoid()
    assert out[0].tolist() == pytest.approx([0.62, 0.83], abs=0.005)
    assert out[1].tolist() == pytest.approx([0.51, 0.85], abs=0.005)


def test_backpropagation_through_a_1_2_2_1_network_by_hand():
    """x → (a₁, a₂) → (b₁, b₂) → y, sigmoid in all units, E = ½(y − t)².

    The weight w₁ of a₁ reaches y by b₁ and by b₂: its gradient is the sum of both products.
    """
    x, target = 0.5, 0.1
    w, u, v = [0.4, -0.7], [[0.3, -0.5], [0.9, 0.2]], [1.1, -0.6]
    first, second, last = (
        tensor(values, dtype=torch.float64, requires_grad=True) for values in (w, u, v)
    )
    a = (first * x).sigmoid()
    b = (second @ a).sigmoid()
    (0.5 * ((last @ b).sigmoid() - target) ** 2).backward()

    def sigmoid(z: float) -> float:
        return 1 / (1 + math.exp(-z))

    a_ = [sigmoid(w[i] * x) for i in range(2)]
    b_ = [sigmoid(u[j][0] * a_[0] + u[j][1] * a_[1]) for j in range(2)]
    y = sigmoid(v[0] * b_[0] + v[1] * b_[1])
    # ∂E/∂z of the output, of the second layer and of each path back to the first layer
    at_y = (y - target) * y * (1 - y)
    at_b = [at_y * v[j] * b_[j] * (1 - b_[j]) for j in range(2)]
    paths = [[at_b[j] * u[j][i] * a_[i] * (1 - a_[i]) * x for j in range(2)] for i in range(2)]
    assert min(abs(path) for both in paths for path in both) > 1e-4
    for found, expected in (
        (first.grad, [sum(both) for both in paths]),
        (second.grad, [[at_b[j] * a_[i] for i in range(2)] for j in range(2)]),
        (last.grad, [at_y * b_[j] for j in range(2)]),
    ):
        np.testing.assert_allclose(found, expected, rtol=1e-12)


# -- generative and discriminative -----------------------------------------------------------------

POINTS = ((1, 0), (1, 0), (2, 0), (2, 1))
"""Four observations (x, y)."""


def joint_and_conditional() -> tuple[np.ndarray, np.ndarray]:
    """Return p(x, y) and p(y | x) of POINTS, rows x = 1, 2 and columns y = 0, 1."""
    joint = np.zeros((2, 2))
    for x, y in POINTS:
        joint[x - 1, y] += 1 / len(POINTS)
    return joint, joint / joint.sum(1, keepdims=True)


def test_joint_and_conditional_tables_of_four_points_by_hand():
    joint, conditional = joint_and_conditional()
    assert joint.tolist() == [[1 / 2, 0], [1 / 4, 1 / 4]]
    assert conditional.tolist() == [[1, 0], [1 / 2, 1 / 2]]


def test_classification_loss_is_least_at_the_conditional_table():
    """The cross-entropy of a classifier has its minimum at p(y | x), and the negative
    log-likelihood of a generative model, which has one probability for each cell, at p(x, y).
    """
    joint, conditional = (torch.from_numpy(table) for table in joint_and_conditional())
    x, y = (tensor(column) for column in zip(*POINTS))
    logits_XY = conditional.clamp(min=1e-12).log().requires_grad_()
    classification_loss("cross_entropy", logits_XY[x - 1], y).mean().backward()
    assert logits_XY.grad is not None and logits_XY.grad.abs().max() < 1e-9
    cells = joint.flatten().clamp(min=1e-12).log().requires_grad_()
    cell = 2 * (x - 1) + y
    classification_loss("cross_entropy", cells.expand(len(POINTS), 4), cell).mean().backward()
    assert cells.grad is not None and cells.grad.abs().max() < 1e-9
    # At another table the gradient is not 0.
    other = torch.zeros(2, 2, dtype=torch.float64, requires_grad=True)
    classification_loss("cross_entropy", other[x - 1], y).mean().backward()
    assert other.grad is not None and other.grad.abs().max() > 0.1
