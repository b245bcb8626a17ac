"""Search learning rate, code size and optimizer of a VAE with Ray Tune's own `tune.run`.

    python examples/tune_sweep.py

What you see: Ray Tune's table of the trials while they run, then the best settings and the shape of
a digit that the best model makes. Tune's folder, here `tune_results/`, keeps checkpoints of each
trial: `genray sample CHECKPOINT --out grid.png` reads one. Trials never see the test data.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from ray import tune

from genray.distributed.session import ray_session
from genray.gen.presets import vae_digits
from tuning.spaces import Choice, Integers, LogUniform, Space
from tuning.trainable import load_model, trainable


def main() -> None:
    parser = argparse.ArgumentParser(description="A sweep by tune.run.")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1_000, help="training steps of a trial")
    parser.add_argument("--out", type=Path, default=Path("tune_results"))
    options = parser.parse_args()

    base = vae_digits()
    fit = replace(base.fit, steps=options.steps, validate_every=max(1, options.steps // 5))
    base = replace(base, fit=fit)
    space = Space(
        LogUniform("optimizer.learning_rate", 1e-4, 1e-2),
        Integers("model.latent", 2, 20),
        Choice("optimizer.optimizer", ("adam", "rmsprop")),
    )
    space.check(base)  # an unknown path or a wrong type is reported here, before anything starts
    with ray_session():
        found = tune.run(
            trainable("vae", base),
            config=space.to_tune(),
            num_samples=options.trials,
            metric="validation_loss",
            mode="min",
            storage_path=str(options.out.absolute()),
        )
    print("best settings:", found.best_config)
    print(f"validation loss: {found.best_result['validation_loss']:.2f}")
    model = load_model(found.best_checkpoint)
    print("a digit:", tuple(model.generate(torch.zeros(1, model.latent)).shape))


if __name__ == "__main__":
    main()
