"""Preprocessing of your own handwriting: from a picture to images like MNIST's.

`read_image` decodes a picture file. `find_digits` finds every digit in a picture;
`prepare_image` reads the whole picture as one digit. Both run `_preprocess`, one
function per stage, each of which takes what the stage before it returns::

    picture               uint8, grey, RGB or RGBA, of any size
    _to_grey              grey levels 0..255, at most 1000 pixels long
    _to_dark_strokes      the same, inverted if the strokes are light
    _find_ink             ink: how much of the light on the paper is missing; a digit
                          that fills its drawing gets a margin first
    remove_ruling         which pixels are ink, without ruled lines (`ruling.py`)
    _find_pieces          the connected components of these pixels
    _group_pieces         which pieces form one digit, in reading order
    _even_strokes         one digit, with strokes as wide as MNIST's
    imitate_mnist         28x28 pixels, by MNIST's own procedure

Ink is a float from 0, which is paper, to about 1. A box is top, left, bottom, right in
pixels. A piece is a connected component of the ink. Thresholds without a source were
set by trial; ``tests/programs/handwriting.py`` measures the effect of changing them.
"""

from __future__ import annotations

import glob
import io
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO, NamedTuple

import numpy as np

from digits.decoder import REQUIRED_PICTURE, decode_picture
from digits.ruling import odd, remove_ruling

# ---------------------------------------------------------------------- Public

UNSURE = 0.7  # probability; a reading is in doubt if no class reaches it


def find_digits(image: np.ndarray) -> SimpleNamespace:
    """Find the digits in a photograph, a scan or a drawing, in reading order.

    The stages are those of the module docstring.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA; dark on light or light on dark.

    Returns
    -------
    SimpleNamespace
        images : float32 array of shape (n, 28, 28, 1), in 0..1
            The input of the network, one image per digit; n is at least 1.
        boxes : int array of shape (n, 4)
            Top, left, bottom and right of each bounding box, in pixels of `image`.
        stages : dict of str to array of shape (H, W), at most 1000 pixels long
            The picture after each stage, by name, in order.

    Raises
    ------
    ValueError, TypeError
        If `image` is not such an array, or shows no ink.
    """
    ink, labels, digits, stages = _preprocess(image)
    images = [imitate_mnist(_even_strokes(ink, labels, *digit)) for digit in digits]
    scale = np.divide(np.shape(image)[:2], ink.shape)
    boxes = np.rint(np.tile(scale, 2) * [digit.box for digit in digits])
    return SimpleNamespace(
        images=np.concatenate(images), boxes=boxes.astype(int), stages=stages
    )


def prepare_image(image: np.ndarray) -> np.ndarray:
    """Turn a picture of one digit into an image like MNIST's.

    The preprocessing is that of `find_digits`. Everything it finds counts as one digit.

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
        If `image` is not such an array, or shows no ink.
    """
    ink, labels, digits, _ = _preprocess(image)
    boxes = np.array([digit.box for digit in digits])
    box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    numbers = [number for digit in digits for number in digit.numbers]
    return imitate_mnist(_even_strokes(ink, labels, box, numbers))


def name_digits(probabilities: np.ndarray) -> list[str]:
    """Return each row's most probable class as text, with a "?" if it is in doubt."""
    doubts = np.where(probabilities.max(axis=1) < UNSURE, "?", "")
    classes = probabilities.argmax(axis=1)
    return [f"{digit}{doubt}" for digit, doubt in zip(classes, doubts, strict=True)]


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


def _preprocess(
    image: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, list[Digit], dict[str, np.ndarray]]:
    """Run the stages that all digits of a picture share.

    Returns
    -------
    ink : float array of shape (H, W)
    labels : int array of shape (H, W)
        As in `Pieces`.
    digits : list of Digit
        In reading order.
    stages : dict of str to array of shape (H, W)
        As `find_digits` returns it.
    """
    grey = _to_grey(_check_picture(image))
    light, ink, threshold = _find_ink_within_margin(_to_dark_strokes(grey))
    mask = remove_ruling(ink > threshold)
    pieces = _find_pieces(ink, mask)
    digits = _group_pieces(pieces)
    stages = {
        "picture": grey,
        "light on the paper": light,
        "ink": ink,
        "without ruled lines": ink * (pieces.labels > 0),
    }
    return ink, pieces.labels, digits, stages


# ---------------------------------------------------------------------- Picture files

LARGEST_FILE = 100_000_000  # bytes; 12.5 million pixels of 8 bytes, uncompressed
# Of the files in a folder, those with these endings are read.
PICTURES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def find_pictures(names: list[str]) -> list[str]:
    """Return the files that are named, those in folders, and those of wildcards.

    Raises
    ------
    ValueError
        If there are none.
    """
    files = []
    for name in names:
        if os.path.isdir(name):
            inside = sorted(path for path in Path(name).iterdir() if path.is_file())
            files += [str(path) for path in inside if path.suffix.lower() in PICTURES]
        elif not os.path.exists(name) and glob.has_magic(name):
            files += sorted(glob.glob(name, recursive=True))
        else:
            files.append(name)
    if not files:
        raise ValueError(f"FILE must name pictures; got none in {' '.join(names)}")
    return list(dict.fromkeys(files))  # each once


def read_image(path: str | os.PathLike | IO[bytes]) -> np.ndarray:
    """Return a picture as uint8, upright: (H, W), (H, W, 3) or (H, W, 4).

    The file may come from a stranger. Its formats and size are limited, and so are the
    time and the memory to decode it; `digits.decoder` says to what. A large picture is
    scaled down to at most 2000 pixels on its longer side.

    Parameters
    ----------
    path : str, path or binary file
        A file is read from its start.

    Raises
    ------
    OSError, ValueError
        If the file cannot be read as a picture.
    """
    try:
        content = _read_file(path)
        if len(content) > LARGEST_FILE:
            raise ValueError(f"a file of more than {LARGEST_FILE:,} bytes")
    except Exception as error:  # A stranger's file object can raise errors of any kind.
        if getattr(error, "errno", None):  # From the system, such as a missing file.
            raise
        got = error or type(error).__name__
        raise ValueError(f"{REQUIRED_PICTURE}; got: {got}") from error
    return decode_picture(content)


def _read_file(path: str | os.PathLike | IO[bytes]) -> bytes:
    """Return what a file holds, or one byte more than `LARGEST_FILE`."""
    if isinstance(path, (str, bytes, os.PathLike)):
        with open(path, "rb") as file:
            return file.read(LARGEST_FILE + 1)
    with suppress(AttributeError, io.UnsupportedOperation):
        path.seek(0)
    content = path.read(LARGEST_FILE + 1)
    if not isinstance(content, bytes):
        raise TypeError(f"a file of {type(content).__name__}")
    return content


# ---------------------------------------------------------------------- Grey levels

_LONGEST_SIDE = 1000  # pixels; larger pictures are scaled down
_PHOTOGRAPH = 300  # pixels on the shorter side; smaller pictures count as drawings
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: ITU-R BT.601
_LEAST_CONTRAST = 48  # grey levels of 255 between ink and paper: about a pencil's


def _check_picture(image: np.ndarray) -> np.ndarray:
    """Return a picture as an array, or raise what is wrong with it."""
    if isinstance(image, (str, os.PathLike)):
        got = f"{type(image).__name__}: pass read_image(image)"
        raise TypeError(f"image must be a uint8 array; got {got}")
    image = np.asarray(image)
    if image.dtype != np.uint8:
        hint = _hint_at_dtype(image)
        raise TypeError(f"image must be uint8; got dtype {image.dtype}{hint}")
    if image.ndim not in (2, 3) or image.shape[2:] not in ((), (3,), (4,)):
        required = "image must have shape (H, W), (H, W, 3) or (H, W, 4)"
        hint = _hint_at_shape(image.shape)
        raise ValueError(f"{required}; got {image.shape}{hint}")
    if image.size == 0:
        raise ValueError(f"image must hold pixels; got shape {image.shape}")
    return image


def _hint_at_dtype(image: np.ndarray) -> str:
    """Return how to turn a picture of another dtype into uint8."""
    if image.dtype == bool:
        return ": pass 255 * image.astype(np.uint8)"
    if image.dtype.kind not in "iuf" or not image.size:
        return ""
    least, most = image.min(), image.max()
    if image.dtype.kind == "f" and least >= 0 and most <= 1:
        return ": pass (255 * image).astype(np.uint8)"
    if least >= 0 and most <= 255:
        return ": pass image.astype(np.uint8)"
    return (
        f" from {least:g} to {most:g}: scale it to 0..255, then image.astype(np.uint8)"
    )


def _hint_at_shape(shape: tuple[int, ...]) -> str:
    """Return how to turn a picture of another shape into (H, W) or (H, W, 3)."""
    if len(shape) > 2 and shape[0] == 1:
        return ": pass image[0]" + "[..., 0]" * (len(shape) == 4 and shape[3] == 1)
    if len(shape) == 3 and shape[2] == 1:
        return ": pass image[..., 0]"
    if len(shape) == 3 and shape[0] in (3, 4):
        return ": pass image.transpose(1, 2, 0), with the channels last"
    if len(shape) == 4:
        return ": pass one picture at a time"
    return ""


def _to_grey(image: np.ndarray) -> np.ndarray:
    """Return a picture as grey levels, float32, 0..255, at most 1000 pixels long."""
    import cv2

    grey = image.astype(np.float32) if image.ndim == 2 else image[..., :3] @ _LUMA
    if image.shape[2:] == (4,):
        grey = _fill_transparent(grey, image[..., 3] / np.float32(255))
    grey = _shrink(grey, _LONGEST_SIDE)
    # Less noise, and no detail that a digit of 20 pixels would show.
    return cv2.blur(grey, (3, 3)) if min(grey.shape) >= _PHOTOGRAPH else grey


def _fill_transparent(grey: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay a picture on paper: transparent pixels take the grey level of the paper.

    If the opaque pixels have contrast, they hold ink and paper, and the paper is their
    median. If not, they are ink alone: the paper is white, or black for light ink.
    """
    visible = grey[opacity > 0.5]
    paper = 255
    if visible.size and np.ptp(visible) >= _LEAST_CONTRAST:
        paper = np.median(visible)
    elif visible.size and visible.mean() > 127.5:
        paper = 0
    return grey * opacity + paper * (1 - opacity)


def _shrink(picture: np.ndarray, longest: int) -> np.ndarray:
    """Scale a picture down to at most `longest` pixels on its longer side."""
    import cv2

    share = longest / max(picture.shape)
    if share >= 1:
        return picture
    height, width = (max(1, round(share * side)) for side in picture.shape)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


# ---------------------------------------------------------------------- Dark strokes

_POLARITY_SIDE = 200  # pixels on the longer side; more would not change the answer
_SURROUNDINGS = 0.45  # of the longer side: the window of the median
_CLEAR_BALANCE = 0.4  # of all deviations, cubed: a smaller balance decides nothing
# Ink that fills its picture: how near it comes to each edge, as a share of that side,
# how wide its strokes are at most, as a share of the longer side, how much of the
# border it takes at most, and how much of all ink is in its largest piece.
_NEAR_EDGE, _WIDEST_STROKE, _MOST_OF_BORDER, _LARGEST_PIECE = 0.2, 0.35, 0.75, 0.7


def _to_dark_strokes(grey: np.ndarray) -> np.ndarray:
    """Return the picture with strokes darker than their paper."""
    return 255 - grey if _is_light_on_dark(grey) else grey


def _is_light_on_dark(grey: np.ndarray) -> bool:
    """Return whether strokes are lighter than their paper.

    Ink covers less of a picture than paper and deviates more from its surroundings. The
    sum of the cubed deviations therefore has the sign of the ink's. In a photograph a
    deep shadow can nearly balance it; then the narrower strokes are the ink. In a
    drawing a digit without a margin can leave less paper than ink, but has a form.
    """
    cropped = _find_cropped_ink(grey)
    if cropped is not None:
        return cropped == "light"
    deviations = _deviate_from_surroundings(grey)
    cubes = deviations * deviations * deviations  # Ten times as fast as a power.
    balance = cubes.sum()
    clear = abs(balance) > _CLEAR_BALANCE * np.abs(cubes).sum()
    if clear or min(grey.shape) < _PHOTOGRAPH:
        return balance > 0
    return _dark_stroke_width(255 - grey) < _dark_stroke_width(grey)


def _find_cropped_ink(grey: np.ndarray) -> str | None:
    """Return "dark" or "light" where ink of that kind fills a drawing, else None.

    A digit without a margin is one piece of thin ink that reaches all four edges, or
    nearly so, and leaves part of the border to the paper. The paper around a digit is a
    wide piece, and takes nearly the whole border. Ink and paper are told apart by
    Otsu's threshold (A threshold selection method from gray-level histograms, 1979). In
    a photograph, a shadow can have such a form, too.
    """
    import cv2

    if min(grey.shape) >= _PHOTOGRAPH:
        return None
    small = np.rint(_shrink(grey, _POLARITY_SIDE)).astype(np.uint8)
    light = small > cv2.threshold(small, 0, 255, cv2.THRESH_OTSU)[0]
    if not light.any() or light.all():
        return None
    if small[light].mean() - small[~light].mean() < _LEAST_CONTRAST:
        return None
    found = [
        (share, side)
        for side, mask in (("dark", ~light), ("light", light))
        if (share := _share_of_border(mask)) is not None
    ]
    return min(found, default=(0, None))[1]


def _share_of_border(mask: np.ndarray) -> float | None:
    """Return how much of the border ink takes that fills its picture, else None."""
    import cv2

    _, labels, table, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    largest = 1 + table[1:, cv2.CC_STAT_AREA].argmax()
    left, top, width, height, area = table[largest]
    start, size, sides = np.array([[top, left], [height, width], mask.shape])
    near = np.maximum(1, np.rint(_NEAR_EDGE * sides))
    reaches = (start <= near).all() and (start + size >= sides - near).all()
    thin = _stroke_width(labels == largest) < _WIDEST_STROKE * max(mask.shape)
    share = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
    whole = area > _LARGEST_PIECE * mask.sum()
    crosses = 0 < share < _MOST_OF_BORDER
    return share if reaches and thin and whole and crosses else None


def _deviate_from_surroundings(grey: np.ndarray) -> np.ndarray:
    """Return log levels minus those of the median of their wide surroundings.

    Logarithms reduce the weight of shadows; the offset bounds that of black.
    """
    import cv2

    small = np.rint(_shrink(grey, _POLARITY_SIDE)).astype(np.uint8)
    window = max(5, odd(_SURROUNDINGS * max(small.shape)))
    levels = np.log(96 + np.arange(256, dtype=np.float32))
    return levels[small] - levels[cv2.medianBlur(small, window)]


def _dark_stroke_width(grey: np.ndarray) -> float:
    """Return how wide the dark strokes are, in pixels; inf if there are none."""
    try:
        _, ink, _ = _find_ink(grey)
    except ValueError:
        return np.inf
    return _stroke_width(ink > 0.5 * ink.max())


# ---------------------------------------------------------------------- Ink

_LEAST_LIGHT = 24  # grey levels; division by less would turn noise into ink
_FIRST_WINDOW = 0.5  # of the shorter side: for the light, before strokes are known
_LEAST_WINDOW = 0.1  # of the shorter side
_STROKES_IN_WINDOW = 4  # stroke widths in a later window, which must close over strokes
_MARGIN = 0.25  # of the longer side: around a digit that fills its picture
_INK_SHARE = 0.2  # of the strongest ink; weaker ink is paper
# Standard deviations of the noise that the strongest ink, and all ink, must exceed.
# Noise alone reaches six: the closing lifts the light above the middle of its levels.
_NOISE_OF_STRONGEST, _NOISE_OF_INK = 8, 4


def _find_ink(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Divide a picture of dark strokes by the light on its paper.

    The first window for the light is wide. Once the width of the strokes is known, the
    window narrows to what they need, so that the light follows the edges of shadows.

    Returns
    -------
    light : float array of shape (H, W), 0..255
        What the paper would be without the ink.
    ink : float array of shape (H, W), 0..1
        The share of that light that is missing.
    threshold : float
        How much of it is ink and not noise.
    """
    window, narrower = np.inf, _FIRST_WINDOW * min(grey.shape)
    while narrower < 0.9 * window:
        window = narrower
        light, ink, noise = _divide_by_light(grey, window)
        strongest = ink.max()
        _check_contrast(strongest, noise)
        width = _stroke_width(ink > 0.5 * strongest)
        least = _LEAST_WINDOW * min(grey.shape)
        narrower = max(_STROKES_IN_WINDOW * width, least)
    return light, ink, max(_INK_SHARE * strongest, _NOISE_OF_INK * noise)


def _find_ink_within_margin(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the ink as `_find_ink` does, as if a drawing had paper around its digit.

    Without a margin, the light at the edges is that of ink, and the noise of the paper
    is that of the strokes' edges.
    """
    if _find_cropped_ink(grey) != "dark":
        return _find_ink(grey)
    margin = 1 + round(_MARGIN * max(grey.shape))
    light, ink, threshold = _find_ink(np.pad(grey, margin, constant_values=grey.max()))
    inner = slice(margin, -margin)
    return light[inner, inner], ink[inner, inner], threshold


def _divide_by_light(
    grey: np.ndarray, window: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the light on the paper, the ink, and the noise of the paper."""
    light = _find_light(grey, window)
    ink = (light - grey) / np.maximum(light, _LEAST_LIGHT)
    # Only noise is lighter than the paper; most of a drawing's paper is just as light.
    # The factor turns the median into the standard deviation of a normal distribution.
    noise = 1.4826 * np.median(-ink[ink <= 0]) if ink.min() <= 0 else 0.0
    return light, np.maximum(ink, 0), noise


def _find_light(grey: np.ndarray, window: float) -> np.ndarray:
    """Return the light on the paper: the picture with all narrow dark parts filled.

    This is a morphological closing (Serra: Image analysis and mathematical morphology,
    1982) by a disk `window` pixels wide. It runs on a smaller copy of the picture, in
    which the disk is about 16 pixels wide.
    """
    import cv2

    small = _shrink(grey, max(1, round(16 * max(grey.shape) / max(window, 16))))
    side = odd(window * max(small.shape) / max(grey.shape))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    light = cv2.morphologyEx(small, cv2.MORPH_CLOSE, disk)
    light = cv2.blur(light, (odd(side / 4),) * 2)
    return cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _check_contrast(strongest: float, noise: float) -> None:
    """Raise ValueError unless the strongest ink stands out from paper and noise."""
    required = f"stands out by {_LEAST_CONTRAST} of 255"
    if strongest < _NOISE_OF_STRONGEST * noise:
        times = f"{_NOISE_OF_STRONGEST} times the noise of its paper"
        required = f"stands out by {times}, {255 * noise:.0f} of 255"
    elif strongest >= _LEAST_CONTRAST / 255:
        return
    got = f"{255 * strongest:.0f} (no ink)"
    raise ValueError(f"image must show a digit that {required}; got {got}")


def _stroke_width(mask: np.ndarray) -> float:
    """Return the mean width of strokes, in pixels.

    It is 4 times the mean distance from a pixel of ink to the edge of the ink.
    """
    import cv2

    framed = np.pad(mask, 1).astype(np.uint8)
    distances = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)
    # OpenCV measures to the centre of the next pixel; the edge is half a pixel nearer.
    return 4 * (distances[framed > 0].mean() - 0.5)


# ---------------------------------------------------------------------- Pieces, digits

_MOST_PIECES = 500  # of ink in a picture, the highest ones; more are not handwriting
_SPECK = 0.05  # of the usual size of a digit; smaller pieces are dropped
_SMALLEST_DIGIT = 0.45  # of that size


def _find_pieces(ink: np.ndarray, mask: np.ndarray) -> Pieces:
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


def _group_pieces(pieces: Pieces) -> list[Digit]:
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

    A digit belongs to the row above it unless its middle is below that row.
    """
    rows: list[list[Digit]] = []
    for digit in sorted(digits, key=lambda digit: digit.box[0]):
        top, _, bottom, _ = digit.box
        middle = (top + bottom) / 2
        if rows and middle <= max(above.box[2] for above in rows[-1]):
            rows[-1].append(digit)
        else:
            rows.append([digit])
    return [digit for row in rows for digit in sorted(row, key=lambda d: d.box[1])]


# ---------------------------------------------------------------------- MNIST's form

# Stroke widths that are left as they are, in pixels of MNIST's box of 20x20. Of MNIST's
# own digits, 95 % are within.
_THINNEST, _THICKEST = 2.0, 4.5
_DIGIT_SIDE = 200  # pixels on the longer side of a digit whose strokes are evened
_BOX, _FIELD = 20, 28  # pixels: of a digit on its longer side, and of the whole image


def _even_strokes(
    ink: np.ndarray, labels: np.ndarray, box: np.ndarray, numbers: list[int]
) -> np.ndarray:
    """Cut out a digit, set its dark ink to 1, and make its strokes as wide as MNIST's.

    Parameters
    ----------
    ink, labels : arrays of shape (H, W)
        As `_preprocess` returns them.
    box, numbers
        As in `Digit`.
    """
    import cv2

    top, left, bottom, right = box
    mask = np.isin(labels[top:bottom, left:right], numbers)
    digit = np.where(mask, ink[top:bottom, left:right], 0)
    digit = np.minimum(digit / np.percentile(digit[mask], 90), 1)
    digit = _shrink(digit, _DIGIT_SIDE)
    digit /= digit.max()
    unit = max(digit.shape) / _BOX
    width = _stroke_width(digit > 0.5) / unit
    missing = np.clip(width, _THINNEST, _THICKEST) - width
    side = round(abs(missing) * unit) + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    change = cv2.dilate if missing > 0 else cv2.erode
    evened = change(np.pad(digit, side), disk)
    return evened if evened.max() > 0.5 else digit  # Erosion must not erase it.


def imitate_mnist(ink: np.ndarray) -> np.ndarray:
    """Bring the ink of one digit into the form of MNIST's images.

    This is MNIST's own procedure (LeCun et al. 1998, section III.A): crop to the ink,
    scale into 20x20 pixels with the aspect ratio kept, and put the centre of mass into
    the middle of 28x28. The strongest ink becomes 1.

    Parameters
    ----------
    ink : array of shape (H, W)
        From 0, which is paper, upward. Less than a fifth of the maximum is paper, too.

    Returns
    -------
    float32 array of shape (1, 28, 28, 1), in 0..1

    Raises
    ------
    ValueError
        If `ink` is not such an array, or has no ink.
    """
    ink = np.asarray(ink)
    if ink.ndim != 2 or not (np.isfinite(ink).all() and ink.max(initial=0) > 0):
        got = f"shape {ink.shape} from {ink.min(initial=0)} to {ink.max(initial=0)}"
        raise ValueError(f"ink must be finite, (H, W), and not all 0; got {got}")
    digit = _fit_into_box(np.where(ink < _INK_SHARE * ink.max(), 0, ink))
    prepared = np.zeros((1, _FIELD, _FIELD, 1), np.float32)
    places = []
    for axis, side in enumerate(digit.shape):
        centre = np.average(np.arange(side), weights=digit.sum(axis=1 - axis))
        # MNIST's middle is pixel 14, counted from 0. The digit stays in the field.
        start = min(max(round(_FIELD // 2 - centre), 0), _FIELD - side)
        places.append(slice(start, start + side))
    prepared[0, places[0], places[1], 0] = digit
    return prepared


def _fit_into_box(ink: np.ndarray) -> np.ndarray:
    """Crop to the ink and scale it to 20 pixels on its longer side."""
    from PIL import Image

    rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
    crop = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    crop = np.ascontiguousarray(crop, np.float32)
    scale = max(crop.shape)
    height, width = (max(1, round(_BOX * side / scale)) for side in crop.shape)
    resized = Image.fromarray(crop).resize((width, height), Image.Resampling.BILINEAR)
    digit = np.asarray(resized)
    return digit / digit.max()
