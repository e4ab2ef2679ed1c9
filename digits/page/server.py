"""Server of the page: reads drawings and shows numbers, on the loopback address only.

`DrawingServer` answers requests; `digits.page.limits` bounds their time and memory,
and `digits.page.frames` makes the numbers. `read_drawing` reads a picture.
Routes: ``GET`` the files of the page, ``/models`` and ``/mistakes``; ``POST /read``,
with a picture file, or with ``width`` and ``height`` for grey levels, a byte a pixel;
``POST /trace``, ``/check``, ``/plan``, ``/train``, ``/use`` and ``/own``, with JSON and
the token that the page was sent with; ``GET /training``, ``/film`` and ``/own``.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import mmap
import os
import re
import secrets
import socket
import threading
import webbrowser
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web

from digits.decoder import FINEST_PICTURE, decode_picture, stop_decoding
from digits.doubts import describe_doubts, explain_reading
from digits.mnist import Split, checksum
from digits.own import OWN_DIGITS, OwnDigits
from digits.page.frames import Frames, describe_reading
from digits.page.limits import (
    LAST_ANSWERS,
    Connection,
    Refusal,
    Turns,
    Uploads,
    refuse,
    reply,
)
from digits.page.requests import Request, decode_image, encode_image
from digits.page.training import Trainer
from digits.pictures import find_digits, name_digits
from digits.results import alone_in, make_folder
from handwritten_classifier import HandwrittenNumberClassification

FOLDER = Path(__file__).parent
KINDS = {  # of the page's files: media types
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".png": "image/png",
}
LARGEST_PICTURE = 20_000_000  # bytes; a photograph has some millions
LARGEST_REQUEST = 1_000_000  # bytes of JSON
READING = re.compile(  # what is asked of a picture
    "(digit=(?P<digit>[0-9]{1,4}))?(?P<stages>&stages)?(&model=(?P<model>[0-9]{1,2}))?"
    "(&snapshot=(?P<run>[01])-(?P<step>[0-9]{1,9})?)?"
    "(&width=(?P<width>[1-9][0-9]{0,3})&height=(?P<height>[1-9][0-9]{0,3}))?"
)
PROGRESS = re.compile(  # what is known of each run of a training
    "(generations=(?P<generations>[0-9]{1,9}(,[0-9]{1,9})?)"
    "&since=(?P<since>[0-9]{1,9}(,[0-9]{1,9})?))?"
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


class DrawingServer:
    """Reads drawings and shows numbers, for its own pages on the loopback address.

    Parameters
    ----------
    models : dict of path to HandwrittenNumberClassification
        By the files that they come from; the first one reads until another is chosen.
    images, labels : uint8 arrays of shape (n, H, W) and (n,)
        Test images that the page can show.
    split : Split, optional
        What can be learned on the page.
    own_model : path, optional
        Where a network that was trained on the page is written; own digits, beside it.
    """

    def __init__(
        self,
        models: dict[str | Path, HandwrittenNumberClassification],
        images: np.ndarray,
        labels: np.ndarray,
        split: Split | None = None,
        own_model: Path | None = None,
    ) -> None:
        self.trainer = None
        self.own_model = own_model or OWN_DIGITS.with_name("model.npz")
        self.own = OwnDigits(self.own_model.with_name(OWN_DIGITS.name))
        self.frames = Frames(models, images, labels)
        if split:
            tests = images, labels
            self.trainer = Trainer(split, tests, self.frames.models, self.own)
            self.frames.trainer = self.trainer
        self.token = secrets.token_urlsafe()  # of those who may change a number
        self.files = self.read_files()
        self.hosts: set[str] = set()
        # Connections that wait for their client, the one that does so longest first.
        self.waiting: dict[Connection, None] = {}
        self.uploads, self.turns = Uploads(), Turns()
        # One thread reads all pictures, so that memory is bounded by that of one.
        self.reader, self.decoder = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self.surveyor, self.mistakes = ThreadPoolExecutor(1), {}
        self.watcher = ThreadPoolExecutor(1)
        # Import and start what the first picture needs.
        image = self.decoder.submit(decode_picture, as_png(255 - images[0])).result()
        self.reader.submit(self.read_drawing, image).result()

    def read_files(self) -> dict[str, tuple[bytes, str]]:
        """Return content and media type of each file of the page, by its address."""
        paths = [path for path in FOLDER.iterdir() if path.suffix in KINDS]
        files = {f"/{p.name}": (p.read_bytes(), KINDS[p.suffix]) for p in paths}
        document, kind = files.pop("/index.html")
        files["/"] = document.replace(b"{{token}}", self.token.encode()), kind
        files["/favicon.ico"] = files.pop("/icon.png")
        return files

    def read_drawing(
        self,
        image: np.ndarray,
        number: int = 0,
        snapshot: tuple | None = None,
        *choice: Any,
    ) -> bytes:
        """Return what a model makes of a picture, or a network in training, as JSON."""
        model = self.frames.models[number]
        if snapshot:
            model = self.frames.find_model(self.frames.find_source(number, snapshot))
        return as_json(read_drawing(model, image, *choice))

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
            lambda: Connection(self.waiting, runner.server, loop),
            sock=listener,
            backlog=128,
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
            self.turns.close()
            stop_decoding()
            if self.trainer:
                self.trainer.close()
            await runner.cleanup()
            for threads in (self.decoder, self.reader, self.surveyor, self.watcher):
                threads.shutdown(wait=False, cancel_futures=True)

    def route(self) -> web.Application:
        """Return which requests are answered by what."""
        application = web.Application(middlewares=[self.guard])
        for path in self.files:
            application.router.add_get(path, self.send_file)
        application.router.add_get("/models", self.send_models)
        application.router.add_get("/mistakes", self.send_mistakes)
        application.router.add_post("/read", self.read)
        application.router.add_post("/trace", self.trace)
        application.router.add_post("/check", self.check)
        if self.trainer:
            application.router.add_get("/training", self.send_training)
            application.router.add_get("/film", self.send_film)
            application.router.add_post("/plan", self.plan)
            application.router.add_post("/train", self.train)
            application.router.add_post("/use", self.use)
            application.router.add_get("/own", self.send_own)
            application.router.add_post("/own", self.change_own)
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

    async def send_models(self, _: web.Request) -> web.Response:
        """Send which models there are, and how many test images."""
        return reply(200, "application/json", as_json(self.frames.describe()))

    async def send_mistakes(self, request: web.Request) -> web.Response:
        """Send the test images that a model misreads, found once, beside readings."""
        asked = re.fullmatch("model=([0-9]{1,2})", request.query_string)
        if not asked or int(asked[1]) >= len(self.frames.models):
            raise Refusal(404, "there is no such model")
        number = int(asked[1])
        if number not in self.mistakes:
            find = partial(self.frames.find_mistakes, number)
            self.mistakes[number] = self.surveyor.submit(find)
        request.protocol.wait_for_reading()
        found = await asyncio.shield(asyncio.wrap_future(self.mistakes[number]))
        return reply(200, "application/json", as_json(found))

    async def trace(self, request: web.Request) -> web.Response:
        """Send all numbers of an image."""
        asked = self.read_request(await self.receive_fields(request))
        frame = await self.compute(self.frames.make, asked)
        return reply(200, "application/octet-stream", frame)

    async def check(self, request: web.Request) -> web.Response:
        """Send a derivative, and the slope that a nudge measures."""
        fields = await self.receive_fields(request)
        asked = self.read_request(fields)
        found = await self.compute(self.frames.check, asked, fields.get("cell"))
        return reply(200, "application/json", as_json(found))

    async def compute(self, work: Callable, *arguments: Any) -> Any:
        """Return what some work returns, done where pictures are read, or refuse it."""
        try:
            return await in_thread(self.reader, work, *arguments)
        except (TypeError, ValueError, FloatingPointError) as error:
            raise Refusal(400, str(error)) from None

    def read_request(self, fields: Any) -> Request:
        """Return what fields ask of a frame, or refuse them."""
        try:
            return Request.read(fields, len(self.frames.models))
        except ValueError as error:
            raise Refusal(400, str(error)) from None

    async def send_training(self, request: web.Request) -> web.Response:
        """Send of the training what is newer than the steps that the page has."""
        asked = PROGRESS.fullmatch(request.query_string)
        if not asked:
            raise Refusal(404, "there is no such page")
        known = [
            tuple(int(n) for n in asked[name].split(",")) if asked[name] else ()
            for name in ("generations", "since")
        ]
        state = await in_thread(self.watcher, self.trainer.describe, *known)
        return reply(200, "application/json", as_json(state))

    async def send_film(self, _: web.Request) -> web.Response:
        """Send a film of the first kernels."""
        return reply(200, "image/gif", await self.compute(self.trainer.film))

    async def plan(self, request: web.Request) -> web.Response:
        """Send the size of a set-up, and how long it takes."""
        fields = await self.receive_fields(request)
        found = await self.compute(self.trainer.plan, fields)
        return reply(200, "application/json", as_json(found))

    async def train(self, request: web.Request) -> web.Response:
        """Do what is asked of the training, and send its state."""
        fields = await self.receive_fields(request)
        state = await self.compute(self.trainer.obey, fields)
        return reply(200, "application/json", as_json(state))

    async def use(self, request: web.Request) -> web.Response:
        """Write a network of the training where the program finds it."""
        fields = await self.receive_fields(request)
        try:
            number = await self.compute(self.keep_model, fields)
        except OSError as error:
            raise Refusal(500, f"the model cannot be written: {error}") from None
        return reply(200, "application/json", as_json({"model": number}))

    async def send_own(self, _: web.Request) -> web.Response:
        """Send the own digits."""
        found = await self.compute(self.describe_own)
        return reply(200, "application/json", as_json(found))

    async def change_own(self, request: web.Request) -> web.Response:
        """Keep an own digit, give one another label or remove it; send all."""
        fields = await self.receive_fields(request)
        try:
            found = await self.compute(self.obey_own, fields)
        except OSError as error:
            raise Refusal(500, f"own digits cannot be written: {error}") from None
        return reply(200, "application/json", as_json(found))

    def describe_own(self) -> dict[str, Any]:
        """Return the own digits as the page shows them."""
        images, labels = self.own.read()
        pixels = base64.b64encode(images.tobytes()).decode()
        told = {"labels": labels.tolist(), "pixels": pixels}
        return told | {
            "path": str(self.own.path),
            "checksum": checksum([images, labels]),
        }

    def obey_own(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Do with the own digits what a request says in ``do``; return them all.

        A change of one that is there names the digits that the page has seen.
        """
        order, label, index = map(fields.get, ("do", "label", "index"))
        if order not in ("keep", "relabel", "remove"):
            known = "do must be among ['keep', 'relabel', 'remove']"
            raise ValueError(f"{known}; got {order!r:.40}")
        if order == "keep":
            code = fields.get("image")
            if isinstance(code, str) and code[:1] == "t":
                required = "own digits must be drawn or photographed"
                raise ValueError(f"{required}; got a test image")
            image = decode_image(code, (28, 28, 1), self.frames.images)
            levels = np.rint(np.clip(255 * image[0, :, :, 0], 0, 255))
            self.own.add(levels.astype(np.uint8), label)
        else:
            seen = fields.get("checksum")
            if seen != checksum(self.own.read()):
                required = "own digits must be those that the page shows"
                raise ValueError(f"{required}; got others: look at them again")
            if order == "relabel":
                self.own.relabel(index, label)
            else:
                self.own.remove(index)
        return self.describe_own()

    def keep_model(self, fields: dict[str, Any]) -> int:
        """Write a network of the training to a file, and show it among the models."""
        with alone_in(make_folder(str(self.own_model.parent))):
            model = self.trainer.save(fields, self.own_model)
        number = self.frames.add(self.own_model, model)
        self.mistakes.pop(number, None)
        return number

    async def receive_fields(self, request: web.Request) -> dict[str, Any]:
        """Return the JSON object in a request of our own page."""
        token = request.headers.get("X-Token", "").encode()
        if not secrets.compare_digest(token, self.token.encode()):
            raise Refusal(403, "only a page that this server has sent can ask this")
        if request.content_length is None:
            raise Refusal(411, "Content-Length must be the size of the request")
        if not 0 < request.content_length <= LARGEST_REQUEST:
            most = f"{LARGEST_REQUEST:,} bytes"
            raise Refusal(413, f"a request must have at most {most}, and not be empty")
        async with self.uploads.receive(request) as content:
            try:
                fields = json.loads(content[:])
            except (ValueError, RecursionError):
                raise Refusal(400, "the request must be JSON") from None
        if not isinstance(fields, dict):
            raise Refusal(400, f"a request must be an object; got {fields!r:.40}")
        return fields

    async def read(self, request: web.Request) -> web.Response:
        """Read the picture in a request."""
        if self.trainer:
            self.trainer.give_way()
        asked = READING.fullmatch(request.query_string)
        if not asked or int(asked["model"] or 0) >= len(self.frames.models):
            raise Refusal(404, "there is no such page")
        if request.content_length is None:
            raise Refusal(411, "Content-Length must be the size of the picture")
        if request.content_length > LARGEST_PICTURE:
            most = f"{LARGEST_PICTURE:,} bytes"
            raise Refusal(413, f"a picture must have at most {most}")
        if not request.content_length:
            raise Refusal(400, "this is not a picture that can be read")
        snapshot = None
        if asked["run"]:
            step = int(asked["step"]) if asked["step"] else None
            snapshot = int(asked["run"]), step
        choice = (
            int(asked["model"] or 0),
            snapshot,
            int(asked["digit"] or 0),
            bool(asked["stages"]),
        )
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


def as_json(content: Any) -> bytes:
    """Return what JSON has of some content."""
    return json.dumps(content, allow_nan=False).encode()


async def in_thread(threads: ThreadPoolExecutor, work: Callable, *arguments) -> Any:
    """Return what some work returns, done by one of several threads."""
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(threads, work, *arguments)


# ---------------------------------------------------------------------- Readings


def read_drawing(
    model: HandwrittenNumberClassification,
    image: np.ndarray,
    chosen: int = 0,
    with_stages: bool = False,
) -> dict[str, Any]:
    """Return what a model makes of a picture, as the page shows it.

    The answer has the bounding boxes and readings of all digits, the probabilities and
    the image of the `chosen` one, and on request the stages of `find_digits`.
    """
    try:
        found = find_digits(image)
    except ValueError:
        blank = image.min() == image.max()
        return {"message": "draw a digit" if blank else "no ink found"}
    probabilities = model.predict_proba(found.images)
    names = name_digits(probabilities, found.touching)
    chosen = min(chosen, len(names) - 1)
    most = describe_doubts(names).partition("\n")[2] if names[1:] else ""
    hints = explain_reading(image, found, probabilities, model.predict_proba)
    stages = found.stages.items() if with_stages else ()
    return {
        "message": describe_reading(names, probabilities),
        "doubts": ". ".join(filter(None, [most, *hints])),
        "names": names,
        "boxes": (found.boxes / (2 * image.shape[:2])).tolist(),
        "chosen": chosen,
        "probabilities": probabilities[chosen].tolist(),
        "image": encode_image(found.images[chosen]),
        "stages": [show_stage(title, stage) for title, stage in stages],
    }


def show_stage(title: str, stage: np.ndarray) -> dict[str, str]:
    """Return a stage (H, W) as the page shows it: title, size and picture."""
    size = "x".join(map(str, stage.shape))
    return {"title": title, "size": size, "picture": as_data_url(stage)}


# ---------------------------------------------------------------------- Pictures


def as_data_url(picture: np.ndarray) -> str:
    """Return a picture of numbers that are not negative as a data URL, in grey."""
    levels = np.rint(255 * (picture / (picture.max() or 1))).astype(np.uint8)
    return "data:image/png;base64," + base64.b64encode(as_png(levels)).decode()


def as_png(image: np.ndarray) -> bytes:
    """Return a uint8 image as a PNG file."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
