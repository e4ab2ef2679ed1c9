"""Decode the picture files of strangers in a second process, within limits.

No check of a header tells how long a file takes to decode, or how much memory. The
second process is killed and replaced when it exceeds its limits; until then it stays,
so that only the first picture waits for its start. It runs this file, and speaks
through pipes: a pool (`multiprocessing`, pebble) imports the user's script again,
which then needs a ``__main__`` guard, or forks beside threads, which may hang.

A request is the size of a file, and the file. An answer is the size of a JSON text, the
text, and the pixels that it describes, if any.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mmap

    import numpy as np
    from PIL import Image
    from PIL.ImageFile import ImageFile

    Buffer = bytes | bytearray | mmap.mmap

SECONDS = 1.0  # to decode a picture, from when the file has arrived in the process
MEGABYTES = 200  # that a picture may take there, where the system can limit memory
# Formats that are read, with the largest size of each in millions of pixels: what is
# usually decoded within these limits. A JPEG file may hold more pixels, because it is
# scaled down while it is decoded.
FORMATS = {"BMP": 12.5, "GIF": 12.5, "JPEG": 12.5, "PNG": 12.5, "TIFF": 12.5, "WEBP": 8}
FINEST_PICTURE = 2000  # pixels on the longer side; a digit needs only 20 of them
REQUIRED_PICTURE = f"image must be a whole picture ({', '.join(FORMATS)})"

VARIABLES = {  # of the second process's environment
    "JPEGMEM": "100M",  # bytes, for progressive files, which are decoded at full size
    "MALLOC_MMAP_THRESHOLD_": "131072",  # Pictures are returned to the system.
}
_SIZE = 8  # bytes of a size
_PATIENCE = 30  # seconds for the process to start, or to receive a file
_MODES = {  # of Pillow: the type of a level, and the channels
    "L": ("uint8", ()),
    "RGB": ("uint8", (3,)),
    "RGBA": ("uint8", (4,)),
    "I": ("int32", ()),
    "F": ("float32", ()),
}

# ---------------------------------------------------------------------- This process


def decode_picture(content: Buffer) -> np.ndarray:
    """Decode a picture file in the second process.

    Parameters
    ----------
    content : bytes, or another buffer of them
        Of a file in one of the `FORMATS`.

    Returns
    -------
    uint8 array of shape (H, W), (H, W, 3) or (H, W, 4)
        Upright, at most `FINEST_PICTURE` pixels long.

    Raises
    ------
    ValueError
        If the file is no whole picture, or exceeds a limit.
    """
    import numpy as np

    report, pixels = _DECODER.ask(content)
    if "limit" in report:
        required = (
            f"{REQUIRED_PICTURE} that decodes in {SECONDS:g} s and {MEGABYTES} MB"
        )
        raise ValueError(f"{required}; got one that {report['limit']}")
    if "error" in report:
        raise ValueError(f"{REQUIRED_PICTURE}; got: {report['error']}")
    levels = np.frombuffer(pixels, report["type"]).reshape(report["shape"])
    return levels if levels.dtype == np.uint8 else _scale_levels(levels)


def stop_decoding() -> None:
    """End the second process at once; what another thread decodes is refused.

    The next picture starts it again.
    """
    _DECODER.close()


def _scale_levels(levels: np.ndarray) -> np.ndarray:
    """Convert levels of more than 8 bits to uint8.

    White is 65535 for integers. For floats it is 1, 255 or 65535, the first that no
    level exceeds.
    """
    import numpy as np

    if not np.isfinite(levels).all():
        raise ValueError(f"{REQUIRED_PICTURE}; got: levels that are nan or infinite")
    white = 65535
    if levels.dtype.kind == "f":
        white = next((w for w in (1, 255) if levels.max() <= w), white)
    return np.rint(np.clip(levels, 0, white) * (255 / white)).astype(np.uint8)


class Decoder:
    """The second process, which is started at the first picture.

    Threads use it in turn. It ends when this process ends, in whatever way.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._is_ready = False

    def ask(self, content: Buffer) -> tuple[dict[str, Any], bytearray]:
        """Return what the second process reports of a file, and the pixels.

        The report has ``error`` if the file cannot be read, ``limit`` if it exceeds a
        limit, or else the ``type`` and ``shape`` of the pixels.
        """
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self.close()
                self._start()
            process = self._process
            try:
                if not self._is_ready:
                    self._wait_until_ready(process)
                report, pixels = _exchange(process, content)
            except BaseException:  # Such as Ctrl-C: the answer is still to come.
                self.close()
                raise
            # If another thread has ended it, nothing more is to be decoded for now.
            if "limit" in report and self._process is process:
                self.close()
                self._start()  # Now, so that the next picture need not wait for it.
            return report, pixels

    def close(self) -> None:
        """End the second process, whatever it is doing."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()

    def forget(self) -> None:
        """Leave the second process to the one that this one is a fork of."""
        process, self._process = self._process, None
        self._lock = threading.Lock()
        if process:
            process.returncode = 0  # It is not ours to wait for.
            process.stdin.close()
            process.stdout.close()

    def _start(self) -> None:
        """Start the second process, without waiting until it is ready."""
        import PIL  # noqa: F401  # Where it is missing, the error says so.

        paths = os.pathsep.join(str(path) for path in sys.path if path)
        self._is_ready = False
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__],
            env=os.environ | VARIABLES | {"PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
        )

    def _wait_until_ready(self, process: subprocess.Popen) -> None:
        """Wait for the first words of the second process."""
        try:
            with _killed_after(process, _PATIENCE):
                _receive(process.stdout)
        except EOFError:
            got = f"exit status {process.wait()}"
            raise ChildProcessError(f"{__file__} must start; got {got}") from None
        self._is_ready = True


def _exchange(
    process: subprocess.Popen, content: Buffer
) -> tuple[dict[str, Any], bytearray]:
    """Send a file, and return the answer; past the limit of time there is none."""
    answer = {"limit": "ends the decoder"}, bytearray()
    began = time.monotonic()
    with suppress(EOFError, OSError):
        with _killed_after(process, _PATIENCE):
            _send(process.stdin, content)
        began = time.monotonic()
        with _killed_after(process, SECONDS):
            report = json.loads(_receive(process.stdout))
            pixels = _receive(process.stdout) if "shape" in report else bytearray()
            answer = report, pixels
    if time.monotonic() - began >= SECONDS:  # It may be killed at the last moment.
        return {"limit": f"takes more than {SECONDS:g} s"}, bytearray()
    return answer


@contextmanager
def _killed_after(process: subprocess.Popen, seconds: float) -> Iterator[None]:
    """Kill a process if what is done meanwhile takes longer than so many seconds."""
    timer = threading.Timer(seconds, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def _send(stream: IO[bytes], content: Buffer) -> None:
    """Write the size of some content, and the content."""
    for part in (len(content).to_bytes(_SIZE, "big"), content):
        view = memoryview(part)
        while view:
            view = view[stream.write(view) :]


def _receive(stream: IO[bytes]) -> bytearray:
    """Read what `_send` has written; raise EOFError if it ends before."""
    content = bytearray(_SIZE)
    for is_size in (True, False):
        view = memoryview(content)
        while view:
            count = stream.readinto(view)
            if not count:
                raise EOFError
            view = view[count:]
        if is_size:
            content = bytearray(int.from_bytes(content, "big"))
    return content


_DECODER = Decoder()
atexit.register(stop_decoding)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_DECODER.forget)

# ---------------------------------------------------------------------- Second process


def main() -> None:
    """Decode one file after the other, until the first process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the first process.
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _warm_up()
    _limit_memory()
    _send(answers, b"ready")
    answers.flush()
    while size := requests.read(_SIZE):
        content = requests.read(int.from_bytes(size, "big"))
        with _ended_after(SECONDS):
            report, pixels = _try_to_decode(content)
        del content
        _send(answers, json.dumps(report).encode())
        if "shape" in report:
            _send(answers, pixels)
        answers.flush()


def _warm_up() -> None:
    """Decode a picture of each format, which loads the libraries that do so."""
    from PIL import Image

    for kind in FORMATS:
        with suppress(KeyError, OSError):  # The library for it may be missing.
            stream = io.BytesIO()
            Image.new("RGB", (1, 1)).save(stream, kind)
            _try_to_decode(stream.getvalue())


def _limit_memory() -> None:
    """Limit the address space to what is used, and MEGABYTES beyond it."""
    with suppress(ImportError, OSError, ValueError):  # Not every system has all this.
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + MEGABYTES * 1_000_000
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_AS, (most, hard))


@contextmanager
def _ended_after(seconds: float) -> Iterator[None]:
    """End this process if it works for longer, though the first one was killed."""
    if not hasattr(signal, "alarm"):
        yield
        return
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(math.ceil(seconds) + 1)
    yield
    signal.alarm(0)


def _try_to_decode(content: Buffer) -> tuple[dict[str, Any], bytes]:
    """Return the report of a file, and the pixels, as `Decoder.ask` does."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content), formats=list(FORMATS)) as picture:
            image = _decode(picture)
        kind, channels = _MODES[image.mode]
        report = {"type": kind, "shape": (image.height, image.width, *channels)}
        return report, image.tobytes()
    except UnidentifiedImageError:
        return {"error": "cannot identify image file"}, b""
    except Exception as error:  # A damaged file can raise errors of many kinds.
        text = str(error) or type(error).__name__
        # Pillow numbers what its decoders lack: -9 is memory.
        if isinstance(error, MemoryError) or re.search("error -9|of memory", text):
            return {"limit": f"takes more than {MEGABYTES} MB"}, b""
        return {"error": text}, b""


def _decode(picture: ImageFile) -> Image.Image:
    """Decode a picture that Pillow has opened; anything wrong raises some error."""
    from PIL import ImageOps

    size = "x".join(map(str, picture.size))
    # Only JPEG is decoded smaller here, to 1/2, 1/4 or 1/8, but no side below this.
    picture.draft(None, (FINEST_PICTURE // 2,) * 2)
    most = FORMATS.get(picture.format, FORMATS["JPEG"])  # A phone's JPEG may be an MPO.
    if math.prod(picture.size) > 1e6 * most:
        got = f"{size} pixels in {picture.format}"
        raise ValueError(f"{got}, where {most:g} million can be decoded")
    ImageOps.exif_transpose(picture, in_place=True)
    image = picture.convert(_find_mode(picture))
    return image.reduce(math.ceil(max(image.size) / FINEST_PICTURE))


def _find_mode(picture: ImageFile) -> str:
    """Return the mode of Pillow to decode a picture in, one of `_MODES`."""
    if picture.mode[0] in "IF":  # More than 256 levels.
        return picture.mode[0]
    if picture.getbands()[-1] == "A" or "transparency" in picture.info:
        return "RGBA"
    return "L" if picture.mode in ("1", "L") else "RGB"


if __name__ == "__main__":
    main()
