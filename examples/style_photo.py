"""Paint a photograph in the style of another picture, by optimisation (Gatys).

    python examples/style_photo.py
    python examples/style_photo.py --content photo.jpg --style painting.png

What you see: the loss falls, and styled.png shows the photograph with the colours and the texture
of the style. Without files of your own, the content is a photograph from scikit-learn
(danielbuechele, Flickr, CC BY 2.0) and the style is a pattern that genray draws.
"""

import argparse
from pathlib import Path

from genray.gen import StyleConfig, stylize
from genray.gen.data.photos import photographs
from genray.gen.images.features import open_features
from genray.gen.images.patterns import pattern
from genray.gen.images.pictures import read_picture, scaled, to_rgb, to_tensor
from genray.gen.images.style.optimise import prepared
from genray.media import write_png


def main() -> None:
    parser = argparse.ArgumentParser(description="Style a photograph.")
    parser.add_argument("--content", type=Path, help="JPEG, PNG or WebP")
    parser.add_argument("--style", type=Path, help="JPEG, PNG or WebP")
    parser.add_argument("--pattern", type=int, default=0, help="its seed, without --style")
    parser.add_argument("--size", type=int, default=256, help="longest side, pixels")
    parser.add_argument("--steps", type=int, default=100, help="optimizer steps at each scale")
    parser.add_argument("--out", type=Path, default=Path("styled.png"))
    options = parser.parse_args()

    photo = read_picture(options.content).rgb if options.content else photographs()["china"]
    style = read_picture(options.style).rgb if options.style else pattern(options.pattern)
    content_1CHW = to_tensor(scaled(photo, options.size))
    style_1CHW = to_tensor(scaled(style, options.size))
    config = StyleConfig(size=options.size, steps=options.steps)

    # Untrained features are calibrated on the pictures that they will see; VGG-19 ignores them.
    seen, palette = prepared(content_1CHW, [style_1CHW], config)
    features = open_features(config.features, calibrate=[seen, *palette], palette=palette)

    def progress(step) -> None:
        if step.step % 20 == 0:
            print(f"step {step.step:>4}  loss {step.values['loss']:.4f}")

    result = stylize(content_1CHW, [style_1CHW], config, features, progress)
    print(write_png(options.out, to_rgb(result)))


if __name__ == "__main__":
    main()
