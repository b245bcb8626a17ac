"""Ask a running service for images, by the clients that exist for OpenAI's API and by plain HTTP.

    genray train vae --out runs/vae           # a model, half a minute
    genray serve runs                         # in another terminal; prints the address
    pip install openai
    python examples/service_client.py --model vae

What you see: the names of the models, a file digit-0.png … for each image that the model makes, and
walk.gif, a walk through the model's latent space. The same seed gives the same images.
"""

import argparse
import base64
import os
import urllib.request
from pathlib import Path

from openai import OpenAI


def main() -> None:
    parser = argparse.ArgumentParser(description="A client of the service.")
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first generator")
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--out", type=Path, default=Path())
    options = parser.parse_args()
    key = os.environ.get("GENRAY_API_KEY", "none")  # `genray serve` on this machine needs no key

    client = OpenAI(base_url=f"{options.url}/v1", api_key=key, max_retries=10)
    names = [model.id for model in client.models.list()]
    print("models:", ", ".join(names))
    name = options.model or names[0]

    options.out.mkdir(parents=True, exist_ok=True)
    made = client.images.generate(
        model=name, prompt="", n=options.count, size="64x64", extra_body={"seed": options.seed}
    )
    for index, image in enumerate(made.data or []):
        path = options.out / f"digit-{index}.png"
        path.write_bytes(base64.b64decode(image.b64_json or ""))
        print(path)

    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{options.url}/api/walk/{name}", headers=headers)
    with urllib.request.urlopen(request) as answer:
        path = options.out / "walk.gif"
        path.write_bytes(answer.read())
        print(path)


if __name__ == "__main__":
    main()
