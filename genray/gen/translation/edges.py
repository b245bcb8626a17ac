"""Draws the edges of images black on white: Canny's, or those of the network HED.

Shapes: N images, C channels (1 or 3), H height, W width. Images are uint8.
"""

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from genray.errors import ResourceError
from genray.gen.data.sources import to_grey
from genray.gen.images.hed import load_hed
from genray.gen.translation.config import EdgeDetector

LEAST_SIDE = 128
"""HED gets smaller images enlarged: it was trained on 481x321 pixels, and in an image of 64 pixels
it finds the largest contours only.
"""
BATCH_PIXELS = 2**18
"""HED gets as many images at once as have this number of pixels: its largest activations then have
64 · 2^18 · 4 bytes = 67 MB.
"""
RIDGE_SIGMA = 2.0
"""Standard deviation in pixels of the blur before the directions of edges are measured."""
LEAST_CURVATURE = 0.015
"""Curvature of a ridge of the blurred map, in units of its probability per square pixel. The slope
beside a round edge is curved, too, along the edge, but less.
"""
BORDER = 5
"""Width in pixels of the border, in which HED responds to the end of the image."""
LEAST_LINE = 5
"""Lines of fewer pixels are removed."""


def draw_edges(
    images_NCHW: np.ndarray,
    detector: EdgeDetector = "canny",
    *,
    sigma: float = 1.0,
    threshold: float = 0.1,
    device: str | torch.device = "cpu",
) -> np.ndarray:
    """Return the images' edges, black (0) on white (255), uint8 [N, 1, H, W].

    Args:
        images_NCHW: the images.
        detector: canny or hed.
        sigma: canny: see `draw_canny`.
        threshold: hed: see `draw_hed`.
        device: hed: the device on which the network runs.

    Raises:
        ResourceError: a package that the detector needs is not installed.
        CheckpointError: the weights of HED are damaged.
    """
    if detector == "canny":
        return draw_canny(images_NCHW, sigma)
    return draw_hed(images_NCHW, threshold, device)


def draw_canny(images_NCHW: np.ndarray, sigma: float) -> np.ndarray:
    """Return the edges that Canny's detector finds, see `draw_edges`.

    `sigma`: standard deviation of the blur before the detector, in pixels. Raises ResourceError if
    scikit-image is not installed. [Canny 1986, https://doi.org/10.1109/TPAMI.1986.4767851]
    """
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise ResourceError(
            "--pairs edges: scikit-image is not installed; pip install 'genray[edges]'"
        ) from error
    grey = to_grey(images_NCHW) if images_NCHW.shape[1] == 3 else images_NCHW
    edges = [canny(image[0] / 255.0, sigma) for image in grey]
    return np.where(np.stack(edges)[:, None], 0, 255).astype(np.uint8)


def draw_hed(
    images_NCHW: np.ndarray, threshold: float, device: str | torch.device = "cpu"
) -> np.ndarray:
    """Return the edges that the network HED finds, see `draw_edges` and `load_hed`.

    `threshold`: the lowest probability of an edge; edges are thinned to lines of one pixel, as in
    the experiments of pix2pix [Isola 2017, https://arxiv.org/abs/1611.07004]. With 0, the
    probabilities themselves are returned: 0 is black and certain.
    """
    probability_NHW = find_edges(images_NCHW, device)
    if threshold == 0:
        return (255 - np.rint(255 * probability_NHW)).astype(np.uint8)[:, None]
    lines = [thin_lines(each, threshold) for each in probability_NHW]
    return np.where(np.stack(lines)[:, None], 0, 255).astype(np.uint8)


@torch.no_grad()
def find_edges(images_NCHW: np.ndarray, device: str | torch.device = "cpu") -> np.ndarray:
    """Return HED's probability that a pixel is an edge, float32 [N, H, W]."""
    net = load_hed(device)
    height, width = images_NCHW.shape[2:]
    factor = -(-LEAST_SIDE // max(height, width))
    count = max(1, BATCH_PIXELS // (height * width * factor**2))
    found: list[np.ndarray] = []
    for start in range(0, len(images_NCHW), count):
        part = images_NCHW[start : start + count].astype(np.float32, order="C")
        x_BCHW = torch.from_numpy(part).to(device)
        if factor > 1:
            x_BCHW = F.interpolate(x_BCHW, scale_factor=factor, mode="bicubic").clamp_(0, 255)
        edges_B1HW = net(x_BCHW.expand(-1, 3, -1, -1))
        found.append(F.avg_pool2d(edges_B1HW, factor)[:, 0].cpu().numpy())
    return np.concatenate(found)


def thin_lines(probability_HW: np.ndarray, threshold: float) -> np.ndarray:
    """Return the ridges of a map of probabilities as lines of about one pixel, bool [H, W].

    A pixel is of a line if it is `threshold` or more, and no less than its two neighbours across
    the edge (non-maximum suppression). The direction across an edge is the one in which the blurred
    map is curved downwards most: the eigenvector of the smaller eigenvalue of its Hessian, which is
    the curvature. Probabilities fall to 0 at the border of the image, and lines of less than
    `LEAST_LINE` pixels are removed.
    """
    rows, columns, both = (
        ndimage.gaussian_filter(probability_HW, RIDGE_SIGMA, order, mode="nearest")
        for order in ((2, 0), (0, 2), (1, 1))
    )
    # The angle of the eigenvector of the smaller eigenvalue of [[columns, both], [both, rows]].
    angle_HW = 0.5 * np.arctan2(-2 * both, rows - columns)
    place = np.indices(probability_HW.shape, np.float32)
    step = np.stack([np.sin(angle_HW), np.cos(angle_HW)])
    ahead, behind = (
        ndimage.map_coordinates(probability_HW, place + sign * step, order=1, mode="nearest")
        for sign in (1, -1)
    )
    curvature_HW = (rows + columns) / 2 - np.hypot((rows - columns) / 2, both)
    ridge_HW = curvature_HW <= -LEAST_CURVATURE * probability_HW
    # Of two equal neighbours, one remains.
    ridge_HW &= (probability_HW >= ahead) & (probability_HW > behind)
    to_top, to_left = (
        np.minimum(np.arange(side), np.arange(side)[::-1]) for side in probability_HW.shape
    )
    weight_HW = np.minimum(1, np.minimum(to_top[:, None], to_left) / BORDER)
    line_HW = ridge_HW & (probability_HW * weight_HW >= threshold)
    # Remove lines of few pixels, whose neighbours may be diagonal.
    number_HW, _ = ndimage.label(line_HW, np.ones((3, 3)))
    return line_HW & (np.bincount(number_HW.ravel()) >= LEAST_LINE)[number_HW]
