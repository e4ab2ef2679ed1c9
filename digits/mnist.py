"""Where the data come from: a file, Keras's cache, a download, the embedded digits.

`load_data` finds MNIST, and `read_data` reads it from a file or a folder.
`split_training` holds out a part of the training images for validation; `checksum`
tells digits from others.
"""

from __future__ import annotations

import os
import socket
import sys
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from digits.mnist_files import read_files

DIGITS = Path(__file__).parent / "digits.npz"  # the embedded digits, of 8x8 pixels
MOST_SMALL = 5000  # images of 8x8 that are enlarged; more would take seconds
LEAST_IMAGES = 5  # a sixth of them, rounded, is held out
HELD_OUT = 1 / 6  # of the training images, the last ones, for validation
PATIENCE = 20  # seconds without a byte after which a download is given up


class Data(NamedTuple):
    """Images, uint8 of shape (n, 28, 28), and labels, uint8 of shape (n,)."""

    source: str
    embedded: bool
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


class Split(NamedTuple):
    """The training images in two parts: to learn from, and the held-out set, if any."""

    images: np.ndarray
    labels: np.ndarray
    held_out: tuple[np.ndarray, np.ndarray] | None

    @property
    def count_held_out(self) -> int:
        """The number of images in the held-out set."""
        return len(self.held_out[0]) if self.held_out else 0


def load_data(path: str | os.PathLike | None = None, *, download: bool = True) -> Data:
    """Return MNIST from the first place that has it, or the embedded digits.

    The places, in order: `path` or the environment variable MNIST_PATH, as `read_data`
    takes them; the file that Keras has cached; a download through TensorFlow. If all
    fail, a warning on standard error says why, and the digits embedded in this project
    are returned. Without `download`, where any digits will do, they are returned at
    once if there is no file, without a warning.

    Raises
    ------
    OSError, ValueError
        If `path` or MNIST_PATH is given and cannot be read.
    """
    source, named = "--data", path
    if path is None:
        source, named = "MNIST_PATH", os.environ.get("MNIST_PATH") or None
    if named is not None:
        if not os.path.exists(named):
            required = f"{source} must be a file or a folder with MNIST"
            got = f"{os.fspath(named)!r}, where there is none"
            raise FileNotFoundError(f"{required}; got {got}")
        return read_data(Path(named))
    return _find_data(download)


def read_data(path: Path) -> Data:
    """Read MNIST, or digits stored in the same way, from a file or a folder.

    The module `digits.mnist_files` lists the files that are read.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it does not hold images and labels as MNIST does.
    """
    title, arrays = read_files(path)
    embedded = _are_small(path, arrays)
    size = (8, 8) if embedded else (28, 28)
    for images, labels in (arrays[:2], arrays[2:]):
        _check_images(path, images, size)
        _check_labels(path, labels, len(images))
    if embedded:
        arrays = [enlarge_digits(a) if a.ndim == 3 else a for a in arrays]
    source = "embedded digits" if embedded else f"{title} from {path}"
    return Data(source, embedded, *arrays)


def split_training(
    data: Data, limit: int | None = None, held_out: int | None = None
) -> Split:
    """Hold out the last `held_out` training images, and take `limit` of the others.

    Parameters
    ----------
    data : Data
    limit : int, optional
        At least 1; all of them if None.
    held_out : int, optional
        At least 0 and below the number of training images; a sixth of them if None.

    Raises
    ------
    ValueError
        If `limit` or `held_out` is out of range.
    """
    images, labels = data.train_images, data.train_labels
    held_out = round(len(images) * HELD_OUT) if held_out is None else held_out
    if not 0 <= held_out < len(images):
        required = f"--held-out must be at least 0 and below {len(images)}"
        raise ValueError(f"{required}, the number of training images; got {held_out}")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1; got {limit}")
    count = len(images) - held_out
    kept = count if limit is None else min(limit, count)
    validation = (images[count:], labels[count:]) if held_out else None
    return Split(images[:kept], labels[:kept], validation)


def checksum(arrays: Iterable[np.ndarray]) -> int:
    """Return a number that changes with any image or label."""
    total = 0
    for array in arrays:
        total = zlib.crc32(np.ascontiguousarray(array, np.uint8), total)
    return total


# ---------------------------------------------------------------------- Places


def _find_data(download: bool) -> Data:
    """Return MNIST from Keras's cache or a download, or the embedded digits."""
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    cached = keras_home / "datasets" / "mnist.npz"
    failures = ["--data and MNIST_PATH: not given"]
    places = {str(cached): read_data}
    places |= {"download through TensorFlow": download_mnist} if download else {}
    for place, read in places.items():
        try:
            return read(cached)
        except Exception as error:  # Of any kind; the next place may still have it.
            failures.append(f"{place}: {error or type(error).__name__}")
    digits = read_data(DIGITS)
    if download:
        _warn_of_embedded_digits(digits, failures)
    return digits


def _warn_of_embedded_digits(digits: Data, failures: list[str]) -> None:
    """Say on standard error why MNIST was not found, and how to bring it."""
    banner = "*" * 78
    print(
        f"{banner}\nMNIST was not found. This run uses the embedded digits instead: "
        f"{len(digits.train_labels) + len(digits.test_labels):,} digits of 8x8 pixels.",
        *(f"  {failure}" for failure in failures),
        "To bring MNIST, put mnist.npz or its four IDX files anywhere, and say where:",
        "  python run.py --data PATH        or        export MNIST_PATH=PATH",
        banner,
        sep="\n",
        file=sys.stderr,
    )


def download_mnist(cached: Path) -> Data:
    """Return MNIST through TensorFlow, which checks its hash, and keep it at `cached`.

    The download has a temporary name until it is complete, so that a partial file is
    never taken for MNIST. If `cached` cannot be written, Keras itself stores the file
    elsewhere.
    """
    print("Downloading MNIST through TensorFlow ...", file=sys.stderr, flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(PATIENCE)
    try:
        from tensorflow.keras.datasets import mnist

        if not os.access(cached.parents[1], os.W_OK):
            arrays = [array for part in mnist.load_data() for array in part]
            return Data("MNIST through TensorFlow", False, *arrays)
        temporary = cached.with_name(f".{cached.name}.{os.getpid()}.tmp")
        try:
            mnist.load_data(temporary.name)
            os.replace(temporary, cached)
        finally:
            temporary.unlink(missing_ok=True)
    finally:
        socket.setdefaulttimeout(patience)
    return read_data(cached)


# ---------------------------------------------------------------------- Arrays


def _are_small(path: Path, arrays: list[np.ndarray]) -> bool:
    """Return whether the images have 8x8 pixels; ValueError if those are too many."""
    train, test = arrays[0], arrays[2]
    small = [len(images) for images in (train, test) if images.shape[1:] == (8, 8)]
    if sum(small) > MOST_SMALL:
        required = f"at most {MOST_SMALL:,} images of 8x8, or of shape (n, 28, 28)"
        raise ValueError(
            f"{path} must hold {required}; got {train.shape}, {test.shape}"
        )
    return train.shape[1:] == (8, 8)


def _check_images(path: Path, images: np.ndarray, size: tuple[int, int]) -> None:
    """Raise ValueError unless an array holds images of this size."""
    if images.dtype != np.uint8 or images.shape[1:] != size:
        required = f"uint8 images of shape (n, {size[0]}, {size[1]})"
        got = f"{images.dtype} of shape {images.shape}"
        raise ValueError(f"{path} must hold {required}; got {got}")


def _check_labels(path: Path, labels: np.ndarray, images: int) -> None:
    """Raise ValueError unless an array holds the labels of so many images."""
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        got = f"{labels.dtype} of shape {labels.shape} beside {images} images"
        raise ValueError(f"{path} must hold one integer label per image; got {got}")
    if images < LEAST_IMAGES:
        required = f"at least {LEAST_IMAGES} images"
        raise ValueError(f"{path} must hold {required}; got {images}")
    if labels.min() < 0 or labels.max() > 9:
        got = f"{labels.min()}..{labels.max()}"
        raise ValueError(f"{path} must hold labels 0..9; got {got}")


def enlarge_digits(small: np.ndarray) -> np.ndarray:
    """Enlarge digits (n, 8, 8) with levels 0..16 to MNIST's layout: 20x20 in 28x28.

    Their ink is known, so that only the last stage of the preprocessing is left.
    """
    from digits.mnist_form import imitate_mnist

    fields = np.concatenate([imitate_mnist(digit)[..., 0] for digit in small])
    return np.rint(255 * fields).astype(np.uint8)
