"""Tests the linear probe, on labels that a linear classifier can and cannot learn."""

import numpy as np

from genray.gen.evaluation.probes import principal_components, softmax_regression


def test_softmax_regression_learns_linear_labels_and_not_xor():
    x = np.random.default_rng(0).standard_normal((400, 6))
    linear, xor = (x[:, 0] + x[:, 1] > 0).astype(int), (x[:, 0] * x[:, 1] > 0).astype(int)
    assert softmax_regression(x[:300], linear[:300], x[300:], linear[300:]) > 0.95
    assert softmax_regression(x[:300], xor[:300], x[300:], xor[300:]) < 0.7


def test_principal_components_agree_with_a_singular_value_decomposition():
    rng = np.random.default_rng(0)
    train, test = rng.standard_normal((50, 12)), rng.standard_normal((20, 12))
    basis = np.linalg.svd(train - train.mean(0), full_matrices=False)[2][:4]
    expected = (test - train.mean(0)) @ basis.T @ basis + train.mean(0)
    pca = principal_components(train, 4)
    assert pca is not None and principal_components(train, 13) is None
    np.testing.assert_allclose(pca.inverse_transform(pca.transform(test)), expected, atol=1e-9)
