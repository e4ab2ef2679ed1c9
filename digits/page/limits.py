"""Limits of the page's server.

`Connection` limits the time that one request takes, `Uploads` the memory of all, and
`Turns` the pictures that are decoded at once.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import mmap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from heapq import heapify, heappop, heappush

from aiohttp import web

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


class Refusal(Exception):
    """A request that is answered by a status and a reason."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


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


class Connection(web.RequestHandler):
    """A connection, with one request; each of its parts must take place in time.

    aiohttp answers the request. It has no limit of its own on how long headers take to
    arrive, and answers to leave.
    """

    def __init__(
        self,
        waiting: dict[Connection, None],
        manager: web.Server,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        # Compressed requests stay so: a small one may unpack to gigabytes.
        options = {"auto_decompress": False, "lingering_time": PATIENCE}
        super().__init__(manager, loop=loop, access_log=None, **options)
        # Of all connections those that wait for their client, the longest first.
        self.waiting, self.manager, self.loop = waiting, manager, loop
        self.end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Wait for a request; if there are too many connections, close one."""
        super().connection_made(transport)
        self.end_after(PATIENCE, self.refuse_late)
        self.waiting[self] = None
        if len(self.manager.connections) > MOST_CONNECTIONS:
            next(iter(self.waiting)).end_after(0)

    def wait_for_client(self, seconds: float | None = None) -> None:
        """Give the client its time, to send a picture or to take an answer."""
        self.end_after(PATIENCE if seconds is None else seconds)
        if self.transport:
            self.waiting[self] = None

    def wait_for_reading(self) -> None:
        """Give the server its time, to read what the client has sent."""
        self.end_after(LONGEST_READING)

    def end_after(self, seconds: float, end: Callable | None = None) -> None:
        """End the connection then, and not when it was to end before."""
        self.waiting.pop(self, None)
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
        self.waiting.pop(self, None)
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
        self.taken = self.closed = False
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
                crowded = "too many pictures wait to be read"
                raise Refusal(503, "the program ends" if self.closed else crowded)
            yield
        finally:
            if turn.done() and not turn.cancelled() and turn.result():
                self.taken = False
            turn.cancel()
            self.give()

    def give(self) -> None:
        """Give the lock, if it is free, to the next who still waits."""
        while self.waiting and (self.closed or not self.taken):
            *_, turn = heappop(self.waiting)
            if not turn.done():
                turn.set_result(not self.closed)
                self.taken = not self.closed

    def close(self) -> None:
        """Refuse all who wait, and all who come."""
        self.closed = True
        self.give()

    def refuse_most_work(self) -> None:
        """If too many wait, refuse the one with the most work."""
        self.waiting = [place for place in self.waiting if not place[2].done()]
        if len(self.waiting) > MOST_WAITING:
            most = max(self.waiting)
            self.waiting.remove(most)
            most[2].set_result(False)
        heapify(self.waiting)
