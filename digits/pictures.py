"""Preprocessing of your own handwriting: from a picture to images like MNIST's.

`read_image` decodes a picture file. `find_digits` finds every digit in a picture;
`prepare_image` reads the whole picture as one digit. Both run `_preprocess`, one
function per stage, each of which takes what the stage before it returns::

    picture               uint8, grey, RGB or RGBA, of any size
    _to_grey              grey levels 0..255, of 1000 pixels, or more for small digits
    cut_out_sheet         the sheet alone, without the table it lies on (`sheet.py`)
    to_dark_strokes       the same, inverted if the strokes are light (`ink.py`)
    find_writing          ink: how much of the light on the paper is missing; and which
                          pixels are written, without ruled lines and printed frames
                          (`ruling.py`), and without what reaches in from the edge
    find_pieces           the connected components of these pixels (`pieces.py`)
    group_pieces          which pieces form one digit, in reading order
    separate_digits       digits that touch, cut apart (`touching.py`)
    even_strokes          one digit, with strokes as wide as MNIST's (`mnist_form.py`)
    imitate_mnist         28x28 pixels, by MNIST's own procedure

Ink is a float from 0, which is paper, to about 1. A box is top, left, bottom, right in
pixels. A piece is a connected component of the ink. Thresholds without a source were
set by trial; ``tests/programs/handwriting.py`` measures the effect of changing them.
"""

from __future__ import annotations

import glob
import io
import math
import os
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import IO

import numpy as np

from digits.decoder import REQUIRED_PICTURE, decode_picture
from digits.ink import LEAST_CONTRAST, find_writing, to_dark_strokes
from digits.pieces import Digit, find_pieces, find_unread, group_pieces
from digits.ruling import shrink
from digits.sheet import PHOTOGRAPH, cut_out_sheet
from digits.touching import MOST_PIECES, as_image, crop, separate_digits

# ---------------------------------------------------------------------- Public

# Pixels: the longer side of a picture as it is looked at first, and where its digits
# are lower than some, so that they become higher, up to another longer side.
_LONGEST_SIDE, _COARSE, _FINE, _FINEST_SIDE = 1000, 24, 40, 2400
UNSURE = 0.7  # probability; a reading is in doubt if no class reaches it


def find_digits(image: np.ndarray, cut: bool = True) -> SimpleNamespace:
    """Find the digits in a photograph, a scan or a drawing, in reading order.

    The stages are those of the module docstring.

    Parameters
    ----------
    image : uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
        Grey, RGB or RGBA; dark on light or light on dark.
    cut : bool
        Whether digits that touch are cut apart.

    Returns
    -------
    SimpleNamespace
        images : float32 array of shape (n, 28, 28, 1), in 0..1
            The input of the network, one image per digit; n is at least 1.
        boxes : int array of shape (n, 4)
            Top, left, bottom and right of each bounding box, in pixels of `image`.
        touching : bool array of shape (n,)
            Which ones may be several digits that touch, but were not cut apart.
        unread : int array of shape (m, 4)
            The boxes of pieces that are as large as writing and in no digit, because
            they are small or pale beside the digits, or at the picture's edge.
        stages : dict of str to array of shape (H, W), at most 2400 pixels long
            The picture after each stage, by name, in order.

    Raises
    ------
    ValueError, TypeError
        If `image` is not such an array, or shows no ink.
    """
    ink, labels, digits, stages = _preprocess(image)
    images, boxes, touching = separate_digits(
        ink, labels, digits, MOST_PIECES if cut else 0
    )
    scale = np.divide(np.shape(image)[:2], ink.shape)
    unread = find_unread(labels, digits)
    boxes, unread = (
        np.rint(np.tile(scale, 2) * pixels).astype(int) for pixels in (boxes, unread)
    )
    return SimpleNamespace(
        images=images, boxes=boxes, touching=touching, unread=unread, stages=stages
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
    return as_image(*crop(ink, labels, Digit(box, numbers)))


def name_digits(
    probabilities: np.ndarray, touching: np.ndarray | bool = False
) -> list[str]:
    """Return each row's most probable class as text, with a "?" if it is in doubt.

    So is what may be several digits that touch, as `find_digits` returns it.
    """
    doubts = np.where(touching | (probabilities.max(axis=1) < UNSURE), "?", "")
    classes = probabilities.argmax(axis=1)
    return [f"{digit}{doubt}" for digit, doubt in zip(classes, doubts, strict=True)]


def _preprocess(
    image: np.ndarray, longest: int = _LONGEST_SIDE
) -> tuple[np.ndarray, np.ndarray, list[Digit], dict[str, np.ndarray]]:
    """Run the stages that all digits of a picture share.

    They see at most `longest` pixels; more of a picture whose digits are small.

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
    image = _check_picture(image)
    sides = image.shape[:2]
    # A long row of digits stays as high as a photograph.
    long = math.ceil(PHOTOGRAPH * max(sides) / min(sides))
    longest = max(longest, min(long, _FINEST_SIDE))
    grey = _to_grey(image, longest)
    sheet, shown = cut_out_sheet(grey)
    light, ink, mask = grey.copy(), np.zeros_like(grey), np.zeros(grey.shape, bool)
    light[sheet], ink[sheet], mask[sheet] = find_writing(to_dark_strokes(shown))
    pieces = find_pieces(ink, mask)
    digits = group_pieces(pieces)
    usual = np.median([np.ptp(digit.box[::2]) for digit in digits])
    finer = math.ceil(longest * _FINE / usual)
    if usual < _COARSE and longest < min(_FINEST_SIDE, max(sides)):
        return _preprocess(image, min(finer, _FINEST_SIDE))
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

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # of R, G, B: ITU-R BT.601


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


def _to_grey(image: np.ndarray, longest: int) -> np.ndarray:
    """Return a picture as grey levels, float32, 0..255, at most `longest` pixels."""
    import cv2

    grey = image.astype(np.float32) if image.ndim == 2 else image[..., :3] @ _LUMA
    if image.shape[2:] == (4,):
        grey = _fill_transparent(grey, image[..., 3] / np.float32(255))
    grey = shrink(grey, longest)
    # Less noise, and no detail that a digit of 20 pixels would show.
    return cv2.blur(grey, (3, 3)) if min(grey.shape) >= PHOTOGRAPH else grey


def _fill_transparent(grey: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Lay a picture on paper: transparent pixels take the grey level of the paper.

    If the opaque pixels have contrast, they hold ink and paper, and the paper is their
    median. If not, they are ink alone: the paper is white, or black for light ink.
    """
    visible = grey[opacity > 0.5]
    paper = 255
    if visible.size and np.ptp(visible) >= LEAST_CONTRAST:
        paper = np.median(visible)
    elif visible.size and visible.mean() > 127.5:
        paper = 0
    return grey * opacity + paper * (1 - opacity)
