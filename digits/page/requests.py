"""What the page asks for: images by their codes, and requests that are complete.

Image, label and all changes of the parameters travel with each request, so that the
server keeps nothing: undo, links and several pages need no more.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CHANGES = 100  # of the parameters, in one request
LARGEST_EDIT = 1_000_000  # of one weight; float32 overflows in a product of several
PIXEL = np.dtype([("index", "<u2"), ("value", "<f4")])  # of an image code
SETTINGS = {  # of a step: whether a number is allowed, and what is required
    "lr": (lambda x: 0 < x <= 1000, "be above 0 and at most 1000"),
    "momentum": (lambda x: 0 <= x < 1, "be at least 0 and below 1"),
    "weight_decay": (lambda x: 0 <= x <= 1, "be in 0..1"),
}

# ---------------------------------------------------------------------- Image codes


def encode_image(image: np.ndarray) -> str:
    """Return the code of an image (H, W, C): its numbers that are not zero."""
    numbers = np.asarray(image, np.float32).ravel()
    pixels = np.empty(np.count_nonzero(numbers), PIXEL)
    pixels["index"] = np.flatnonzero(numbers)
    pixels["value"] = numbers[pixels["index"]]
    return "p" + base64.urlsafe_b64encode(pixels.tobytes()).decode().rstrip("=")


def decode_image(code: Any, shape: tuple[int, ...], tests: np.ndarray) -> np.ndarray:
    """Return the image (1, H, W, C) of a code; uint8 if it is a test image.

    ``t12`` is test image 12; ``p`` and base64url hold (index, value) of pixels.

    Raises
    ------
    ValueError
        If it is not the code of such an image.
    """
    kind, content = (code[:1], code[1:]) if isinstance(code, str) else ("", "")
    if kind == "t" and content.isdecimal() and content.isascii():
        if len(content) > 9 or int(content) >= len(tests):
            raise ValueError(f"image must be t0..t{len(tests) - 1}; got {code[:20]}")
        return tests[int(content)].reshape(1, *shape)
    try:
        if kind != "p":
            raise ValueError
        packed = base64.b64decode(content + "=" * (-len(content) % 4), b"-_", True)
        pixels = np.frombuffer(packed, PIXEL)
    except (ValueError, binascii.Error):
        raise ValueError(f"image must be an image code; got {code!r:.40}") from None
    index, value = pixels["index"], pixels["value"]
    size = math.prod(shape)
    if len(np.unique(index)) < len(index) or (index >= size).any():
        raise ValueError(
            f"image must have different pixels in 0..{size - 1}; got others"
        )
    if not (np.abs(value) <= 10).all():  # nan, too
        raise ValueError("image must have numbers in -10..10; got others")
    image = np.zeros(size, np.float32)
    image[index] = value
    return image.reshape(1, *shape)


# ---------------------------------------------------------------------- Requests


@dataclass(frozen=True)
class Request:
    """What is asked of a frame: an image in a network as trained and then changed."""

    model: int
    image: str
    label: int | None
    back: bool
    changes: tuple
    step: tuple | None  # (lr, momentum, weight_decay)
    have: str | None  # version of the parameters that the page has
    snapshot: tuple | None = None  # (run, step) of a training, in place of the model

    @classmethod
    def read(cls, fields: Any, models: int) -> Request:
        """Check the fields of a request, as JSON has them; names and places come later.

        Raises
        ------
        ValueError
            That names the field, what is required, and what arrived.
        """
        if not isinstance(fields, dict):
            raise ValueError(f"a request must be an object; got {fields!r:.40}")
        label, changes, step = map(fields.get, ("label", "changes", "step"))
        if label is not None:
            label = check_integer("label", label, 10**6)
        changes = [] if changes is None else changes
        if not isinstance(changes, list) or len(changes) > MOST_CHANGES:
            raise ValueError(f"changes must be a list of at most {MOST_CHANGES}")
        if step is not None:
            step = step if isinstance(step, dict) else {}
            step = _settings([step.get(name) for name in SETTINGS])
        snapshot = fields.get("snapshot")
        if snapshot is not None:
            if not isinstance(snapshot, list) or len(snapshot) != 2:
                raise ValueError(f"snapshot must be [run, step]; got {snapshot!r:.40}")
            run, at = snapshot
            at = None if at is None else check_integer("step", at, 10**9)
            snapshot = check_integer("run", run, 1), at
        return cls(
            check_integer("model", fields.get("model", 0), models - 1),
            fields.get("image"),
            label,
            fields.get("back") is True,
            tuple(map(_change, changes)),
            step,
            fields.get("have"),
            snapshot,
        )


def check_integer(name: str, value: Any, most: int, *, least: int = 0) -> int:
    """Return a whole number in least..most, or raise ValueError."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not least <= value <= most:
        raise ValueError(f"{name} must be in {least}..{most}; got {value!r:.40}")
    return value


def check_number(name: str, value: Any, holds: Callable, required: str) -> float:
    """Return a finite number of which something holds, or raise ValueError."""
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not numeric or not math.isfinite(value) or not holds(value):
        raise ValueError(f"{name} must {required}; got {value!r:.40}")
    return float(value)


def _settings(values):
    """Return (lr, momentum, weight_decay) of a step, or raise ValueError."""
    rules = SETTINGS.items()
    return tuple(
        check_number(name, value, *rule)
        for (name, rule), value in zip(rules, values, strict=True)
    )


def _change(change):
    """Return a change of the parameters as a tuple, or raise ValueError."""
    kind = change[0] if isinstance(change, list) and change else None
    if kind == "edit" and len(change) == 4 and isinstance(change[1], str):
        _, name, index, value = change
        required = f"be in -{LARGEST_EDIT:,}..{LARGEST_EDIT:,}"
        value = check_number(
            "a weight", value, lambda x: abs(x) <= LARGEST_EDIT, required
        )
        return kind, name, check_integer("index", index, 10**9), value
    if kind == "step" and len(change) == 6 and isinstance(change[1], str):
        _, image, label, *settings = change
        return kind, image, check_integer("label", label, 10**6), *_settings(settings)
    raise ValueError(f"changes must be edits and steps; got {change!r:.60}")
