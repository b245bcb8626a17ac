"""The generator in a bare loop: batches of 32 latents through the network, nothing else. The
service is measured against it.

`python -m tests.bench.rivals.bare_generator MODEL_DIR --seconds 6 --threads 1`; the last line is
JSON.
"""

import argparse
import time
from pathlib import Path
from typing import cast

import torch

from genray.gen.generative import GenerativeModel
from serve.models import load_predictor
from tests.bench.common import last_json_line


def cpu_ms_an_image(model: GenerativeModel, batch: int, seconds: float) -> float:
    """CPU milliseconds of this process an image, after a second to warm up."""
    z_NZ = torch.rand(batch, model.latent).mul_(2).sub_(1)
    with torch.inference_mode():
        stop = time.monotonic() + min(1.0, seconds / 2)
        while time.monotonic() < stop:
            model.generate(z_NZ)
        images, begin, stop = 0, time.process_time(), time.monotonic() + seconds
        while time.monotonic() < stop:
            model.generate(z_NZ)
            images += batch
    return 1e3 * (time.process_time() - begin) / images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model = cast(GenerativeModel, load_predictor(arguments.folder, "bare").model)
    last_json_line(
        {
            "alone_ms": cpu_ms_an_image(model, 1, arguments.seconds / 4),
            "batch_ms": cpu_ms_an_image(model, 32, arguments.seconds),
        }
    )


if __name__ == "__main__":
    main()
