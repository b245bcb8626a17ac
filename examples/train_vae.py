"""Train a variational autoencoder on handwritten digits from Python.

    python examples/train_vae.py

What you see: the training loss and the validation loss, in nats, fall; then the figures on the test
split. The program writes digits.png: two rows of digits that the model makes from noise, a row of
test digits, and a row of their reconstructions. The data come with scikit-learn.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from genray.gen import FitConfig, OptimizerConfig, VAEConfig, VAEModelConfig, open_fit
from genray.gen.generative import image_grid
from genray.media import write_png


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a VAE.")
    parser.add_argument("--steps", type=int, default=2_000)
    parser.add_argument("--latent", type=int, default=10, help="numbers of a code")
    parser.add_argument("--data", default="digits", help="see genray train vae --help")
    parser.add_argument("--out", type=Path, default=Path("digits.png"))
    options = parser.parse_args()

    config = VAEConfig(
        fit=FitConfig(steps=options.steps, validate_every=max(1, options.steps // 10)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        model=VAEModelConfig(latent=options.latent, widths=(256,)),
    )
    config = replace(config, data=replace(config.data, data=options.data))
    fit = open_fit("vae", config)
    for step in fit:
        if step.held_out:
            print(
                f"step {step.step:>5,}  epoch {step.epoch:5.1f}  loss {step.values['loss']:7.2f}  "
                f"validation {step.held_out['loss']:7.2f}"
            )
    print(", ".join(f"test {name} {value:.2f}" for name, value in fit.test().items()))

    model = fit.task.networks["vae"].eval()
    images = fit.whole_data.test.take(torch.arange(16))[0]
    with torch.no_grad():
        made = model.generate(torch.randn(32, options.latent))
        rows = torch.cat([made, images, model(images)])
    print(write_png(options.out, image_grid(rows, 0.0, 1.0, columns=16)))


if __name__ == "__main__":
    main()
