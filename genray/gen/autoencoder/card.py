"""Makes the model card of an autoencoder, the README.md of its model directory."""

import math
from collections.abc import Sequence

from genray.gen.autoencoder.model import Autoencoder


def model_card(model: Autoencoder, stages: Sequence[str]) -> str:
    """Return the card in Markdown; `stages` are the names of the stages of training."""
    config = model.config
    layers = " → ".join(map(str, (math.prod(model.shape), *config.widths, config.code)))
    text = (
        "---\nlibrary_name: genray\ntags: [autoencoder, pytorch, safetensors]\n---\n\n"
        f"# Autoencoder ({config.kind})\n\n{layers} and back: rows of shape {model.shape} in "
        f"{model.low:g}..{model.high:g}, codes of {config.code} "
        f"{'bits (−1 or 1)' if config.binary else 'numbers'}. Trained in the stages "
        f"{', '.join(stages)} ({config.reconstruction}; corruption: {config.corruption_kind}).\n"
    )
    if model.position_bits:
        text += (
            "\n**The reconstructions are not made from the code alone**: recorded pooling "
            f"positions carry up to {model.position_bits:,.0f} bits of each image. The model "
            "refuses to encode, decode and retrieve.\n"
        )
    if config.finetune_labels:
        labels = config.finetune_labels
        text += f"\nThe classifier learned from {labels} labels, on a copy of the encoder.\n"
    return text
