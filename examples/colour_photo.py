"""Teach a network to colour grey photographs (pix2pix), and colour a whole one.

    python examples/colour_photo.py
    python examples/colour_photo.py --photo old.jpg --steps 600

What you see: the error of held-out crops falls, and coloured.png shows a photograph without its
colours beside the colours that the network gives it. The training crops are from photographs of
scikit-learn (CC BY 2.0). Without --photo the picture is one of these photographs, whose other
regions the network has seen. About two minutes of one core; --steps 600 takes five.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from genray.gen import open_fit
from genray.gen.data.photos import photographs
from genray.gen.data.sources import to_grey
from genray.gen.images.pictures import read_picture, scaled
from genray.gen.translation.apply import apply_translator
from genray.gen.translation.model import build_translator
from genray.gen.translation.presets import pix2pix_grey
from genray.media import write_png


def main() -> None:
    parser = argparse.ArgumentParser(description="Colour a grey photograph.")
    parser.add_argument("--photo", type=Path, help="JPEG, PNG or WebP")
    parser.add_argument("--size", type=int, default=320, help="longest side, pixels")
    parser.add_argument("--steps", type=int, default=200, help="8 crops each")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--out", type=Path, default=Path("coloured.png"))
    options = parser.parse_args()

    # Pairs of grey values and colours are made from crops of 64x64 pixels.
    config = pix2pix_grey()
    every = max(1, options.steps // 4)
    fit = replace(
        config.fit, steps=options.steps, batch_size=options.batch_size, validate_every=every
    )
    training = open_fit("pix2pix", replace(config, fit=fit))
    for step in training:
        if step.held_out:
            print(f"step {step.step:>4}  error of held-out crops {step.held_out['l1']:.4f}")

    # The generator takes pictures of any size.
    made = training.task.export()
    model = build_translator(made.config).eval()
    model.load_state_dict(dict(made.tensors))
    rgb = read_picture(options.photo).rgb if options.photo else photographs()["flower"]
    rgb = scaled(rgb, options.size)
    grey = np.moveaxis(to_grey(np.moveaxis(rgb, 2, 0)[None])[0].repeat(3, 0), 0, 2)
    coloured = apply_translator(model, rgb, prepare=True)
    print(write_png(options.out, np.concatenate([grey, coloured], 1)))


if __name__ == "__main__":
    main()
