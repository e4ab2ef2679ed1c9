"""Own handwriting: from a photograph, a scan or a drawing to images as MNIST has them.

`read_image` decodes a picture file. `find_digits` finds all digits in a picture, in
reading order, and `prepare_image` takes a picture as one digit. Both go the same way::

    picture -> light on the paper -> ink -> without ruled lines -> pieces -> digits
            -> even strokes -> 20x20 pixels in a field of 28x28, as MNIST has it

Ink is a float, from 0, which is paper, to about 1. A box is top, left, bottom and right
in pixels. A piece is a connected part of the ink.
"""

from __future__ import annotations

import math
import os
import warnings
from contextlib import suppress
from functools import reduce
from types import SimpleNamespace
from typing import IO, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

# -------------------------------------------------------------------- Picture files

# The formats of pictures that are read, and how many million pixels of them at most:
# what is decoded in less than a second and 200 MB. A JPEG file may hold more of them,
# since it is decoded to a part of its size.
FORMATS = {"BMP": 12.5, "GIF": 12.5, "JPEG": 12.5, "PNG": 12.5, "TIFF": 12.5, "WEBP": 8}
JPEG_MEMORY = "100M"  # bytes; JPEG's progressive files are decoded as a whole
FINEST_PICTURE = 2000  # pixels on the longer side; a digit shows no more than 20


def read_image(path: str | IO[bytes]) -> np.ndarray:
    """Return a picture as uint8, upright: (H, W), (H, W, 3) or (H, W, 4).

    It may be a stranger's, and is reduced to what is fine enough to be read.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    from PIL import Image

    os.environ.setdefault("JPEGMEM", JPEG_MEMORY)  # Read by the JPEG library.
    try:
        with warnings.catch_warnings():  # What Pillow warns of is damage, or refused.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(FORMATS)) as picture:
                return _decode_picture(picture)
    except Exception as error:  # Of many kinds, where a file is damaged.
        if getattr(error, "errno", None):  # The system's: there is no such file, ...
            raise
        required = f"image must be a whole picture ({', '.join(FORMATS)})"
        raise ValueError(f"{required}; got: {error or type(error).__name__}") from error


def _decode_picture(picture: ImageFile) -> np.ndarray:
    """Decode what Pillow has opened; what is wrong is raised as some error."""
    from PIL import ImageOps

    size = "x".join(map(str, picture.size))
    # JPEG alone is decoded smaller, to 1/2, 1/4 or 1/8, with no side below this.
    picture.draft(None, (FINEST_PICTURE // 2,) * 2)
    most = FORMATS.get(picture.format, FORMATS["JPEG"])  # Of a phone it may be MPO.
    if math.prod(picture.size) > 1e6 * most:
        got = f"{size} pixels in {picture.format}"
        raise ValueError(f"{got}, where {most:g} million can be decoded")
    ImageOps.exif_transpose(picture, in_place=True)
    layers = picture.getbands()
    transparent = layers[-1] == "A" or "transparency" in picture.info
    if picture.mode[0] in "IF":  # More levels than 256.
        mode = picture.mode[0]
    elif picture.mode in ("1", "L") and not transparent:
        mode = "L"
    else:
        mode = "RGBA" if transparent else "RGB"
    image = picture.convert(mode)
    image = image.reduce(math.ceil(max(image.size) / FINEST_PICTURE))
    levels = np.asarray(image)
    return levels if levels.dtype == np.uint8 else _scale_levels(levels)


def _scale_levels(levels: np.ndarray) -> np.ndarray:
    """Turn levels beyond 8 bits, white at 65535, or floats, into uint8.

    Of floats, white is the first of 1, 255 and 65535 that none of them goes beyond.
    """
    if not np.isfinite(levels).all():
        raise ValueError("levels that are nan or infinite")
    white = 65535
    if levels.dtype.kind == "f":
        white = next((w for w in (1, 255) if levels.max() <= w), white)
    return np.rint(np.clip(levels, 0, white) * (255 / white)).astype(np.uint8)


UNSURE = 0.7  # A digit is read with doubt where none has this probability.


def prepare_image(image: np.ndarray) -> np.ndarray:
    """Turn a picture of one digit into what MNIST's digits look like.

    All that `find_digits` finds in it, as one digit.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA; dark on light or light on dark.

    Returns
    -------
    float32 array of shape (1, 28, 28, 1), in 0..1

    Raises
    ------
    ValueError, TypeError
        If `image` is no such array, or shows no ink.
    """
    ink, pieces, digits, _ = _find_pieces(image)
    box = reduce(_unite, (box for box, _ in digits))
    numbers = [number for _, numbers in digits for number in numbers]
    strokes = _even_strokes(ink, pieces, box, numbers)
    return imitate_mnist(strokes)


def find_digits(image: np.ndarray) -> SimpleNamespace:
    """Find the digits in a photograph, a scan or a drawing, in reading order.

    The light on the paper is evened out, what stands out from it is ink, ruled
    lines are taken out of the ink, its pieces are put together to digits, and each
    digit's strokes are made as wide as MNIST's; then comes `imitate_mnist`.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA; dark on light or light on dark.

    Returns
    -------
    SimpleNamespace
        images : float32 array of shape (n, 28, 28, 1), in 0..1
            What the network is to read, at least one.
        boxes : int array of shape (n, 4)
            Top, left, bottom and right of each, in pixels of `image`.
        stages : dict of str to array of shape (H, W), at most 1000 pixels long
            What the picture was on its way, by name, in order.

    Raises
    ------
    ValueError, TypeError
        If `image` is no such array, or shows no ink.
    """
    ink, pieces, digits, stages = _find_pieces(image)
    images = [imitate_mnist(_even_strokes(ink, pieces, *digit)) for digit in digits]
    scale = np.divide(np.shape(image)[:2], ink.shape)
    boxes = np.rint(np.tile(scale, 2) * [box for box, _ in digits])
    return SimpleNamespace(
        images=np.concatenate(images), boxes=boxes.astype(int), stages=stages
    )


def imitate_mnist(ink: np.ndarray) -> np.ndarray:
    """Bring the ink of one digit into the form of MNIST's images.

    MNIST's own procedure (LeCun et al. 1998, section III.A): cropped to the ink,
    scaled into 20x20 pixels with its proportions kept, its centre of mass put into
    the middle of 28x28. The strongest ink becomes 1.

    Parameters
    ----------
    ink : array of shape (H, W)
        From 0, which is paper, upward. Below a fifth of the strongest, it is paper.

    Returns
    -------
    float32 array of shape (1, 28, 28, 1), in 0..1
    """
    ink = np.asarray(ink)
    if ink.ndim != 2 or not (np.isfinite(ink).all() and ink.max(initial=0) > 0):
        got = f"shape {ink.shape}, or what is no ink"
        raise ValueError(f"ink must be finite, (H, W), and not all 0; got {got}")
    digit = _fit_into_box(np.where(ink < 0.2 * ink.max(), 0, ink))
    prepared = np.zeros((1, 28, 28, 1), np.float32)
    places = []
    for axis, side in enumerate(digit.shape):
        centre = np.average(np.arange(side), weights=digit.sum(axis=1 - axis))
        # The middle of MNIST's fields is pixel 14, counted from 0.
        start = min(max(round(14 - centre), 0), 28 - side)
        places.append(slice(start, start + side))
    prepared[0, places[0], places[1], 0] = digit
    return prepared


def name_digits(probabilities: np.ndarray) -> list[str]:
    """Return each row's most probable class as text, a doubtful one with a "?"."""
    doubts = np.where(probabilities.max(axis=1) < UNSURE, "?", "")
    classes = probabilities.argmax(axis=1)
    return [f"{digit}{doubt}" for digit, doubt in zip(classes, doubts, strict=True)]


# -------------------------------------------------------------------- Finding digits


_LEAST_CONTRAST = 48  # of ink against paper, of 255: about that of a pencil


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Return a picture as floats (H, W), 0..255.

    What is transparent is laid on white, or on black where all strokes are light; where
    ink and paper are both there, on that paper.
    """
    if image.ndim == 2:
        return image.astype(np.float32)
    grey = image[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601
    if image.shape[2] == 4:
        opacity = image[..., 3] / np.float32(255)
        visible = grey[opacity > 0.5]
        paper = 255
        if visible.size and np.ptp(visible) >= _LEAST_CONTRAST:
            paper = np.median(visible)  # The picture brings its own paper.
        elif visible.size and visible.mean() > 127.5:
            paper = 0
        grey = grey * opacity + paper * (1 - opacity)
    return grey


def _find_pieces(
    image: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, list[tuple], dict[str, np.ndarray]]:
    """Find the ink in a picture, and which pieces of it make a digit.

    Returns
    -------
    ink : float array of shape (H, W), from 0, paper, to about 1
    pieces : int array of shape (H, W)
        The number of the piece that a pixel belongs to.
    digits : list of (box, numbers)
        Of each digit, in reading order: top, left, bottom and right, and the numbers of
        its pieces.
    stages : dict
        As `find_digits` returns it.
    """
    import cv2

    grey = _shrink(_to_grey(_check_picture(image)), 1000)
    if min(grey.shape) >= 300:
        grey = cv2.blur(grey, (3, 3))  # Less noise; nothing that 20 pixels would show.
    paper, ink, least = _find_ink(255 - grey if _is_light_on_dark(grey) else grey)
    inked = ink > least
    written = inked & ~_find_ruling(inked)
    inked = written if written.any() else inked
    # What is faint is ink only where it hangs together with what is not.
    count, pieces, sizes, _ = cv2.connectedComponentsWithStats(inked.astype(np.uint8))
    strong = inked & (ink > 0.5 * np.percentile(ink[inked], 95))
    kept = np.bincount(pieces[strong], minlength=count) > 0
    digits = _join_pieces(np.flatnonzero(kept), sizes, ink.shape)
    stages = {"picture": grey, "light on the paper": paper, "ink": ink}
    return ink, pieces, digits, stages | {"without ruled lines": ink * kept[pieces]}


def _check_picture(image: np.ndarray) -> np.ndarray:
    """Return a picture as an array, once it is one."""
    image = np.asarray(image)
    if image.dtype != np.uint8:
        raise TypeError(f"image must be uint8; got dtype {image.dtype}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
        required = "image must have shape (H, W), (H, W, 3) or (H, W, 4)"
        raise ValueError(f"{required}; got {image.shape}")
    if image.size == 0:
        raise ValueError(f"image must hold pixels; got shape {image.shape}")
    return image


def _shrink(picture: np.ndarray, longest: int) -> np.ndarray:
    """Scale a picture down to at most `longest` pixels on its longer side."""
    import cv2

    share = longest / max(picture.shape)
    if share >= 1:
        return picture
    height, width = (max(1, round(share * side)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _is_light_on_dark(grey: np.ndarray) -> bool:
    """Return whether strokes are lighter than their paper.

    What stands out from its wide surroundings, less of the picture than what does not,
    is the ink: where its deviations, cubed, are positive in sum. In photographs where
    they are nearly balanced, as by a deep shadow, strokes are what is narrower.
    """
    import cv2

    small = _shrink(grey, 200)
    side = max(5, _odd(0.45 * max(small.shape)))
    small = np.rint(small).astype(np.uint8)
    # In logarithms a shadow counts less, yet black not without bounds.
    levels = np.log(96 + np.arange(256, dtype=np.float32))
    deviations = levels[small] - levels[cv2.medianBlur(small, side)]
    cubes = deviations * deviations * deviations
    if min(grey.shape) < 300 or abs(cubes.sum()) > 0.4 * np.abs(cubes).sum():
        return cubes.sum() > 0
    widths = [np.inf, np.inf]  # where there is no ink of that side
    for light, picture in enumerate((grey, 255 - grey)):
        with suppress(ValueError):
            _, ink, _ = _find_ink(picture)
            widths[light] = _stroke_width(ink > 0.5 * ink.max())
    return widths[1] < widths[0]


def _find_ink(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Divide a picture of dark strokes by the light on its paper.

    Returns
    -------
    paper : float array of shape (H, W), 0..255
    ink : float array of shape (H, W)
        The share of the light that is missing, 0..1.
    least : float
        How much of it is ink, and not noise.
    """
    # First with wide windows; then, once the strokes' width is known, with some that
    # are no wider than they must be, and follow the edges of shadows.
    window = 0.5 * min(grey.shape)
    while True:
        paper = _find_paper(grey, window)
        ink = (paper - grey) / np.maximum(paper, 24)
        # Lighter than paper is noise alone; its standard deviation, if it is normal.
        noise = 1.4826 * np.median(-ink[ink < 0]) if (ink < 0).any() else 0.0
        ink = np.maximum(ink, 0)
        # Noise alone reaches six of these: paper lies above the middle of its levels.
        strongest, required = ink.max(), max(_LEAST_CONTRAST / 255, 8 * noise)
        if strongest < required:
            raise ValueError(
                "image must show a digit that stands out by "
                f"{255 * min(required, 1):.0f} of 255; got {255 * strongest:.0f} "
                "(no ink)"
            )
        narrower = max(4 * _stroke_width(ink > 0.5 * strongest), 0.1 * min(grey.shape))
        if narrower >= 0.9 * window:
            return paper, ink, max(0.2 * strongest, 4 * noise)
        window = narrower


def _find_paper(grey: np.ndarray, window: float) -> np.ndarray:
    """Return the light on the paper: what is left where all narrow dark is filled.

    This is a morphological closing (Serra: Image analysis and mathematical morphology,
    1982), by a disk `window` pixels wide, of a picture that was scaled down.
    """
    import cv2

    small = _shrink(grey, max(1, round(16 * max(grey.shape) / max(window, 16))))
    side = _odd(window * max(small.shape) / max(grey.shape))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, disk)
    paper = cv2.blur(paper, (_odd(side / 4),) * 2)
    return cv2.resize(paper, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _stroke_width(mask: np.ndarray) -> float:
    """Return how wide strokes are, in pixels: 4 times the mean way out of them."""
    import cv2

    framed = np.pad(mask, 1).astype(np.uint8)
    ways = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)
    return 4 * (ways[framed > 0].mean() - 0.5)  # To the edge, not to the next pixel.


def _find_ruling(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of ruled or squared paper's lines that no stroke stands on."""
    return _find_level_lines(mask) | _find_level_lines(mask.T).T


def _find_level_lines(mask: np.ndarray) -> np.ndarray:
    """Return the pixels of thin lines from one side to the other, up to 10 degrees off.

    They are found by the Hough transform (Duda, Hart: Use of the Hough transformation
    to detect lines and curves in pictures, CACM 15, 1972).
    """
    import cv2

    height, width = mask.shape
    thickest = width // 50  # pixels; a stroke is no line
    lines = np.zeros_like(mask)
    if thickest < 2:
        return lines
    dark, across = np.ascontiguousarray(mask).astype(np.uint8), np.arange(width)
    around = np.arange(-thickest, thickest + 1)[:, np.newaxis]
    thicker = np.ones((_odd(thickest + 1), 1), np.uint8)
    narrow = dark > cv2.morphologyEx(dark, cv2.MORPH_OPEN, thicker)
    if narrow.any(axis=0).sum() < width / 2:  # No line goes through, as on plain paper.
        return lines
    for down in _find_straight_ways(dark, thickest):
        rows = np.rint(down).astype(int) + around
        inside = (rows >= 0) & (rows < height)
        rows = rows % height
        near = inside & mask[rows, across]
        thickness = np.median(near.sum(axis=0)[near.any(axis=0)])
        if thickness <= thickest:
            # Where ink goes on above or below, a stroke crosses the line or lies on it.
            upright = np.ones((_odd(2 * thickness + 2), 1), np.uint8)
            thin = cv2.morphologyEx(dark, cv2.MORPH_OPEN, upright)[rows, across] == 0
            beside = np.abs(around) <= thickness + 1.5
            lines[rows, across] |= near & thin & beside
    return lines


def _find_straight_ways(dark: np.ndarray, apart: int) -> list[np.ndarray]:
    """Return straight ways through the picture along which it is dark again and again.

    Each is the place in every column, in pixels from the top. Of those less than
    `apart` pixels from each other, the best alone.
    """
    import cv2

    height, width = dark.shape
    slopes = {"min_theta": np.radians(80), "max_theta": np.radians(100)}
    found = cv2.HoughLines(dark, 1, np.pi / 720, width // 2, **slopes)
    if found is None:
        return []
    distance, angle = found[:2000, 0].T[..., np.newaxis]
    ends = (distance - np.array([0, width - 1]) * np.cos(angle)) / np.sin(angle)
    # Looked at in 40 columns, a line is there in each tenth of its way, if faintly.
    columns = np.linspace(0, width - 1, 40).astype(int)
    rows = np.rint(ends[:, :1] + np.diff(ends) * columns / (width - 1)).astype(int)
    outside = ((rows < 0) | (rows >= height)).reshape(-1, 10, 4)
    near = cv2.dilate(dark, np.ones((5, 1), np.uint8))[rows % height, columns] > 0
    there = near.reshape(-1, 10, 4) | outside
    straight = there.any(axis=2).all(axis=1) & (outside.mean(axis=(1, 2)) <= 0.5)
    ways, taken = [], []
    for left, right in ends[straight]:
        if all(max(abs(left - a), abs(right - b)) >= apart for a, b in taken):
            taken.append((left, right))
            ways.append(np.linspace(left, right, width))
    return ways


def _join_pieces(
    numbers: np.ndarray, sizes: np.ndarray, shape: tuple[int, int]
) -> list[tuple[np.ndarray, list[int]]]:
    """Put pieces of ink together to digits, in reading order: box and pieces of each.

    `numbers` are those of the pieces in question; `sizes` has left, top, width, height
    and area of each piece in the picture, which is of `shape`.
    """
    left, top, width, height, area = sizes[numbers].T
    all_boxes = np.stack([top, left, top + height, left + width], axis=1)
    usual = np.average(np.maximum(height, width), weights=area)  # a digit's size
    large = np.maximum(height, width) >= 0.05 * usual  # and no speck
    highest = np.argsort(-height, kind="stable")
    boxes, pieces = np.empty((0, 4), int), []
    for index in highest[large[highest]][:_MOST_PIECES]:
        box, number = all_boxes[index], int(numbers[index])
        gaps = _gaps_within_digits(box, boxes, usual)
        if gaps.min(initial=np.inf) < np.inf:
            nearest = gaps.argmin()
            boxes[nearest] = _unite(box, boxes[nearest])
            pieces[nearest].append(number)
        else:
            boxes = np.vstack([boxes, box])
            pieces.append([number])
    large = (boxes[:, 2:] - boxes[:, :2]).max(axis=1) >= 0.45 * usual
    # What is cut off by the picture's edge is a shadow, a line, the table.
    whole = large & (boxes[:, :2] > 0).all(axis=1) & (boxes[:, 2:] < shape).all(axis=1)
    kept = whole if whole.any() else large
    return _in_reading_order([(boxes[n], pieces[n]) for n in np.flatnonzero(kept)])


_MOST_PIECES = 500  # of ink that are looked at; more are no writing


def _gaps_within_digits(box: np.ndarray, boxes: np.ndarray, usual: float) -> np.ndarray:
    """Return how far a piece is from each larger one; inf if they are no one digit.

    They are if it is within the larger; or small, and beside it; or above or below it.
    """
    united = _unite(box, boxes)
    height, width = box[2:] - box[:2]
    down, across = (
        np.maximum(box[:2], boxes[:, :2]) - np.minimum(box[2:], boxes[:, 2:])
    ).T
    within = (-down > 0.7 * height) & (-across > 0.7 * width)
    fits = (united[:, 2:] - united[:, :2] <= (1.4 * usual, 1.5 * usual)).all(axis=1)
    beside = (height < 0.6 * usual) & (across <= 0.12 * usual)
    above = -across > 0.3 * np.minimum(width, boxes[:, 3] - boxes[:, 1])
    joined = within | (fits & (down <= 0.3 * usual) & (beside | above))
    return np.where(
        joined, np.hypot(np.maximum(down, 0), np.maximum(across, 0)), np.inf
    )


def _unite(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Return the box around two, or around one and each of several."""
    least, most = np.minimum(box, boxes), np.maximum(box, boxes)
    return np.concatenate([least[..., :2], most[..., 2:]], axis=-1)


def _in_reading_order(digits: list[tuple]) -> list[tuple]:
    """Sort digits, each a tuple that begins with its box, by rows, then from the left.

    A digit is in the row of those above it if its middle is not below them.
    """
    rows: list[list[tuple]] = []
    for digit in sorted(digits, key=lambda digit: digit[0][0]):
        top, _, bottom, _ = digit[0]
        middle = (top + bottom) / 2
        if rows and middle <= max(box[2] for box, *_ in rows[-1]):
            rows[-1].append(digit)
        else:
            rows.append([digit])
    return [digit for row in rows for digit in sorted(row, key=lambda d: d[0][1])]


# The widths of strokes, in a box of 20, that are left as they are. Of MNIST's, nineteen
# in twenty are within.
_THINNEST, _THICKEST = 2.0, 4.5


def _even_strokes(
    ink: np.ndarray, pieces: np.ndarray, box: np.ndarray, numbers: list[int]
) -> np.ndarray:
    """Cut out a digit; make its darkness full and its strokes as wide as MNIST's."""
    import cv2

    top, left, bottom, right = box
    mask = np.isin(pieces[top:bottom, left:right], numbers)
    digit = np.where(mask, ink[top:bottom, left:right], 0)
    digit = np.minimum(digit / np.percentile(digit[mask], 90), 1)
    digit = _shrink(digit, 200)
    digit /= digit.max()
    unit = max(digit.shape) / 20
    width = _stroke_width(digit > 0.5) / unit
    missing = np.clip(width, _THINNEST, _THICKEST) - width
    side = round(abs(missing) * unit) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if missing > 0 else cv2.erode
    evened = change(np.pad(digit, side), disk)
    return evened if evened.max() > 0.5 else digit  # What is all thin may not vanish.


def _fit_into_box(ink: np.ndarray) -> np.ndarray:
    """Crop to the ink and scale it to 20 pixels on its longer side."""
    from PIL import Image

    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    crop = np.ascontiguousarray(crop, np.float32)
    height, width = (max(1, round(20 * side / max(crop.shape))) for side in crop.shape)
    resized = Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
    digit = np.asarray(resized)
    return digit / digit.max()


def _odd(size: float) -> int:
    """Return the odd number of pixels, at least 1, next to a size."""
    return max(1, int(size) // 2 * 2 + 1)
