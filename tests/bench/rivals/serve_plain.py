"""The model behind Ray Serve as its tutorial does it: `python -m tests.bench.rivals.serve_plain
MODEL_DIR --port N`

Ray's own proxy in Python, Serve's defaults, one replica of one torch thread, one image a call,
PNG by Pillow, JSON by Serve. Prints its address, and stays until SIGINT.
"""

import argparse
import base64
import io
import signal
import threading
from pathlib import Path
from typing import Any

import ray
from ray import serve


@serve.deployment(ray_actor_options={"num_cpus": 1})
class Images:
    def __init__(self, folder: str):
        import torch

        from serve.models import load_predictor

        torch.set_num_threads(1)
        self._predictor = load_predictor(Path(folder), "plain")

    async def __call__(self, request: Any) -> dict[str, Any]:
        from PIL import Image

        wanted = await request.json()
        latent = self._predictor.latents([wanted["seed"]])
        (array,) = self._predictor.functions["generate"].run({"latent": latent})["image"]
        buffer = io.BytesIO()
        Image.fromarray(array).save(buffer, "PNG")
        return {"data": [{"b64_json": base64.b64encode(buffer.getvalue()).decode()}]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    stop = threading.Event()
    signal.signal(signal.SIGINT, lambda *_: stop.set())
    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=200 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        serve.start(
            http_options={"port": arguments.port}, logging_config={"enable_access_log": False}
        )
        serve.run(Images.bind(arguments.folder), route_prefix="/v1/images/generations")  # type: ignore[attr-defined]
        print(f"up at http://127.0.0.1:{arguments.port}", flush=True)
        stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
