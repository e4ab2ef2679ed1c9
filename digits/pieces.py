"""Which pieces of ink are digits, in reading order."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_MOST_PIECES = 3000  # of ink in a picture, the highest ones; a dense page has 1500
# Of the usual size of a digit: smaller pieces are dropped, and then smaller digits.
_SPECK, _SMALLEST_DIGIT = 0.05, 0.45
# Of digits in a row: how far apart their levels are at most, in heights; how steep rows
# are; and how far away, in heights, a digit still tells of that.
_SAME_ROW, _STEEPEST_ROW, _NEIGHBOUR = 0.5, 0.4, 3


class Pieces(NamedTuple):
    """The connected components of the ink in a picture."""

    labels: np.ndarray  # (H, W): the number of the piece at each pixel, 0 for none
    numbers: np.ndarray  # (n,)
    boxes: np.ndarray  # (n, 4)
    areas: np.ndarray  # (n,), in pixels


class Digit(NamedTuple):
    """A digit: its bounding box and the numbers of its pieces."""

    box: np.ndarray
    numbers: list[int]


def find_pieces(ink: np.ndarray, mask: np.ndarray) -> Pieces:
    """Return the connected components of the ink; those that are all faint are dropped.

    A piece counts if some of it has half the strength of the picture's strong ink.
    """
    import cv2

    count, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    strong = mask & (ink > 0.5 * np.percentile(ink[mask], 95))
    kept = np.bincount(labels[strong], minlength=count) > 0
    left, top, width, height, areas = table[kept].T
    boxes = np.stack([top, left, top + height, left + width], axis=1)
    return Pieces(labels * kept[labels], np.flatnonzero(kept), boxes, areas)


def group_pieces(pieces: Pieces) -> list[Digit]:
    """Group pieces into digits, in reading order.

    The usual size of a digit is the mean over the pieces, weighted by their area.
    """
    heights, widths = (pieces.boxes[:, 2:] - pieces.boxes[:, :2]).T
    sizes = np.maximum(heights, widths)
    usual = np.average(sizes, weights=pieces.areas)
    highest = np.argsort(-heights, kind="stable")
    chosen = highest[sizes[highest] >= _SPECK * usual][:_MOST_PIECES]
    digits = _join_pieces(pieces.boxes[chosen], pieces.numbers[chosen].tolist(), usual)
    return _in_reading_order(_drop_fragments(digits, pieces.labels.shape, usual))


def _join_pieces(boxes: np.ndarray, numbers: list[int], usual: float) -> list[Digit]:
    """Join each piece to the nearest of those before it that it forms a digit with."""
    united, groups = np.empty((0, 4), int), []
    for box, number in zip(boxes, numbers, strict=True):
        gaps = _gaps_within_digits(box, united, usual)
        if gaps.min(initial=np.inf) < np.inf:
            nearest = gaps.argmin()
            united[nearest] = _unite(box, united[nearest])
            groups[nearest].append(number)
        else:
            united = np.vstack([united, box])
            groups.append([number])
    return [Digit(*digit) for digit in zip(united, groups, strict=True)]


def _gaps_within_digits(box: np.ndarray, boxes: np.ndarray, usual: float) -> np.ndarray:
    """Return how far a piece is from each larger one; inf if they form no digit.

    They form one digit if the piece lies within the larger one, or is small and beside
    it, or lies above or below it. Limits are shares of the usual size of a digit, and
    for overlaps of the sides of the piece.
    """
    united = _unite(box, boxes)
    height, width = box[2:] - box[:2]
    # Gaps, down and across; where negative, the pieces overlap by as much.
    down, across = (
        np.maximum(box[:2], boxes[:, :2]) - np.minimum(box[2:], boxes[:, 2:])
    ).T
    within = (-down > 0.7 * height) & (-across > 0.7 * width)
    fits = (united[:, 2:] - united[:, :2] <= (1.4 * usual, 1.5 * usual)).all(axis=1)
    beside = (height < 0.6 * usual) & (across <= 0.12 * usual)
    above = -across > 0.3 * np.minimum(width, boxes[:, 3] - boxes[:, 1])
    joined = within | (fits & (down <= 0.3 * usual) & (beside | above))
    distances = np.hypot(np.maximum(down, 0), np.maximum(across, 0))
    return np.where(joined, distances, np.inf)


def _unite(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the bounding box of two boxes, or of one and each of several."""
    least, most = np.minimum(box, boxes), np.maximum(box, boxes)
    return np.concatenate([least[..., :2], most[..., 2:]], axis=-1)


def _drop_fragments(
    digits: list[Digit], shape: tuple[int, int], usual: float
) -> list[Digit]:
    """Drop small digits, and those that touch the picture's edge if others do not.

    What the edge cuts off is usually a shadow, a line or the table.
    """
    boxes = np.array([digit.box for digit in digits])
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) >= _SMALLEST_DIGIT * usual
    whole = large & (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < shape).all(axis=1)
    kept = whole if whole.any() else large
    return [digits[index] for index in np.flatnonzero(kept)]


def _in_reading_order(digits: list[Digit]) -> list[Digit]:
    """Sort digits by rows, from the top, and each row from the left.

    Rows may slant and bend: from the left, each digit goes on with the row whose last
    digit is at the most similar level, if at least their halves overlap. Levels are
    measured across the slant that most neighbours have in common.
    """
    boxes = np.array([digit.box for digit in digits])
    middles, heights = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2] - boxes[:, 0]
    levels = middles[:, 0] - _find_slope(middles, heights) * middles[:, 1]
    rows: list[list[int]] = []
    for index in np.argsort(middles[:, 1], kind="stable"):
        last = [row[-1] for row in rows]
        apart = np.abs(levels[last] - levels[index])
        apart /= np.maximum(heights[last], heights[index])
        if apart.min(initial=np.inf) <= _SAME_ROW:
            rows[apart.argmin()].append(index)
        else:
            rows.append([index])
    rows.sort(key=lambda row: levels[row].mean())
    return [digits[index] for row in rows for index in row]


def _find_slope(middles: np.ndarray, heights: np.ndarray) -> float:
    """Return how far rows descend for each pixel to the right: the median.

    It is that of digits and their nearest neighbours to the right, if these are near.
    """
    slopes = []
    for middle, height in zip(middles, heights, strict=True):
        down, across = (middles - middle).T
        distances = np.hypot(down, across)
        beside = (across > 0) & (np.abs(down) < _STEEPEST_ROW * across)
        distances[~beside | (distances > _NEIGHBOUR * height)] = np.inf
        nearest = distances.argmin()
        if np.isfinite(distances[nearest]):
            slopes.append(down[nearest] / across[nearest])
    return float(np.median(slopes)) if len(slopes) > 1 else 0.0
