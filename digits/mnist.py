"""Where the data come from: a file, Keras's cache, a download, the embedded digits.

`load_data` finds MNIST; `split_training` holds out a part of the training images.
"""

from __future__ import annotations

import gzip
import math
import os
import socket
import struct
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np

from handwritten_classifier import check_unpacked, read_arrays

DIGITS = Path(__file__).parent / "digits.npz"  # the embedded ones, of 8x8 pixels
MOST_SMALL = 5000  # images of 8x8 that are enlarged
HELD_OUT = 1 / 6  # of the training images, the last ones: for curves and choices


class Data(NamedTuple):
    """Images, uint8 of shape (n, 28, 28), and labels, uint8 of shape (n,)."""

    source: str
    embedded: bool
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data(path: str | os.PathLike | None = None) -> Data:
    """Return MNIST from the first place that has it, or else the embedded digits.

    In this order: `path` or the environment variable MNIST_PATH (a Keras-style .npz, or
    a folder of the four IDX files, gzipped or not); the file that Keras has cached; a
    download through TensorFlow; the digits embedded in this project, said loudly.

    Raises
    ------
    OSError, ValueError
        If `path` or MNIST_PATH cannot be read; they are never silently passed over.
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
    cached = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    cached = cached / "datasets" / "mnist.npz"
    failures = ["--data and MNIST_PATH: not given"]
    for place, read in (
        (str(cached), lambda: read_data(cached)),
        ("download through TensorFlow", lambda: download_mnist(cached)),
    ):
        try:
            return read()
        except Exception as error:  # Of many kinds, and none of them ends the run.
            failures.append(f"{place}: {error or type(error).__name__}")
    digits = read_data(DIGITS)
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
    return digits


def read_data(path: Path) -> Data:
    """Read a Keras-style .npz file or a folder of IDX files.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it does not hold the images and labels of MNIST.
    """
    if path.is_dir():
        arrays = [read_idx(path, *part) for part in IDX_PARTS]
    else:
        arrays = read_npz(path)
    # Of the embedded digits' size; not so many that to enlarge them takes long.
    embedded = arrays[0].shape[1:] == (8, 8) and len(arrays[0]) <= MOST_SMALL
    size = (8, 8) if embedded else (28, 28)
    for images, labels in (arrays[:2], arrays[2:]):
        if images.dtype != np.uint8 or images.shape[1:] != size:
            required = f"uint8 images of shape (n, {size[0]}, {size[1]})"
            got = f"{images.dtype} of shape {images.shape}"
            raise ValueError(f"{path} must hold {required}; got {got}")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            got = f"{labels.dtype} of shape {labels.shape} beside {len(images)} images"
            raise ValueError(f"{path} must hold an integer label an image; got {got}")
        if len(labels) < 5:  # A sixth of them, rounded, is held out.
            raise ValueError(f"{path} must hold at least 5 images; got {len(labels)}")
        if labels.min() < 0 or labels.max() > 9:
            got = f"{labels.min()}..{labels.max()}"
            raise ValueError(f"{path} must hold labels 0..9; got {got}")
    if embedded:
        arrays = [enlarge_digits(a) if a.ndim == 3 else a for a in arrays]
        return Data("embedded digits", True, *arrays)
    return Data(f"MNIST from {path}", False, *arrays)


def read_npz(path: Path) -> list[np.ndarray]:
    """Return the images and labels, to train and to test, of a Keras-style file."""
    names = ("x_train", "y_train", "x_test", "y_test")
    with open(path, "rb") as file:
        try:
            return list(read_arrays(file, names).values())
        except Exception as error:  # Whatever a damaged file may lead to.
            required = f"must be a .npz file with the arrays {', '.join(names)}"
            raise ValueError(f"{path} {required}; got: {error}") from error


IDX_PARTS = (
    ("train-images?idx3-ubyte*", 3),
    ("train-labels?idx1-ubyte*", 1),
    ("t10k-images?idx3-ubyte*", 3),
    ("t10k-labels?idx1-ubyte*", 1),
)


def read_idx(folder: Path, pattern: str, axes: int) -> np.ndarray:
    """Return the array of one IDX file, gzipped or not (format: MNIST's home page)."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise ValueError(f"{folder} must hold mnist's IDX files; got no {pattern}")
    required = f"{found[0]} must be an IDX file of bytes with {axes} axes"
    opener = gzip.open if found[0].suffix == ".gz" else open
    with opener(found[0], "rb") as file:
        try:
            start = file.read(4 * (1 + axes))
            if start[:4] != bytes((0, 0, 8, axes)):  # The magic number.
                raise ValueError(start.hex(" ") or "nothing")
            shape = struct.unpack(f">{axes}I", start[4:])
            size = math.prod(shape)
            check_unpacked(size, found[0].stat().st_size)
            content = file.read(size + 1)
            if len(content) != size:
                raise ValueError(f"{len(content):,} bytes or more for shape {shape}")
        except Exception as error:  # Whatever a damaged file may lead to.
            raise ValueError(f"{required}; got: {error}") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def enlarge_digits(small: np.ndarray) -> np.ndarray:
    """Enlarge (n, 8, 8) with levels 0..16 to MNIST's layout: 20x20 in a field of 28x28.

    Their ink is known; it goes the last part of every picture's way.
    """
    from digits.pictures import imitate_mnist

    fields = np.concatenate([imitate_mnist(digit)[..., 0] for digit in small])
    return np.rint(255 * fields).astype(np.uint8)


def download_mnist(cached: Path) -> Data:
    """Return MNIST through TensorFlow, which checks its hash, and keep it at `cached`.

    It is downloaded under another name: what was cut short is never taken for MNIST.
    Where `cached` cannot be written, Keras itself keeps it elsewhere.
    """
    print("Downloading MNIST through TensorFlow ...", file=sys.stderr, flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(
        20
    )  # Seconds: a network that swallows all must not hang us.
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


class Split(NamedTuple):
    """The training images in two: to learn from, and held out, if any are."""

    images: np.ndarray
    labels: np.ndarray
    held_out: tuple[np.ndarray, np.ndarray] | None

    @property
    def count_held_out(self) -> int:
        """The number of images held out."""
        return len(self.held_out[0]) if self.held_out else 0


def split_training(
    data: Data, limit: int | None = None, held_out: int | None = None
) -> Split:
    """Hold out the last `held_out` training images; take `limit` of the others."""
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
