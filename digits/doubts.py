"""What to say of readings in doubt, and of a picture read in part or on its side."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from digits.pictures import UNSURE, find_digits

# Of what was read: as much that was not is worth a word, if it is several pieces. None
# of 397 pictures that are read, real and drawn ones, has as much.
_UNREAD, _SEVERAL = 0.25, 2
# The mean over the digits of the highest probability: a picture of less is tried on its
# sides and its head, if it has several digits; turned, it must have as much, and by so
# much more. Of 36 pictures in all four positions, 100 of 108 that are turned are found,
# and none that is upright.
_PLAIN, _PLAINER, _FEWEST = 0.85, 0.1, 4
# A page of many digits may hold none, with more than this share in doubt: of real pages
# at most a seventh is, and of printed text in ten fonts and sizes a sixth to half.
_DOUBTFUL, _PAGE = 0.16, 20
_SMALL = 0.5  # of the median size of the digits that were read
_TURNS = {
    1: "to the left by 90 degrees",
    2: "upside down",
    3: "to the right by 90 degrees",
}


def describe_doubts(names: list[str]) -> str:
    """Return what a "?" in these readings says, and of what it tells where many do."""
    doubtful, count = sum("?" in name for name in names), len(names)
    if not doubtful:
        return ""
    line = (
        f"?: in doubt, for no digit has a probability of {UNSURE:.0%}, or several touch"
    )
    if doubtful <= count * (_DOUBTFUL if count >= _PAGE else 0.5):
        return line
    many = "Most" if doubtful > count / 2 else "Many"
    why = "the picture may be turned, blurred or no digits"
    return f"{line}\n{many} are in doubt: {why}"


def explain_reading(
    image: np.ndarray,
    found: SimpleNamespace,
    probabilities: np.ndarray,
    predict_proba: Callable[[np.ndarray], np.ndarray],
) -> list[str]:
    """Return what makes a reading of a picture doubtful as a whole, and why it may be.

    Parameters
    ----------
    image : uint8 array
        As `find_digits` takes it.
    found : SimpleNamespace
        What `find_digits` returns for it.
    probabilities : array of shape (n, 10)
        What the network says to the digits that were found.
    predict_proba : callable
        The network: from images of shape (n, 28, 28, 1) to such probabilities.
    """
    hints = []
    if turns := find_turn(image, probabilities, predict_proba):
        hints.append(f"Turned {_TURNS[turns]}, the picture is read much more surely")
    count = len(found.unread)
    if count >= max(_SEVERAL, _UNREAD * len(found.boxes)):
        those = _describe_unread(found, image.shape[:2])
        hints.append(f"{count} marks beside the digits were not read: most are {those}")
    return hints


def find_turn(
    image: np.ndarray,
    probabilities: np.ndarray,
    predict_proba: Callable[[np.ndarray], np.ndarray],
) -> int:
    """Return by how many quarters to the left a picture must be turned; 0 if unknown.

    A digit on its side is most often no digit, so the network is unsure of most. The
    parameters are those of `explain_reading`.
    """
    sure = _sureness(probabilities)
    if not 0 < sure < _PLAIN:
        return 0
    turned = {}
    for turns in _TURNS:
        try:
            images = find_digits(np.rot90(image, turns), cut=False).images
        except ValueError:  # The light on the paper is judged by its edges, too.
            continue
        turned[turns] = _sureness(predict_proba(images))
    best = max(turned, key=turned.get, default=0)
    plain = best and turned[best] >= max(_PLAIN, sure + _PLAINER)
    return best if plain else 0


def _sureness(probabilities: np.ndarray) -> float:
    """Return the mean of the highest probabilities, or 0 for few digits."""
    few = len(probabilities) < _FEWEST
    return 0.0 if few else float(probabilities.max(axis=1).mean())


def _describe_unread(found: SimpleNamespace, shape: tuple[int, int]) -> str:
    """Return what most of the pieces that were not read have in common."""
    edge = (found.unread[:, :2] <= 0).any(axis=1)
    edge |= (found.unread[:, 2:] >= shape).any(axis=1)
    if edge.mean() > 0.5:
        return "at the picture's edge"
    unread, read = (
        np.median((boxes[:, 2:] - boxes[:, :2]).max(axis=1))
        for boxes in (found.unread, found.boxes)
    )
    return "much smaller" if unread < _SMALL * read else "much paler"
