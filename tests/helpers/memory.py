"""Memory and seconds of processes, as Linux counts them."""

import json
import subprocess
import sys
import threading
from pathlib import Path

# A new process inherits the peak memory of the one that starts it. This one is small.
LAUNCHER = """
import json, resource, subprocess, sys, time
started = time.perf_counter()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - started
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
print(json.dumps([status, seconds, peak]))
"""


def run_program(command: list) -> tuple[float, float]:
    """Run a program to its end; return seconds and its peak resident memory in MB."""
    command = [sys.executable, *map(str, command)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    launcher = [sys.executable, "-c", LAUNCHER, *command]
    done = subprocess.run(launcher, **pipes, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the launcher of {command} failed: {done.stderr}")
    status, seconds, peak = json.loads(done.stdout)
    if status:
        last = (done.stderr.strip().splitlines() or ["(it printed no error)"])[-1]
        raise SystemExit(f"{' '.join(command)}\nended with status {status}: {last}")
    return seconds, peak


def watch_memory(stop: threading.Event, process: int | str = "self") -> float:
    """Return the largest `anonymous_memory` until `stop` is set."""
    peak = anonymous_memory(process)
    while not stop.wait(0.1):
        peak = max(peak, anonymous_memory(process))
    return peak


def anonymous_memory(process: int | str = "self") -> float:
    """Return the resident memory of a process that maps no file, in MB (Linux)."""
    status = Path(f"/proc/{process}/status").read_text()
    kilobytes = status.partition("RssAnon:")[2].split()[0]
    return int(kilobytes) * 1024 / 1e6
