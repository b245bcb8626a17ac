"""Draws five figures about optimisation: valley, schedules, gradients by depth, losses, depth.

Every `…_figure` function writes one PNG. A separate function computes the figure's numbers, so
that tests can check them.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from genray.errors import require
from genray.gen.images.classifier import Loss, classification_loss
from genray.gen.layers import ACTIVATIONS, activation_layer, fan_out
from genray.gen.training.fit import fixed_randomness
from genray.gen.training.optimizers import OPTIMIZERS, OptimizerConfig, make_optimizer
from genray.gen.training.schedules import SCHEDULES, factor
from genray.media import write_png

# Okabe and Ito's colours, which colour-blind readers can distinguish.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#222222", "#8a8a8a"

# -- valley: the path of each optimizer ------------------------------------------------------------

VALLEY = (1.0, 30.0)
"""Curvatures of f(x, y) = ½(a·x² + b·y²): flat along x, steep along y."""
VALLEY_START = (-4.0, 1.2)
VALLEY_STEPS = 60
# Learning rates chosen by hand among 1, 2, 3, 5, 6 · 10ᵏ: with one common rate, most optimizers
# would hardly move or diverge. SGD's 0.06 is just below 2/b = 0.067, above which the steep
# direction diverges.
VALLEY_RATES: dict[str, float] = {
    "sgd": 0.06,
    "momentum": 0.02,
    "nesterov": 0.02,
    "adagrad": 1.0,
    "adadelta": 50.0,
    "rmsprop": 0.1,
    "rmsprop-centered": 0.05,
    "adam": 0.3,
    "adamw": 0.3,
    "amsgrad": 0.3,
    "nadam": 0.2,
    "radam": 0.06,
    "adamax": 0.5,
    "adafactor": 0.3,
    "asgd": 0.06,
    "rprop": 0.1,
    "adagrad-da": 1.0,
    "ftrl": 1.0,
    "proximal-gradient-descent": 0.06,
    "proximal-adagrad": 1.0,
}

VALLEY_MORE_STEPS: dict[str, int] = {"radam": 400}
"""RAdam makes plain momentum steps until its variance is known, so its rate must be below 2/b, like
SGD's. Later steps are at most about η, which is short, so RAdam needs more updates."""


def valley_path(optimizer: str, rate: float, steps: int = VALLEY_STEPS) -> np.ndarray:
    """Return the optimizer's path from VALLEY_START, float64 [steps + 1, 2]."""
    point = nn.Parameter(torch.tensor(VALLEY_START, dtype=torch.float64))
    rule = make_optimizer([point], OptimizerConfig(optimizer=optimizer, learning_rate=rate))
    path = [point.detach().clone()]
    for _ in range(steps):
        point.grad = torch.tensor(VALLEY, dtype=torch.float64) * point.detach()
        rule.step()
        path.append(point.detach().clone())
    return torch.stack(path).numpy()


def valley_figure(path: Path, seed: int = 0) -> Path:
    """Draw the path of every optimizer of `OPTIMIZERS` in a narrow valley."""
    columns, names = 4, list(OPTIMIZERS)
    figure = _figure(13, 12.2)
    axes = figure.subplots(-(-len(names) // columns), columns, sharex=True, sharey=True).ravel()
    x, y = np.meshgrid(np.linspace(-4.6, 2.2, 200), np.linspace(-1.7, 1.7, 200))
    height = (VALLEY[0] * x**2 + VALLEY[1] * y**2) / 2
    for number, (axis, name) in enumerate(zip(axes, names)):
        steps = VALLEY_MORE_STEPS.get(name, VALLEY_STEPS)
        walked = valley_path(name, VALLEY_RATES[name], steps)
        longer = f"   {steps} updates" if steps != VALLEY_STEPS else ""
        axis.contour(
            x, y, height, levels=np.geomspace(0.05, 50, 10), colors="#c9d3dc", linewidths=0.8
        )
        axis.plot(
            *walked.T, "-o", color=COLOURS[number % 2], markersize=2.4, linewidth=1.1, clip_on=True
        )
        axis.plot(0, 0, "*", color=INK, markersize=9)
        value = (np.array(VALLEY) * walked[-1] ** 2).sum() / 2
        axis.set_title(
            f"{name}   η = {VALLEY_RATES[name]:g}{longer}", fontsize=10.5, color=INK, loc="left"
        )
        axis.text(
            0.98,
            0.05,
            f"f = {value:.1e}",
            transform=axis.transAxes,
            ha="right",
            fontsize=9,
            color=FAINT,
        )
        axis.set(xlim=(-4.6, 2.2), ylim=(-1.7, 1.7))
        _plain(axis)
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    _title(
        figure,
        "Down a narrow valley",
        f"f(x, y) = ½(x² + {VALLEY[1]:g}y²), {VALLEY_STEPS} updates from {VALLEY_START} unless a "
        "panel "
        "says more; each at its own learning rate η; momentum 0.9, β = (0.9, 0.999), ρ = 0.9; f: "
        "where "
        "it ends",
    )
    return _write(figure, path)


# -- schedules -------------------------------------------------------------------------------------


def schedules_figure(path: Path, seed: int = 0, total: int = 300, warmup: int = 15) -> Path:
    """Draw every schedule over `total` updates, on a linear and on a logarithmic scale."""
    figure = _figure(12, 4.6)
    plain, logarithmic = figure.subplots(1, 2)
    updates = np.arange(total)
    for name, colour in zip(SCHEDULES, COLOURS):
        label = {"inverse-sqrt": "inverse-sqrt: η/√(t+1)"}.get(name, name)
        values = [factor(name, int(update), total) for update in updates]
        for axis in (plain, logarithmic):
            axis.plot(updates, values, color=colour, linewidth=1.8, label=label)
    begin = [factor("cosine", int(update), total, warmup=warmup) for update in updates]
    for axis in (plain, logarithmic):
        axis.plot(
            updates,
            begin,
            "--",
            color=COLOURS[2],
            linewidth=1.2,
            label=f"cosine, warm-up of {warmup}",
        )
        axis.set_xlabel("update t")
        axis.set_xlim(0, total)
        _plain(axis, grid=True)
    plain.set_ylabel("learning rate / η")
    logarithmic.set(yscale="log", ylim=(3e-4, 1.5))
    logarithmic.legend(frameon=False, fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    _title(
        figure, "Learning-rate schedules", f"over {total} updates; left linear, right logarithmic"
    )
    return _write(figure, path)


# -- gradients by depth ----------------------------------------------------------------------------


def gradients_by_depth(name: str, depth: int = 20, width: int = 128, seed: int = 0) -> np.ndarray:
    """Return the root mean square of ∂loss/∂(input of layer l), relative to the last layer's:
    float64 [depth].

    The network is an untrained dense network of equal layers on the digits. All activations have
    Glorot's weights, so that differences come from the activation alone. [Glorot 2010,
    https://proceedings.mlr.press/v9/glorot10a.html]
    """
    images, labels = _digits()
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
    figure = _figure(10.5, 5.2)
    axis = figure.subplots()
    for name, colour in zip(ACTIVATIONS, COLOURS):
        sizes = gradients_by_depth(name, depth, seed=seed)
        # The curves of leaky ReLU and ReLU coincide: with a dashed line, both are visible.
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
    _plain(axis, grid=True)
    _title(
        figure,
        "Gradient by depth and activation",
        f"root mean square of ∂loss/∂(a layer's input): {depth} dense layers of 128 units before "
        "training, digits, "
        "variance 1/128; leaky: 0.1",
    )
    return _write(figure, path)


# -- losses: squared error and cross-entropy -------------------------------------------------------

LOSSES: tuple[Loss, ...] = ("cross_entropy", "squared_error")
STARTS = {"as usual": 1.0, "surely wrong": 30.0}
"""Factor on the last layer's initial weights: 30 makes the softmax almost certain of a random
class.
"""


def loss_gradients(
    loss: Loss, classes: int = 10, points: int = 201
) -> tuple[np.ndarray, np.ndarray]:
    """Return p and |∂loss/∂z|, float64 [points] each.

    z is the logit of the true class, p its probability by the softmax, 0.0001..0.9999. The other
    classes have equal probabilities.
    """
    p = torch.linspace(-9.21, 9.21, points, dtype=torch.float64).sigmoid()
    logits = torch.cat(
        [p[:, None], ((1 - p) / (classes - 1))[:, None].expand(-1, classes - 1)], 1
    ).log()
    logits = logits.requires_grad_()
    classification_loss(loss, logits, torch.zeros(len(p), dtype=torch.int64)).sum().backward()
    assert logits.grad is not None
    return p.numpy(), logits.grad[:, 0].abs().numpy()


def loss_curve(loss: Loss, start: str = "as usual", epochs: int = 25, seed: int = 0) -> list[float]:
    """Return the training error of each epoch on 1,297 digits, at the best of three rates.

    The network has 64 ReLUs and a softmax; the optimizer is momentum. The gradients of the two
    losses differ in size, so each loss uses the rate of 0.2, 0.05 and 0.0125 with the lowest last
    error.
    """
    images, labels = _digits()
    curves = []
    for rate in (0.2, 0.05, 0.0125):
        with fixed_randomness([seed, 7]):
            last = nn.Linear(64, 10)
            network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), last)
            with torch.no_grad():
                last.weight.mul_(STARTS[start])
            optimizer = make_optimizer(
                network.parameters(), OptimizerConfig(optimizer="momentum", learning_rate=rate)
            )
            curve = []
            for _ in range(epochs):
                wrong, batches = 0.0, torch.randperm(len(images))[:1200].split(100)
                for rows in batches:
                    logits = network(images[rows])
                    optimizer.zero_grad()
                    classification_loss(loss, logits, labels[rows]).mean().backward()
                    optimizer.step()
                    wrong += float((logits.argmax(1) != labels[rows]).float().mean())
                curve.append(wrong / len(batches))
        curves.append(curve)
    return min(curves, key=lambda curve: curve[-1])


def losses_figure(path: Path, seed: int = 0, epochs: int = 25) -> Path:
    """Draw both losses' gradients by the true class's probability, and training from two starts."""
    figure = _figure(12, 4.8)
    left, right = figure.subplots(1, 2)
    for loss, colour in zip(LOSSES, COLOURS):
        left.plot(*loss_gradients(loss), color=colour, linewidth=2, label=loss.replace("_", " "))
        for start, line in zip(STARTS, ("--", "-")):
            curves = (
                np.array([loss_curve(loss, start, epochs, seed + number) for number in range(3)])
                * 100
            )
            at = np.arange(1, epochs + 1)
            label = f"{loss.replace('_', ' ')}, {start}"
            right.plot(at, curves.mean(0), line, color=colour, linewidth=2, label=label)
            right.fill_between(
                at, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0
            )
    left.set(
        xscale="logit",
        xlabel="probability that the softmax gives to the true class",
        ylim=(0, 1.02),
    )
    left.set_ylabel("gradient by the true class's logit")
    ticks = [1e-4, 1e-3, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999]
    left.set_xticks(ticks, labels=["0.0001", "0.001", "0.01", "0.1", "0.5", "0.9", "0.99", "0.999"])
    left.minorticks_off()
    right.set(xlabel="epoch", ylabel="training error, %", xlim=(1, epochs), ylim=(0, 100))
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=10, loc="upper right")
        _plain(axis, grid=True)
    _title(
        figure,
        "Squared error forgives what it should mend",
        "where the softmax is surely wrong, its gradient is 0; right: digits, two kinds of first "
        "weights, mean and range "
        "of 3 seeds, best of 3 rates",
    )
    return _write(figure, path)


# -- depth: plain and residual networks ------------------------------------------------------------

DEPTHS = (4, 20, 40)


class Tower(nn.Module):
    """A network of `depth` dense layers with batch norm and ReLU, in pairs. With residual
    connections, each pair f adds its input: x + f(x).

    [He 2015, https://arxiv.org/abs/1512.03385, with dense layers for convolutions]
    """

    def __init__(self, depth: int, residual: bool, width: int = 32):
        super().__init__()
        self.residual = residual
        self.first = nn.Linear(64, width)
        self.pairs = nn.ModuleList(
            nn.Sequential(
                nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(),
                nn.Linear(width, width, bias=False), nn.BatchNorm1d(width),
            )
            for _ in range(depth // 2)
        )  # fmt: skip
        self.last = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        for pair in self.pairs:
            x = (x + pair(x) if self.residual else pair(x)).relu()
        return self.last(x)


def depth_curve(depth: int, residual: bool, epochs: int = 25, seed: int = 0) -> list[float]:
    """Return the training error of each epoch on 1,297 digits: the share of wrong answers on the
    training batches.
    """
    images, labels = _digits()
    batch_size, rate = 100, 0.05
    with fixed_randomness([seed, 10]):
        tower = Tower(depth, residual)
        config = OptimizerConfig(optimizer="momentum", learning_rate=rate)
        optimizer = make_optimizer(tower.parameters(), config)
        curve = []
        for _ in range(epochs):
            wrong, order = torch.zeros(()), torch.randperm(len(images))
            batches = order[: len(order) // batch_size * batch_size].split(batch_size)
            for rows in batches:
                logits = tower(images[rows])
                optimizer.zero_grad()
                functional.cross_entropy(logits, labels[rows]).backward()
                optimizer.step()
                wrong += (logits.argmax(1) != labels[rows]).float().mean()
            curve.append(float(wrong) / len(batches))
    return curve


def depth_figure(path: Path, seed: int = 0, epochs: int = 25) -> Path:
    """Draw the training error of shallow and deep networks, plain and residual, three seeds."""
    figure = _figure(11, 4.8)
    both = figure.subplots(1, 2, sharey=True)
    for axis, residual in zip(both, (False, True)):
        for depth, colour in zip(DEPTHS, COLOURS):
            curves = (
                np.array(
                    [depth_curve(depth, residual, epochs, seed + number) for number in range(3)]
                )
                * 100
            )
            at = np.arange(1, epochs + 1)
            axis.plot(at, curves.mean(0), color=colour, linewidth=2, label=f"{depth} layers")
            axis.fill_between(
                at, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0
            )
        axis.set_title(
            "residual: x + f(x)" if residual else "plain: f(x)", fontsize=11, color=INK, loc="left"
        )
        axis.set(xlabel="epoch", xlim=(1, epochs), ylim=(0, 100))
        _plain(axis, grid=True)
    both[0].set_ylabel("training error, %")
    both[1].legend(frameon=False, fontsize=10, loc="upper right")
    _title(
        figure,
        "Do not always blame overfitting",
        "training error on 1,297 digits, dense layers of 32 with batch norm; mean and range of 3 "
        "seeds, momentum, η = 0.05",
    )
    return _write(figure, path)


# -- all of them -----------------------------------------------------------------------------------

FIGURES: dict[str, Callable[[Path, int], Path]] = {
    "valley": valley_figure,
    "schedules": schedules_figure,
    "gradients": gradients_figure,
    "losses": losses_figure,
    "depth": depth_figure,
}
"""Functions that draw a figure, by the figure's name."""


def main_figures(out: Path, names: Sequence[str] = (), seed: int = 0) -> list[Path]:
    """Write the named figures (all, when there are no names) as NAME.png into `out`; returns
    their paths.

    Raises ConfigError for an unknown name, ResourceError when a file cannot be written.
    """
    for name in names:
        require(name in FIGURES, f"{name}: no such figure; there are {', '.join(FIGURES)}")
    return [FIGURES[name](out / f"{name}.png", seed) for name in dict.fromkeys(names or FIGURES)]


def _digits() -> tuple[Tensor, Tensor]:
    """Return the training rows of digits: float32 [1297, 64] in 0..1, and labels int64 [1297]."""
    from genray.gen.data.config import DataConfig
    from genray.gen.data.load import load_data

    train = load_data(DataConfig(validation=0.0)).train
    assert train.label is not None
    return train.all().flatten(1), train.label


def _figure(width: float, height: float) -> Figure:
    # pyplot is not used: it keeps every figure in a global list, and may need a display.
    return Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")


def _plain(axis: Axes, grid: bool = False) -> None:
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axis.spines[side].set_color("#b0b0b0")
    axis.tick_params(colors=INK, labelsize=9, color="#b0b0b0")
    if grid:
        axis.grid(True, color="#e6e6e6", linewidth=0.7)
        axis.set_axisbelow(True)


def _title(figure: Figure, title: str, below: str) -> None:
    """Write two lines at the top left, and reserve space above the axes."""
    inches = figure.get_figheight()
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.62 / inches))  # type: ignore[union-attr, call-arg]
    figure.text(0.01, 1 - 0.08 / inches, title, va="top", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.01, 1 - 0.36 / inches, below, va="top", fontsize=9.5, color="#555555")


def _write(figure: Figure, path: Path) -> Path:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return write_png(path, np.asarray(canvas.buffer_rgba())[..., :3])
