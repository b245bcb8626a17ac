"""Flicker of style networks on clips. `python -m tests.bench.bench_steady RUN RUN …`

Two clips, and the mean change from frame to frame where the content does not move, in levels of
255: 60 frames of docs/road_runner.gif; and 24 frames of a photograph of 320 pixels with the noise
of a camera (standard deviation 1 level) and an object that moves through it. Beside the flicker,
the strength of the style: the style loss of held-out photographs by the unstyled ones', which a run
of `genray train style` wrote into its metrics.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from genray.gen.builders import BUILDERS
from genray.gen.data.photos import photographs
from genray.gen.images.clips import read_clip
from genray.gen.images.pictures import scaled, to_rgb, to_tensor
from genray.gen.images.style.clip import FlickerMeter, style_clip
from genray.runs import modelstore
from tests.bench.common import describe_machine, last_json_line, print_table

GAME = Path(__file__).parents[2] / "docs" / "road_runner.gif"


def moving_object(count: int) -> Iterator[np.ndarray]:
    """Yield frames of a still photograph with noise, in which an object moves."""
    names = photographs()
    still, other = (scaled(names[name], 320) for name in ("china", "flower"))
    piece, noise = other[60:140, 100:180], np.random.default_rng(0)
    for number in range(count):
        frame = still.astype(np.float32) + noise.normal(0, 1, still.shape)
        left = round(number * (still.shape[1] - 80) / max(1, count - 1))
        frame[90:170, left : left + 80] = piece
        yield np.rint(frame).clip(0, 255).astype(np.uint8)


def flicker(run: Path, frames: Iterator[np.ndarray], blend: float = 0.0) -> float:
    """Return the flicker of a run's network where the content is still, in levels of 255."""
    loaded, _ = modelstore.load_model(modelstore.model_folder(run), BUILDERS)
    model: Any = loaded.eval()
    meter = FlickerMeter()

    def style_frame(rgb: np.ndarray, before: np.ndarray | None) -> np.ndarray:
        return to_rgb(model.stylize(to_tensor(rgb)))

    for _ in style_clip(frames, style_frame, blend=blend, meter=meter):
        pass
    return meter.flicker.still


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path, help="runs of style_fast")
    parser.add_argument("--quick", action="store_true", help="four frames: shows that it runs")
    arguments = parser.parse_args()
    print(describe_machine())
    count, few = (4, 4) if arguments.quick else (60, 24)
    found: dict[str, float] = {}
    for run in arguments.runs:
        found[f"{run.name}_game"] = flicker(run, iter(read_clip(GAME, max_frames=count)))
        found[f"{run.name}_object"] = flicker(run, moving_object(few))
        found[f"{run.name}_object_blend"] = flicker(run, moving_object(few), blend=0.6)
    rows = [(name, f"{value:.3f}") for name, value in found.items()]
    print_table("Flicker in still areas, levels of 255", ("run and clip", "flicker"), rows)
    last_json_line({"bench": "steady", **found})


if __name__ == "__main__":
    main()
