"""Which pieces of ink are digits, in reading order."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from digits.ruling import LEAST_DIGIT

_MOST_PIECES = 3000  # of ink in a picture, the highest ones; a dense page has 1500
# Of the usual size of a digit: smaller pieces are dropped, and then smaller digits.
_SPECK, _SMALLEST_DIGIT = 0.05, 0.45
# Of the mean, weighted by area. With 0.25, digits beside a shape of four heights are
# specks; with 0.15, more specks are digits.
_SPECK_OF_MEAN = 0.2
# Of the median size of the digits: smaller pieces are no writing. With 0.2, the grains
# of a table count; and with less for faint ones, what is left of ruled lines.
_LEAST_WRITING, _LEAST_FAINT_WRITING = 0.3, 0.7
# Of the strokes of one digit, in a picture of so few digits that these do not tell of
# their usual size: how far apart they are at most, as a share of both together, and the
# form of both. They were chosen on MNIST's training digits: of those cut by 1 to 3 of
# their 28 pixels, 10 to 16 % fall apart; of pairs 0.15 to 0.5 of a height apart, none
# unite.
_FEW, _NEAR_STROKE, _NEAR_PART_OF_ONE = 3, 0.1, 0.05
_TALLEST, _WIDEST, _NARROW = 2.2, 1.4, 0.8  # the first is height by width
# Of digits in a row: how far apart their levels are at most, in heights; how steep rows
# are; and how far away, in heights, a digit still tells of that.
_SAME_ROW, _STEEPEST_ROW, _NEIGHBOUR = 0.5, 0.4, 3


class Pieces(NamedTuple):
    """The connected components of the ink in a picture."""

    # (H, W): the number of the piece at each pixel, 0 for none, negative for faint ones
    labels: np.ndarray
    numbers: np.ndarray  # (n,)
    boxes: np.ndarray  # (n, 4)
    areas: np.ndarray  # (n,), in pixels


class Digit(NamedTuple):
    """A digit: its bounding box and the numbers of its pieces."""

    box: np.ndarray
    numbers: list[int]


def find_pieces(ink: np.ndarray, mask: np.ndarray) -> Pieces:
    """Return the connected components of the ink, without those that are all faint.

    A piece counts if some of it has half the strength of the picture's strong ink.
    """
    import cv2

    count, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    strong = mask & (ink > 0.5 * np.percentile(ink[mask], 95))
    kept = np.bincount(labels[strong], minlength=count) > 0
    left, top, width, height, areas = table[kept].T
    boxes = np.stack([top, left, top + height, left + width], axis=1)
    signed = np.where(kept[labels], labels, -labels)
    return Pieces(signed, np.flatnonzero(kept), boxes, areas)


def group_pieces(pieces: Pieces) -> list[Digit]:
    """Group pieces into digits, in reading order.

    The usual size of a digit is that of the pieces; where there are few, it is that of
    pieces that are joined with those close to them, for strokes that are apart are
    smaller than their digit.
    """
    sizes = (pieces.boxes[:, 2:] - pieces.boxes[:, :2]).max(axis=1)
    usual = _find_usual_size(sizes, pieces.areas)
    heights = pieces.boxes[:, 2] - pieces.boxes[:, 0]
    highest = np.argsort(-heights, kind="stable")
    chosen = highest[sizes[highest] >= _SPECK * usual][:_MOST_PIECES]
    parts = [Digit(pieces.boxes[at], [pieces.numbers[at]]) for at in chosen.tolist()]
    digits = _join_parts(parts, _gaps_between_strokes)
    if sum(_size(digit) >= _SMALLEST_DIGIT * usual for digit in digits) <= _FEW:
        areas = dict(zip(pieces.numbers, pieces.areas, strict=True))
        joined = [sum(map(areas.get, digit.numbers)) for digit in digits]
        usual = _find_usual_size(np.array([*map(_size, digits)]), joined)
        parts = sorted(digits, key=lambda digit: digit.box[0] - digit.box[2])
    digits = _join_parts(parts, partial(_gaps_within_digits, usual=usual))
    return _in_reading_order(_drop_fragments(digits, pieces.labels.shape, usual))


def _find_usual_size(sizes: np.ndarray, areas: np.ndarray) -> float:
    """Return the size of which larger pieces are as much, added up, as smaller ones.

    So one large thing beside the digits decides nothing, as it did in a mean weighted
    by area. That mean tells what are specks, of which there can be many.
    """
    mean = np.average(sizes, weights=areas)
    ordered = np.sort(sizes[sizes >= _SPECK_OF_MEAN * mean])
    sums = np.cumsum(ordered)
    return ordered[np.searchsorted(sums, sums[-1] / 2)]


def find_unread(labels: np.ndarray, digits: list[Digit]) -> np.ndarray:
    """Return the boxes of what is as large as writing and in no digit, (n, 4)."""
    import cv2

    numbers = [number for digit in digits for number in digit.numbers]
    usual = np.median([_size(digit) for digit in digits])
    unread = [np.empty((0, 4), int)]
    for mask, least in (
        ((labels > 0) & ~np.isin(labels, numbers), _LEAST_WRITING),
        (labels < 0, _LEAST_FAINT_WRITING),
    ):
        if not mask.any():
            continue
        _, _, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        left, top, width, height, _ = table[1:].T
        large = np.maximum(width, height) >= max(LEAST_DIGIT, least * usual)
        boxes = np.stack([top, left, top + height, left + width], axis=1)
        unread.append(boxes[large])
    return np.concatenate(unread)


def _size(digit: Digit) -> int:
    """Return the longer side of a digit, in pixels."""
    return (digit.box[2:] - digit.box[:2]).max()


def _join_parts(parts: list[Digit], find_gaps: Callable) -> list[Digit]:
    """Join each part to the nearest of those before it that it forms a digit with."""
    united, groups = np.empty((0, 4), int), []
    for box, numbers in parts:
        gaps = find_gaps(box, united)
        if gaps.min(initial=np.inf) < np.inf:
            nearest = gaps.argmin()
            united[nearest] = _unite(box, united[nearest])
            groups[nearest] += numbers
        else:
            united = np.vstack([united, box])
            groups.append(list(numbers))
    return [Digit(*digit) for digit in zip(united, groups, strict=True)]


def _gaps_between_strokes(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return how far a piece is from each larger one; inf if they form no digit.

    The usual size of a digit is not known. They form one digit if the piece lies within
    the larger one, or if they are close and both together have the form of a digit: one
    lies above the other, or is small beside it, or both are narrow.
    """
    down, across = _find_gaps(box, boxes)
    height, width = box[2:] - box[:2]
    united = _unite(box, boxes)
    heights, widths = (united[:, 2:] - united[:, :2]).T
    sizes = np.maximum(heights, widths)
    near = (down <= _NEAR_STROKE * sizes) & (across <= _NEAR_STROKE * sizes)
    one = down <= _NEAR_PART_OF_ONE * heights  # It is tall, and so are two in a column.
    form = ((heights <= _TALLEST * widths) | one) & (widths <= _WIDEST * heights)
    above = -across > 0.3 * np.minimum(width, boxes[:, 3] - boxes[:, 1])
    beside = (height < 0.5 * sizes) | (widths <= _NARROW * heights)
    joined = _lies_within(box, boxes) | (near & form & (above | beside))
    return np.where(joined, np.hypot(*np.maximum((down, across), 0)), np.inf)


def _gaps_within_digits(box: np.ndarray, boxes: np.ndarray, usual: float) -> np.ndarray:
    """Return how far a piece is from each larger one; inf if they form no digit.

    They form one digit if the piece lies within the larger one, or is small and beside
    it, or lies above or below it. Limits are shares of the usual size of a digit, and
    for overlaps of the sides of the piece.
    """
    down, across = _find_gaps(box, boxes)
    height, width = box[2:] - box[:2]
    united = _unite(box, boxes)
    fits = (united[:, 2:] - united[:, :2] <= (1.4 * usual, 1.5 * usual)).all(axis=1)
    beside = (height < 0.6 * usual) & (across <= 0.12 * usual)
    above = -across > 0.3 * np.minimum(width, boxes[:, 3] - boxes[:, 1])
    near = fits & (down <= 0.3 * usual) & (beside | above)
    joined = _lies_within(box, boxes) | near
    return np.where(joined, np.hypot(*np.maximum((down, across), 0)), np.inf)


def _find_gaps(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return how far a box is from others down and across, (2, n).

    Where a gap is negative, the boxes overlap by as much.
    """
    starts, ends = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:], boxes[:, 2:])
    return (starts - ends).T


def _lies_within(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return which boxes hold most of a box."""
    overlaps, sides = -_find_gaps(box, boxes).T, box[2:] - box[:2]
    return (overlaps > 0.7 * sides).all(axis=1)


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
