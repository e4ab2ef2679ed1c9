"""Give `load`, the reader of data and `predict` malformed and malicious files.

python tests/programs/fuzz.py                      10,000 files for each of three doors
python tests/programs/fuzz.py load --first 17 --files 1        file number 17, once more

Each file is a small valid one, mutated: truncated, overwritten, or rebuilt around one
absurd part; some pictures are hard to decode. Its door must return something whole, or
refuse the file with the project's own error, in less than a second of processor time
and 200 MB beyond what the process held before. The process that decodes pictures may
take the same. No file may be written, no other program run and nothing unpickled; audit
hooks of Python watch this. Each door is tested in a process of its own, so that a crash
or a file that hangs ends that one alone. Prints a table and what broke, with the number
that repeats it. Runs on Linux.

The mutations know the formats, and that is what a library lacks. atheris, guided by
coverage, tried 122,000 model files in three minutes: 89 % of them were refused for
headers and checksums of the archive. Of the files here 64 % get beyond these.
"""

from __future__ import annotations

import argparse
import bz2
import functools
import gzip
import io
import json
import multiprocessing
import os
import re
import resource
import struct
import sys
import tempfile
import time
import unicodedata  # noqa: F401 - zipfile imports it with the first foreign name.
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from helpers.bombs import BOMBS as HARD_PICTURES  # noqa: E402
from PIL import Image, ImageCms  # noqa: E402, F401 - imported with the first LAB

from digits import decoder  # noqa: E402
from digits.mnist import read_data  # noqa: E402
from digits.mnist_files import IDX_PARTS  # noqa: E402
from digits.pictures import prepare_image, read_image  # noqa: E402
from digits.results import print_table  # noqa: E402
from handwritten_classifier import HandwrittenNumberClassification  # noqa: E402

MOST_SECONDS, MOST_MB = 1.0, 200.0
REPLACING = 2.0  # seconds by the clock, at most, to replace the process that decodes
PATIENCE = 90  # seconds until a file counts as one that hangs
BOMB = 300_000_000  # bytes that a bomb unpacks to
GRAMMAR = re.compile(r"must .*; got", re.DOTALL)  # of all the project's errors
# What reading a file must never do, by the names of Python's audit events.
FORBIDDEN = re.compile(
    r"exec|import|pickle\.|marshal\.|subprocess\.|socket\.|ctypes\.dlopen|shutil\.|"
    r"os\.(exec|fork|kill|link|mkdir|posix_spawn|putenv|remove|rename|rmdir|startfile|"
    r"symlink|system|truncate)"
)

Generator = np.random.Generator
Mutation = Callable[[Generator, bytes], bytes]


def pick(rng: Generator, options):
    """Return one of `options`, as it is."""
    return options[rng.integers(len(options))]


# ------------------------------------------------------------------ Bytes of any format


def truncate(rng: Generator, content: bytes) -> bytes:
    return content[: rng.integers(len(content))]


def flip_bits(rng: Generator, content: bytes) -> bytes:
    damaged = np.frombuffer(content, np.uint8).copy()
    places = rng.integers(len(damaged), size=2 ** rng.integers(8))
    damaged[places] ^= (1 << rng.integers(8, size=len(places))).astype(np.uint8)
    return damaged.tobytes()


def overwrite(rng: Generator, content: bytes) -> bytes:
    start, size = rng.integers(len(content)), 2 ** rng.integers(8)
    value = pick(rng, (b"\0", b"\xff", b"\x7f", rng.bytes(1)))
    return content[:start] + value * size + content[start + size :]


def splice(rng: Generator, content: bytes) -> bytes:
    """Put a part of the file into another place of it."""
    start, place = rng.integers(len(content), size=2)
    part = content[start : start + 2 ** rng.integers(12)]
    return content[:place] + part + content[place + len(part) * rng.integers(2) :]


def insert(rng: Generator, content: bytes) -> bytes:
    place = rng.integers(len(content) + 1)
    return content[:place] + rng.bytes(2 ** rng.integers(12)) + content[place:]


def replace_by_noise(rng: Generator, content: bytes) -> bytes:
    kept = rng.integers(min(64, len(content)))
    return content[:kept] + rng.bytes(rng.integers(4096))


def set_number(rng: Generator, content: bytes) -> bytes:
    """Write an extreme number into one of the places where headers have theirs."""
    place = rng.integers(max(1, min(len(content) - 8, 128)))
    kind = pick(rng, ("<H", ">H", "<I", ">I", "<Q", ">Q"))
    most = 2 ** (8 * struct.calcsize(kind)) - 1
    number = struct.pack(kind, pick(rng, (0, 1, most, most // 2, most // 2 + 1, 28)))
    return content[:place] + number + content[place + len(number) :]


DAMAGES = (truncate, flip_bits, overwrite, splice, insert, replace_by_noise, set_number)


# ------------------------------------------------------------------ Archives of arrays
# A mutation of these changes the list of (name, content) that becomes an archive.


class Evil:
    """An object whose pickle, were it ever loaded, would run a command."""

    def __reduce__(self):
        return os.system, ("touch executed",)


def as_npy(header: str | dict, content: bytes, version=(1, 0)) -> bytes:
    """Return an array's file with a header of which nothing need be true."""
    text = (header if isinstance(header, str) else repr(header)).encode() + b"\n"
    size = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + size + text + content


def describe(descr="<f4", shape=(3,), fortran_order=False) -> dict:
    return {"descr": descr, "fortran_order": fortran_order, "shape": shape}


def array_bytes(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    return stream.getvalue()


@functools.cache
def pack_bomb(method: int) -> tuple[bytes, int, int]:
    """Return an array of many zeros, compressed, with its checksum and size."""
    array = as_npy(describe(shape=(BOMB // 4,)), bytes(BOMB))
    if method == zipfile.ZIP_BZIP2:
        packed = bz2.compress(array, 1)
    else:
        packer = zlib.compressobj(1, wbits=-15)
        packed = packer.compress(array) + packer.flush()
    return packed, zlib.crc32(array), len(array)


SHAPES = (
    (), (0,), (-1,), (1,), (True,), (2**31,), (2**63,), (10**30,), (10**9,) * 2,
    (1,) * 40, (10**6, 0, 10**30), (28, 28), (60_000, 28, 28), (-(2**63),),
    (2**32, 2**32), (1.5,),
)  # fmt: skip
TYPES = (
    "|O", ">f4", "<f8", "<f2", "<c16", "|V0", "<U0", "|S5", "<M8[ns]", "|b1", "<i8",
    "|u1", "<U1000000000", "<f99999999999", "nonsense", "", 3, None, [("a", "<f4")],
    [], "f4," * 999, [("a", [("b", [("c", "<f4", (9,) * 9)])])], ("<f4", (10**9,)),
    [("a", "O")], "<V2000000000",
)  # fmt: skip
HEADERS = (
    "", "{", "[]", "3", "(" * 5000, "{'descr': '<f4'}",
    "__import__('os').system('touch executed')",
    "{'descr': '<f4', 'fortran_order': False, 'shape': (3L,)}", "-" * 9000 + "1",
    " " * 60_000, "{'descr': '<f4', 'fortran_order': 3, 'shape': (3,)}", "\0" * 50,
    "'" + "a" * 9000, "{" * 99,
)  # fmt: skip
NAMES = (
    "../{}", "/tmp/{}", "../" * 50 + "{}", "C:\\{}", "\\\\host\\{}", "{}/", "{}.npy",
    "", " ", "{}" * 999, "é{}", "{}\0.npy", "a/{}", "./{}", "{}.pkl", "CON",
)  # fmt: skip


def change_header(rng: Generator, entries: list) -> None:
    place, (name, content) = pick(rng, list(enumerate(entries)))
    shape, descr = pick(rng, SHAPES), pick(rng, TYPES)
    header = pick(
        rng,
        (
            describe(shape=shape),
            describe(descr),
            describe(descr, shape, True),
            pick(rng, HEADERS),
        ),
    )
    version = pick(rng, ((1, 0), (1, 0), (2, 0), (3, 0), (9, 9), (0, 0)))
    entries[place] = name, as_npy(header, content[128:], version)


def change_array(rng: Generator, entries: list) -> None:
    """Put another array of numbers, or of objects, into one's place."""
    place, (name, content) = pick(rng, list(enumerate(entries)))
    array = np.load(io.BytesIO(content))
    if array.dtype.kind == "U":
        array = np.array(pick(rng, ("", "é" * 99, "[" * 99_999, "9" * 5000, "NaN")))
    elif array.dtype.kind == "f":
        array = array + np.float32(pick(rng, (0, np.nan, np.inf, 1e38, 1e-45)))
    changed = pick(
        rng,
        (
            array,
            array.astype(pick(rng, (">f4", "f8", "c8")))
            if array.dtype.kind == "f"
            else array,
            np.asfortranarray(array),
            np.array([Evil()], dtype=object),
            array[..., np.newaxis],
            np.zeros(pick(rng, (0, 1, 99_999)), np.float32),
            array.ravel()[:-1],
            np.array(pick(rng, (3, -1, 2.5, True, b"1", "1"))),
        ),
    )
    entries[place] = name, array_bytes(changed)


def change_names(rng: Generator, entries: list) -> None:
    place, (name, content) = pick(rng, list(enumerate(entries)))
    renamed = pick(rng, NAMES).replace("{}", name), content
    other = pick(rng, entries)
    choice = rng.integers(6)
    if choice == 0:
        entries[place] = renamed
    elif choice == 1:
        entries.append(renamed)
    elif choice == 2:
        del entries[place]
    elif choice == 3:
        entries.append((name, other[1]))
    elif choice == 4:
        entries[place] = name, other[1]
    else:
        entries.extend((f"{n}", b"") for n in range(2 ** rng.integers(12)))


TEXTS = (
    "", "{", "null", "[]", "3", '"x"', "NaN", "-Infinity", "1e999", "9" * 5000,
    "[" * 100_000, "{}", '{"a":' * 10_000, "[" + "1," * 10_000 + "1]", '"\\ud800"',
    "true", "\0", "[[1]]", "1.0", "2", "0",
)  # fmt: skip
VALUES = (
    None, True, -1, 0, 1.5, 10**18, 10**400, float("nan"), float("inf"), "x" * 10_000,
    "", [], {}, [[]] * 99, "1", 1e308, -0.0, [1, 2, 3], "float64", "object", "f4,f4",
    "constant", {"a": 1},
)  # fmt: skip
ARCHITECTURES = (
    "99999999C28-10N", "1000000000N-10N", "1C1-" * 20_000 + "10N",
    "MP1-" * 20_000 + "10N", "9" * 5000 + "N", "8C4p999999999-10N",
    "1C1p9999999-MP9999999-10N", "10N-" * 9999, "-", "10N" * 999,
    "8C4s" + "9" * 999 + "-10N", "50000N-50000N-10N", "8C0-10N", "MP28-10N", "10n",
    "\N{FULLWIDTH DIGIT EIGHT}C4-10N", "100000000N", "2C5-MP2-10N", "2000C28-2000N-10N",
)  # fmt: skip
MAPS = (
    [28, 28, 10**9], [10**9, 10**9, 1], [0, 0, 0], [28, 28], [-28, 28, 1],
    ["28", 28, 1], [28.0, 28, 1], 28, [1e300] * 3, [2**63] * 3, [True] * 3,
    [28, 28, 1, 1], None, [[28]], [1, 1, 1], [24, 24, 1], [28, 28, 50_000],
)  # fmt: skip


def change_texts(rng: Generator, entries: list) -> None:
    """Change the version, the settings or the history of a model."""
    texts = {name: str(np.load(io.BytesIO(content))) for name, content in entries[:3]}
    name = pick(rng, list(texts))
    content = json.loads(texts[name])
    if isinstance(content, dict) and rng.random() < 0.8:
        giants = ["architecture", "input_shape"] * 5 if name == "settings" else []
        key = pick(rng, [*content, *giants, "unknown"])
        special = {"architecture": ARCHITECTURES, "input_shape": MAPS}.get(key, VALUES)
        content[key] = pick(rng, special)
        text = json.dumps(content)
    else:
        text = pick(rng, TEXTS)
    place = list(texts).index(name)
    entries[place] = name, array_bytes(np.array(text))


def as_archive(entries: list, method: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as file:
        warnings.simplefilter("ignore")  # Several entries of one name are meant.
        for name, content in entries:
            file.writestr(f"{name}.npy", content)
    return stream.getvalue()


# Fields of an entry in an archive's directory: where, what kind, what to write there.
FIELDS = (
    (8, "<H", (1, 8, 32, 64, 0x800, 0xFFFF)),  # flags: encrypted, patched, ...
    (10, "<H", (0, 1, 8, 9, 12, 14, 93, 95, 99)),  # method
    (16, "<I", (0, 1)),  # checksum
    (20, "<I", (0, 1, 1000, 2**31, 2**32 - 1)),  # packed size
    (24, "<I", (0, 1, 1000, 2**31, 2**32 - 1)),  # unpacked size
    (28, "<H", (0, 1, 65_535)),  # length of the name
    (30, "<H", (0, 4, 65_535)),  # length of the extra field
    (42, "<I", (0, 1, 100, 2**31, 2**32 - 1)),  # place of the content
)


def set_fields(content: bytes, number: int, fields) -> bytes:
    """Write (place, kind, value) into one entry of an archive's directory."""
    changed = bytearray(content)
    starts = [found.start() for found in re.finditer(b"PK\x01\x02", content)]
    for place, kind, value in fields:
        struct.pack_into(kind, changed, starts[number] + place, value)
    return bytes(changed)


def lie_in_directory(rng: Generator, entries: list) -> bytes:
    number = rng.integers(len(entries))
    lies = [
        (place, kind, pick(rng, values))
        for place, kind, values in FIELDS
        if rng.random() < 0.2
    ]
    return set_fields(as_archive(entries), number, lies)


def plant_bomb(rng: Generator, entries: list) -> bytes:
    """Make one entry a bomb, which the directory owns up to, or not."""
    method = pick(rng, (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    number = rng.integers(len(entries))
    name, content = entries[number]
    packed, checksum, real = pack_bomb(method)
    entries[number] = name, packed
    size = pick(rng, (real, real, len(content), 0, 2**32 - 2, 9 * len(packed)))
    lies = ((10, "<H", method), (16, "<I", checksum), (24, "<I", size))
    return set_fields(as_archive(entries), number, lies)


def mutate_archive(rng: Generator, content: bytes, changes) -> tuple[str, bytes]:
    """Return what was done to an archive of arrays, and what came of it."""
    if rng.random() < 0.3:
        damage = pick(rng, DAMAGES)
        return damage.__name__, damage(rng, content)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        entries = [(n.removesuffix(".npy"), file.read(n)) for n in file.namelist()]
    change = pick(rng, changes)
    found = change(rng, entries)
    method = pick(rng, (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    return change.__name__, found or as_archive(entries, method)


CHANGES = (change_header, change_array, change_names, lie_in_directory, plant_bomb)


# ------------------------------------------------------------------ IDX files


def as_idx(array: np.ndarray) -> bytes:
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


@functools.cache
def gzip_bomb() -> bytes:
    return gzip.compress(as_idx(np.zeros((1, 1, 1), np.uint8)) + bytes(BOMB), 1)


def change_sizes(rng: Generator, content: bytes) -> bytes:
    sizes = (0, 1, 28, 29, 60_000, 2**31, 2**32 - 1, 65_536)
    for place in range(4, 4 + 4 * content[3], 4):
        if rng.random() < 0.5:
            size = struct.pack(">I", pick(rng, sizes))
            content = content[:place] + size + content[place + 4 :]
    return content


def change_magic(rng: Generator, content: bytes) -> bytes:
    return bytes(pick(rng, ((0, 0, 8, 9), (0, 0, 13, 3), (8, 0, 0, 3)))) + content[4:]


def change_values(rng: Generator, content: bytes) -> bytes:
    return content[:16] + rng.bytes(len(content) - 16)


def mutate_idx(rng: Generator, content: bytes) -> tuple[str, str, bytes]:
    """Return what was done to an IDX file, the ending of its name, and its content."""
    change = pick(rng, (*DAMAGES, change_sizes, change_magic, change_values))
    changed, suffix = change(rng, content), ""
    wrapping = rng.integers(8)
    if wrapping >= 3:
        suffix = ".gz"
    if wrapping == 3:
        changed = gzip.compress(changed)
    elif wrapping == 4:  # Several members, of which most may be empty.
        parts = [changed[n : n + 999] for n in range(0, len(changed), 999)]
        parts += [b""] * 2 ** rng.integers(14)
        changed = b"".join(map(gzip.compress, parts))
    elif wrapping == 5:
        changed = pick(rng, DAMAGES)(rng, gzip.compress(content))
    elif wrapping == 6:
        size = pick(rng, ((1, 1, 1), (BOMB // 784, 28, 28), (2**32 - 1,) * 3))
        start = struct.pack(">4B3I", 0, 0, 8, 3, *size)
        changed = gzip.compress(start) + gzip_bomb()
    return f"{change.__name__}{suffix} {wrapping}", suffix, changed


# ------------------------------------------------------------------ Pictures


def drawing(mode: str, size=(60, 50)) -> Image.Image:
    """Return a stroke on paper, as a picture of any of Pillow's modes."""
    grey = np.full(size[::-1], 230, np.uint8)
    grey[size[1] // 5 : -size[1] // 5 or None, size[0] // 2 : size[0] // 2 + 6] = 20
    if mode.startswith("I;16"):
        return Image.fromarray(grey.astype((mode[4:] == "B" and ">u2") or "<u2") * 257)
    image = Image.fromarray(grey)
    if mode == "LAB":
        return Image.merge("LAB", [image] * 3)
    return image.convert("RGBA").convert(mode) if mode == "PA" else image.convert(mode)


def as_file(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


ORIENTATION = Image.Exif()
ORIENTATION[0x0112] = 6
VARIANTS = (
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("PNG", "P", {"transparency": 0}),
    ("PNG", "RGB", {"transparency": (20, 20, 20), "exif": ORIENTATION}),
    ("PNG", "L", {"transparency": 20}),
    *(("JPEG", mode, {"quality": 75}) for mode in ("L", "RGB", "CMYK", "YCbCr")),
    ("JPEG", "RGB", {"progressive": True, "exif": ORIENTATION}),
    ("MPO", "RGB", {"save_all": True, "append_images": [drawing("RGB")]}),
    *(("GIF", mode, {}) for mode in ("1", "L", "P", "RGBA")),
    ("GIF", "P", {"save_all": True, "append_images": [drawing("P", (30, 90))]}),
    *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "LA", "P", "PA", "RGB", "RGBA")),
    *(
        ("TIFF", mode, {})
        for mode in ("I;16", "I;16B", "I", "F", "CMYK", "YCbCr", "LAB")
    ),
    *(
        ("TIFF", "RGB", {"compression": f"tiff_{name}"})
        for name in ("lzw", "adobe_deflate", "jpeg", "deflate")
    ),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "RGB", {"compression": "packbits", "exif": ORIENTATION}),
    ("TIFF", "L", {"save_all": True, "append_images": [drawing("L")]}),
    ("WEBP", "RGB", {"exif": ORIENTATION}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGB", {"save_all": True, "append_images": [drawing("L")]}),
    *((kind, "RGB", {}) for kind in ("PPM", "ICO", "EPS", "PDF", "TGA", "PCX", "SGI")),
    *((kind, "RGB", {}) for kind in ("JPEG2000", "ICNS", "DDS")),
)
SCRIPTS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(executed) (w) file closefile\n",
    b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    b"push graphic-context\nimage over 0,0 0,0 'ephemeral:executed'\n",
    b"#!/bin/sh\ntouch executed\n",
    b"P3 1 1 255 1 1 1",
)


def change_png_chunk(rng: Generator, content: bytes) -> bytes:
    """Change a chunk's content or size, and make its checksum right again."""
    if not content.startswith(b"\x89PNG"):
        return set_number(rng, content)
    chunks, place = [], 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4], "big")
        chunks.append((content[place + 4 : place + 8], content[place + 8 :][:size]))
        place += 12 + size
    choice = rng.integers(len(chunks))
    kind, inside = chunks[choice]
    text = zlib.compress(bytes(BOMB // 10), 1)
    extra = (
        (b"zTXt", b"k\0\0" + text),
        (b"iCCP", b"k\0\0" + text),
        (b"eXIf", rng.bytes(99)),
        (b"tRNS", rng.bytes(3)),
        (b"PLTE", rng.bytes(3000)),
        (b"acTL", rng.bytes(8)),
        (kind, inside),
    )
    if inside and rng.random() < 0.6:
        chunks[choice] = kind, pick(rng, DAMAGES)(rng, inside)
    else:
        chunks.insert(choice, pick(rng, extra))
    return content[:8] + b"".join(
        struct.pack(">I", len(inside))
        + kind
        + inside
        + struct.pack(">I", zlib.crc32(kind + inside))
        for kind, inside in chunks
    )


def damage_exif(rng: Generator, _: bytes) -> bytes:
    """Write a picture whose EXIF part is damaged."""
    exif = pick(rng, DAMAGES)(rng, ORIENTATION.tobytes())
    kind = pick(rng, ("JPEG", "PNG", "WEBP"))
    return as_file(drawing("RGB"), kind, exif=exif)


def write_script(rng: Generator, _: bytes) -> bytes:
    return pick(rng, SCRIPTS)


def change_tiff_tag(rng: Generator, content: bytes) -> bytes:
    """Change the kind, the count or the value of one tag."""
    if content[:4] != b"II*\0":
        return set_number(rng, content)
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    place = start + 2 + 12 * rng.integers(count)
    offset, kind = pick(rng, ((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I"), (8, "<H")))
    most = 2 ** (8 * struct.calcsize(kind)) - 1
    value = pick(rng, (0, 1, 2, 5, 12, 257, 322, 50_000, most // 2, most))
    changed = bytearray(content)
    struct.pack_into(kind, changed, place + offset, min(value, most))
    return bytes(changed)


@functools.cache
def draw_giant(kind: str, mode: str, width: int, height: int, options=()) -> bytes:
    """Return a picture that is whole, and large."""
    limit = os.environ.pop("JPEGMEM", None)  # The program's, obeyed in writing, too.
    image = Image.new(mode, (width, height))
    image.paste(
        "gray" if mode == "RGBA" else 200,
        (width // 3, height // 3, width // 2, height // 2),
    )
    if kind == "JPEG":  # Noise: what costs most to decode.
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3))
        image = Image.fromarray(noise.astype(np.uint8)).resize((width, height))
    content = as_file(image, kind, **dict(options))
    if limit:
        os.environ["JPEGMEM"] = limit
    return content


GIANTS = (
    ("PNG", "1", 16_000, 16_000),
    ("PNG", "L", 13_000, 13_000),
    ("PNG", "P", 3500, 3500),
    ("PNG", "RGBA", 3500, 3500),
    ("PNG", "I;16", 3500, 3500),
    ("PNG", "L", 1, 1_000_000),
    ("PNG", "L", 1_000_000, 1),
    ("GIF", "P", 3500, 3500),
    ("GIF", "P", 60_000, 60_000 // 50),
    ("BMP", "RGB", 3500, 3500),
    ("BMP", "1", 20_000, 20_000),
    ("TIFF", "F", 3500, 3500, (("compression", "tiff_lzw"),)),
    ("TIFF", "CMYK", 3500, 3500, (("compression", "tiff_adobe_deflate"),)),
    ("TIFF", "RGB", 3500, 3500, (("compression", "jpeg"),)),
    ("TIFF", "1", 16_000, 16_000, (("compression", "group4"),)),
    ("WEBP", "RGB", 2800, 2800),
    ("WEBP", "RGBA", 2800, 2800, (("lossless", True), ("method", 0))),
    ("WEBP", "RGB", 8000, 8000, (("method", 0),)),
    ("JPEG", "RGB", 8660, 5773),
    ("JPEG", "RGB", 5773, 2886, (("progressive", True),)),
    ("JPEG", "RGB", 8660, 5773, (("progressive", True),)),
)


def draw_hard_picture(rng: Generator) -> tuple[str, bytes]:
    """Return a picture that makes its decoder work, more or less."""
    draw = pick(rng, HARD_PICTURES)
    size = int(draw.__defaults__[0] * rng.random() ** 2) + 1
    return f"{draw.__name__} {size}", draw(size)


def mutate_picture(
    rng: Generator, giants: float, hard: float = 0.0
) -> tuple[str, bytes]:
    """Return what was done to which kind of picture, and what came of it."""
    if rng.random() < hard:
        return draw_hard_picture(rng)
    if rng.random() < giants:
        giant = pick(rng, GIANTS)
        content = draw_giant(*giant)
        if rng.random() < 0.5:
            content = truncate(rng, content)
        return f"giant {giant}", content
    kind, mode, options = pick(rng, VARIANTS)
    content = as_file(drawing(mode), kind, **options)
    special = (change_png_chunk, change_tiff_tag, damage_exif, write_script)
    change = pick(rng, (*DAMAGES, *special[:2], *special))
    return f"{change.__name__} {kind} {mode} {[*options]}", change(rng, content)


# ------------------------------------------------------------------ Doors
# Each writes the file of one number into an empty folder, and reads it.


class Load:
    """`HandwrittenNumberClassification.load`, given models and checkpoints."""

    mixed = 0.1  # share of the files that are made of two

    def __init__(self) -> None:
        self.models = []
        self.images, self.labels = np.full((9, 28, 28), 99, np.uint8), np.arange(9) % 3
        for architecture in ("2C5-MP2-10N", "10N", "1C3-2C3s2p1-8N-3N"):
            for steps in (0, 2):
                model = HandwrittenNumberClassification(
                    architecture, averaging=0.9, batch_size=3, verbose=0
                )
                if steps:
                    self.interrupt(model, steps)
                with tempfile.TemporaryDirectory() as folder:
                    model.save(Path(folder, "model"))
                    self.models.append(Path(folder, "model").read_bytes())

    def interrupt(self, model: HandwrittenNumberClassification, steps: int) -> None:
        """Leave a training in the middle of its first epoch."""

        def stop(model: HandwrittenNumberClassification, step: int, _: float) -> None:
            if step == steps:
                raise KeyboardInterrupt

        with suppress(KeyboardInterrupt):
            model.fit(self.images, self.labels, callback=stop)

    def write(self, rng: Generator, folder: Path) -> tuple[str, Path]:
        if rng.random() < self.mixed:
            done, content = self.mix(rng)
        else:
            changes = (*CHANGES, change_texts, change_texts, change_texts)
            done, content = mutate_archive(rng, pick(rng, self.models), changes)
        (folder / "model.npz").write_bytes(content)
        return done, folder / "model.npz"

    def mix(self, rng: Generator) -> tuple[str, bytes]:
        """Make a file whose parts come from two models or checkpoints."""
        numbers = rng.integers(len(self.models), size=2)
        two = [dict(np.load(io.BytesIO(self.models[n]))) for n in numbers]
        names = sorted(two[0].keys() | two[1].keys())
        parts = {n: pick(rng, [one[n] for one in two if n in one]) for n in names}
        stream = io.BytesIO()
        np.savez(stream, **parts)
        return f"parts of models {numbers}", stream.getvalue()

    def read(self, path: Path) -> bool:
        model = HandwrittenNumberClassification.load(path)
        finite = all(np.isfinite(array).all() for array in model.parameters.values())
        if tuple(model.input_shape) == (28, 28, 1) and len(model.B_dense) >= 3:
            with suppress(FloatingPointError):  # Weights may be huge.
                model.fit(self.images, self.labels, verbose=0, epochs=1)  # It goes on.
        return finite and isinstance(repr(model), str)


class Data:
    """`read_data`, given archives in Keras's manner and folders of IDX files."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        names = ("x_train", "y_train", "x_test", "y_test")
        self.arrays = [
            array
            for count in (20, 5)
            for array in (
                rng.integers(256, size=(count, 28, 28), dtype=np.uint8),
                rng.integers(10, size=count, dtype=np.uint8),
            )
        ]
        stream = io.BytesIO()
        np.savez(stream, **dict(zip(names, self.arrays, strict=True)))
        self.archive = stream.getvalue()

    def write(self, rng: Generator, folder: Path) -> tuple[str, Path]:
        if rng.random() < 0.5:
            done, content = mutate_archive(rng, self.archive, CHANGES)
            (folder / "mnist.npz").write_bytes(content)
            return done, folder / "mnist.npz"
        chosen = rng.integers(4)
        for number, (pattern, _) in enumerate(IDX_PARTS):
            name, content = (
                pattern.strip("*").replace("?", "-"),
                as_idx(self.arrays[number]),
            )
            if number == chosen:
                done, suffix, content = mutate_idx(rng, content)
                name += suffix
            (folder / name).write_bytes(content)
        return f"{done} of {name}", folder

    def read(self, path: Path) -> bool:
        data = read_data(path)
        return all(
            images.dtype == np.uint8
            and images.shape == (len(labels), 28, 28)
            and set(labels.tolist()) <= set(range(10))
            for images, labels in (data[2:4], data[4:])
        )


class Predict:
    """`read_image`, and all that comes behind it, given pictures."""

    giants = 0.02  # share of the files; to draw each kind once takes a while
    hard = 0.01  # share of the files; to decode one takes up to a second

    def __init__(self) -> None:
        self.model = HandwrittenNumberClassification("10N")

    def write(self, rng: Generator, folder: Path) -> tuple[str, Path]:
        done, content = mutate_picture(rng, self.giants, self.hard)
        (folder / "picture.png").write_bytes(content)
        return done, folder / "picture.png"

    def read(self, path: Path) -> bool:
        prepared = prepare_image(read_image(str(path)))
        probabilities = self.model.predict_proba(prepared)
        return probabilities.shape == (1, 10) and abs(probabilities.sum() - 1) < 1e-5


DOORS = {"load": Load, "data": Data, "predict": Predict}


# ------------------------------------------------------------------ Trial


class Result(NamedTuple):
    """What came of one file: "loaded", "refused", or what broke."""

    number: int
    done: str
    outcome: str
    seconds: float
    megabytes: float


class Watch:
    """Notes what is done that reading a file must never do."""

    def __init__(self) -> None:
        self.seen: list[str] | None = None
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple) -> None:
        if self.seen is None or replaces_decoder(event, arguments):
            return
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT
        opened = (
            event == "open" and isinstance(arguments[2], int) and arguments[2] & writes
        )
        if opened or FORBIDDEN.match(event):
            self.seen.append(f"{event} {arguments[:2]}"[:200])


def replaces_decoder(event: str, arguments: tuple) -> bool:
    """Return whether the process that decodes pictures is ended, or started again."""
    if event == "os.kill":
        return str(arguments[0]) in find_children()
    if event == "open":
        return arguments[0] == os.devnull or isinstance(arguments[0], int)  # Its pipes.
    return event == "subprocess.Popen" and decoder.__file__ in arguments[1]


def find_children() -> list[str]:
    """Return the processes that this one has started."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        with suppress(OSError):  # The thread may have ended.
            found += path.read_text().split()
    return found


def peak_memory() -> dict[str, float]:
    """Return the most memory that this process and its children have held, in MB."""
    peaks = {}
    for process in ["self", *find_children()]:
        with suppress(OSError):  # It may have ended.
            status = Path(f"/proc/{process}/status").read_text()
            if found := re.search(r"VmHWM:\s+(\d+)", status):
                peaks[process] = int(found[1]) / 1024
    return peaks


def forget_peaks() -> None:
    """Begin the peaks of memory anew."""
    for process in peak_memory():
        Path(f"/proc/{process}/clear_refs").write_text("5")


def try_file(door, name: str, number: int, seed: int, watch: Watch) -> Result:
    """Write the file of one number, read it, and return what came of it."""
    rng = np.random.default_rng((seed, list(DOORS).index(name), number))
    with tempfile.TemporaryDirectory() as folder:
        done, path = door.write(rng, Path(folder))
        before = sorted(Path(folder).rglob("*"))
        forget_peaks()
        memory, start, began = peak_memory(), time.process_time(), time.monotonic()
        watch.seen = []
        try:
            outcome = "loaded" if door.read(path) else "broken: loaded, and not whole"
        except (OSError, ValueError) as error:
            own = GRAMMAR.search(str(error)) or getattr(error, "errno", None)
            outcome = "refused" if own else f"broken: {error!r}"
        except BaseException as error:
            outcome = f"broken: {error!r}"
        seen, watch.seen = watch.seen, None
        seconds, waited = time.process_time() - start, time.monotonic() - began
        peaks = peak_memory()
        megabytes = max(peaks[key] - memory[key] for key in peaks.keys() & memory)
        if seen or sorted(Path(folder).rglob("*")) != before:
            outcome = f"broken: it did {seen or 'write a file'}"
    if waited > decoder.SECONDS + MOST_SECONDS + REPLACING:
        outcome = f"broken: {waited:.2f} s by the clock; {outcome}"
    if seconds > MOST_SECONDS or megabytes > MOST_MB:
        outcome = f"broken: {seconds:.2f} s, {megabytes:.0f} MB; {outcome}"
    return Result(number, done, outcome[:400], seconds, megabytes)


def try_files(name: str, numbers: range, seed: int, connection) -> None:
    """Send the results of one door's files; the whole life of a process."""
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))  # Hurt nobody else.
    warnings.simplefilter("error")
    door, watch = DOORS[name](), Watch()
    warm_up(door)
    for number in numbers:
        connection.send(try_file(door, name, number, seed, watch))


def warm_up(door) -> None:
    """Read some files, so that all that is imported once has been imported."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        with tempfile.TemporaryDirectory() as folder:
            try:
                door.read(door.write(rng, Path(folder))[1])
            except Exception:
                continue


def run_door(name: str, numbers: range, seed: int) -> Iterator[Result]:
    """Yield the results of one door's files, whatever they do to the process."""
    context = multiprocessing.get_context("spawn")
    while numbers:
        receiver, sender = context.Pipe(duplex=False)
        arguments = (name, numbers, seed, sender)
        process = context.Process(target=try_files, args=arguments, daemon=True)
        process.start()
        sender.close()
        try:
            while numbers and wait_for(receiver, process):
                yield receiver.recv()
                numbers = numbers[1:]
        except EOFError:
            pass
        if numbers:
            process.kill()
            process.join()
            what = f"broken: the process hung or ended ({process.exitcode})"
            yield Result(numbers[0], "?", what, PATIENCE, 0)
            numbers = numbers[1:]
        process.join()


def wait_for(receiver, process) -> bool:
    """Wait for a result; return False where none can come any more."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not receiver.poll(0.1):
        if not process.is_alive():
            break
    return receiver.poll()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("doors", nargs="*", metavar="DOOR", help=", ".join(DOORS))
    parser.add_argument("--files", type=int, default=10_000, help="for each door")
    parser.add_argument("--first", type=int, default=0, help="number of the first file")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for name in set(args.doors) - DOORS.keys():
        parser.error(f"DOOR must be among {', '.join(DOORS)}; got {name}")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # One processor's seconds are counted.
    # Memory that is free goes back at once, and is not held against the next file.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = os.environ["MALLOC_TRIM_THRESHOLD_"] = (
        "65536"
    )
    rows = [("door", "files", "loaded", "refused", "broken", "worst s", "worst MB")]
    for name in args.doors or DOORS:
        counts, seconds, megabytes = Counter(), 0.0, 0.0
        for result in run_door(
            name, range(args.first, args.first + args.files), args.seed
        ):
            counts[result.outcome.partition(":")[0]] += 1
            seconds = max(seconds, result.seconds)
            megabytes = max(megabytes, result.megabytes)
            if result.outcome.startswith("broken") or args.files == 1:
                again = f"{name} --first {result.number} --files 1 --seed {args.seed}"
                print(f"{again}: {result.done}: {result.outcome}", flush=True)
        outcomes = [f"{counts[key]:,}" for key in ("loaded", "refused", "broken")]
        worst = (f"{seconds:.2f}", f"{megabytes:.0f}")
        rows.append((name, f"{counts.total():,}", *outcomes, *worst))
    print_table(rows)
    return 1 if any(row[4] != "0" for row in rows[1:]) else 0


if __name__ == "__main__":
    sys.exit(main())
