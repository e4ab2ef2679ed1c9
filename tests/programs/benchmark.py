"""Measure the class beside Keras and PyTorch: training, inference, programs, growth.

python tests/programs/benchmark.py                 all of it, some twenty minutes
python tests/programs/benchmark.py --quick         a sample, no whole programs: a minute
python tests/programs/benchmark.py --before FILE   beside an earlier version, too

The three systems train the same networks on the same float32 images with the same plain
gradient descent, and that of the recipe `fast` with its own steps. Each lives in a
process of its own, so that no threads of one disturb another; they take turns, round by
round, and of each the median counts, with minimum and maximum beside it. PyTorch takes
part where it is installed (pip install torch). They train once more while two endless
loops keep the processor busy, as other programs of a user might.

An earlier version of the class, as `git show COMMIT:handwritten_classifier.py` prints
it, trains beside the present one with the distortions of the recipe `best`. The page to
draw on is timed where there are Chromium, its driver and Selenium. Prints tables, last
a summary, and writes benchmark.json and benchmark.png. Runs on Linux; the machine
should do nothing else meanwhile.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from helpers.memory import anonymous_memory, run_program, watch_memory  # noqa: E402
from helpers.page import BROWSER, DRIVER, browsing, serving  # noqa: E402
from helpers.systems import (  # noqa: E402
    NumpySystem,
    Workers,
    installed_systems,
    measure_products,
)

from digits.canvas import draw_to_files  # noqa: E402
from digits.mnist import DIGITS, load_data  # noqa: E402
from digits.results import make_folder, print_table, write_figure, write_json  # noqa: E402
from handwritten_classifier import HandwrittenNumberClassification  # noqa: E402
from run import RECIPES  # noqa: E402

NETWORKS = (
    "8C4-MP4-10N",
    "8C3-MP2-10N",
    "6C5-MP2-16C5-MP2-120N-84N-10N",
    "16C5-MP2-32C5-MP2-128N-10N",
    "32C3-MP2-64C3-MP2-10N",
)
BATCH_SIZES = (32, 128)
RATE = 0.01  # of plain gradient descent, in all systems
ALSO_BUSY = ((NETWORKS[0], 32), (NETWORKS[3], 128))  # a small and a large step
LOOPS = 2
# It ends by itself, should this program be killed before it could end it.
ENDLESS = "import signal\nsignal.alarm(300)\nwhile True: pass"
REPRODUCE = ("reproduce", "fast", "--seeds", "4")
STEPS = ("architecture", "batch_size", "lr", "momentum", "weight_decay")
STEPS += ("label_smoothing",)  # what all systems can do


# ------------------------------------------------------------------------ Rounds


def compare(workers: Workers, task: str, count: int, rounds: int, scale: float) -> dict:
    """Return what a task takes in each system, in turns; the seconds times `scale`."""
    turns = [workers.take_turns(number, task, count) for number in range(rounds)]
    return with_ratio(spread_turns(turns, scale))


def spread_turns(turns: list[dict[str, float]], scale: float = 1) -> dict[str, dict]:
    """Return the spread of each system over the rounds."""
    return {name: spread([scale * turn[name] for turn in turns]) for name in turns[0]}


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    middle = statistics.median(values)
    return {"median": middle, "minimum": min(values), "maximum": max(values)}


def with_ratio(systems: dict[str, dict]) -> dict:
    """Add the ratio of NumPy's median to that of the fastest of the others."""
    others = [s["median"] for name, s in systems.items() if name != "NumPy"]
    return systems | {"ratio": systems["NumPy"]["median"] / min(others)}


# ------------------------------------------------------------------------ Measurements


def measure_programs(data: str | None) -> dict:
    """Measure whole programs, from start to end: seconds and peak memory in MB."""
    turns, named = [], ("--data", data) if data else ()
    with tempfile.TemporaryDirectory() as folder:
        recipe = ("--recipe", "source", "--epochs", "1", "--output", folder)
        programs = {"NumPy": (ROOT / "run.py", *recipe, *named)}
        if importlib.util.find_spec("tensorflow"):
            program = ROOT / "tests" / "helpers" / "as_keras.py"
            programs["Keras"] = (program, folder, *named[1:])
        for _ in range(3):
            turns.append({name: run_program(its) for name, its in programs.items()})
    result = {}
    for index, quantity in enumerate(("seconds", "MB")):
        row = spread_turns([{k: v[index] for k, v in turn.items()} for turn in turns])
        result[quantity] = with_ratio(row) if len(row) > 1 else row
        print_row(f"{quantity:7}", result[quantity])
    return result


def measure_reproduce(data: str | None) -> dict:
    """Measure seconds of several seeds, one after the other and side by side."""
    named, turns = ("--data", data) if data else (), []
    ways = {"one by one": ("--jobs", "1"), "side by side": ()}
    for _ in range(3):
        turn = {}
        for way, jobs in ways.items():
            with tempfile.TemporaryDirectory() as folder:  # A finished seed is kept.
                command = (*REPRODUCE, *jobs, "--output", folder, *named)
                turn[way] = run_program((ROOT / "run.py", *command))[0]
        turns.append(turn)
    row = spread_turns(turns)
    row["ratio"] = row["side by side"]["median"] / row["one by one"]["median"]
    print_row(" ".join(REPRODUCE), row)
    return row


def measure_training(workers: Workers, quick: bool) -> list[dict]:
    """Measure seconds an epoch of 60,000 images, from samples of batches."""
    rate = workers["NumPy"].submit(measure_products).result()
    fast = {name: RECIPES["fast"][name] for name in STEPS}
    cells = [
        {"architecture": architecture, "batch_size": batch_size, "lr": RATE}
        for architecture in (NETWORKS[::3] if quick else NETWORKS)
        for batch_size in (BATCH_SIZES[:1] if quick else BATCH_SIZES)
    ]
    rows = []
    for settings in [*cells, fast]:
        architecture, batch_size = settings["architecture"], settings["batch_size"]
        layers = HandwrittenNumberClassification(architecture).layers
        work = [layer.multiply_adds for layer in layers]
        first = next(layer for layer in layers if layer.multiply_adds)
        # Forward, by the kernels, by the inputs; the images need no gradient.
        floor = 60_000 * (3 * sum(work) - first.multiply_adds) / rate
        count = 640 if quick else 12_800 if len(layers) == 3 else 6_400
        workers.build(**settings)
        row = compare(workers, "train", count, 3 if quick else 7, 60_000 / count)
        row["floor"] = floor / row["NumPy"]["median"]
        name = {"network": architecture, "batch_size": batch_size}
        name |= {"recipe": "fast" if settings is fast else None}
        rows.append(name | row)
        print_row(f"{architecture:30} {batch_size:4}", row, f" {row['floor']:6.0%}")
    return rows


def measure_inference(workers: Workers, quick: bool) -> tuple[list[dict], list[dict]]:
    """Measure seconds for 10,000 images, and milliseconds for one."""
    many, one = [], []
    count, rounds = (2_000, 3) if quick else (10_000, 7)
    for architecture in NETWORKS[::3] if quick else NETWORKS:
        workers.build(architecture=architecture, batch_size=32)
        row = compare(workers, "predict", count, rounds, 10_000 / count)
        many.append({"network": architecture} | row)
        print_row(f"{architecture:30}   s", row)
        row = compare(workers, "predict_singly", 100, rounds, 1_000 / 100)
        one.append({"network": architecture} | row)
        print_row(f"{'':30}  ms", row)
    return many, one


def measure_busy(workers: Workers, quick: bool) -> list[dict]:
    """Measure seconds an epoch with and without endless loops beside, in turns."""
    rows = []
    count, rounds = (640, 2) if quick else (6_400, 5)
    for architecture, batch_size in ALSO_BUSY:
        workers.build(architecture=architecture, batch_size=batch_size, lr=RATE)
        turns = {"quiet": [], "busy": []}
        for number in range(rounds):
            for load in turns:
                with endless_loops(LOOPS if load == "busy" else 0):
                    turns[load].append(workers.take_turns(number, "train", count))
        row = compare_loads(turns, 60_000 / count)
        rows.append({"network": architecture, "batch_size": batch_size} | row)
        for load in turns:
            slow_down = row["slow_down"] if load == "busy" else {}
            more = ", ".join(f"{name} {n:.2f}" for name, n in slow_down.items())
            more = more and f"times the quiet: {more}"
            print_row(f"{architecture:30} {batch_size:4} {load:5}", row[load], more)
    return rows


def compare_loads(turns: dict[str, list[dict]], scale: float) -> dict:
    """Return what a task takes "quiet" and "busy", and how these compare."""
    row = {load: spread_turns(turns[load], scale) for load in turns}
    quiet, busy = (
        {name: s["median"] for name, s in row[load].items()}
        for load in ("quiet", "busy")
    )
    row["slow_down"] = {name: busy[name] / quiet[name] for name in busy}
    if "PyTorch" in busy:
        row["ratio_to_pytorch"] = busy["NumPy"] / busy["PyTorch"]
    return row


@contextmanager
def endless_loops(count: int) -> Iterator[list[subprocess.Popen]]:
    """Keep processes busy beside what is done meanwhile; they never outlive it."""
    loops, nowhere = [], subprocess.DEVNULL
    try:
        for _ in range(count):
            command = [sys.executable, "-c", ENDLESS]
            loops.append(subprocess.Popen(command, stdout=nowhere, stderr=nowhere))
        time.sleep(0.3 if count else 0)  # until they have begun
        yield loops
        if any(loop.poll() is not None for loop in loops):
            raise RuntimeError("endless loops must run beside; one has ended")
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def measure_distortions(path: Path, data: str | None, quick: bool) -> dict:
    """Measure seconds an epoch of `best`, in this class and an earlier version."""
    systems = {"NumPy": NumpySystem, "before": partial(NumpySystem, path=path)}
    count, rounds = (640, 2) if quick else (6_400, 7)
    with Workers(systems, data) as workers:
        workers.build(**RECIPES["best"] | {"epochs": 1})
        row = compare(workers, "train", count, rounds, 60_000 / count)
    print_row(f"{RECIPES['best']['architecture']:30}", row)
    return row


def measure_growth(data: str | None, quick: bool) -> list[dict]:
    """Measure microseconds an image, and memory, for more and more images on disk."""
    counts = (1_000, 10_000) if quick else (1_000, 10_000, 100_000, 1_000_000)
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        with ProcessPoolExecutor(1, spawn) as process:
            process.submit(write_digits, path, data, counts[-1]).result()
        with ProcessPoolExecutor(1, spawn) as process:
            rows = process.submit(train_on_disk, path, counts).result()
    for row in rows:
        print_row(f"{row['images']:9,} images", row, f"{row['memory']:6.1f} MB")
    return rows


def write_digits(path: Path, data: str | None, count: int) -> None:
    """Write `count` training digits, repeated in their order, to a file."""
    digits = load_data(data)
    chosen = np.resize(np.arange(len(digits.train_labels)), count)
    images = np.memmap(path, np.uint8, "w+", shape=(count, 28, 28))
    for start in range(0, count, 10_000):
        part = chosen[start : start + 10_000]
        images[start : start + len(part)] = digits.train_images[part]
    images.flush()
    np.save(path.with_suffix(".npy"), digits.train_labels[chosen])


def train_on_disk(path: Path, counts: tuple[int, ...]) -> list[dict]:
    """Train on the first images of a mapped file; the numbers of them take turns.

    Short epochs are repeated. Returns microseconds an image, and the peak of the memory
    that maps no file, in MB above what it was before.
    """
    labels = np.load(path.with_suffix(".npy"))
    images = np.memmap(path, np.uint8, "r", shape=(counts[-1], 28, 28))
    model = HandwrittenNumberClassification(lr=RATE)
    model.fit(images[:10_000], labels[:10_000], verbose=0)
    costs, peaks = {count: [] for count in counts}, dict.fromkeys(counts, 0.0)
    least = counts[-1] // 10  # images in a turn
    before = anonymous_memory()
    for _ in range(3):
        for count in counts:
            repetitions, stop = max(1, least // count), threading.Event()
            with ThreadPoolExecutor(1) as threads:
                peak = threads.submit(watch_memory, stop)
                try:
                    model.fit(images[:count], labels[:count], repetitions, verbose=0)
                finally:
                    stop.set()
            peaks[count] = max(peaks[count], peak.result() - before)
            seconds = statistics.median(model.history["seconds"][-repetitions:])
            costs[count].append(1e6 * seconds / count)
    return [
        {"images": count, "us an image": spread(costs[count]), "memory": peaks[count]}
        for count in counts
    ]


# Notes how long it takes from the end of a stroke, as the system has timed it, to the
# picture with its answer, and to the one with all numbers of the network.
WATCH_STROKES = """
    window.taken = {answer: [], numbers: []};
    const answer = document.getElementById("answer");
    const ends = {answer: null, numbers: null};
    const note = (what) => {
      if (ends[what] === null) return;
      const start = ends[what];
      ends[what] = null;
      requestAnimationFrame((now) => taken[what].push(now - start));
    };
    const look = () => {
      if (answer.dataset.reading === "false") note("answer");
      if (answer.getAttribute("aria-busy") === "false") note("numbers");
    };
    document.getElementById("paper").addEventListener("pointerup", (event) => {
      ends.answer = ends.numbers = event.timeStamp;
      look();  // The last reading may have been there before.
    });
    new MutationObserver(look).observe(answer, {attributes: true});
"""
# Points at another number in each picture; how many pictures are there a second?
POINT = """
    const done = arguments[0];
    const maps = [...document.querySelectorAll("#network canvas")];
    const map = maps.filter((canvas) => canvas.tabIndex === 0).at(-7), count = 200;
    const {left, top, width, height} = map.getBoundingClientRect();
    let shown = 0, start = null;
    const point = (now) => {
      start ??= now;
      if (shown++ === count) return done(1000 * count / (now - start));
      const [x, y] = [left + (37 * shown) % width, top + (3 * shown) % height];
      const event = {clientX: x, clientY: y, pointerType: "mouse"};
      map.dispatchEvent(new PointerEvent("pointermove", event));
      requestAnimationFrame(point);
    };
    requestAnimationFrame(point);
"""


# Counts the pictures of a training that the page has asked for.
COUNT_TRACES = """
    window.traces = 0;
    const ask = window.fetch;
    window.fetch = (...request) => {
      if (request[0] === "trace") window.traces++;
      return ask(...request);
    };
"""
SECONDS_WATCHED = 4


def measure_page(quick: bool) -> dict:
    """Measure milliseconds from a stroke's end to its answer and to all numbers.

    A mouse draws strokes on the page in Chromium, without a pause before their ends.
    Then it points at numbers.
    """
    model = HandwrittenNumberClassification(RECIPES["default"]["architecture"])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.npz"
        model.save(path)
        with serving(path) as (_, address), browsing(Path(folder) / "browser") as page:
            page.get(f"http://{address}/")
            page.execute_script(WATCH_STROKES)
            strokes = 10 if quick else 50
            for number in range(strokes):
                draw_stroke(page, 3 + number % 5)
            taken = page.execute_script("return taken")
            pictures = page.execute_async_script(POINT)
            watched = measure_watching(page, address, 3 if quick else 7)
    if len(taken["answer"]) != strokes:
        raise RuntimeError(f"{strokes} strokes must be shown; got {taken}")
    row = {what: spread(times) for what, times in taken.items()}
    print_row("one stroke", row)
    print(f"{pictures:.0f} pictures a second while numbers are pointed at")
    print(
        f"a training that is watched: {watched['pictures']:.1f} pictures a second, "
        f"{watched['share']:.0%} of the speed of fit alone"
    )
    return row | {"watched": watched}


def measure_watching(page, address: str, rounds: int) -> dict[str, float]:
    """Compare a training on the page with `fit` alone, in turns; medians.

    Both train the default network, on the embedded digits, for some seconds.
    """
    data = load_data(DIGITS)
    settings = RECIPES["default"] | {"epochs": 200, "verbose": 0}
    press = "document.getElementById(arguments[0]).click()"
    page.execute_script(COUNT_TRACES)
    page.execute_script(
        "document.getElementById('A-epochs').value = 200;"
        "document.getElementById('training-part').open = true"
    )
    shares, pictures = [], []
    for _ in range(rounds):
        page.execute_script(press, "train-run")
        time.sleep(1)
        began, step = time.perf_counter(), read_step(address)
        shown = page.execute_script("return traces")
        time.sleep(SECONDS_WATCHED)
        seconds = time.perf_counter() - began
        watched = (read_step(address) - step) / seconds
        pictures.append((page.execute_script("return traces") - shown) / seconds)
        page.execute_script(press, "train-run")
        time.sleep(1)
        alone = HandwrittenNumberClassification(**settings)
        began, steps = time.perf_counter(), []

        def note(_, step: int, __, began: float = began, steps: list = steps) -> bool:
            steps.append(step)
            return time.perf_counter() - began > SECONDS_WATCHED

        alone.fit(data.train_images, data.train_labels, callback=note)
        shares.append(watched / (len(steps) / (time.perf_counter() - began)))
    return {"share": statistics.median(shares), "pictures": statistics.median(pictures)}


def read_step(address: str) -> int:
    """Return the step of the training on a page."""
    with urllib.request.urlopen(f"http://{address}/training") as answer:
        return json.load(answer)["runs"][0]["step"]


def draw_stroke(page, turns: int) -> None:
    """Draw one with the mouse, on an empty paper, at half a hundred places."""
    page.find_element("id", "clear").click()
    box = page.find_element("id", "paper").rect
    for number in range(51):
        angle = 2 * np.pi * number / 50
        x = box["x"] + 140 + 70 * np.sin(angle)
        y = box["y"] + 140 - 90 * np.cos(angle * turns / 4)
        kind = {0: "mousePressed", 50: "mouseReleased"}.get(number, "mouseMoved")
        event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1}
        page.execute_cdp_cmd("Input.dispatchMouseEvent", event)
    time.sleep(0.3)


# ------------------------------------------------------------------------ Report


def print_row(name: str, row: dict, more: str = "") -> None:
    """Print the medians of one row, with their range, and the ratio."""
    cells = [
        f"{system} {s['median']:8.3f} ({s['minimum']:.3f}-{s['maximum']:.3f})"
        for system, s in row.items()
        if isinstance(s, dict)
    ]
    ratio = f"  ratio {row['ratio']:.2f}" if "ratio" in row else ""
    print(name, *cells, f"{ratio}{more}", sep="  ", flush=True)


def summarise(results: dict) -> list[dict]:
    """Return one number for each question; None where it was not measured, and why."""
    plain = [row for row in results["training"] if row["recipe"] is None]
    small = [row for row in plain if row["network"].count("C") == 1]
    mean = statistics.geometric_mean([row["ratio"] for row in plain])
    faster, beside = "to the faster framework", f"training beside {LOOPS} endless loops"
    slower = [row | {"ratio": row["slow_down"]["NumPy"]} for row in results["busy"]]
    torch = [
        row | {"ratio": row["ratio_to_pytorch"]}
        for row in results["busy"]
        if "ratio_to_pytorch" in row
    ]
    rows = {
        f"training, {faster}: geometric mean": (mean, f"{len(plain)} cells"),
        f"training, {faster}: worst": worst(plain),
        f"training with one convolution, {faster}: worst": worst(small),
        f"10,000 images, {faster}: worst": worst(results["inference"]),
        f"one image, {faster}: worst": worst(results["latency"]),
        f"{beside}, to the same without: worst": worst(slower),
        f"{beside}, to PyTorch beside them: worst": worst(torch, "without PyTorch"),
        "an epoch of best, to the earlier version": (None, "without --before"),
        f"{' '.join(REPRODUCE)}, to --jobs 1": (None, "with --quick"),
        "peak MB of --recipe source --epochs 1": (None, "with --quick"),
    }
    *_, before, reproduce, peak = rows
    if "distortions" in results:
        rows[before] = results["distortions"]["ratio"], results["before"]
    if "programs" in results:
        rows[reproduce] = results["reproduce"]["ratio"], "side by side"
        rows[peak] = (
            results["programs"]["MB"]["NumPy"]["maximum"],
            "highest run",
        )
    return [{"what": k, "value": v, "where": where} for k, (v, where) in rows.items()]


def worst(rows: list[dict], otherwise: str = "") -> tuple[float | None, str]:
    """Return the highest ratio, and the name of its row."""
    if not rows:
        return None, otherwise
    row = max(rows, key=lambda row: row["ratio"])
    return row["ratio"], name_row(row).replace("\n", ", ")


def print_summary(rows: list[dict]) -> None:
    """Print the summary as a table."""
    table = [("", "measured", "where")]
    for row in rows:
        value = "left out" if row["value"] is None else f"{row['value']:.3g}"
        table.append((row["what"], value, row["where"]))
    print_table(table)


def describe_machine() -> dict[str, str | int]:
    """Return what the figures depend on."""
    versions = {
        package: importlib.metadata.version(package)
        for package in ("numpy", "tensorflow", "keras", "torch")
        if importlib.util.find_spec(package)
    }
    cores = len(os.sched_getaffinity(0))
    processor = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            processor = line.partition(":")[2].strip()
            break
    return {
        "processor": processor,
        "cores": cores,
        "python": platform.python_version(),
    } | versions


def name_row(row: dict) -> str:
    """Return the network of a row, with its batch and recipe, for an axis."""
    name = row["network"]
    name += f"\nbatch {row['batch_size']}" if "batch_size" in row else ""
    return name + (f", recipe {row['recipe']}" if row.get("recipe") else "")


STYLES = {"NumPy": ("C0", "o"), "Keras": ("C1", "s"), "PyTorch": ("C2", "D")}


def draw_benchmark(results: dict):
    """Draw training, inference, and training beside endless loops, in three panels."""
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    figure = Figure(figsize=(10, 6.2), layout="constrained")
    places = [["training", "inference"], ["training", "busy"]]
    panels = figure.subplot_mosaic(places, height_ratios=(5, 3))
    titles = {
        "training": "Training: s an epoch of 60,000 images",
        "inference": "Inference: s for 10,000 images",
        "busy": "Training: quiet (open), busy (filled)",
    }
    for name, title in titles.items():
        draw_rows = draw_loads if name == "busy" else draw_spreads
        draw_rows(panels[name], results[name])
        finish_panel(panels[name], results[name], title)
    present = [name for name in STYLES if name in results["training"][0]]
    handles = [
        Line2D([], [], color=color, marker=marker)
        for color, marker in (STYLES[name] for name in present)
    ]
    names = ["NumPy (this class)" if name == "NumPy" else name for name in present]
    title = "Median seconds; lines from the fastest to the slowest round"
    figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title, size=10)
    return figure


def draw_spreads(panel, rows: list[dict]) -> None:
    """Draw the median, minimum and maximum of each system in each row."""
    for place, system, row in places(rows):
        if system in row:
            color, marker = STYLES[system]
            ends = row[system]["minimum"], row[system]["maximum"]
            panel.plot(ends, (place, place), color=color, alpha=0.6)
            panel.plot(row[system]["median"], place, marker, color=color)


def draw_loads(panel, rows: list[dict]) -> None:
    """Draw how the median of each system moves when the processor is busy."""
    for place, system, row in places(rows):
        if system in row["quiet"]:
            color, marker = STYLES[system]
            quiet, busy = row["quiet"][system]["median"], row["busy"][system]["median"]
            panel.plot((quiet, busy), (place, place), color=color, alpha=0.6)
            panel.plot(busy, place, marker, color=color)
            panel.plot(quiet, place, marker, color=color, markerfacecolor="white")


def places(rows: list[dict]) -> Iterator[tuple[float, str, dict]]:
    """Yield the height of each system in each row of a panel."""
    for number, row in enumerate(rows):
        for index, system in enumerate(STYLES):
            yield number + 0.24 * (index - 1), system, row


def finish_panel(panel, rows: list[dict], title: str) -> None:
    """Name the rows of a panel, shade every other network, and label its axis."""
    from matplotlib.ticker import LogLocator

    networks = list(dict.fromkeys(row["network"] for row in rows))
    for number, row in enumerate(rows):
        if networks.index(row["network"]) % 2 == 0:
            panel.axhspan(number - 0.5, number + 0.5, color="0.955", zorder=-1)
    names = [name_row(row) for row in rows]
    panel.set(xscale="log", yticks=range(len(rows)), yticklabels=names)
    panel.set_title(title, loc="left", size=10)
    panel.set_ylim(len(rows) - 0.5, -0.5)
    panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    panel.xaxis.set_major_formatter("{x:g}")
    panel.xaxis.set_minor_formatter("")
    panel.tick_params(axis="y", labelsize=8, length=0)
    panel.grid(axis="x", color="0.85")
    panel.set_axisbelow(True)
    panel.spines[["top", "right", "left"]].set_visible(False)


def measure_all(args: argparse.Namespace) -> dict:
    """Measure everything that was asked for, and print it on the way."""
    data, quick = args.data, args.quick
    results = {"machine": describe_machine(), "quick": quick}
    print(json.dumps(results["machine"]))
    if not quick:
        print("\nWhole programs: an epoch of the recipe source, figures and all")
        results["programs"] = measure_programs(data)
        print(f"\nWhole programs: s of {' '.join(REPRODUCE)}")
        results["reproduce"] = measure_reproduce(data)
    if args.before:
        print("\nDistortions: s an epoch of 60,000 images, beside the earlier version")
        results["before"] = args.before.name
        results["distortions"] = measure_distortions(args.before, data, quick)
    with Workers(installed_systems(), data) as workers:
        print("\nTraining: s an epoch of 60,000 images; NumPy's part of the floor")
        results["training"] = measure_training(workers, quick)
        print("\nInference: s for 10,000 images, ms for one")
        results["inference"], results["latency"] = measure_inference(workers, quick)
        print(f"\nTraining with {LOOPS} endless loops beside: s an epoch")
        results["busy"] = measure_busy(workers, quick)
    print("\nGrowth: one epoch over images on disk; memory besides the mapped file")
    results["growth"] = measure_growth(data, quick)
    if BROWSER and DRIVER and importlib.util.find_spec("selenium"):
        print("\nThe page: ms from a stroke's end to the answer and to all numbers")
        results["page"] = measure_page(quick)
    return results


def main() -> None:
    """Measure everything, print it and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="two minutes")
    parser.add_argument("--data", metavar="PATH", help="MNIST, as in run.py")
    parser.add_argument("--output", metavar="FOLDER", default="results", type=Path)
    help_before = "an earlier handwritten_classifier.py, to compare distortions with"
    parser.add_argument("--before", metavar="FILE", type=Path, help=help_before)
    args = parser.parse_args()
    if args.before and not args.before.is_file():
        parser.error(f"--before must name a file; got {str(args.before)!r}")
    results = measure_all(args)
    results["summary"] = summarise(results)
    print("\nSummary: ratios of times, and memory")
    print_summary(results["summary"])
    output = make_folder(args.output)
    write_json(output / "benchmark.json", results)
    write_figure(output / "benchmark.png", draw_benchmark(results))
    print(f"\nWritten to {output}{os.sep}: benchmark.json, benchmark.png")


if __name__ == "__main__":
    draw_to_files()
    main()
