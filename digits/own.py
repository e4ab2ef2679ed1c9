"""Digits of the user's own handwriting: kept in a file, and trained with.

`OwnDigits` is the file, a .npz with the arrays `images` and `labels`. Each change reads
it anew and replaces it as a whole. `add_own` appends its digits to those of MNIST.
"""

from __future__ import annotations

import operator
import os
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np

from digits.mnist import Split, checksum
from digits.mnist_files import check_archive
from handwritten_classifier import holding_back_interrupts, read_arrays, replace_file

OWN_DIGITS = Path("results", "own-digits.npz")
MOST_OWN = 2000  # digits in a file
MOST_BYTES = MOST_OWN * (28 * 28 + 1) + 2000  # of arrays with headers


class OwnDigits:
    """The file of own digits, which need not exist: there are none then."""

    _lock = threading.Lock()  # One for all: several can be of the same file.

    def __init__(self, path: str | os.PathLike = OWN_DIGITS) -> None:
        self.path = Path(path)

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images (n, 28, 28) and labels (n,), uint8; no file has none.

        Raises
        ------
        ValueError
            If it is no such file, a damaged one, or holds more than MOST_OWN digits.
        """
        try:
            if self.path.exists() and not self.path.is_file():
                raise ValueError("no file")
            with open(self.path, "rb") as file:
                check_archive(file, MOST_BYTES)
                return _check_arrays(read_arrays(file))
        except FileNotFoundError:
            return np.zeros((0, 28, 28), np.uint8), np.zeros(0, np.uint8)
        except Exception as error:  # A damaged file can raise errors of many kinds.
            required = (
                f"{self.path} must hold images (n, 28, 28) and labels 0..9, uint8"
            )
            required += f", of at most {MOST_OWN:,} digits"
            got = str(error) or "only the beginning of a file"
            remedy = "bring a sound one, or move it away"
            raise ValueError(f"{required}; got: {got}: {remedy}") from error

    def add(self, image: np.ndarray, label: int) -> None:
        """Keep one more digit, the last: uint8 of shape (28, 28) with some ink."""
        image, label = np.asarray(image), _check_integer("label", label, 10)
        if image.dtype != np.uint8 or image.shape != (28, 28) or not image.any():
            got = f"{image.dtype} of shape {image.shape}, up to {image.max(initial=0)}"
            required = "image must be uint8 of shape (28, 28) with some ink"
            raise ValueError(f"{required}; got {got}")
        with self._lock:
            images, labels = self.read()
            if len(labels) >= MOST_OWN:
                required = f"{self.path} must hold at most {MOST_OWN:,} digits"
                raise ValueError(f"{required}; got one more: remove another first")
            images = np.concatenate([images, image[np.newaxis]])
            self._write(images, np.append(labels, np.uint8(label)))

    def relabel(self, index: int, label: int) -> None:
        """Give a digit another label."""
        label = _check_integer("label", label, 10)
        with self._lock:
            images, labels = self.read()
            labels[_check_integer("index", index, len(labels))] = label
            self._write(images, labels)

    def remove(self, index: int) -> None:
        """Remove a digit; those behind it move up. With the last, the file goes."""
        with self._lock:
            images, labels = self.read()
            index = _check_integer("index", index, len(labels))
            self._write(np.delete(images, index, axis=0), np.delete(labels, index))

    def _write(self, images: np.ndarray, labels: np.ndarray) -> None:
        """Replace the file as a whole."""
        if not len(labels):
            self.path.unlink()
            return
        with suppress(FileExistsError):  # A file in its place: writing reports it.
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with holding_back_interrupts(), replace_file(self.path) as file:
            np.savez(file, images=images, labels=labels)


def add_own(split: Split) -> tuple[Split, dict[str, int]]:
    """Append the own digits to the images to train on; say how many, and which."""
    own = OwnDigits().read()
    if not len(own[0]):
        required = f"--own must find digits in {OWN_DIGITS}"
        raise ValueError(
            f"{required}; got none: keep some on the page, python run.py draw"
        )
    both = [np.concatenate(pair) for pair in zip(split[:2], own, strict=True)]
    about = {"images": len(own[0]), "checksum": checksum(own)}
    return Split(*both, split.held_out), about


def _check_arrays(arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return images and labels; ValueError, with what there is, if they are others."""
    if sorted(arrays) != ["images", "labels"]:
        raise ValueError(f"arrays {', '.join(sorted(arrays)) or 'of no name'}")
    images, labels = arrays["images"], arrays["labels"]
    count = labels.size
    for array, shape in ((images, (count, 28, 28)), (labels, (count,))):
        if array.dtype != np.uint8 or array.shape != shape:
            raise ValueError(f"{array.dtype} of shape {array.shape}")
    if labels.max() > 9:
        raise ValueError(f"label {labels.max()}")
    if count > MOST_OWN:
        raise ValueError(f"{count:,} digits")
    return images, labels


def _check_integer(name: str, value: int, count: int) -> int:
    """Return an integer of 0 to below `count`, or raise ValueError."""
    with suppress(TypeError):  # It is no integer.
        if not isinstance(value, bool) and 0 <= operator.index(value) < count:
            return operator.index(value)
    required = f"{name} must be an integer, at least 0 and below {count}"
    raise ValueError(f"{required}; got {value!r}")
