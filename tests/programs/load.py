"""Put the project under load: its server, a file of many images, many models.

python tests/programs/load.py            all four, in turn
python tests/programs/load.py server     10,000 requests of 16 clients, some malformed
python tests/programs/load.py training   10,000 requests beside a training on the page
python tests/programs/load.py memmap     1,000,000 images in a mapped file
python tests/programs/load.py models     1,000 models built, trained a step, thrown away

Prints a table; the exit status is 1 if a requirement is not met. Memory is what a
process holds besides mapped files (RssAnon; runs on Linux): at the start, and its peaks
in the first tenth of the load and in the rest.

A load generator such as locust would replace the pool of clients, which is three lines.
Malformed bytes, the check of each answer, and the server's memory and threads would
remain to be written.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from helpers.memory import anonymous_memory, watch_memory  # noqa: E402
from helpers.page import serving  # noqa: E402

import run  # noqa: E402
from digits.mnist import DIGITS, read_data  # noqa: E402
from digits.page.server import LARGEST_PICTURE, as_png  # noqa: E402
from digits.pictures import prepare_image, read_image  # noqa: E402
from digits.results import print_table  # noqa: E402
from handwritten_classifier import HandwrittenNumberClassification  # noqa: E402

CLIENTS = 16
GROWTH = 5  # MB that the later peak may lie above the first: allocators are not exact
ANSWER = 20e-6  # MB that a label may take: 8 bytes, twice while they are put together
FILLED = 1000  # steps after which a training keeps as much as it ever does
KEPT = 25  # MB that its peak may rise: what it keeps of old steps holds up the heap
ENDS_WITHIN = 5  # seconds from Ctrl-C to the end of the server


class Result(NamedTuple):
    """What came of a load: counts, MB, threads that were not there before, seconds."""

    load: str
    count: int
    right: int  # answers
    refused: int  # of malformed requests, as they must be
    start: float
    first_peak: float
    later_peak: float
    threads: int
    seconds: float
    growth: float = GROWTH  # allowed
    faults: str = ""  # in words, where there are others

    @property
    def met(self) -> bool:
        """Whether all is as it must be."""
        complete = self.right + self.refused == self.count
        flat = self.later_peak <= self.first_peak + self.growth
        return complete and flat and self.threads <= 0 and not self.faults


def put_under_load(
    load: str,
    count: int,
    work: Callable[[range], tuple[int, int]],
    process: int | str = "self",
) -> Result:
    """Have the first tenth of `count` parts worked on, then the rest; watch a process.

    `work` returns how many of a range were answered right, and how many refused.
    """
    threads, start, began = (
        count_threads(process),
        anonymous_memory(process),
        time.perf_counter(),
    )
    totals, peaks = np.zeros(2, int), []
    for part in (range(count // 10), range(count // 10, count)):
        with watched_memory(process) as peak:
            totals += work(part)
        peaks.append(peak())
    seconds = time.perf_counter() - began
    threads = count_threads_left(process, threads)
    return Result(load, count, *totals.tolist(), start, *peaks, threads, seconds)


@contextmanager
def watched_memory(process: int | str) -> Iterator[Callable[[], float]]:
    """Watch a process meanwhile; what is yielded returns its peak afterwards."""
    stop = threading.Event()
    with ThreadPoolExecutor(1) as threads:
        peak = threads.submit(watch_memory, stop, process)
        try:
            yield peak.result
        finally:
            stop.set()


def count_threads_left(process: int | str, before: int) -> int:
    """Return how many threads more than before there are once all have had their time.

    The last answers may have come a moment before the threads that sent them ended.
    """
    patience = time.monotonic() + ENDS_WITHIN
    while (left := count_threads(process) - before) > 0:
        if time.monotonic() > patience:
            break
        time.sleep(0.05)
    return left


def count_threads(process: int | str) -> int:
    """Return the number of threads of a process."""
    return len(os.listdir(f"/proc/{process}/task"))


# ------------------------------------------------------------------------ Server


class Request(NamedTuple):
    """Bytes for the server, how they are sent, and what must be answered."""

    content: bytes
    expected: np.ndarray | None = None  # None: it must be refused
    pieces: int = 1
    pause: float = 0.0  # seconds after each piece
    leaves: bool = False  # without waiting for an answer


def load_server(count: int = 10_000) -> Result:
    """Ask the program, in a process of its own, and end it by Ctrl-C."""
    digits = read_data(DIGITS)
    model = HandwrittenNumberClassification(lr=0.1)
    model.partial_fit(digits.train_images, digits.train_labels)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        model.save(path)
        with serving(path) as (server, address):
            requests = list(plan_requests(model, digits.test_images, address, count))

            def work(part: range) -> tuple[int, int]:
                asked = [requests[index] for index in part]
                with ThreadPoolExecutor(CLIENTS) as clients:
                    met = list(clients.map(lambda r: is_met(address, r), asked))
                refusals = [request.expected is None for request in asked]
                return (
                    sum(m and not r for m, r in zip(met, refusals, strict=True)),
                    sum(m and r for m, r in zip(met, refusals, strict=True)),
                )

            result = put_under_load("server", count, work, server.pid)
            return result._replace(faults=end_server(server, address))


def load_training(count: int = 10_000) -> Result:
    """Ask for the numbers of a training while it runs, and of all that it has left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        HandwrittenNumberClassification().save(path)
        with serving(path) as (server, address):
            page = ask(address, "/").decode()
            token = re.search('name="token" content="(.*?)"', page)[1]
            setup = {"architecture": "8C5-MP3-16C5-10N", "epochs": 200, "batch_size": 4}
            ask(address, "/train", {"do": "start", "setups": [setup]}, token)
            ask(address, "/train", {"do": "run"}, token)
            while read_step(address) < FILLED:  # All that is kept has its full size.
                time.sleep(0.1)

            def is_right(number: int) -> bool:
                if number % 2:
                    asked = f"/training?generations=0&since={number}"
                    return json.loads(ask(address, asked))["running"]
                asked = {"image": f"t{number % 50}", "snapshot": [0, None]}
                frame = ask(address, "/trace", asked | {"back": True}, token)
                return b'"loss": ' in frame[:20_000]

            def work(part: range) -> tuple[int, int]:
                with ThreadPoolExecutor(2) as clients:
                    return sum(clients.map(is_right, part)), 0

            result = put_under_load("training", count, work, server.pid)
            faults = end_server(server, address)
            return result._replace(faults=faults, growth=KEPT)


def read_step(address: str) -> int:
    """Return the step of the training."""
    return json.loads(ask(address, "/training"))["runs"][0]["step"]


def ask(address: str, path: str, fields: dict | None = None, token: str = "") -> bytes:
    """Return what the server answers to a page."""
    content = None if fields is None else json.dumps(fields).encode()
    request = urllib.request.Request(f"http://{address}{path}", content)
    request.add_header("X-Token", token)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return answer.read()


def plan_requests(
    model: HandwrittenNumberClassification,
    images: np.ndarray,
    address: str,
    count: int,
) -> Iterator[Request]:
    """Yield requests: of 20 two are malformed and one slow; one of 1,000 never ends."""
    levels = [255 - image.repeat(10, 0).repeat(10, 1) for image in images[:50]]
    pictures = [as_png(image) for image in levels]
    answers = [
        model.predict_proba(prepare_image(read_image(io.BytesIO(picture))))[0]
        for picture in pictures
    ]
    malformed = list(malformed_requests(address, pictures[0]))
    for index in range(count):
        which = index % len(pictures)
        content = as_request(address, pictures[which])
        if index % 3 == 0:  # As our own page sends what is drawn.
            path = "/read?digit=0&width=280&height=280"
            content = as_request(address, levels[which].tobytes(), path)
        if index % 1000 == 505:
            # Byte by byte, it would take minutes to arrive.
            yield Request(content[:1000], pieces=1000, pause=0.5)
        elif index % 10 == 5:
            yield malformed[index // 10 % len(malformed)]
        elif index % 20 == 2:
            yield Request(content, answers[which], pieces=8, pause=0.1)
        else:
            yield Request(content, answers[which])


def as_request(
    address: str, picture: bytes, path: str = "/read", length: str | None = None
) -> bytes:
    """Return a request to read a picture, as it is sent."""
    length = str(len(picture)) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}"
    return f"{head}\r\nConnection: keep-alive\r\n\r\n".encode() + picture


def malformed_requests(address: str, picture: bytes) -> Iterator[Request]:
    """Yield one of each kind."""
    for length in ("", "-1", "many", str(LARGEST_PICTURE + 1), "9" * 20):
        yield Request(as_request(address, picture, length=length))
    yield Request(as_request(address, b"no picture"))
    yield Request(as_request(address, picture, "/read?digit=0&width=280&height=280"))
    yield Request(as_request(address, picture[: len(picture) // 2]))
    yield Request(as_request(address, picture, length=str(len(picture) + 1)))
    yield Request(as_request(address, picture, path="/nothing"))
    yield Request(as_request("digits.example", picture))
    yield Request(b"\x00\xff nonsense\r\n\r\n")
    whole = as_request(address, picture)
    for size in (1, 20, len(whole) // 2, len(whole)):
        yield Request(whole[:size], leaves=True)


def is_met(address: str, request: Request) -> bool:
    """Return whether a request is answered as it must be; who leaves hears nothing."""
    answer = exchange(address, request)
    if request.leaves:
        return True
    read = answer.startswith(b"HTTP/1.1 200 ")
    if request.expected is None:
        return bool(answer) and not read
    return read and np.allclose(
        probabilities_in(answer), request.expected, rtol=1e-4, atol=1e-6
    )


def probabilities_in(answer: bytes) -> list[float]:
    """Return what the server says of the classes of the one digit in a picture."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])["probabilities"]


def exchange(address: str, request: Request) -> bytes:
    """Send a request and return all that is answered until the connection ends."""
    host, _, port = address.partition(":")
    size = -(-len(request.content) // request.pieces)
    answer = b""
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        with suppress(ConnectionError):  # It may be refused before all is sent.
            for start in range(0, len(request.content), size):
                connection.sendall(request.content[start : start + size])
                time.sleep(request.pause)
        with suppress(ConnectionError):
            while not request.leaves and (received := connection.recv(1 << 16)):
                answer += received
    return answer


def end_server(server: subprocess.Popen, address: str) -> str:
    """Press Ctrl-C while a client hangs on; return in words what is wrong then."""
    host, _, port = address.partition(":")
    with socket.create_connection((host, int(port))) as hanging:
        hanging.sendall(b"POST /read HTTP/1.1\r\n")
        time.sleep(0.2)
        server.send_signal(signal.SIGINT)
        try:
            _, errors = server.communicate(timeout=ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            return f"after Ctrl-C, it still runs for more than {ENDS_WITHIN} s"
    if (server.returncode, errors) != (run.INTERRUPTED, "\nInterrupted.\n"):
        return f"it ended with status {server.returncode}, and said {errors!r}"
    return ""


# ------------------------------------------------------------------------ Images


def load_memmap(count: int = 1_000_000) -> Result:
    """Read images of a mapped file; a small set, over and over, whose labels differ."""
    digits = read_data(DIGITS)
    model = HandwrittenNumberClassification(lr=0.1)
    model.partial_fit(digits.train_images, digits.train_labels)
    tile = digits.test_images[:250]
    expected = model.predict(tile)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        with open(path, "wb") as file:
            for start in range(0, count, len(tile)):
                file.write(tile[: count - start].tobytes())
        images = np.memmap(path, np.uint8, "r", shape=(count, *tile.shape[1:]))

        def work(part: range) -> tuple[int, int]:
            labels = model.predict(images[part.start : part.stop])
            right = labels == expected[np.arange(part.start, part.stop) % len(tile)]
            return int(right.sum()), 0

        result = put_under_load("memmap", count, work)
        return result._replace(growth=GROWTH + ANSWER * count)


# ------------------------------------------------------------------------ Models


def load_models(count: int = 1_000) -> Result:
    """Build models and train them a step; those of one seed must learn the same."""
    digits = read_data(DIGITS)
    images, labels = digits.train_images[:32], digits.train_labels[:32]

    def learn(seed: int) -> bytes:
        model = HandwrittenNumberClassification(
            "16C5-MP3-64C5-10N", seed=seed, augment=True
        )
        return model.partial_fit(images, labels).W_dense.tobytes()

    expected = [learn(seed) for seed in range(10)]

    def work(part: range) -> tuple[int, int]:
        return sum(learn(index % 10) == expected[index % 10] for index in part), 0

    return put_under_load("models", count, work)


# ------------------------------------------------------------------------ Report

LOADS = {"server": load_server, "training": load_training}
LOADS |= {"memmap": load_memmap, "models": load_models}


def main() -> int:
    """Put under load what is named, or all; print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("loads", nargs="*", metavar="LOAD", help=", ".join(LOADS))
    names = parser.parse_args().loads or list(LOADS)
    for name in names:
        if name not in LOADS:
            parser.error(f"LOAD must be among {', '.join(LOADS)}; got {name!r}")
    results = [LOADS[name]() for name in names]
    head = ("load", "count", "right", "refused", "MB at start", "MB in first tenth")
    rows = [(*head, "MB later", "threads left", "seconds", "as it must be")]
    for result in results:
        cells = (f"{value:,.0f}" for value in result[1:-2])
        rows.append((result.load, *cells, "yes" if result.met else "NO"))
    print_table(rows)
    for result in results:
        if result.faults:
            print(f"{result.load}: {result.faults}")
    return 0 if all(result.met for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
