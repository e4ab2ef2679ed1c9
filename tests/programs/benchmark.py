"""Measure the class beside Keras and PyTorch: training, inference, programs, growth.

python tests/programs/benchmark.py           all of it, a quarter of an hour
python tests/programs/benchmark.py --quick   a sample, no whole programs; one minute

The three systems train the same networks on the same float32 images with the same plain
gradient descent, and that of the recipe `fast` with its own steps. Each lives in a
process of its own, so that no threads of one disturb another; they take turns, round by
round, and of each the median counts, with minimum and maximum beside it. PyTorch takes
part where it is installed (pip install torch). The page to draw on is timed where there
are Chromium, its driver and Selenium. Prints tables, and writes benchmark.json and
benchmark.png. Runs on Linux.
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
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402
from helpers.page import BROWSER, DRIVER, browsing, serving  # noqa: E402

import run  # noqa: E402
from digits.canvas import draw_to_files  # noqa: E402
from digits.figures import (  # noqa: E402
    plot_confusion,
    plot_history,
    plot_kernels,
    plot_mistakes,
)
from digits.keras_twin import to_keras  # noqa: E402
from digits.mnist import load_data, split_training  # noqa: E402
from digits.results import make_folder, write_figure, write_json  # noqa: E402
from handwritten_classifier import HandwrittenNumberClassification  # noqa: E402

NETWORKS = (
    "8C4-MP4-10N",
    "8C3-MP2-10N",
    "6C5-MP2-16C5-MP2-120N-84N-10N",
    "16C5-MP2-32C5-MP2-128N-10N",
    "32C3-MP2-64C3-MP2-10N",
)
BATCH_SIZES = (32, 128)
RATE = 0.01  # of plain gradient descent, in all systems
FRAMEWORK_BATCH = 1000  # images at once in the inference of the frameworks


# ------------------------------------------------------------------------ Systems
# One of these lives in each worker process. All have the same four methods.


class NumpySystem:
    """The class of this project."""

    def __init__(self, data: str | None) -> None:
        self.images, self.labels = load_floats(data)

    def build(self, settings: dict) -> None:
        self.model = HandwrittenNumberClassification(**settings)

    def train(self, count: int) -> None:
        self.model.fit(self.images[:count], self.labels[:count], verbose=0)

    def predict(self, count: int) -> None:
        self.model.predict_proba(self.images[:count])

    def predict_singly(self, count: int) -> None:
        for index in range(count):
            self.model.predict_proba(self.images[index : index + 1])


class KerasSystem:
    """The equal Keras model, trained by its own `fit`."""

    def __init__(self, data: str | None) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        self.images, self.labels = load_floats(data)

    def build(self, settings: dict) -> None:
        from tensorflow import keras

        model = HandwrittenNumberClassification(**settings)
        self.model, self.batch_size = compiled_keras(model), model.batch_size
        classes = len(model.B_dense)
        one_hot = keras.utils.to_categorical(self.labels, classes)
        self.targets = one_hot if model.label_smoothing else self.labels

    def train(self, count: int) -> None:
        self.model.fit(
            self.images[:count],
            self.targets[:count],
            batch_size=self.batch_size,
            verbose=0,
        )

    def predict(self, count: int) -> None:
        images = self.images[:count]
        self.model.predict(images, batch_size=FRAMEWORK_BATCH, verbose=0)

    def predict_singly(self, count: int) -> None:
        for index in range(count):
            self.model.predict_on_batch(self.images[index : index + 1])


class TorchSystem:
    """The equal PyTorch model, with the usual loop around it."""

    def __init__(self, data: str | None) -> None:
        import torch

        self.torch = torch
        images, labels = load_floats(data)
        self.images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        self.labels = torch.from_numpy(labels).long()

    def build(self, settings: dict) -> None:
        nn, steps = self.torch.nn, []
        equal = HandwrittenNumberClassification(**settings)
        layers = equal.layers
        for layer in layers[:-1]:
            if layer.kind == "pooling":
                steps.append(nn.MaxPool2d(layer.window, layer.stride))
            else:
                channels = (layer.input_shape[2], layer.output_shape[2])
                options = (layer.window, layer.stride, layer.padding)
                steps += [nn.Conv2d(*channels, *options), nn.ReLU()]
        features = int(np.prod(layers[-1].input_shape))
        steps += [nn.Flatten(), nn.Linear(features, layers[-1].output_shape[2])]
        self.model, self.batch_size = nn.Sequential(*steps), equal.batch_size
        self.optimizer = self.torch.optim.SGD(
            self.model.parameters(),
            equal.lr,
            equal.momentum,
            nesterov=equal.momentum > 0,
            weight_decay=equal.weight_decay,
        )
        self.loss = nn.CrossEntropyLoss(label_smoothing=equal.label_smoothing)

    def train(self, count: int) -> None:
        self.model.train()
        order = self.torch.randperm(count)
        for start in range(0, count, self.batch_size):
            batch = order[start : start + self.batch_size]
            self.optimizer.zero_grad()
            self.loss(self.model(self.images[batch]), self.labels[batch]).backward()
            self.optimizer.step()

    def predict(self, count: int, at_once: int = FRAMEWORK_BATCH) -> None:
        self.model.eval()
        with self.torch.inference_mode():
            for start in range(0, count, at_once):
                scores = self.model(self.images[start : start + at_once])
                self.torch.softmax(scores, dim=1).numpy()

    def predict_singly(self, count: int) -> None:
        self.predict(count, at_once=1)


def load_floats(path: str | None) -> tuple[np.ndarray, np.ndarray]:
    """Return 20,000 training images as float32 (B, 28, 28, 1) in 0..1, and labels."""
    data = load_data(path)
    chosen = np.resize(np.arange(len(data.train_labels)), 20_000)
    images = data.train_images[chosen, :, :, np.newaxis] / np.float32(255)
    return images, data.train_labels[chosen]


def compiled_keras(model: HandwrittenNumberClassification):
    """Return the equal Keras model, ready to be trained in the same way."""
    from tensorflow import keras

    equal = to_keras(model)
    optimizer = keras.optimizers.SGD(
        model.lr,
        model.momentum,
        nesterov=model.momentum > 0,
        weight_decay=model.weight_decay or None,
    )
    loss = "sparse_categorical_crossentropy"
    if model.label_smoothing:
        smoothing = model.label_smoothing
        loss = keras.losses.CategoricalCrossentropy(label_smoothing=smoothing)
    equal.compile(optimizer, loss, metrics=["accuracy"])
    return equal


# ------------------------------------------------------------------------ Workers

SYSTEM = None  # of a worker process


def start_worker(system: type, data: str | None) -> None:
    """Make this process the worker of one system."""
    global SYSTEM
    SYSTEM = system(data)


def build_network(settings: dict) -> None:
    """Build a network in the worker, and let it do everything once, untimed."""
    SYSTEM.build(settings)
    SYSTEM.train(4 * settings["batch_size"])
    SYSTEM.predict(FRAMEWORK_BATCH)
    SYSTEM.predict_singly(5)


def measure(task: str, count: int) -> float:
    """Return the seconds that the worker takes for a task on `count` images."""
    started = time.perf_counter()
    getattr(SYSTEM, task)(count)
    return time.perf_counter() - started


def measure_products() -> float:
    """Return the machine's rate of large float32 matrix products, multiply-adds/s."""
    side, seconds = 2048, []
    left, right = np.ones((2, side, side), np.float32)
    for _ in range(7):
        started = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - started)
    return side**3 / statistics.median(seconds[1:])


class Workers:
    """A process for each system that is installed, by name."""

    def __init__(self, data: str | None) -> None:
        systems = {"NumPy": (NumpySystem, "numpy")}
        systems |= {"Keras": (KerasSystem, "tensorflow")}
        systems |= {"PyTorch": (TorchSystem, "torch")}
        self.pools = {
            name: ProcessPoolExecutor(
                1, multiprocessing.get_context("spawn"), start_worker, (system, data)
            )
            for name, (system, package) in systems.items()
            if importlib.util.find_spec(package)
        }
        if len(self.pools) < 2:
            raise SystemExit("TensorFlow or PyTorch must be installed; got neither")
        starting = [pool.submit(time.sleep, 0) for pool in self.pools.values()]
        for worker in starting:  # All at once: to import them takes long.
            worker.result()

    def __getitem__(self, name: str) -> ProcessPoolExecutor:
        return self.pools[name]

    def build(self, **settings) -> None:
        for pool in self.pools.values():
            pool.submit(build_network, settings).result()

    def compare(self, task: str, count: int, rounds: int, scale: float) -> dict:
        """Return what a task takes in each system; they take turns."""
        names, seconds = list(self.pools), {name: [] for name in self.pools}
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                taken = self.pools[name].submit(measure, task, count).result()
                seconds[name].append(taken * scale)
        return with_ratio({name: spread(s) for name, s in seconds.items()})

    def close(self) -> None:
        for pool in self.pools.values():
            pool.shutdown()


def spread(values: list[float]) -> dict[str, float]:
    """Return median, minimum and maximum."""
    middle = statistics.median(values)
    return {"median": middle, "minimum": min(values), "maximum": max(values)}


def with_ratio(systems: dict[str, dict]) -> dict:
    """Add the ratio of NumPy's median to that of the faster framework."""
    others = [s["median"] for name, s in systems.items() if name != "NumPy"]
    return systems | {"ratio": systems["NumPy"]["median"] / min(others)}


# ------------------------------------------------------------------------ Measurements


def measure_training(workers: Workers, quick: bool) -> list[dict]:
    """Measure seconds an epoch of 60,000 images, from samples of batches."""
    rate = workers["NumPy"].submit(measure_products).result()
    names = ("architecture", "batch_size", "momentum", "weight_decay")
    names += ("lr", "label_smoothing")
    fast = {name: run.RECIPES["fast"][name] for name in names}
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
        row = workers.compare("train", count, 3 if quick else 7, 60_000 / count)
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
        row = workers.compare("predict", count, rounds, 10_000 / count)
        many.append({"network": architecture} | row)
        print_row(f"{architecture:30}   s", row)
        row = workers.compare("predict_singly", 100, rounds, 1_000 / 100)
        one.append({"network": architecture} | row)
        print_row(f"{'':30}  ms", row)
    return many, one


def measure_programs(data: str | None) -> dict:
    """Measure whole programs, from start to end: seconds and peak memory in MB."""
    seconds, memory = {}, {}
    named = ("--data", data) if data else ()
    with tempfile.TemporaryDirectory() as folder:
        recipe = ("--recipe", "source", "--epochs", "1", "--output", folder)
        programs = {
            "NumPy": (ROOT / "run.py", *recipe, *named),
            "Keras": (__file__, "--as-keras", folder, *named),
        }
        if importlib.util.find_spec("tensorflow") is None:
            del programs["Keras"]
        for _ in range(5):
            for name, program in programs.items():
                started = time.perf_counter()
                used = run_program([sys.executable, *map(str, program)])
                seconds.setdefault(name, []).append(time.perf_counter() - started)
                memory.setdefault(name, []).append(used)
    result = {
        quantity: {name: spread(values) for name, values in systems.items()}
        for quantity, systems in (("seconds", seconds), ("memory", memory))
    }
    for quantity, unit in (("seconds", "s"), ("memory", "MB")):
        if "Keras" in programs:
            result[quantity] = with_ratio(result[quantity])
        print_row(f"{quantity + ', ' + unit:12}", result[quantity])
    return result


def run_program(command: list[str]) -> float:
    """Run a program to its end; return its peak resident memory in MB."""
    with open(os.devnull, "w") as nowhere:
        actions = [(os.POSIX_SPAWN_DUP2, nowhere.fileno(), stream) for stream in (1, 2)]
        process = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
        _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}")
    return usage.ru_maxrss * 1024 / 1e6


def train_as_keras(folder: Path, path: str | None) -> None:
    """Do with Keras what ``run.py --recipe source --epochs 1`` does, figures too."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    data = load_data(path)
    split = split_training(data)
    settings = run.RECIPES["source"]
    # Its figures are drawn by the same functions, so that they are the same.
    twin = HandwrittenNumberClassification(settings["architecture"])
    model = compiled_keras(twin.set_params(lr=settings["lr"]))
    images = split.images[..., np.newaxis] / np.float32(255)
    held_out = split.held_out[0][..., np.newaxis] / np.float32(255)
    test_images = data.test_images[..., np.newaxis] / np.float32(255)
    history = model.fit(
        images,
        split.labels,
        batch_size=settings["batch_size"],
        validation_data=(held_out, split.held_out[1]),
    ).history
    model.save(folder / "model.keras")
    probabilities = model.predict(test_images)
    twin.history = history | {"seconds": []}
    twin.kernels[0][:] = model.layers[0].get_weights()[0].transpose(3, 2, 0, 1)
    test = (data.test_images, data.test_labels, probabilities)
    write_json(folder / "metrics.json", history)
    write_figure(folder / "training.png", plot_history(twin))
    write_figure(folder / "kernels.png", plot_kernels(twin))
    write_figure(folder / "confusion.png", plot_confusion(twin, *test))
    write_figure(folder / "mistakes.png", plot_mistakes(twin, *test))


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
# frame for which its last reading is there and all pictures are ready.
WATCH_STROKES = """
    window.taken = [];
    let end = null;
    const look = async () => {
      if (end === null || stale || shown < asked) return;
      const start = end;
      end = null;
      await Promise.all([...document.images].map((image) => image.decode()));
      requestAnimationFrame((now) => taken.push(now - start));
    };
    paper.addEventListener("pointerup", (event) => { end = event.timeStamp; look(); });
    new MutationObserver(look).observe(steps, {childList: true});
"""


def measure_page(quick: bool) -> dict:
    """Measure milliseconds from a stroke's end to its picture, on the page to draw on.

    A mouse draws the strokes in Chromium, without a pause before their ends.
    """
    model = HandwrittenNumberClassification(run.RECIPES["default"]["architecture"])
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
    if len(taken) != strokes:
        raise RuntimeError(f"{strokes} strokes must be shown; got {len(taken)}")
    print_row("one stroke", row := {"page": spread(taken)})
    return row


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


def geometric_mean(rows: list[dict]) -> float:
    """Return the geometric mean of the ratios."""
    return statistics.geometric_mean([row["ratio"] for row in rows])


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


def draw_benchmark(results: dict):
    """Draw training and inference of all networks, the three systems side by side."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator

    figure = Figure(figsize=(10, 5.4), layout="constrained")
    panels = figure.subplots(1, 2, width_ratios=(1.25, 1))
    titles = ("Training: s an epoch of 60,000 images", "Inference: s for 10,000 images")
    for panel, rows, title in zip(
        panels, (results["training"], results["inference"]), titles, strict=True
    ):
        names = [name_row(row) for row in rows]
        for number, system in enumerate(("NumPy", "Keras", "PyTorch")):
            spreads = [row[system] for row in rows if system in row]
            if not spreads:
                continue
            middle = np.array([s["median"] for s in spreads])
            low = middle - [s["minimum"] for s in spreads]
            high = np.array([s["maximum"] for s in spreads]) - middle
            panel.errorbar(
                middle,
                np.arange(len(rows)) + 0.22 * (number - 1),
                xerr=(low, high),
                fmt="osD"[number],
                color=("C0", "C1", "C2")[number],
                capsize=2,
                label="NumPy (this class)" if system == "NumPy" else system,
            )
        panel.set(xscale="log", title=title, yticks=range(len(rows)), yticklabels=names)
        panel.set_ylim(len(rows) - 0.5, -0.5)
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_minor_formatter("")
        panel.tick_params(axis="y", labelsize=8)
        panel.grid(axis="x", which="both", alpha=0.3)
    handles = panels[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=3)
    figure.suptitle("Median of the rounds, minimum and maximum", size=10)
    return figure


def main() -> None:
    """Measure everything, print it and write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="less than a minute")
    parser.add_argument("--data", metavar="PATH", help="MNIST, as in run.py")
    parser.add_argument("--output", metavar="FOLDER", default="results", type=Path)
    parser.add_argument("--as-keras", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.as_keras:
        train_as_keras(args.as_keras, args.data)
        return
    results = {"machine": describe_machine(), "quick": args.quick}
    print(json.dumps(results["machine"]))
    if not args.quick:
        print("\nWhole programs: an epoch of the source configuration, figures and all")
        results["programs"] = measure_programs(args.data)
    workers = Workers(args.data)
    print("\nTraining: s an epoch of 60,000 images; last, NumPy's part of the floor")
    results["training"] = measure_training(workers, args.quick)
    plain = [row for row in results["training"] if row["recipe"] is None]
    results["training_mean_ratio"] = geometric_mean(plain)
    mean = f"{results['training_mean_ratio']:.2f}"
    print(
        f"the last with the steps of the recipe fast; mean ratio of the others {mean}"
    )
    print("\nInference: s for 10,000 images, ms for one")
    results["inference"], results["latency"] = measure_inference(workers, args.quick)
    workers.close()
    print("\nGrowth: one epoch over images on disk; memory besides the mapped file")
    results["growth"] = measure_growth(args.data, args.quick)
    if BROWSER and DRIVER and importlib.util.find_spec("selenium"):
        print("\nThe page to draw on: ms from the end of a stroke to its picture")
        results["page"] = measure_page(args.quick)
    output = make_folder(args.output)
    write_json(output / "benchmark.json", results)
    write_figure(output / "benchmark.png", draw_benchmark(results))
    print(f"\nWritten to {output}{os.sep}: benchmark.json, benchmark.png")


if __name__ == "__main__":
    draw_to_files()
    main()
