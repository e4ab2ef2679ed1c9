"""Ruled and squared paper, and printed frames: lines are removed, and strokes stay.

Lines are thin, nearly level or upright, and run from edge to edge, of the picture or of
a frame. The last functions are what all stages measure with.
"""

from __future__ import annotations

import numpy as np

_THICKEST_LINE = 1 / 50  # of the picture's width; thicker lines are strokes
_STEEPEST_LINE = 10  # degrees off the horizontal or the vertical
LEAST_DIGIT = 8  # pixels: of what a frame holds, and of what is left beside a table
_MOST_FRAMES, _LEAST_HOLES = 200, 0.5  # holes as a share of the box around a frame
_RECTANGLE = 0.9  # of the box around a printed frame, with its holes; a 0 has 0.785
_LEAST_WRITING = 0.3  # of the shorter side of a frame: what it holds
_MOST_LINES = 2000  # candidates of the Hough transform, the strongest first


def remove_ruling(mask: np.ndarray) -> np.ndarray:
    """Return the ink without ruled or squared paper's lines, where no stroke crosses.

    Lines run from edge to edge of the picture, or of a frame that encloses writing. If
    nothing else would be left, the lines are what was drawn, and they stay.
    """
    import cv2

    thickest = int(mask.shape[1] * _THICKEST_LINE)
    _, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    table[0] = 0
    sizes = table[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    frames = find_enclosing(labels, table, sizes)
    ruling = _find_lines(mask)
    for index in np.argsort(-sizes)[:_MOST_FRAMES]:
        left, top, width, height = table[index, :4]
        box = slice(top, top + height), slice(left, left + width)
        if frames[index] or _is_rectangle(labels[box] == index):
            lines = _find_lines(mask[box], thickest)
            least = _LEAST_WRITING * min(width, height)
            if frames[index] or _holds_piece(mask[box] & ~lines, least):
                ruling[box] |= lines
    written = mask & ~ruling
    return written if written.any() else mask


def _is_rectangle(piece: np.ndarray) -> bool:
    """Return whether a piece, (H, W), is a frame, of which ink may be a part."""
    if max(piece.shape) < 3 * LEAST_DIGIT:
        return False
    holes = fill_holes(piece)
    return holes.mean() > _LEAST_HOLES and (holes | piece).mean() > _RECTANGLE


def _holds_piece(mask: np.ndarray, least: float) -> bool:
    """Return whether a connected component is so many pixels long or high."""
    import cv2

    _, _, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    sizes = table[1:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    return sizes.max(initial=0) >= least


def _find_lines(mask: np.ndarray, thickest: int = 0) -> np.ndarray:
    """Return the pixels of all lines that run from edge to edge, level or upright."""
    upright = _find_level_lines(mask.T, thickest).T
    return _find_level_lines(mask, thickest) | upright


def _find_level_lines(mask: np.ndarray, thickest: int) -> np.ndarray:
    """Return the pixels of thin lines that run from the left edge to the right one."""
    lines = np.zeros_like(mask)
    width = mask.shape[1]
    thickest = thickest or int(width * _THICKEST_LINE)
    columns = np.arange(width)
    dark = np.ascontiguousarray(mask).astype(np.uint8)
    if thickest >= 2 and _has_thin_ink(dark, thickest):
        for path in _find_straight_paths(dark, thickest):
            rows, pixels = _find_line_pixels(dark, path, thickest)
            lines[rows, columns] |= pixels
    return lines


def _has_thin_ink(dark: np.ndarray, thickest: int) -> bool:
    """Return whether half the columns hold thin ink; on plain paper they do not."""
    import cv2

    column = np.ones((odd(thickest + 1), 1), np.uint8)
    thin = dark > cv2.morphologyEx(dark, cv2.MORPH_OPEN, column)
    return thin.any(axis=0).sum() >= dark.shape[1] / 2


def _find_straight_paths(dark: np.ndarray, apart: int) -> list[np.ndarray]:
    """Return straight paths across the picture that are dark all along.

    The candidates come from the Hough transform (Duda, Hart: Use of the Hough
    transformation to detect lines and curves in pictures, CACM 15, 1972). Of those
    closer than `apart` pixels to each other, only the strongest is kept.

    Returns
    -------
    list of arrays of shape (W,)
        The place of the path in every column, in pixels from the top.
    """
    import cv2

    width = dark.shape[1]
    angles = np.radians([90 - _STEEPEST_LINE, 90 + _STEEPEST_LINE])
    slopes = {"min_theta": angles[0], "max_theta": angles[1]}
    found = cv2.HoughLines(dark, 1, np.pi / 720, width // 2, **slopes)
    if found is None:
        return []
    distance, angle = found[:_MOST_LINES, 0].T[..., np.newaxis]
    ends = (distance - np.array([0, width - 1]) * np.cos(angle)) / np.sin(angle)
    kept = []
    for left, right in ends[_are_dark_all_along(dark, ends)]:
        if all(max(abs(left - a), abs(right - b)) >= apart for a, b in kept):
            kept.append((left, right))
    return [np.linspace(left, right, width) for left, right in kept]


def _are_dark_all_along(dark: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return which paths, given by their left and right ends, are dark in each tenth.

    Each tenth is sampled in four columns, up to two pixels above and below the path;
    one dark sample is enough, because lines can be faint. At most half of a path may
    lie outside the picture.
    """
    import cv2

    height, width = dark.shape
    columns = np.linspace(0, width - 1, 40).astype(int)
    rows = np.rint(ends[:, :1] + np.diff(ends) * columns / (width - 1)).astype(int)
    outside = ((rows < 0) | (rows >= height)).reshape(-1, 10, 4)
    near = cv2.dilate(dark, np.ones((5, 1), np.uint8))[rows % height, columns] > 0
    hits = near.reshape(-1, 10, 4) | outside
    return hits.any(axis=2).all(axis=1) & (outside.mean(axis=(1, 2)) <= 0.5)


def _find_line_pixels(
    dark: np.ndarray, path: np.ndarray, thickest: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows beside a path, (n, W), and which of these pixels are the line's.

    Where the ink continues above or below the line, a stroke crosses it or lies on it,
    and the pixels stay ink.
    """
    import cv2

    height, width = dark.shape
    offsets = np.arange(-thickest, thickest + 1)[:, np.newaxis]
    rows, columns = np.rint(path).astype(int) + offsets, np.arange(width)
    inside = (rows >= 0) & (rows < height)
    rows = rows % height
    near = inside & (dark[rows, columns] > 0)
    thickness = np.median(near.sum(axis=0)[near.any(axis=0)])
    if thickness > thickest:
        return rows, np.zeros_like(near)
    upright = np.ones((odd(2 * thickness + 2), 1), np.uint8)
    thin = cv2.morphologyEx(dark, cv2.MORPH_OPEN, upright)[rows, columns] == 0
    return rows, near & thin & (np.abs(offsets) <= thickness + 1.5)


def find_enclosing(
    labels: np.ndarray, table: np.ndarray, sizes: np.ndarray
) -> np.ndarray:
    """Return which pieces enclose a piece of a size to be read, or several such."""
    enclosing = np.zeros(len(sizes), bool)
    for index in np.argsort(-sizes)[:_MOST_FRAMES]:
        left, top, width, height = table[index, :4]
        if max(width, height) < 3 * LEAST_DIGIT:
            break
        inside = labels[top : top + height, left : left + width]
        holes = fill_holes(inside == index)
        if holes.mean() < _LEAST_HOLES:
            continue
        held = sizes[np.unique(inside[holes])]
        held = held[held >= LEAST_DIGIT]
        large = held > _LEAST_WRITING * min(width, height)
        enclosing[index] = large.any() or (held > 0.015 * sizes[index]).sum() >= 3
    return enclosing


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """Return the pixels that a piece encloses."""
    import cv2

    outside = np.pad(~mask, 1, constant_values=True).astype(np.uint8)
    cv2.floodFill(outside, None, (0, 0), 2)
    return outside[1:-1, 1:-1] == 1


def odd(size: float) -> int:
    """Return the odd number of pixels, at least 1, next to a size."""
    return max(1, int(size) // 2 * 2 + 1)


def shrink(picture: np.ndarray, longest: int) -> np.ndarray:
    """Scale a picture down to at most `longest` pixels on its longer side."""
    import cv2

    share = longest / max(picture.shape)
    if share >= 1:
        return picture
    height, width = (max(1, round(share * side)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
