"""Draws how the gradient shrinks from the last layer to the first, for each activation."""

from pathlib import Path

import numpy as np
from torch import nn
from torch.nn import functional

from genray.gen.figures.drawing import (
    COLOURS,
    FAINT,
    digits,
    new_figure,
    style_axes,
    write_figure,
    write_title,
)
from genray.gen.layers import ACTIVATIONS, activation_layer, fan_out
from genray.gen.training.fit import fixed_randomness


def gradients_by_depth(name: str, depth: int = 20, width: int = 128, seed: int = 0) -> np.ndarray:
    """Return the root mean square of the loss's gradient with respect to each layer's input.

    The values are divided by the last layer's value: float64 [depth]. The network is an untrained
    dense network of equal layers, with digits as input. The weights are drawn in Glorot's way for
    every activation, so that differences come from the activation alone. [Glorot 2010,
    https://proceedings.mlr.press/v9/glorot10a.html]
    """
    images, labels = digits()
    with fixed_randomness([seed, 6]):
        layers: list[nn.Module] = [nn.Linear(64, width)]
        for _ in range(depth):
            linear = nn.Linear(width, fan_out(name, width))
            # Glorot's variance 2/(in + out), where a maxout's pieces count as one unit
            nn.init.normal_(linear.weight, std=width**-0.5)
            nn.init.zeros_(linear.bias)
            layers.append(nn.Sequential(linear, activation_layer(name, slope=0.1)))
        head = nn.Linear(width, 10)
    x, inputs = images[:256], []
    for number, layer in enumerate(layers):
        x = layer(x)
        if number < depth:
            x.retain_grad()
            inputs.append(x)
    functional.cross_entropy(head(x), labels[:256]).backward()
    sizes = [
        float(each.grad.double().square().mean().sqrt()) for each in inputs if each.grad is not None
    ]
    return np.array(sizes) / sizes[-1]


def gradients_figure(path: Path, seed: int = 0, depth: int = 20) -> Path:
    """Draw how the gradient shrinks from the last layer to the first, for each activation."""
    figure = new_figure(10.5, 5.2)
    axis = figure.subplots()
    for name, colour in zip(ACTIVATIONS, COLOURS):
        sizes = gradients_by_depth(name, depth, seed=seed)
        # The curves of leaky ReLU and ReLU coincide; a dashed line makes both visible.
        line = "--s" if name == "leaky" else "-o"
        axis.semilogy(
            np.arange(1, depth + 1),
            sizes,
            line,
            color=colour,
            markersize=3.5,
            linewidth=1.6,
            label=name,
        )
    axis.axhline(1, color=FAINT, linewidth=0.8)
    axis.set(
        xlabel="layer (1: next to the data)",
        ylabel="gradient, relative to the last layer's",
        xlim=(0.5, depth + 0.5),
    )
    axis.set_xticks([1, *range(5, depth + 1, 5)])
    axis.legend(frameon=False, fontsize=10, loc="center left", bbox_to_anchor=(1.0, 0.5))
    style_axes(axis, grid=True)
    write_title(
        figure,
        "Gradient by depth and activation",
        f"root mean square of ∂loss/∂(a layer's input): {depth} dense layers of 128 units before "
        "training, digits, "
        "variance 1/128; leaky: 0.1",
    )
    return write_figure(figure, path)
