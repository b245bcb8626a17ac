"""Styles clips frame by frame, and measures how much the result flickers.

Frames are uint8 RGB [H, W, 3], all of one size.
Shapes: H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from genray.errors import require

STILL = 3
"""A pixel is still if its channels change by less than this, in levels of 0..255."""

CUT = 40
"""Smallest mean change of the content at a cut to another scene, in levels of 0..255. In addition,
less than a tenth of the pixels must be still. The first frame after a cut is styled without the
previous frame.
"""

StyleFrame = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""Function of a frame and the previous styled frame (None for the first frame and after a cut),
which returns the styled frame; all are uint8 [H, W, 3].
"""


@dataclass(frozen=True)
class Flicker:
    """Mean absolute differences between consecutive frames, in levels of 0..255."""

    styled: float
    """Difference of the result, over all pixels."""
    content: float
    """Difference of the content, over all pixels; the result should show the same motion."""
    still: float
    """Difference of the result over pixels with still content, which is pure flicker; 0 if there
    are no such pixels.
    """
    still_share: float
    """Share of still pixels, over all pairs of frames."""

    def __str__(self) -> str:
        return (
            f"flicker {self.still:.2f} levels of 255 in still areas of the content "
            f"({self.still_share:.0%} of its pixels); change from frame to frame "
            f"{self.styled:.2f}, of the content {self.content:.2f}"
        )


class FlickerMeter:
    """Measures flicker over all pairs of consecutive frames, which are added one by one."""

    def __init__(self) -> None:
        self._styled: np.ndarray | None = None
        self._content: np.ndarray | None = None
        self._changes = self._still_change = self._of_content = 0.0
        self._still = self._pixels = 0

    def add(self, styled: np.ndarray, content: np.ndarray) -> None:
        """Add the next styled frame, uint8 [H, W, 3], and its content, which is scaled to the same
        size.
        """
        if content.shape != styled.shape:
            from genray.gen.images.pictures import resized

            content = resized(content, *styled.shape[:2])
        # The first frame has no previous frame to compare with.
        if self._styled is not None and self._content is not None:
            change = np.abs(styled.astype(np.int16) - self._styled).mean(2)
            moved = np.abs(content.astype(np.int16) - self._content)
            still = moved.max(2) < STILL
            self._changes += float(change.sum())
            self._of_content += float(moved.mean(2).sum())
            self._still_change += float(change[still].sum())
            self._still += int(still.sum())
            self._pixels += change.size
        self._styled, self._content = styled, content

    @property
    def flicker(self) -> Flicker:
        """The flicker of all frames so far."""
        count = max(1, self._pixels)
        still = self._still_change / max(1, self._still)
        return Flicker(self._changes / count, self._of_content / count, still, self._still / count)


def style_clip(
    frames: Iterable[np.ndarray],
    style_frame: StyleFrame,
    *,
    blend: float = 0.0,
    meter: FlickerMeter | None = None,
    progress: Callable[[int, np.ndarray], None] = lambda done, frame: None,
) -> Iterator[np.ndarray]:
    """Yield the styled frames one by one; only the newest frames are in memory.

    `style_frame`: styles one frame, and may start from the previous styled frame. `blend` in
    [0, 1): share of the previous styled frame in the result where the content is still; the share
    falls to 0 where the content moves. `meter`: measures the flicker. `progress`: called with the
    number of finished frames and the newest styled frame. A frame equal to the previous frame has
    the same result, and is not styled again. Raises ConfigError for an invalid `blend` or a clip
    without frames, ValueError for frames of several sizes.
    """
    require(0 <= blend < 1, f"--blend {blend:g}: must lie in [0, 1), e.g. 0.6")
    content: np.ndarray | None = None
    result: np.ndarray | None = None
    number = 0
    for number, frame in enumerate(frames, 1):
        check_frame(frame, content)
        result = _styled_after(frame, content, result, style_frame, blend)
        content = frame
        if meter is not None:
            meter.add(result, content)
        progress(number, result)
        yield result
    require(number > 0, "the clip has no frames")


def _styled_after(
    frame: np.ndarray,
    content: np.ndarray | None,
    result: np.ndarray | None,
    style_frame: StyleFrame,
    blend: float,
) -> np.ndarray:
    """Return the styled `frame`. `content`, `result`: the previous frame, and the previous styled
    frame; None for the first frame.
    """
    if content is None or result is None or _is_cut(frame, content):
        return style_frame(frame, None)
    if np.array_equal(frame, content):
        return result
    styled = style_frame(frame, result)
    if blend and styled.shape == result.shape:
        styled = blend_frames(styled, result, _change(frame, content), blend)
    return styled


def blend_frames(
    result: np.ndarray, before: np.ndarray, change_HW: np.ndarray, share: float
) -> np.ndarray:
    """Mix the result with the previous styled frame.

    The share of the previous frame is `share` where the content did not change, and falls to 0 at a
    change of 8·STILL levels.
    """
    weight_HW = share * (1 - change_HW.astype(np.float32) / (8 * STILL)).clip(0, 1)
    if weight_HW.shape != result.shape[:2]:  # the result's size differs from the content's
        from genray.gen.images.pictures import resized

        weight_HW = (
            resized(np.rint(weight_HW * 255).astype(np.uint8), *result.shape[:2]).astype(np.float32)
            / 255
        )
    now, past = result.astype(np.float32), before.astype(np.float32)
    return np.rint(now + weight_HW[..., None] * (past - now)).astype(np.uint8)


def _is_cut(frame: np.ndarray, before: np.ndarray) -> bool:
    """Return whether the scene changes between the two frames."""
    change_HW = _change(frame, before)
    return float(change_HW.mean()) > CUT and float((change_HW < STILL).mean()) < 0.1


def _change(frame: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return the largest change among each pixel's channels, int16 [H, W]."""
    return np.abs(frame.astype(np.int16) - before).max(2)


def check_frame(frame: np.ndarray, before: np.ndarray | None) -> None:
    """Raise ValueError unless `frame` is uint8 [H, W, 3] and has the previous frame's size."""
    if (
        frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
        or (before is not None and frame.shape != before.shape)
    ):
        raise ValueError(
            f"frames must be uint8 [H, W, 3] of one size, not {frame.dtype} {frame.shape}"
        )
