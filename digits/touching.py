"""Digits that touch: one piece of ink, cut where its parts are plainly digits.

This is heuristic over-segmentation (LeCun et al. 1998, sections V to VII). A piece of
ink is cut in many ways, a network judges what lies between any two cuts, and a search
in the graph of the cuts finds the chain of parts that costs least. The network is the
model that is ready to use, whichever model reads the digits afterwards.

A part costs the probability that it is not the digit that it looks most like, and more
if it is wide. A cut costs the square of the ink that it crosses: digits touch in one
place, and a cut through a digit most often crosses two strokes. A chain is taken if it
costs clearly less than the whole; if neither does, the whole is in doubt. The constants
were chosen on 900 pairs, 200 triples and 2,600 single digits of MNIST's training
images, by four pens, and on 900 of the embedded digits. Of these single digits one is
cut.
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from digits.ink import stroke_width
from digits.mnist_form import even_strokes, imitate_mnist
from digits.pieces import Digit
from digits.ruling import LEAST_DIGIT

if TYPE_CHECKING:
    from handwritten_classifier import HandwrittenNumberClassification

_WIDE, _WIDER = 0.7, 0.7  # of its height: what is wide, and what a part costs for more
_CROSSING = 0.1  # what a cut costs that crosses as much ink as a stroke is wide
_CLEARLY = 0.2  # what the better one of a chain and the whole costs less
_PLAIN = 0.2  # what a whole costs that is surely a digit: chains cost hardly less
MOST_PIECES = 50  # of a picture, those that cost most, that are cut
_LONGEST = 6  # the widest piece that is cut, in heights
_HEIGHT = 64  # pixels, of the copy of a piece in which cuts are sought
_ASIDE = 0.02  # ink that a cut rather crosses than that it takes a step to the side
_MOST_CUTS = 7
_INSIDE = 0.3  # of the strong ink: what is inside a stroke
_APART = 0.04  # of the ink, which is between two cuts at least
_LEAST_INK, _LOWEST, _WIDEST = 0.08, 0.65, 1.6  # of the ink and height: what a part is
_SCRAP = 0.1  # of a part; smaller pieces of it were cut off the strokes beside it


class Cut(NamedTuple):
    """A way through a piece of ink, from the top to the bottom."""

    left: np.ndarray  # bool (H, W): which pixels are on its left
    crossing: float  # ink


def separate_digits(
    ink: np.ndarray, labels: np.ndarray, digits: list[Digit], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut digits that touch, and bring all digits into the form of MNIST's images.

    Parameters
    ----------
    ink : float array of shape (H, W)
    labels : int array of shape (H, W)
        The number of the piece at each pixel.
    digits : list of Digit
    most : int
        How many pieces are cut at most: those that look least like one digit. None are
        judged if it is 0.

    Returns
    -------
    images : float32 array of shape (n, 28, 28, 1), in 0..1
    boxes : int array of shape (n, 4)
    touching : bool array of shape (n,)
        Which ones may be several digits that touch, but were not cut: the best chain
        costs about as much as the whole.
    """
    wholes = np.concatenate([as_image(*crop(ink, labels, digit)) for digit in digits])
    if not most:
        boxes = np.stack([digit.box for digit in digits])
        return wholes, boxes, np.zeros(len(digits), bool)
    sizes = [digit.box[2:] - digit.box[:2] for digit in digits]
    costs = list(map(_cost_of_part, _judge(wholes), sizes))
    least = max([_PLAIN, *sorted(costs)[: max(0, len(costs) - most)]])
    found = []
    for digit, image, cost in zip(digits, wholes, costs, strict=True):
        gain = -np.inf
        if cost > least:
            piece, mask = crop(ink, labels, digit)
            parts, cost_of_parts = _find_chain(np.where(mask, piece, 0))
            gain = cost - cost_of_parts
        if gain <= _CLEARLY:
            found.append((image, digit.box, gain > -_CLEARLY))
            continue
        for part in parts:
            box = _find_box(part) + np.tile(digit.box[:2], 2)
            found.append((as_image(piece, part)[0], box, False))
    return tuple(np.stack(column) for column in zip(*found, strict=True))


def crop(
    ink: np.ndarray, labels: np.ndarray, digit: Digit
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ink in the bounding box of a digit, and which pixels are the digit's.

    Parameters
    ----------
    ink, labels, digit
        As `separate_digits` takes them.
    """
    top, left, bottom, right = digit.box
    mask = np.isin(labels[top:bottom, left:right], digit.numbers)
    return ink[top:bottom, left:right], mask


def as_image(ink: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return a digit, given as `crop` returns it, as the network reads it."""
    top, left, bottom, right = _find_box(mask)
    inside = slice(top, bottom), slice(left, right)
    return imitate_mnist(even_strokes(ink[inside], mask[inside]))


# ---------------------------------------------------------------------- Chains of parts


def _find_chain(ink: np.ndarray) -> tuple[list[np.ndarray], float]:
    """Return the chain of parts of a piece that costs least, and what it costs.

    Parameters
    ----------
    ink : float array of shape (H, W)
        That of the piece; 0 elsewhere.

    Returns
    -------
    parts : list of bool arrays of shape (H, W), from the left
        Empty if there are none.
    cost : float
        Infinite then.
    """
    import cv2

    height, width = ink.shape
    if height < LEAST_DIGIT or width > _LONGEST * height:
        return [], np.inf
    size = max(1, round(width * _HEIGHT / height)), _HEIGHT
    small = cv2.resize(ink.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    small = np.minimum(small / np.percentile(ink[ink > 0], 90), 1)
    cuts = _find_cuts(small)
    nothing = np.zeros(small.shape, bool)
    sides = [nothing, *(cut.left for cut in cuts), ~nothing]
    parts = _find_parts(small, sides)
    if not parts:
        return [], np.inf
    images = np.concatenate([as_image(small, part) for part in parts.values()])
    costs = {
        ends: _cost_of_part(probability, _size(part))
        for (ends, part), probability in zip(parts.items(), _judge(images), strict=True)
    }
    thickness = stroke_width(small > 0.5)
    # Of each cut: the least cost of a chain that ends there, and where its last part
    # starts.
    least, before = [0.0] + [np.inf] * (len(cuts) + 1), {}
    for (start, end), cost in sorted(costs.items()):
        strokes = cuts[start - 1].crossing / thickness if start else 0.0
        total = least[start] + _CROSSING * strokes**2 + cost
        if total < least[end]:
            least[end], before[end] = total, start
    large = [cv2.resize(np.uint8(side), (width, height)) > 0 for side in sides]
    chain, end = [], len(cuts) + 1
    while end in before:
        chain.insert(0, _take_part(ink > 0, large[before[end]], large[end]))
        end = before[end]
    # In a small piece, a part can be less than a pixel.
    return (chain, least[-1]) if all(map(np.any, chain)) else ([], np.inf)


def _find_parts(
    ink: np.ndarray, sides: list[np.ndarray]
) -> dict[tuple[int, int], np.ndarray]:
    """Return what lies between any two cuts and may be a digit, bool (H, W).

    Parameters
    ----------
    ink : float array of shape (H, W)
    sides : list of bool arrays of shape (H, W)
        What is on the left of each cut, from the left. The first and the last one are
        the ends of the piece: on their left is nothing, and all.

    Returns
    -------
    dict of pairs of int to bool arrays of shape (H, W)
        By the numbers of the cuts on both sides of a part.
    """
    parts = {}
    for start, end in itertools.combinations(range(len(sides)), 2):
        part = _take_part(ink > _INSIDE, sides[start], sides[end])
        whole = end - start == len(sides) - 1
        if not whole and ink[part].sum() > _LEAST_INK * ink.sum():
            height, width = _size(part) / len(ink)
            if height > _LOWEST and width < _WIDEST:
                parts[start, end] = part
    return parts


def _take_part(inside: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return what of a piece, bool (H, W), is on the left of one cut only.

    Small pieces are left out, which were cut off the strokes beside the part.
    """
    import cv2

    part = inside & end & ~start
    _, labels, table, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8))
    areas = table[:, cv2.CC_STAT_AREA]
    kept = areas >= _SCRAP * areas[1:].sum()
    kept[0] = False
    return kept[labels]


# ---------------------------------------------------------------------- Cuts


def _find_cuts(ink: np.ndarray) -> list[Cut]:
    """Return the cuts that cross the least ink, one unlike the other, from the left.

    Of all ways from the top to the bottom, these are the best ones through each pixel
    of the middle row.
    """
    middle = len(ink) // 2
    above, upward = _find_ways(ink[: middle + 1])
    below, downward = _find_ways(ink[middle:][::-1])
    crossings = above + below - ink[middle]
    ways = np.concatenate([upward, downward[-2::-1]])
    columns, total = np.arange(ink.shape[1]), ink.sum()
    cuts: list[Cut] = []
    for column in np.argsort(crossings, kind="stable"):
        left = columns < ways[:, column, None]
        share = ink[left].sum() / total
        if _LEAST_INK < share < 1 - _LEAST_INK and all(
            ink[left ^ cut.left].sum() > _APART * total for cut in cuts
        ):
            cuts.append(Cut(left, crossings[column]))
        if len(cuts) == _MOST_CUTS:
            break
    return sorted(cuts, key=lambda cut: ink[cut.left].sum())


def _find_ways(ink: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the best ways from the first row to each pixel of the last one.

    They go down by one row at each step, and at most one column to the side. This is
    dynamic programming, as in the seams of Avidan and Shamir (Seam carving for
    content-aware image resizing, 2007).

    Returns
    -------
    crossings : float array of shape (W,)
        The ink on each way, and what its steps to the side cost.
    ways : int array of shape (H, W)
        The column of each way in each row.
    """
    columns, crossings, steps = np.arange(ink.shape[1]), ink[0], []
    before = np.full((3, ink.shape[1]), np.inf)  # from the left, from above, the right
    for row in ink[1:]:
        before[0, 1:], before[1] = crossings[:-1] + _ASIDE, crossings
        before[2, :-1] = crossings[1:] + _ASIDE
        steps.append(columns + before.argmin(axis=0) - 1)
        crossings = before.min(axis=0) + row
    ways = [columns]
    for step in reversed(steps):
        ways.append(step[ways[-1]])
    return crossings, np.array(ways[::-1])


# ---------------------------------------------------------------------- Costs


def _judge(images: np.ndarray) -> np.ndarray:
    """Return the highest probability of a class for each image (n, 28, 28, 1)."""
    return _load_network().predict_proba(images).max(axis=1)


@functools.cache
def _load_network() -> HandwrittenNumberClassification:
    """Return the model that is ready to use."""
    from handwritten_classifier import HandwrittenNumberClassification

    return HandwrittenNumberClassification.load(Path(__file__).with_name("model.npz"))


def _cost_of_part(probability: float, size: np.ndarray) -> float:
    """Return what a part of this height and width costs."""
    height, width = size
    return 1 - probability + _WIDER * max(0, width / height - _WIDE)


def _size(part: np.ndarray) -> np.ndarray:
    """Return the height and width of a part, in pixels."""
    top, left, bottom, right = _find_box(part)
    return np.array([bottom - top, right - left])


def _find_box(part: np.ndarray) -> np.ndarray:
    """Return the bounding box of a part."""
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
