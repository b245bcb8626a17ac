"""Train a generator of a game's screens from Python.

    python examples/train_sprites.py

What you see: the game is played and its screens are recorded; then −ln p of a screen falls, in
nats. The program writes screens.png: screens that the model draws, above real ones of episodes that
it has not seen. About a minute and a half of one core.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from genray.distributed.screens import ScreensConfig, collect_screens
from genray.gen import DataConfig, open_fit
from genray.gen.sprites.config import sprites
from genray.media import contact_sheet, write_png


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a sprite model.")
    parser.add_argument("--game", default="road_runner")
    parser.add_argument("--screens", type=int, default=4_000)
    parser.add_argument("--steps", type=int, default=450)
    parser.add_argument("--out", type=Path, default=Path("screens.png"))
    options = parser.parse_args()

    # Play the game; a fifth of the screens comes from other episodes.
    recorded = options.out.with_suffix(".safetensors")
    collect_screens(ScreensConfig(game=options.game, frames=options.screens, out=recorded))
    config = sprites()
    config = replace(
        config,
        data=DataConfig(data=f"screens:{recorded}"),
        fit=replace(config.fit, steps=options.steps, validate_every=max(1, options.steps // 9)),
    )
    fit = open_fit("sprites", config)
    for step in fit:
        if step.held_out:
            print(
                f"step {step.step:>5,}  loss {step.values['loss']:7.2f}  "
                f"validation {step.held_out['loss']:7.2f}"
            )
    print(", ".join(f"test {name} {value:.4g}" for name, value in fit.test().items()))

    # Draw ten screens, and show them above five real ones, each pixel twice as large.
    model = fit.task.model.eval()
    drawn = np.concatenate(list(model.draw_screens(10, seed=0)))
    real = model.indices(fit.whole_data.test.first(5).all())
    screens = model.palette.numpy()[np.concatenate([drawn, real])]
    print(write_png(options.out, contact_sheet(list(screens.repeat(2, 1).repeat(2, 2)), 5)))


if __name__ == "__main__":
    main()
