"""The ink in a picture: what is written, whatever the light on its paper."""

from __future__ import annotations

import numpy as np

from digits.ruling import odd, remove_ruling, shrink
from digits.sheet import PHOTOGRAPH, find_surroundings, leave_darker_parts

# ---------------------------------------------------------------------- Dark strokes

LEAST_CONTRAST = 48  # grey levels of 255 between ink and paper: about a pencil's
# Pixels of the longer side of a drawing and of the shorter one of a photograph, which
# can show a long row; more would not change the answer.
_POLARITY_SIDE = 200
_SURROUNDINGS = 0.45  # of that side: the window of the median
_CLEAR_BALANCE = 0.4  # of all deviations, cubed: a smaller balance decides nothing
# Ink that fills its picture: how near it comes to each edge, as a share of that side,
# how wide its strokes are at most, as a share of the longer side, how much of the
# border it takes at most, and how much of all ink is in its largest piece.
_NEAR_EDGE, _WIDEST_STROKE, _MOST_OF_BORDER, _LARGEST_PIECE = 0.2, 0.35, 0.75, 0.7


def to_dark_strokes(grey: np.ndarray) -> np.ndarray:
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
    if clear or min(grey.shape) < PHOTOGRAPH:
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

    if min(grey.shape) >= PHOTOGRAPH:
        return None
    small = np.rint(shrink(grey, _POLARITY_SIDE)).astype(np.uint8)
    light = small > cv2.threshold(small, 0, 255, cv2.THRESH_OTSU)[0]
    if not light.any() or light.all():
        return None
    if small[light].mean() - small[~light].mean() < LEAST_CONTRAST:
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
    thin = stroke_width(labels == largest) < _WIDEST_STROKE * max(mask.shape)
    share = np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]]).mean()
    whole = area > _LARGEST_PIECE * mask.sum()
    crosses = 0 < share < _MOST_OF_BORDER
    return share if reaches and thin and whole and crosses else None


def _deviate_from_surroundings(grey: np.ndarray) -> np.ndarray:
    """Return log levels minus those of the median of their wide surroundings.

    Logarithms reduce the weight of shadows; the offset bounds that of black.
    """
    import cv2

    side = min(grey.shape) if min(grey.shape) >= PHOTOGRAPH else max(grey.shape)
    longest = round(_POLARITY_SIDE * max(grey.shape) / side)
    small = np.rint(shrink(grey, longest)).astype(np.uint8)
    window = max(5, odd(_SURROUNDINGS * min(_POLARITY_SIDE, side)))
    levels = np.log(96 + np.arange(256, dtype=np.float32))
    return levels[small] - levels[cv2.medianBlur(small, window)]


def _dark_stroke_width(grey: np.ndarray) -> float:
    """Return how wide the dark strokes are, in pixels; inf if there are none."""
    try:
        _, ink, _ = _find_ink(grey, np.ones(grey.shape, bool))
    except ValueError:
        return np.inf
    return stroke_width(ink > 0.5 * ink.max())


# ---------------------------------------------------------------------- Ink

_LEAST_LIGHT = 24  # grey levels; division by less would turn noise into ink
_FIRST_WINDOW = 0.5  # of the shorter side: for the light, before strokes are known
_LEAST_WINDOW = 0.1  # of the shorter side
_STROKES_IN_WINDOW = 4  # stroke widths in a later window, which must close over strokes
_MARGIN = 0.25  # of the longer side: around a digit that fills its picture
INK_SHARE = 0.2  # of the strongest ink; weaker ink is paper
# Standard deviations of the noise that the strongest ink, and all ink, must exceed.
# Noise alone reaches six: the closing lifts the light above the middle of its levels.
_NOISE_OF_STRONGEST, _NOISE_OF_INK = 8, 4
_SHADE_OF_EDGE = 0.97  # of one edge of a photograph; no digit takes as much
_MOST_ROUNDS = 6  # in which surroundings are found and left out


def find_writing(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find what is written on the paper, without ruled lines and surroundings.

    Where a picture shows more than its paper, such as the table or the sheet's edge,
    that may be darker by far than a pen. The paper is therefore what is left without
    it, and its ink is found anew, until nothing else is in view. Light that falls off
    towards an edge of a blank sheet, where a closing leaves a band, is no writing.

    Returns
    -------
    light : float array of shape (H, W), 0..255
        What the paper would be without the ink.
    ink : float array of shape (H, W), 0..1
        The share of that light that is missing, on the paper.
    mask : bool array of shape (H, W)
        Which pixels are written.
    """
    paper, found = np.ones(grey.shape, bool), None
    for _ in range(_MOST_ROUNDS):
        try:
            light, ink, threshold = _find_ink_within_margin(grey, paper)
        except ValueError:
            if found is None:
                raise
            break  # Without that, there is no ink: it was the writing.
        mask = remove_ruling(ink > threshold)
        found = light, ink, mask
        surroundings = find_surroundings(mask, paper)
        if not surroundings.any():
            break
        paper = leave_darker_parts(paper & ~surroundings, light)
    edges = found[2][0], found[2][-1], found[2][:, 0], found[2][:, -1]
    if min(grey.shape) >= PHOTOGRAPH and max(map(np.mean, edges)) > _SHADE_OF_EDGE:
        got = "a shade along a whole edge (no ink)"
        raise ValueError(f"image must show a digit; got {got}")
    return found


def _find_ink(
    grey: np.ndarray, paper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
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
        light, ink, noise = _divide_by_light(grey, window, paper)
        strongest = ink.max()
        _check_contrast(strongest, noise)
        width = stroke_width(ink > 0.5 * strongest)
        least = _LEAST_WINDOW * min(grey.shape)
        narrower = max(_STROKES_IN_WINDOW * width, least)
    return light, ink, max(INK_SHARE * strongest, _NOISE_OF_INK * noise)


def _find_ink_within_margin(
    grey: np.ndarray, paper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Find the ink as `_find_ink` does, as if a drawing had paper around its digit.

    Without a margin, the light at the edges is that of ink, and the noise of the paper
    is that of the strokes' edges.
    """
    if _find_cropped_ink(grey) != "dark":
        return _find_ink(grey, paper)
    margin = 1 + round(_MARGIN * max(grey.shape))
    framed = np.pad(grey, margin, constant_values=grey.max())
    framed_paper = np.pad(paper, margin, constant_values=True)
    light, ink, threshold = _find_ink(framed, framed_paper)
    inner = slice(margin, -margin)
    return light[inner, inner], ink[inner, inner], threshold


def _divide_by_light(
    grey: np.ndarray, window: float, paper: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Return the light on the paper, the ink, and the noise of the paper."""
    light = _find_light(grey, window)
    ink = (light - grey) / np.maximum(light, _LEAST_LIGHT)
    # Only noise is lighter than the paper; most of a drawing's paper is just as light.
    # The factor turns the median into the standard deviation of a normal distribution.
    lighter = -ink[paper & (ink <= 0)]
    noise = 1.4826 * np.median(lighter) if lighter.size else 0.0
    return light, np.where(paper, np.maximum(ink, 0), 0), noise


def _find_light(grey: np.ndarray, window: float) -> np.ndarray:
    """Return the light on the paper: the picture with all narrow dark parts filled.

    This is a morphological closing (Serra: Image analysis and mathematical morphology,
    1982) by a disk `window` pixels wide. It runs on a smaller copy of the picture, in
    which the disk is about 16 pixels wide.
    """
    import cv2

    small = shrink(grey, max(1, round(16 * max(grey.shape) / max(window, 16))))
    side = odd(window * max(small.shape) / max(grey.shape))
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    light = cv2.morphologyEx(small, cv2.MORPH_CLOSE, disk)
    light = cv2.blur(light, (odd(side / 4),) * 2)
    return cv2.resize(light, grey.shape[::-1], interpolation=cv2.INTER_LINEAR)


def _check_contrast(strongest: float, noise: float) -> None:
    """Raise ValueError unless the strongest ink stands out from paper and noise."""
    required = f"stands out by {LEAST_CONTRAST} of 255"
    if strongest < _NOISE_OF_STRONGEST * noise:
        times = f"{_NOISE_OF_STRONGEST} times the noise of its paper"
        required = f"stands out by {times}, {255 * noise:.0f} of 255"
    elif strongest >= LEAST_CONTRAST / 255:
        return
    got = f"{255 * strongest:.0f} (no ink)"
    raise ValueError(f"image must show a digit that {required}; got {got}")


def stroke_width(mask: np.ndarray) -> float:
    """Return the mean width of strokes, in pixels.

    It is 4 times the mean distance from a pixel of ink to the edge of the ink.
    """
    import cv2

    framed = np.pad(mask, 1).astype(np.uint8)
    distances = cv2.distanceTransform(framed, cv2.DIST_L2, cv2.DIST_MASK_5)
    # OpenCV measures to the centre of the next pixel; the edge is half a pixel nearer.
    return 4 * (distances[framed > 0].mean() - 0.5)
