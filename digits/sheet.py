"""What of a picture is the sheet that is written on."""

from __future__ import annotations

import math

import numpy as np

from digits.ruling import LEAST_DIGIT, fill_holes, find_enclosing, odd, shrink

PHOTOGRAPH = 300  # pixels on the shorter side; smaller pictures count as drawings
# What reaches into the paper from the picture's edge is sought in pictures of so many
# pixels at least. It has so much of its size along the edge; or is larger, as a share
# of the picture's shorter side, than a digit; or what is left is not much smaller.
_DRAWING, _MOST_CONTACT, _LARGEST_DIGIT, _SMALLEST_DIGIT = 100, 0.5, 0.8, 0.45
_DARKEST_PAPER = 0.8  # of the light of the main part; what is darker is the table
# A sheet on a table of another grey level.
_SHEET_SIDE = 300  # pixels on the longer side of the copy in which it is sought
_LEAST_SHEET, _MOST_SHEET = 0.15, 0.95  # of the picture's area
_LEAST_AROUND, _ALL_AROUND = 0.25, 0.9  # of the picture's border, which is table
_LONGEST_SHEET = 3  # times its width
_EDGE = 0.01  # of the longer side: how much of the edges of the sheet is left out
_RECTANGLE = 0.8  # of the least rectangle around it; an ellipse has 0.785
# Of the sheet's light, the table has at most so much; more, where it is all around. A
# shadow on paper has more than the one, and is not all around.
_MOST_TABLE = 0.45, 0.7


def cut_out_sheet(grey: np.ndarray) -> tuple[tuple[slice, slice], np.ndarray]:
    """Return the rows and columns of a sheet on a table, and the picture of it alone.

    The table in its corners is painted over with the light of the paper beside it. If
    there is no table, the sheet is the whole picture.
    """
    import cv2

    whole = slice(0, grey.shape[0]), slice(0, grey.shape[1])
    inside = _find_sheet(grey) if min(grey.shape) >= PHOTOGRAPH else None
    if inside is None:
        return whole, grey
    inside = cv2.resize(inside.astype(np.uint8), grey.shape[::-1])
    edge = np.ones((odd(_EDGE * max(grey.shape)),) * 2, np.uint8)
    inside = cv2.erode(inside, edge, borderValue=1)
    left, top, width, height = cv2.boundingRect(inside)
    box = slice(top, top + height), slice(left, left + width)
    sheet, inside = grey[box], inside[box].astype(np.float32)
    window = (odd(width), odd(height))
    around = cv2.blur(sheet * inside, window) / np.maximum(
        cv2.blur(inside, window), 0.01
    )
    return box, np.where(inside > 0, sheet, around)


def _find_sheet(grey: np.ndarray) -> np.ndarray | None:
    """Return which pixels of a smaller copy show a sheet on a table, if there is one.

    It is the largest part of those that Otsu's threshold (A threshold selection method
    from gray-level histograms, 1979) tells apart, if it is nearly a rectangle, and of
    plainly another light than all around it.
    """
    import cv2

    small = shrink(grey, _SHEET_SIDE)
    levels = np.rint(small).astype(np.uint8)
    light = levels > cv2.threshold(levels, 0, 255, cv2.THRESH_OTSU)[0]
    for mask in (light, ~light):
        _, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
        table[0] = 0  # not what is beside the parts
        plain = labels == table[:, cv2.CC_STAT_AREA].argmax()
        part = plain | fill_holes(plain)
        if not _LEAST_SHEET < part.mean() < _MOST_SHEET or plain.sum() < part.sum() / 2:
            continue
        points = np.argwhere(part)[:, ::-1].astype(np.float32)
        sides = cv2.minAreaRect(cv2.convexHull(points))[1]
        long = max(sides) > _LONGEST_SHEET * min(sides)
        filled = part.sum() > _RECTANGLE * math.prod(sides)
        edges = part[0], part[-1], part[:, 0], part[:, -1]
        around = 1 - np.concatenate(edges).mean()
        most = _MOST_TABLE[int(around > _ALL_AROUND)]
        darker, lighter = sorted((np.median(small[~part]), np.median(small[plain])))
        other = darker < most * lighter
        if filled and other and around > _LEAST_AROUND and not long:
            return part
    return None


def leave_darker_parts(paper: np.ndarray, light: np.ndarray) -> np.ndarray:
    """Leave out the parts of a divided paper that are darker than the main one.

    The main one is large and light.
    """
    import cv2

    _, labels = cv2.connectedComponents(paper.astype(np.uint8), connectivity=4)
    areas = np.bincount(labels.ravel())
    means = np.bincount(labels.ravel(), light.ravel()) / areas
    areas[0] = 0
    lightest = means[(areas * means**2).argmax()]
    return paper & (means >= _DARKEST_PAPER * lightest)[labels]


def find_surroundings(mask: np.ndarray, paper: np.ndarray) -> np.ndarray:
    """Return the pixels of what lies around the writing.

    It reaches into the paper from the picture's edge, such as the table, or encloses
    what is written, such as the sheet's edge or a printed frame. A digit can be cut off
    by the picture's edge, too: it touches it with little of itself, and what is left
    without it is not much larger than specks.
    """
    import cv2

    _, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    table[0] = 0
    sizes = table[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    beyond = np.pad(paper, 1) == 0
    near = cv2.dilate(beyond.astype(np.uint8), np.ones((3, 3), np.uint8))[1:-1, 1:-1]
    contacts = np.bincount(labels[near > 0], minlength=len(table))
    touching, enclosing = contacts > 0, find_enclosing(labels, table, sizes)
    touching[0] = False
    others = sizes[~touching & ~enclosing].max(initial=0)
    if min(mask.shape) < _DRAWING or others < LEAST_DIGIT:
        return np.zeros_like(mask)
    along = contacts > _MOST_CONTACT * sizes
    large = sizes > _LARGEST_DIGIT * min(mask.shape)
    touching &= along | large | (sizes * _SMALLEST_DIGIT <= others)
    return (touching | enclosing)[labels]
