"""Finds the connected components of a screen's foreground, in a loop that Numba compiles.

Shapes: H height, W width, P colours of the palette, K components.
"""

from typing import NamedTuple

import numpy as np

from genray.compiling import compiled

TRANSPARENT = 255
"""Marks a pixel of a shape that shows what is behind it."""


class Component(NamedTuple):
    """One connected component, or one cell of a large component."""

    group: int
    y: int
    x: int
    """`y`, `x`: the top left corner on the screen."""
    height: int
    width: int
    pixels: bytes
    """Palette indices of the bounding box, row by row; TRANSPARENT outside the component."""


def find_components(
    screen_HW: np.ndarray,
    background_HW: np.ndarray,
    group_P: np.ndarray,
    gap: int,
    cell: int,
    largest: int = 0,
) -> list[Component]:
    """Return the components of the pixels that differ from the background.

    Pixels belong together if their colours have the same group and if they are at most `gap` pixels
    apart in both directions. A component that is wider or higher than `largest` pixels is cut
    along a grid of the screen. Every foreground pixel is in exactly one component.

    Args:
        screen_HW, background_HW: palette indices, uint8.
        group_P: the group of each colour, int64.
        gap: largest difference of the coordinates of connected pixels.
        cell: side of the grid in pixels.
        largest: largest side of a component that is not cut; at least `cell`.
    """
    boxes_K6, buffer = _components(screen_HW, background_HW, group_P, gap, cell, max(cell, largest))
    found, pixels = [], buffer.tobytes()
    for group, y, x, height, width, start in boxes_K6.tolist():
        found.append(Component(group, y, x, height, width, pixels[start : start + height * width]))
    return found


@compiled
def _components(screen_HW, background_HW, group_P, gap, cell, largest):
    height, width = screen_HW.shape
    seen_HW = np.zeros((height, width), np.bool_)
    ys, xs = np.empty(height * width, np.int32), np.empty(height * width, np.int32)
    boxes_K6 = np.empty((height * width, 6), np.int64)
    count = 0
    # At most one byte a pixel of each bounding box; the boxes may overlap, so the buffer grows.
    buffer, used = np.empty(4 * height * width, np.uint8), 0
    rows, columns = (height + cell - 1) // cell, (width + cell - 1) // cell
    for start_y in range(height):
        for start_x in range(width):
            color = screen_HW[start_y, start_x]
            if seen_HW[start_y, start_x] or color == background_HW[start_y, start_x]:
                continue
            # Collect the component's pixels; the queue keeps all of them.
            group = group_P[color]
            seen_HW[start_y, start_x] = True
            ys[0], xs[0], end, at = start_y, start_x, 1, 0
            top, bottom, left, right = start_y, start_y, start_x, start_x
            while at < end:
                y, x = ys[at], xs[at]
                at += 1
                top, bottom = min(top, y), max(bottom, y)
                left, right = min(left, x), max(right, x)
                for near_y in range(max(0, y - gap), min(height, y + gap + 1)):
                    for near_x in range(max(0, x - gap), min(width, x + gap + 1)):
                        if seen_HW[near_y, near_x]:
                            continue
                        near = screen_HW[near_y, near_x]
                        if near == background_HW[near_y, near_x] or group_P[near] != group:
                            continue
                        seen_HW[near_y, near_x] = True
                        ys[end], xs[end] = near_y, near_x
                        end += 1
            # Write the component, or each of its cells, with its bounding box.
            whole = bottom - top < largest and right - left < largest
            cells = 1 if whole else rows * columns
            low_y, low_x = np.full(cells, height), np.full(cells, width)
            high_y, high_x = np.full(cells, -1), np.full(cells, -1)
            for pixel in range(end):
                y, x = ys[pixel], xs[pixel]
                part = 0 if whole else (y // cell) * columns + x // cell
                low_y[part], high_y[part] = min(low_y[part], y), max(high_y[part], y)
                low_x[part], high_x[part] = min(low_x[part], x), max(high_x[part], x)
            number = np.full(cells, -1)
            for part in range(cells):
                if high_y[part] < 0:
                    continue
                tall = high_y[part] - low_y[part] + 1
                wide = high_x[part] - low_x[part] + 1
                while used + tall * wide > len(buffer):
                    buffer = np.concatenate((buffer, np.empty_like(buffer)))
                buffer[used : used + tall * wide] = 255
                boxes_K6[count, 0] = group
                boxes_K6[count, 1] = low_y[part]
                boxes_K6[count, 2] = low_x[part]
                boxes_K6[count, 3] = tall
                boxes_K6[count, 4] = wide
                boxes_K6[count, 5] = used
                number[part] = count
                used += tall * wide
                count += 1
            for pixel in range(end):
                y, x = ys[pixel], xs[pixel]
                part = 0 if whole else (y // cell) * columns + x // cell
                box = number[part]
                offset = (y - boxes_K6[box, 1]) * boxes_K6[box, 4] + x - boxes_K6[box, 2]
                buffer[boxes_K6[box, 5] + offset] = screen_HW[y, x]
    return boxes_K6[:count].copy(), buffer[:used].copy()
