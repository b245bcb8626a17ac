"""Clips in a style: frames styled one after the other, and how much the result flickers.

Frames are uint8 RGB [H, W, 3], all of one size.
Shapes: H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from genray.errors import require

STILL = 3
"""A pixel whose channels change by less than this, of 255, stands still."""

CUT = 40
"""A mean change of the content by more levels than this, with hardly a pixel that stands still,
is a cut: the frame before is nothing to start from.
"""

StyleFrame = Callable[[np.ndarray, np.ndarray | None], np.ndarray]
"""(a frame, the frame before it as it was styled, None for the first and behind a cut) to the
styled frame; all uint8 [H, W, 3].
"""


@dataclass(frozen=True)
class Flicker:
    """How much pixels change from frame to frame, mean absolute differences in levels of 0..255."""

    styled: float
    """Of the result, everywhere."""
    content: float
    """Of the content, everywhere: motion that the result should have, too."""
    still: float
    """Of the result where the content stands still: nothing but flicker. 0 when no pixel ever
    does.
    """
    still_share: float
    """Share of the pixels, over all pairs of frames, that stand still."""

    def __str__(self) -> str:
        return (
            f"flicker {self.still:.2f} levels of 255 where the content stands still "
            f"({self.still_share:.0%} of it); "
            f"change from frame to frame {self.styled:.2f}, of the content {self.content:.2f}"
        )


class FlickerMeter:
    """Measures flicker over all pairs of neighbouring frames, as they are added one by one."""

    def __init__(self) -> None:
        self._styled: np.ndarray | None = None
        self._content: np.ndarray | None = None
        self._changes = self._still_change = self._of_content = 0.0
        self._still = self._pixels = 0

    def add(self, styled: np.ndarray, content: np.ndarray) -> None:
        """The next frame, uint8 [H, W, 3], and its content, which is scaled to the same size."""
        if content.shape != styled.shape:
            from genray.gen.images.pictures import resized

            content = resized(content, *styled.shape[:2])
        if self._styled is not None and self._content is not None:
            change = np.abs(styled.astype(np.int16) - self._styled).mean(2)
            moved = np.abs(content.astype(np.int16) - self._content)
            stands = moved.max(2) < STILL
            self._changes += float(change.sum())
            self._of_content += float(moved.mean(2).sum())
            self._still_change += float(change[stands].sum())
            self._still += int(stands.sum())
            self._pixels += change.size
        self._styled, self._content = styled, content

    @property
    def flicker(self) -> Flicker:
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
    """The styled frames, one by one: only the newest frame and the one before are in memory.

    `style_frame` gets the styled frame before, to start from or to pass over. `blend` in [0, 1):
    the share of that frame in the result where the content stands still; it falls to nothing
    where the content moves. `meter` measures the flicker. `progress` is told the number of
    frames done and the newest. A frame equal to the one before keeps its result. Raises
    ConfigError.
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
    """The styled `frame`; `content` and `result`: the frame before and as it was styled, None
    for the first.
    """
    if content is None or result is None or _is_cut(frame, content):
        return style_frame(frame, None)
    if np.array_equal(frame, content):
        return result
    styled = style_frame(frame, result)
    if blend and styled.shape == result.shape:
        styled = blended(styled, result, _change(frame, content), blend)
    return styled


def blended(
    result: np.ndarray, before: np.ndarray, change_HW: np.ndarray, share: float
) -> np.ndarray:
    """The result mixed with the frame before: `share` of it where nothing changed, ever less up
    to 8·STILL levels.
    """
    weight_HW = share * (1 - change_HW.astype(np.float32) / (8 * STILL)).clip(0, 1)
    if weight_HW.shape != result.shape[:2]:  # a style at another size than its content
        from genray.gen.images.pictures import resized

        weight_HW = (
            resized(np.rint(weight_HW * 255).astype(np.uint8), *result.shape[:2]).astype(np.float32)
            / 255
        )
    now, past = result.astype(np.float32), before.astype(np.float32)
    return np.rint(now + weight_HW[..., None] * (past - now)).astype(np.uint8)


def _is_cut(frame: np.ndarray, before: np.ndarray) -> bool:
    change_HW = _change(frame, before)
    return float(change_HW.mean()) > CUT and float((change_HW < STILL).mean()) < 0.1


def _change(frame: np.ndarray, before: np.ndarray) -> np.ndarray:
    """The largest change of a pixel's channels, int16 [H, W]."""
    return np.abs(frame.astype(np.int16) - before).max(2)


def check_frame(frame: np.ndarray, before: np.ndarray | None) -> None:
    """Raises ValueError unless `frame` is uint8 [H, W, 3] and of the size of the frame before
    it.
    """
    if (
        frame.dtype != np.uint8
        or frame.ndim != 3
        or frame.shape[2] != 3
        or (before is not None and frame.shape != before.shape)
    ):
        raise ValueError(
            f"frames must be uint8 [H, W, 3] of one size, not {frame.dtype} {frame.shape}"
        )
