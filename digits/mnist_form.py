"""The form of MNIST's images, for the ink of one digit of any size."""

from __future__ import annotations

import numpy as np

from digits.ink import INK_SHARE, stroke_width
from digits.ruling import shrink

# Stroke widths that are left as they are, in pixels of MNIST's box of 20x20. Of MNIST's
# own digits, 95 % are within.
_THINNEST, _THICKEST = 2.0, 4.5
_DIGIT_SIDE = 200  # pixels on the longer side of a digit whose strokes are evened
_BOX, _FIELD = 20, 28  # pixels: of a digit on its longer side, and of the whole image


def even_strokes(digit: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Set the dark ink of a digit to 1, and make its strokes as wide as MNIST's.

    Parameters
    ----------
    digit : float array of shape (H, W)
        Its ink, and perhaps that of others.
    mask : bool array of shape (H, W)
        Which pixels are the digit's.

    Returns
    -------
    float array, at most some 220 pixels long, in 0..1
    """
    import cv2

    digit = np.where(mask, digit, 0)
    digit = np.minimum(digit / np.percentile(digit[mask], 90), 1)
    digit = shrink(digit, _DIGIT_SIDE)
    digit /= digit.max()
    unit = max(digit.shape) / _BOX
    width = stroke_width(digit > 0.5) / unit
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
    digit = _fit_into_box(np.where(ink < INK_SHARE * ink.max(), 0, ink))
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
