"""Extracts features with VGG-19, trained on ImageNet."""

from collections.abc import Callable

from genray.gen.images import vgg
from genray.gen.images.features.conv_stack import ConvStack


def vgg19(say: Callable[[str], None] = lambda text: None) -> ConvStack:
    """Load ImageNet's VGG-19 up to conv5_1, with Gatys' style layers and content layer.

    The weights come from torchvision's cached file, or from a download. `say` is called with a
    message about the file. Raises ResourceError if the file is neither cached nor can be downloaded
    (without a network, within seconds), CheckpointError for a damaged file.
    [Simonyan 2015, https://arxiv.org/abs/1409.1556; Gatys 2016,
    https://doi.org/10.1109/CVPR.2016.265]
    """
    path, weights = vgg.open_weights(say)
    stack = empty_vgg19()
    for conv, (weight, bias) in zip(stack.convs, weights):
        conv.load_state_dict({"weight": weight, "bias": bias})
    stack.about = {
        "features": "vgg19",
        "note": "VGG-19 trained on ImageNet, torchvision's weights",
        "file": path.name,
    }
    return stack


def empty_vgg19() -> ConvStack:
    """Build VGG-19 up to conv5_1 without its weights."""
    names = [
        f"conv{block}_{number}"
        for block, count in enumerate(vgg.COUNTS, 1)
        for number in range(1, count + 1)
    ]
    stack = ConvStack("vgg19", names, vgg.COUNTS, vgg.WIDTHS, mean=vgg.MEAN, std=vgg.STD)
    stack.trained = True
    stack.style_layers = tuple(f"conv{block}_1" for block in range(1, 6))
    stack.content_layers = ("conv4_2",)
    return stack
