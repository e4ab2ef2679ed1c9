"""The page's server: reads drawings with one model, on the loopback address alone."""

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
FILES = {  # what the page consists of, by its path in an address
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
LARGEST_PICTURE = 20_000_000  # bytes; a drawing has about 5,000, a photograph more
MOST_AT_ONCE = 32  # connections of the page's server; others wait until one ends
PATIENCE = 10  # seconds for a request to arrive whole, and for its answer to leave


class DrawingServer(ThreadingHTTPServer):
    """Reads drawings with one model, for pages of its own on the loopback address."""

    daemon_threads = False  # At the end, what is under way is still answered.
    request_queue_size = 128  # connections that may wait

    def __init__(
        self, port: int, model: HandwrittenNumberClassification, examples: np.ndarray
    ) -> None:
        self.arrivals: dict[socket.socket, float] = {}  # of open connections, seconds
        # One thread reads all drawings: memory is that for one, whoever else waits.
        self.reader = ThreadPoolExecutor(1)
        super().__init__(("127.0.0.1", port), DrawingHandler)
        self.model, self.examples = model, examples
        self.files = {
            path: ((FOLDER / name).read_bytes(), f"{kind}; charset=utf-8")
            for path, (name, kind) in FILES.items()
        }
        self.read_in_turn(as_png(examples[0]))  # Imports all that the first one needs.
        self.hosts = {
            f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")
        }

    def read_in_turn(self, *arguments: Any) -> dict[str, Any]:
        """Return what `read_drawing` does, once the drawings before it are read."""
        return self.reader.submit(self.read_drawing, *arguments).result()

    def serve_until_interrupted(self, address: str | None = None) -> None:
        """Serve in another thread, so that Ctrl-C comes between no two of its steps.

        Meanwhile `address` is opened, in a browser that may be the terminal's.
        """
        thread = threading.Thread(target=self.serve_forever)
        try:
            with holding_back_interrupts():
                thread.start()
            if address:
                webbrowser.open(address)
            while thread.is_alive():
                thread.join(0.5)  # Windows hears Ctrl-C only between two of them.
        finally:
            with holding_back_interrupts():
                self.stop_listening(time.monotonic())  # A full server goes on by that.
                if thread.is_alive():  # Else it would never say that it has ended.
                    self.shutdown()

    def process_request(self, request: socket.socket, client_address: Any) -> None:
        """Answer in a thread of its own, once fewer than MOST_AT_ONCE are at work."""
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
        """Listen no longer to whom takes too long; the server calls this all the time.

        The handler's timeout is one for each read: who sends a byte now and then would
        keep a thread for ever.
        """
        self.stop_listening(time.monotonic() - PATIENCE)

    def server_close(self) -> None:
        """Listen to nobody any longer, and wait for what is still answered."""
        self.stop_listening(time.monotonic())
        super().server_close()
        self.reader.shutdown()

    def stop_listening(self, latest: float) -> None:
        """End what connections send that came before `latest`; answers still leave."""
        for connection, arrival in self.arrivals.copy().items():
            if arrival <= latest:
                with suppress(OSError):  # It may be closed by now.
                    connection.shutdown(socket.SHUT_RD)

    def handle_error(self, request: socket.socket, client_address: Any) -> None:
        """Show an error, unless it is that the client is gone."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)

    def read_drawing(
        self, picture: bytes, chosen: int = 0, with_stages: bool = False
    ) -> dict[str, Any]:
        """Return what the network makes of a picture, as the page shows it.

        Of all digits found, boxes and readings; of the `chosen` one, each step; and on
        demand the stages in which they were found.

        Raises
        ------
        OSError, ValueError
            If it is no picture.
        """
        image = read_image(io.BytesIO(picture))
        try:
            found = find_digits(image)
        except ValueError:  # There is no ink.
            return {"message": "draw a digit"}
        probabilities = self.model.predict_proba(found.images)
        names = name_digits(probabilities)
        chosen = min(chosen, len(names) - 1)
        steps = self.model.trace_steps(found.images[chosen])[0][:-1]
        stages = found.stages.items() if with_stages else ()
        message = " ".join(names)
        if len(names) == 1:
            message += f" ({probabilities.max():.1%})"
        if "?" in message:
            message += " in doubt"
        return {
            "message": message,
            "names": names,
            "boxes": (found.boxes / (2 * image.shape[:2])).tolist(),
            "chosen": chosen,
            "probabilities": probabilities[chosen].tolist(),
            "stages": [show_step(title, stage[..., None]) for title, stage in stages],
            "steps": [
                show_step(title, maps)
                for title, maps, _ in steps
                if maps.ndim == 3  # Flattened, they are the same numbers in a row.
            ],
        }


def show_step(title: str, maps: np.ndarray) -> dict[str, str]:
    """Return maps (H, W, C) as the page shows them."""
    picture = lay_out_maps(maps)
    size = "x".join(map(str, maps.shape))
    return {"title": title, "size": size, "picture": as_data_url(picture)}


class DrawingHandler(BaseHTTPRequestHandler):
    """Answers the page's requests, and refuses all others in words."""

    server: DrawingServer
    timeout = PATIENCE  # of each read, and of sending an answer

    def do_GET(self) -> None:
        """Send the page, or one of the test images."""
        if self.is_foreign():
            return
        path = self.path.partition("?")[0]
        if path in self.server.files:
            content, kind = self.server.files[path]
            self.reply(200, kind, content)
        elif path == "/example":
            chosen = np.random.default_rng().integers(len(self.server.examples))
            # On white paper, as what is drawn; large enough to be drawn on.
            image = 255 - self.server.examples[chosen].repeat(10, 0).repeat(10, 1)
            self.reply(200, "image/png", as_png(image))
        else:
            self.refuse(404, "there is nothing here")

    def do_POST(self) -> None:
        """Read the picture in the request."""
        if self.is_foreign():
            return
        length = self.headers.get("Content-Length", "")
        path, _, query = self.path.partition("?")
        asked = re.fullmatch("(digit=([0-9]{1,4}))?(&stages)?", query)
        if path != "/read" or not asked:
            self.refuse(404, "there is nothing here")
        elif not re.fullmatch("[0-9]{1,12}", length):
            self.refuse(411, "Content-Length must say how long the picture is")
        elif int(length) > LARGEST_PICTURE:
            self.refuse(413, f"a picture must have at most {LARGEST_PICTURE:,} bytes")
        else:
            try:
                picture, chosen = self.rfile.read(int(length)), int(asked[2] or 0)
                if len(picture) < int(length):
                    raise ValueError("only a part of it has come")
                result = self.server.read_in_turn(picture, chosen, bool(asked[3]))
            except (OSError, ValueError):
                self.refuse(400, "this is no picture that can be read")
            else:
                self.reply(200, "application/json", json.dumps(result).encode())

    def is_foreign(self) -> bool:
        """Refuse, and return True, where another site's page may have sent this."""
        hosts, origin = self.server.hosts, self.headers.get("Origin")
        foreign = self.headers.get("Host") not in hosts or (
            origin is not None and origin not in {f"http://{host}" for host in hosts}
        )
        if foreign:
            self.refuse(403, "only pages of this server are answered")
        return foreign

    def refuse(self, status: int, reason: str) -> None:
        """Send an error in words, and hear no more on this connection."""
        content = json.dumps({"message": reason}).encode()
        self.close_connection = True
        self.reply(status, "application/json", content)

    def reply(self, status: int, kind: str, content: bytes) -> None:
        """Send an answer that nothing else may be loaded with, and nobody keeps."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        ours = "script-src 'self'; style-src 'self'; connect-src 'self'"
        policy = f"default-src 'none'; {ours}; img-src 'self' data:"
        policy += "; frame-ancestors 'none'"
        self.send_header("Content-Security-Policy", policy)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing: the terminal is for the user."""


def as_png(image: np.ndarray, colours: bytes | None = None) -> bytes:
    """Return uint8 pixels as a PNG file's bytes: levels, or numbers of colours."""
    from PIL import Image

    stream, picture = io.BytesIO(), Image.fromarray(image)
    if colours:
        picture.putpalette(colours)
    picture.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def as_data_url(picture: np.ndarray) -> str:
    """Return a picture of numbers in the colours of the figures, as an address."""
    largest = np.nanmax(np.abs(picture)) or 1
    if np.nanmin(picture) < 0:
        shares, colours = 0.5 + 0.5 * picture / largest, colour_table(*SIGNED)
    else:
        shares, colours = picture / largest, colour_table(*UNSIGNED)
    levels = np.where(np.isnan(shares), 0, 1 + np.rint(254 * shares))
    png = as_png(levels.astype(np.uint8), colours)
    return "data:image/png;base64," + base64.b64encode(png).decode()


@cache
def colour_table(name: str, between: str) -> bytes:
    """Return 256 colours, RGB: the first for what lies between tiles, then a map's."""
    from matplotlib import colormaps, colors

    table = colormaps[name](np.linspace(0, 1, 255))[:, :3]
    table = np.vstack([colors.to_rgb(between), table])
    return np.rint(255 * table).astype(np.uint8).tobytes()
