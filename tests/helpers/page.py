"""The page to draw on as a person has it: the program that serves it, and a browser."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from digits.mnist import DIGITS

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
