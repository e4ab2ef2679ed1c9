"""MNIST's files as people have them: Keras's mnist.npz, IDX files, CSV files.

`read_files` takes a file or a folder. In a folder, or in folders in it, such as
torchvision's MNIST/raw, it finds one of these sets:

- the four IDX files of MNIST, or of EMNIST's sets "digits" and "mnist";
- mnist.npz, as Keras stores it;
- mnist_train.csv and mnist_test.csv, or train.csv and test.csv: the label first, then
  784 pixels, with or without a header.

IDX and CSV files can be gzipped; their content tells, and not their names. The files
may come from strangers: their size is known, or bounded, before they are read.
"""

from __future__ import annotations

import gzip
import itertools
import math
import os
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from handwritten_classifier import check_unpacked, read_arrays

MOST_BYTES = 250_000_000  # of one file: EMNIST has 240,000 digits in 188 million
NAMES = ("x_train", "y_train", "x_test", "y_test")  # in Keras's mnist.npz
IDX_PARTS = (  # the four IDX files, in that order: pattern of the name, axes
    ("train-images?idx3-ubyte*", 3),
    ("train-labels?idx1-ubyte*", 1),
    ("t10k-images?idx3-ubyte*", 3),
    ("t10k-labels?idx1-ubyte*", 1),
)


def read_files(path: Path) -> tuple[str, list[np.ndarray]]:
    """Return the title of a set, and its training and test images and labels.

    Raises
    ------
    OSError, ValueError
        If `path` names no such set, or a file is damaged or too large.
    """
    if not (path.is_dir() or path.is_file()):
        raise ValueError(f"{path} must be a file or a folder; got neither")
    found = _take_set(path) if path.is_dir() else _take_file(path)
    return "EMNIST" if found.collection else "MNIST", found.read()


# ---------------------------------------------------------------------- Sets of files

_DEEPEST = 3  # levels of folders in a folder that are searched
_MOST_FILES = 100_000  # whose names are looked at
_NAMES = {  # of files, by kind: the collection (none for MNIST), and the part
    "IDX": r"(emnist-[a-z]+-)?((?:train|t10k|test)-(?:images|labels)).idx[13]-ubyte.*",
    "npz": r"()(mnist\.npz)",
    "CSV": r"(emnist-[a-z]+-)?(?:mnist[-_])?((?:train|test)\.csv)(?:\.gz)?",
}
_PARTS = {  # of a whole set, by kind, each with the pattern or name to ask for
    "IDX": {pattern.partition("?")[0]: pattern for pattern, _ in IDX_PARTS},
    "npz": {"mnist.npz": "mnist.npz"},
    "CSV": {"train.csv": "mnist_train.csv", "test.csv": "mnist_test.csv"},
}
_COLLECTIONS = ("", "emnist-digits-", "emnist-mnist-")  # of digits, the first preferred
_NO_DIGITS = re.compile("fashion|kmnist", re.IGNORECASE)  # folders of files so named


class _Set(NamedTuple):
    """Files that belong together, by the parts in `_PARTS`."""

    kind: str
    collection: str
    files: dict[str, Path]

    def list_missing(self) -> list[str]:
        """Return the files that are not there."""
        parts = _PARTS[self.kind].items()
        return [self.collection + p for part, p in parts if part not in self.files]

    def check(self, folder: Path) -> _Set:
        """Return the set if it holds digits and is whole; else raise ValueError."""
        path = next(iter(self.files.values()))
        required, got = "digits with labels 0..9", ""
        if self.collection not in _COLLECTIONS:
            got = f"{path.name}: take emnist-digits or emnist-mnist"
        elif _NO_DIGITS.search(str(path.relative_to(folder))):
            got = f"{path}: to read it all the same, name the folder that holds it"
        elif missing := self.list_missing():
            required = "mnist's IDX files" if self.kind == "IDX" else "two CSV files"
            got = f"no {' and no '.join(missing)}"
        if got:
            raise ValueError(f"{folder} must hold {required}; got {got}")
        return self

    def read(self) -> list[np.ndarray]:
        """Return the training and test images and labels."""
        files = [self.files[part] for part in _PARTS[self.kind]]
        if self.kind == "npz":
            return read_npz(files[0])
        if self.kind == "CSV":
            arrays = [array for path in files for array in read_csv(path)]
        else:
            axes = [axes for _, axes in IDX_PARTS]
            arrays = [read_idx(*part) for part in zip(files, axes, strict=True)]
        if self.collection:  # EMNIST's images are stored column by column.
            arrays[::2] = [np.ascontiguousarray(a.swapaxes(1, 2)) for a in arrays[::2]]
        return arrays


def _take_set(folder: Path) -> _Set:
    """Return the best set of digits in a folder, or raise what it lacks."""

    def _faults(found: _Set) -> tuple:
        path = next(iter(found.files.values())).relative_to(folder)
        return (
            len(found.list_missing()),
            bool(_NO_DIGITS.search(str(path))),
            [found.collection != name for name in _COLLECTIONS],
            "MNIST" not in path.parts,  # as torchvision calls its folder
            len(path.parts),
            list(_PARTS).index(found.kind),
        )

    sets = _find_sets(folder, _DEEPEST)
    if not sets:
        required = "mnist's IDX files, mnist.npz, or mnist_train.csv and mnist_test.csv"
        raise ValueError(f"{folder} must hold {required}; got none of them")
    return min(sets, key=_faults).check(folder)


def _take_file(path: Path) -> _Set:
    """Return the set that a file belongs to; any other file must be a .npz."""
    for found in _find_sets(path.parent, 0):
        if path in found.files.values():
            return found.check(path.parent)
    return _Set("npz", "", {"mnist.npz": path})


def _find_sets(folder: Path, deepest: int) -> list[_Set]:
    """Return the sets in a folder and the folders in it, complete or not.

    The files of a set lie in one folder, or each in a folder that is named like it.
    """
    sets = {}
    for path in _list_files(folder, deepest):
        for kind, name in _NAMES.items():
            found = re.fullmatch(name, path.name, re.IGNORECASE)
            if found and path.is_file():
                own = re.fullmatch(name, path.parent.name, re.IGNORECASE)
                home = path.parent.parent if own else path.parent
                collection = (found[1] or "").lower()
                part = found[2].lower().replace("test-", "t10k-")
                whole = _Set(kind, collection, {})
                whole = sets.setdefault((home, kind, collection), whole)
                whole.files.setdefault(part, path)
    return list(sets.values())


def _list_files(folder: Path, deepest: int) -> list[Path]:
    """Return the files in a folder, and in visible folders in it, sorted by name."""
    files = []
    for place, folders, names in os.walk(folder, followlinks=True):
        deep = len(Path(place).relative_to(folder).parts) >= deepest
        folders[:] = [f for f in folders if not (deep or f.startswith("."))]
        files += [Path(place, name) for name in names]
        if len(files) > _MOST_FILES:
            break
    return sorted(files[:_MOST_FILES])


# ---------------------------------------------------------------------- Files

_LONGEST_LINE = 10_000  # bytes of a CSV file's line
_MOST_PACKED = 20  # times the bytes of a gzipped CSV file; MNIST is 8 times as long
_LIKE_CSV = re.compile(rb'(\xef\xbb\xbf)?"?[\w .+-]*"?,')
_WEB_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*<(!doctype|!--|html|head|\?xml)", re.IGNORECASE
)
_CONTENTS = {  # what other files begin with, and what to do with them
    b"\x1f\x8b": "a gzipped file: unpack it",
    b"PK": "a zip archive: unpack it, and name the folder",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"\x00\x00\x08": "an IDX file with other axes: give each file its own name",
    b"\x93NUMPY": "a .npy file",
    b"\x89HDF": "an HDF5 file",
    b"PAR1": "a Parquet file",
}


def read_npz(path: Path) -> list[np.ndarray]:
    """Return the training and test images and labels of a Keras-style file."""
    with open(path, "rb") as file:
        try:
            check_archive(file, MOST_BYTES, NAMES)
            return list(read_arrays(file, NAMES).values())
        except Exception as error:  # A damaged file can raise errors of many kinds.
            required = f"must be a .npz file with the arrays {', '.join(NAMES)}"
            raise ValueError(f"{path} {required}; got: {_reason(error)}") from error


def check_archive(
    file: IO[bytes], most: int, names: Iterable[str] | None = None
) -> None:
    """Raise unless a file is a .npz whose arrays, all or `names`, have `most` bytes."""
    start = file.read(512)
    if not zipfile.is_zipfile(file):
        raise EOFError if start[:2] == b"PK" else ValueError(_describe(start))
    with zipfile.ZipFile(file) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
    if not any(name.endswith(".npy") for name in sizes):
        raise ValueError(_describe(start))
    files = sizes if names is None else [f"{name}.npy" for name in names]
    size = sum(sizes.get(file, 0) for file in files)
    if size > most:
        raise ValueError(f"{size:,} bytes, where {most:,} can be read")


def read_idx(path: Path, axes: int) -> np.ndarray:
    """Return the array of one IDX file (format: MNIST's home page)."""
    with _open(path) as file:
        try:
            return _unpack_idx(file, axes, path.stat().st_size)
        except Exception as error:  # A damaged file can raise errors of many kinds.
            required = f"{path} must be an IDX file of bytes with {axes} axes"
            raise ValueError(f"{required}; got: {_reason(error)}") from error


def _unpack_idx(file: IO[bytes], axes: int, packed: int) -> np.ndarray:
    """Return the array of an opened IDX file that takes `packed` bytes on disk."""
    start = file.read(512)
    if start[:4] != bytes((0, 0, 8, axes)):  # The magic number: uint8, axes.
        raise ValueError(_describe(start))
    header = 4 * (1 + axes)
    if len(start) < header:
        raise EOFError
    shape = struct.unpack(f">{axes}I", start[4:header])
    size = math.prod(shape)
    check_unpacked(size, packed)
    if size > MOST_BYTES:
        raise ValueError(f"{size:,} bytes, where {MOST_BYTES:,} can be read")
    file.seek(header)
    content = file.read(size + 1)
    if len(content) < size:
        raise EOFError
    if len(content) > size:
        raise ValueError(f"more than the {size:,} bytes of shape {shape}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def read_csv(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the images and labels of a CSV file, with or without a header."""
    with _open(path) as file:
        try:
            table = _parse_csv(file, path.stat().st_size)
        except Exception as error:  # A damaged file can raise errors of many kinds.
            required = f"{path} must be a CSV file of 785 columns, 0..255, label first"
            raise ValueError(f"{required}; got: {_reason(error)}") from error
    return table[:, 1:].reshape(-1, 28, 28), table[:, 0]


def _parse_csv(file: IO[bytes], packed: int) -> np.ndarray:
    """Return the numbers of an opened CSV file that takes `packed` bytes on disk."""
    start = file.read(512)
    if not _LIKE_CSV.match(start):
        raise ValueError(_describe(start))
    file.seek(0)
    lines = _read_lines(file, _MOST_PACKED * max(packed, 50_000))
    names = [name.strip('" \r\n\ufeff') for name in next(lines, "").split(",")]
    reasons = {
        784: "784 columns: no labels, as in test.csv of Kaggle's digit-recognizer",
        786: "786 columns: leave out the index (pandas: index=False)",
    }
    if len(names) != 785:
        raise ValueError(reasons.get(len(names), f"{len(names)} columns"))
    if names[-1].lower() in ("label", "class"):
        raise ValueError("the label in the last column")
    counted = [str(number) for number in range(785)]  # pandas' header without names
    if re.match(r"[+-]?[\d.]", names[0]) and names != counted:  # There is no header.
        lines = itertools.chain([",".join(names)], lines)
    options = {"delimiter": ",", "quotechar": '"', "comments": None, "ndmin": 2}
    return np.loadtxt(lines, np.uint8, **options)


def _read_lines(file: IO[bytes], most: int) -> Iterator[str]:
    """Yield the lines of a CSV file; ValueError if there is too much of it."""
    total, rows = 0, MOST_BYTES // 785
    for row in itertools.count():
        line = file.readline(_LONGEST_LINE + 1)
        total += len(line)
        if not line:
            return
        if len(line) > _LONGEST_LINE or total > most or row > rows:
            limits = (
                f"{_LONGEST_LINE:,} bytes in a line, {most:,} in all, {rows:,} rows"
            )
            raise ValueError(f"more than {limits}")
        yield line.decode(errors="replace")


def _open(path: Path) -> IO[bytes]:
    """Open a file; what is gzipped, which its name need not tell, is unpacked."""
    with open(path, "rb") as file:
        start = file.read(2)
    return gzip.open(path) if start == b"\x1f\x8b" else open(path, "rb")


def _describe(start: bytes) -> str:
    """Return in words what a file is that begins in an unexpected way."""
    if _WEB_PAGE.match(start):
        return "a web page: download the file itself"
    if _LIKE_CSV.match(start):
        return "a CSV file: name the folder of mnist_train.csv and mnist_test.csv"
    known = (words for magic, words in _CONTENTS.items() if start.startswith(magic))
    return next(known, repr(start[:16]) if start else "an empty file")


def _reason(error: Exception) -> str:
    """Return in words why a file could not be read."""
    if isinstance(error, EOFError):
        return "only the beginning of one (a truncated download): download it again"
    return str(error) or type(error).__name__
