"""Server of the page: reads drawings with one model, on the loopback address only.

`DrawingServer` answers requests, `Connection` limits the time that one takes, `Uploads`
the memory of all, and `Turns` the pictures that are decoded at once. `read_drawing`
reads a picture, and `as_data_url` turns maps into pictures for the page.
Routes: ``GET /``, ``/page.js``, ``/style.css``, ``/example``; ``POST /read``, with a
picture file, or with ``width`` and ``height`` for grey levels, one byte per pixel.
"""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import json
import mmap
import os
import re
import socket
import threading
import webbrowser
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import cache
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from digits.decoder import FINEST_PICTURE, decode_picture, stop_decoding
from digits.figures import SIGNED, UNSIGNED, lay_out_maps
from digits.pictures import find_digits, name_digits
from handwritten_classifier import HandwrittenNumberClassification

FOLDER = Path(__file__).parent
FILES = {  # of the page: path in the address, file, media type
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/style.css": ("style.css", "text/css"),
}
LARGEST_PICTURE = 20_000_000  # bytes; a photograph has some millions
MOST_HELD = 48_000_000  # bytes of all pictures that arrive or wait; 64 with buffers
MOST_CONNECTIONS = 200  # beyond, the one that waits longest for its client is closed
MOST_WAITING = 32  # pictures that wait to be decoded; beyond, the largest is refused
PATIENCE = 10  # seconds for a request to arrive completely, and for its answer to leave
LONGEST_READING = 60  # seconds from a request to its answer
LAST_ANSWERS = 0.4  # seconds that the end of the server waits for answers in progress
# The page loads nothing from elsewhere, and no other page can embed it.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; frame-ancestors 'none'"
)
HEADERS = {  # of every answer
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": POLICY,
}
LATE = (
    b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 40\r\n"
    b'Content-Type: application/json\r\n\r\n{"message": "the request came too late"}'
)
READING = re.compile(  # what is asked of a picture
    "(digit=(?P<digit>[0-9]{1,4}))?(?P<stages>&stages)?"
    "(&width=(?P<width>[1-9][0-9]{0,3})&height=(?P<height>[1-9][0-9]{0,3}))?"
)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# ---------------------------------------------------------------------- Requests


def listen(port: int) -> socket.socket:
    """Return a socket that listens on the loopback address.

    Parameters
    ----------
    port : int
        0 for any that is free.

    Raises
    ------
    ValueError
        If there is no such port, or it is in use.
    """
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be in 0..65535; got {port}")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        got = f"got {port} ({os.strerror(error.errno)})"
        remedy = "name another, or 0 for any that is free"
        raise ValueError(f"--port must be free; {got}: {remedy}") from None


class Refusal(Exception):
    """A request that is answered by a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class DrawingServer:
    """Reads drawings with one model, for its own pages on the loopback address.

    Parameters
    ----------
    model : HandwrittenNumberClassification
    examples : uint8 array of shape (n, H, W)
        Images that the page can show.
    """

    def __init__(
        self, model: HandwrittenNumberClassification, examples: np.ndarray
    ) -> None:
        self.model, self.examples = model, examples
        self.files = {
            path: ((FOLDER / name).read_bytes(), f"{kind}; charset=utf-8")
            for path, (name, kind) in FILES.items()
        }
        self.hosts: set[str] = set()
        # Connections that wait for their client, the one that does so longest first.
        self.waiting: dict[Connection, None] = {}
        self.uploads, self.turns = Uploads(), Turns()
        # One thread reads all pictures, so that memory is bounded by that of one.
        self.reader, self.decoder = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        # Import and start what the first picture needs.
        image = self.decoder.submit(decode_picture, as_png(255 - examples[0])).result()
        self.reader.submit(self.read_drawing, image).result()

    def read_drawing(self, *arguments: Any) -> bytes:
        """Return what the model makes of a picture, as JSON."""
        return json.dumps(read_drawing(self.model, *arguments)).encode()

    def run(self, listener: socket.socket, address: str | None = None) -> None:
        """Serve until Ctrl-C, which raises KeyboardInterrupt; as `serve` does."""
        asyncio.run(self.serve(listener, address))

    async def serve(self, listener: socket.socket, address: str | None = None) -> None:
        """Serve until cancelled.

        Meanwhile `address` is opened in a browser, which may run in the terminal.
        """
        port, loop = listener.getsockname()[1], asyncio.get_running_loop()
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        runner = web.AppRunner(
            self.route(), handler_cancellation=True, shutdown_timeout=LAST_ANSWERS
        )
        await runner.setup()
        accepting = await loop.create_server(
            lambda: Connection(self, runner.server, loop), sock=listener, backlog=128
        )
        if address:
            browser = threading.Thread(target=webbrowser.open, args=(address,))
            browser.daemon = True
            browser.start()
        try:
            while True:  # A signal that reached another thread waits for this one.
                await asyncio.sleep(0.2)
        finally:
            accepting.close()
            stop_decoding()
            await runner.cleanup()
            for threads in (self.decoder, self.reader):
                threads.shutdown(wait=False, cancel_futures=True)

    def route(self) -> web.Application:
        """Return which requests are answered by what."""
        application = web.Application(middlewares=[self.guard])
        for path in FILES:
            application.router.add_get(path, self.send_file)
        application.router.add_get("/example", self.send_example)
        application.router.add_post("/read", self.read)
        return application

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer the requests of this server's own pages, and refuse all others."""
        origin = request.headers.get("Origin")
        own = {None, *(f"http://{host}" for host in self.hosts)}
        try:
            if request.headers.get("Host") not in self.hosts or origin not in own:
                raise Refusal(403, "only this server's own pages are answered")
            return await handler(request)
        except Refusal as refusal:
            return refuse(refusal.status, str(refusal))
        except web.HTTPException:  # No handler has this path and method.
            return refuse(404, "there is no such page")
        finally:
            request.protocol.wait_for_client()

    async def send_file(self, request: web.Request) -> web.Response:
        """Send a file of the page."""
        content, kind = self.files[request.path]
        return reply(200, kind, content)

    async def send_example(self, _: web.Request) -> web.Response:
        """Send one of the examples, dark on white and as large as the page's paper."""
        chosen = np.random.default_rng().integers(len(self.examples))
        image = 255 - self.examples[chosen].repeat(10, 0).repeat(10, 1)
        return reply(200, "image/png", as_png(image))

    async def read(self, request: web.Request) -> web.Response:
        """Read the picture in a request."""
        asked = READING.fullmatch(request.query_string)
        if not asked:
            raise Refusal(404, "there is no such page")
        if request.content_length is None:
            raise Refusal(411, "Content-Length must be the size of the picture")
        if request.content_length > LARGEST_PICTURE:
            most = f"{LARGEST_PICTURE:,} bytes"
            raise Refusal(413, f"a picture must have at most {most}")
        if not request.content_length:
            raise Refusal(400, "this is not a picture that can be read")
        choice = int(asked["digit"] or 0), bool(asked["stages"])
        async with self.uploads.receive(request) as content:
            try:
                if asked["width"]:
                    size = int(asked["height"]), int(asked["width"])
                    result = await self.read_levels(content, size, *choice)
                else:
                    result = await self.read_file(content, *choice)
            except (OSError, ValueError):
                reason = "this is not a picture that can be read"
                raise Refusal(400, reason) from None
        return reply(200, "application/json", result)

    async def read_levels(
        self, content: mmap.mmap, size: tuple[int, int], *choice: Any
    ) -> bytes:
        """Read a picture that is sent as its grey levels, as our page does."""
        if max(size) > FINEST_PICTURE:
            raise ValueError(f"size must be at most {FINEST_PICTURE}; got {size}")
        image = np.frombuffer(content, np.uint8).reshape(size)
        return await in_thread(self.reader, self.read_drawing, image, *choice)

    async def read_file(self, content: mmap.mmap, *choice: Any) -> bytes:
        """Read a picture file, once its turn has come."""
        async with self.turns.take(len(content)):
            image = await in_thread(self.decoder, decode_picture, content)
            return await in_thread(self.reader, self.read_drawing, image, *choice)


async def in_thread(threads: ThreadPoolExecutor, work: Callable, *arguments) -> Any:
    """Return what some work returns, done by one of several threads."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, work, *arguments)


def refuse(status: int, reason: str) -> web.Response:
    """Return an error message."""
    content = json.dumps({"message": reason}).encode()
    return reply(status, "application/json", content)


def reply(status: int, kind: str, content: bytes) -> web.Response:
    """Return an answer, after which the connection is closed."""
    headers = HEADERS | {"Content-Type": kind}
    response = web.Response(status=status, headers=headers, body=content)
    response.force_close()
    return response


# ---------------------------------------------------------------------- Limits


class Connection(web.RequestHandler):
    """A connection, with one request; each of its parts must take place in time.

    aiohttp answers the request. It has no limit of its own on how long headers take to
    arrive, and answers to leave.
    """

    def __init__(
        self,
        server: DrawingServer,
        manager: web.Server,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # Compressed requests stay so: a small one may unpack to gigabytes.
        options = {"auto_decompress": False, "lingering_time": PATIENCE}
        super().__init__(manager, loop=loop, access_log=None, **options)
        self.server, self.manager, self.loop = server, manager, loop
        self.end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for a request; if there are too many connections, close one."""
        super().connection_made(transport)
        self.end_after(PATIENCE, self.refuse_late)
        self.server.waiting[self] = None
        if len(self.manager.connections) > MOST_CONNECTIONS:
            next(iter(self.server.waiting)).end_after(0)

    def wait_for_client(self, seconds: float | None = None) -> None:
        """Give the client its time, to send a picture or to take an answer."""
        self.end_after(PATIENCE if seconds is None else seconds)
        if self.transport:
            self.server.waiting[self] = None

    def wait_for_reading(self) -> None:
        """Give the server its time, to read what the client has sent."""
        self.end_after(LONGEST_READING)

    def end_after(self, seconds: float, end: Callable | None = None) -> None:
        """End the connection then, and not when it was to end before."""
        self.server.waiting.pop(self, None)
        if self.end:
            self.end.cancel()
        if self.transport:
            self.end = self.loop.call_later(seconds, end or self.transport.abort)

    def refuse_late(self) -> None:
        """Refuse a request whose headers have not arrived: aiohttp has none yet."""
        self.transport.write(LATE)
        self.transport.close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Leave nothing behind."""
        super().connection_lost(exc)
        self.server.waiting.pop(self, None)
        self.end.cancel()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.Response:
        """Refuse a request that cannot be read; print an error of our own."""
        if status < 500:
            return refuse(status, "this is not a request that can be read")
        super().handle_error(request, status, exc, message)
        return refuse(status, "the program failed: its terminal says why")


class Uploads:
    """The pictures that arrive or wait to be read, of `MOST_HELD` bytes in all.

    If they have more, the largest that is incomplete is refused. Memory is counted as
    it is used: a client that only says how much it will send takes none from others.
    """

    def __init__(self) -> None:
        self.sizes: dict[asyncio.Task, int] = {}

    @asynccontextmanager
    async def receive(self, request: web.Request) -> AsyncIterator[mmap.mmap]:
        """Yield the picture in a request; it counts until the context is left."""
        # Unlike the heap, a map returns to the system as soon as it is closed.
        content = mmap.mmap(-1, request.content_length)
        request.protocol.wait_for_client(2 * PATIENCE)  # To be refused before that.
        upload = asyncio.ensure_future(self.collect(request, content))
        self.sizes[upload] = 0
        try:
            await asyncio.wait({upload}, timeout=PATIENCE)
            if upload.cancelled():
                raise Refusal(503, "too many pictures arrive at once")
            if not upload.done():
                raise Refusal(408, f"a picture must arrive within {PATIENCE} seconds")
            if upload.exception():  # The connection broke.
                raise Refusal(400, "the picture is incomplete")
            request.protocol.wait_for_reading()
            yield content
        finally:
            upload.cancel()
            del self.sizes[upload]
            with suppress(BufferError):  # A thread may still read it.
                content.close()

    async def collect(self, request: web.Request, content: mmap.mmap) -> None:
        """Write into a map what a request brings, as a task of its own."""
        upload = asyncio.current_task()
        async for part in request.content.iter_any():
            content.write(part)
            self.sizes[upload] = content.tell()
            if sum(self.sizes.values()) > MOST_HELD:
                unfinished = [task for task in self.sizes if not task.done()]
                largest = max(unfinished, key=self.sizes.get)
                largest.cancel()
                self.sizes[largest] = 0


class Turns:
    """A lock for one at a time. Of those who wait, the one with the least work is next.

    So nobody with a small picture waits for several large ones.
    """

    def __init__(self) -> None:
        self.taken = False
        self.waiting: list[tuple[int, int, asyncio.Future]] = []
        self.numbers = itertools.count()

    @asynccontextmanager
    async def take(self, work: int) -> AsyncIterator[None]:
        """Hold the lock, once it is free."""
        turn = asyncio.get_running_loop().create_future()
        heappush(self.waiting, (work, next(self.numbers), turn))
        self.give()
        self.refuse_most_work()
        try:
            if not await turn:
                raise Refusal(503, "too many pictures wait to be read")
            yield
        finally:
            if turn.done() and not turn.cancelled() and turn.result():
                self.taken = False
            turn.cancel()
            self.give()

    def give(self) -> None:
        """Give the lock, if it is free, to the next who still waits."""
        while self.waiting and not self.taken:
            *_, turn = heappop(self.waiting)
            if not turn.done():
                turn.set_result(True)
                self.taken = True

    def refuse_most_work(self) -> None:
        """If too many wait, refuse the one with the most work."""
        self.waiting = [place for place in self.waiting if not place[2].done()]
        if len(self.waiting) > MOST_WAITING:
            most = max(self.waiting)
            self.waiting.remove(most)
            most[2].set_result(False)
        heapify(self.waiting)


# ---------------------------------------------------------------------- Readings


def read_drawing(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    chosen: int = 0,
    with_stages: bool = False,
) -> dict[str, Any]:
    """Return what a model makes of a picture, as the page shows it.

    The answer has the bounding boxes and readings of all digits, the probabilities and
    steps of the `chosen` one, and on request the stages of `find_digits`.
    """
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
