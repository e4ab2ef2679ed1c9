"""Server of the page: reads drawings with one model, on the loopback address only.

`DrawingServer` accepts connections and limits them, `DrawingHandler` answers requests,
`read_drawing` reads a picture, and `as_data_url` turns maps into pictures for the page.
Routes: ``GET /``, ``/page.js``, ``/style.css``, ``/example``; ``POST /read``.
"""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import sys
import threading
import time
import webbrowser
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from digits.figures import SIGNED, UNSIGNED, lay_out_maps
from digits.pictures import find_digits, name_digits, read_image
from handwritten_classifier import (
    HandwrittenNumberClassification,
    holding_back_interrupts,
)

FOLDER = Path(__file__).parent
FILES = {  # of the page: path in the address, file, media type
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
LARGEST_PICTURE = 20_000_000  # bytes; a drawing has about 5,000, a photograph more
MOST_AT_ONCE = 32  # connections that are answered; others wait until one is closed
PATIENCE = 10  # seconds for a request to arrive completely, and for its answer to leave
# The page loads nothing from elsewhere, and no other page can embed it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)

# ---------------------------------------------------------------------- Connections


class DrawingServer(ThreadingHTTPServer):
    """Reads drawings with one model, for its own pages on the loopback address.

    Parameters
    ----------
    port : int
        0 for any free port.
    model : HandwrittenNumberClassification
    examples : uint8 array of shape (n, H, W)
        Images that the page can show.
    """

    daemon_threads = False  # At the end, requests in progress are still answered.
    request_queue_size = 128  # connections that may wait

    def __init__(
        self, port: int, model: HandwrittenNumberClassification, examples: np.ndarray
    ) -> None:
        # When each open connection arrived, in seconds.
        self.arrivals: dict[socket.socket, float] = {}
        # One thread reads all drawings, so that memory is bounded by that of one.
        self.reader = ThreadPoolExecutor(1)
        super().__init__(("127.0.0.1", port), DrawingHandler)
        self.model, self.examples = model, examples
        self.files = {
            path: ((FOLDER / name).read_bytes(), f"{kind}; charset=utf-8")
            for path, (name, kind) in FILES.items()
        }
        self.read_in_turn(
            as_png(examples[0])
        )  # Imports everything the first one needs.
        self.hosts = {
            f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")
        }

    def read_drawing(self, *arguments: Any) -> dict[str, Any]:
        """Return what the model makes of a picture, as `read_drawing` does."""
        return read_drawing(self.model, *arguments)

    def read_in_turn(self, *arguments: Any) -> dict[str, Any]:
        """Return the same, once the drawings that came before are read."""
        return self.reader.submit(self.read_drawing, *arguments).result()

    def serve_until_interrupted(self, address: str | None = None) -> None:
        """Serve in a second thread until Ctrl-C, which never interrupts an answer.

        Meanwhile `address` is opened in a browser, which may run in the terminal.
        """
        thread = threading.Thread(target=self.serve_forever)
        try:
            with holding_back_interrupts():
                thread.start()
            if address:
                webbrowser.open(address)
            while thread.is_alive():
                thread.join(0.5)  # On Windows, Ctrl-C arrives only between two of them.
        finally:
            with holding_back_interrupts():
                self.stop_listening(time.monotonic())  # Makes room if it is full.
                if thread.is_alive():  # If not, shutdown would wait forever.
                    self.shutdown()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Answer in a new thread once fewer than MOST_AT_ONCE connections are open."""
        while len(self.arrivals) >= MOST_AT_ONCE:
            self.service_actions()
            time.sleep(0.01)
        self.arrivals[request] = time.monotonic()
        super().process_request(request, client_address)

    def shutdown_request(self, request: socket.socket) -> None:
        """Close a connection, which makes room for another."""
        super().shutdown_request(request)
        self.arrivals.pop(request, None)

    def service_actions(self) -> None:
        """Stop listening to slow clients; the server calls this regularly.

        The handler's timeout applies to each read. Without this limit, a client that
        sends a byte now and then would hold a thread forever.
        """
        self.stop_listening(time.monotonic() - PATIENCE)

    def server_close(self) -> None:
        """Stop listening to all clients, and wait for the answers in progress."""
        self.stop_listening(time.monotonic())
        super().server_close()
        self.reader.shutdown()

    def stop_listening(self, latest: float) -> None:
        """Close the receiving side of connections that arrived by `latest`.

        Answers can still be sent.
        """
        for connection, arrival in self.arrivals.copy().items():
            if arrival <= latest:
                with suppress(OSError):  # It may be closed by now.
                    connection.shutdown(socket.SHUT_RD)

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Print an error, unless the client has disconnected or timed out."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


# ---------------------------------------------------------------------- Requests


class DrawingHandler(BaseHTTPRequestHandler):
    """Answers the page's requests, and refuses all others with a message."""

    server: DrawingServer
    timeout = PATIENCE  # of each read, and of sending an answer

    def do_GET(self) -> None:
        """Send a file of the page, or one of the examples."""
        if self.is_foreign():
            return
        path = self.path.partition("?")[0]
        if path in self.server.files:
            content, kind = self.server.files[path]
            self.reply(200, kind, content)
        elif path == "/example":
            chosen = np.random.default_rng().integers(len(self.server.examples))
            # Dark on white like a drawing, and as large as the page's paper.
            image = 255 - self.server.examples[chosen].repeat(10, 0).repeat(10, 1)
            self.reply(200, "image/png", as_png(image))
        else:
            self.refuse(404, "there is no such page")

    def do_POST(self) -> None:
        """Read the picture in the request."""
        if self.is_foreign():
            return
        length = self.headers.get("Content-Length", "")
        path, _, query = self.path.partition("?")
        asked = re.fullmatch("(digit=([0-9]{1,4}))?(&stages)?", query)
        if path != "/read" or not asked:
            self.refuse(404, "there is no such page")
        elif not re.fullmatch("[0-9]{1,12}", length):
            self.refuse(411, "Content-Length must be the size of the picture")
        elif int(length) > LARGEST_PICTURE:
            self.refuse(413, f"a picture must have at most {LARGEST_PICTURE:,} bytes")
        else:
            self.answer_reading(int(length), int(asked[2] or 0), bool(asked[3]))

    def answer_reading(self, length: int, chosen: int, with_stages: bool) -> None:
        """Receive a picture of so many bytes, and send what the model makes of it."""
        try:
            picture = self.rfile.read(length)
            if len(picture) < length:
                raise ValueError("the picture is incomplete")
            result = self.server.read_in_turn(picture, chosen, with_stages)
        except (OSError, ValueError):
            self.refuse(400, "this is not a picture that can be read")
        else:
            self.reply(200, "application/json", json.dumps(result).encode())

    def is_foreign(self) -> bool:
        """Refuse a request that another site's page may have sent, and return True."""
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        foreign = self.headers.get("Host") not in hosts or (
            origin is not None and origin not in {f"http://{host}" for host in hosts}
        )
        if foreign:
            self.refuse(403, "only this server's own pages are answered")
        return foreign

    def refuse(self, status: int, reason: str) -> None:
        """Send an error message, and close the connection."""
        content = json.dumps({"message": reason}).encode()
        self.close_connection = True
        self.reply(status, "application/json", content)

    def reply(self, status: int, kind: str, content: bytes) -> None:
        """Send an answer that is not cached and loads nothing from elsewhere."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Content-Security-Policy", POLICY)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing: the terminal is for the user."""


# ---------------------------------------------------------------------- Readings


def read_drawing(
    model: HandwrittenNumberClassification,
    picture: bytes,
    chosen: int = 0,
    with_stages: bool = False,
) -> dict[str, Any]:
    """Return what a model makes of a picture file, as the page shows it.

    The answer has the bounding boxes and readings of all digits, the probabilities and
    steps of the `chosen` one, and on request the stages of `find_digits`.

    Raises
    ------
    OSError, ValueError
        If the file is not a picture.
    """
    image = read_image(io.BytesIO(picture))
    try:
        found = find_digits(image)
    except ValueError:  # There is no ink.
        return {"message": "draw a digit"}
    probabilities = model.predict_proba(found.images)
    names = name_digits(probabilities)
    chosen = min(chosen, len(names) - 1)
    stages = found.stages.items() if with_stages else ()
    return {
        "message": describe_reading(names, probabilities),
        "names": names,
        "boxes": (found.boxes / (2 * image.shape[:2])).tolist(),
        "chosen": chosen,
        "probabilities": probabilities[chosen].tolist(),
        "stages": [show_step(title, stage[..., None]) for title, stage in stages],
        "steps": show_steps(model, found.images[chosen]),
    }


def describe_reading(names: list[str], probabilities: np.ndarray) -> str:
    """Return the readings in words; a single one with its probability."""
    message = " ".join(names)
    if len(names) == 1:
        message += f" ({probabilities.max():.1%})"
    return f"{message} in doubt" if "?" in message else message


def show_steps(
    model: HandwrittenNumberClassification, image: np.ndarray
) -> list[dict[str, str]]:
    """Return the maps of each step, without the probabilities.

    The flattened array is left out: it holds the same numbers as the last maps.
    """
    forward, _ = model.trace_steps(image)
    return [show_step(title, maps) for title, maps, _ in forward if maps.ndim == 3]


def show_step(title: str, maps: np.ndarray) -> dict[str, str]:
    """Return maps (H, W, C) as the page shows them: title, size and picture."""
    size = "x".join(map(str, maps.shape))
    return {"title": title, "size": size, "picture": as_data_url(lay_out_maps(maps))}


# ---------------------------------------------------------------------- Pictures


def as_data_url(picture: np.ndarray) -> str:
    """Return a picture of numbers as a data URL, in the colours of the figures."""
    largest = np.nanmax(np.abs(picture)) or 1
    if np.nanmin(picture) < 0:
        shares, colours = 0.5 + 0.5 * picture / largest, colour_table(*SIGNED)
    else:
        shares, colours = picture / largest, colour_table(*UNSIGNED)
    levels = np.where(np.isnan(shares), 0, 1 + np.rint(254 * shares))
    png = as_png(levels.astype(np.uint8), colours)
    return "data:image/png;base64," + base64.b64encode(png).decode()


def as_png(image: np.ndarray, colours: bytes | None = None) -> bytes:
    """Return a uint8 image as a PNG file; with `colours`, its levels are indices."""
    from PIL import Image

    stream, picture = io.BytesIO(), Image.fromarray(image)
    if colours:
        picture.putpalette(colours)
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@cache
def colour_table(name: str, between: str) -> bytes:
    """Return 256 RGB colours: that between tiles, then 255 of a colour map."""
    from matplotlib import colormaps, colors

    table = colormaps[name](np.linspace(0, 1, 255))[:, :3]
    table = np.vstack([colors.to_rgb(between), table])
    return np.rint(255 * table).astype(np.uint8).tobytes()
