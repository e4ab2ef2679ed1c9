"""The page to draw on as a person has it: the program that serves it, and a browser."""

import asyncio
import json
import math
import re
import shutil
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from digits.mnist import DIGITS
from digits.page.server import DrawingServer, listen

ROOT = Path(__file__).parents[2]
BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")


@contextmanager
def serving(model: Path) -> Iterator[tuple[subprocess.Popen, str]]:
    """Start the program, and yield its process, and its host and port."""
    command = [sys.executable, str(ROOT / "run.py"), "draw", "--no-browser"]
    command += ["--model", str(model), "--data", str(DIGITS)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True) as server:
        try:
            line = next(line for line in server.stdout if "http://" in line)
            yield server, re.search(r"http://(127\.0\.0\.1:\d+)/;", line)[1]
        finally:
            server.kill()  # It has ended before, unless something went wrong.


@contextmanager
def running(*arguments: Any) -> Iterator[tuple[DrawingServer, str]]:
    """Run a server in a thread of this process; yield it, its host and port."""
    server = DrawingServer(*arguments)
    started, task = threading.Event(), None

    async def serve():
        nonlocal task
        task = asyncio.current_task()
        asyncio.get_running_loop().call_soon(started.set)
        with suppress(asyncio.CancelledError):
            await server.serve(listener)

    with listen(0) as listener:
        thread = threading.Thread(target=lambda: asyncio.run(serve()))
        thread.start()
        started.wait()
        try:
            yield server, "{}:{}".format(*listener.getsockname())
        finally:
            with suppress(RuntimeError):  # It may have ended already.
                task.get_loop().call_soon_threadsafe(task.cancel)
            thread.join()


def read_frame(content: bytes) -> tuple[dict, dict[str, np.ndarray]]:
    """Return header and arrays of a frame."""
    (length,) = struct.unpack("<I", content[:4])
    header, arrays = json.loads(content[4 : 4 + length]), {}
    for name, at in header["arrays"].items():
        start = 4 + length + at["offset"]
        assert start % 8 == 0, name
        array = np.frombuffer(content, at["dtype"], math.prod(at["shape"]), start)
        arrays[name] = array.reshape(at["shape"])
    return header, arrays


@contextmanager
def browsing(folder: Path):
    """Yield Chromium, without a window, which keeps its own files in a folder."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-dev-shm-usage",
        "disable-background-networking",
        "no-first-run",
        "window-size=900,1100",
        f"user-data-dir={folder}",
    ):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()
