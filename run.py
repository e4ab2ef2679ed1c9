"""Train, compare and use the handwritten digit classifier.

python run.py                     train on MNIST, test, write results/
python run.py --recipe source     the same with the source project's settings
python run.py --resume            go on with such a run that was interrupted or killed
python run.py reproduce RECIPE    train and test a recipe with several seeds
python run.py compare             train and test several configurations
python run.py predict FILE ...    read digits from image files
python run.py draw                draw digits in a browser, and watch the network
"""

from __future__ import annotations

import argparse
import base64
import gzip
import io
import json
import math
import os
import re
import shlex
import signal
import socket
import struct
import sys
import threading
import time
import warnings
import webbrowser
import zlib
from collections.abc import Callable, Container, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, count
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np

from handwritten_classifier import (
    SIGNED,
    UNSIGNED,
    HandwrittenNumberClassification,
    check_unpacked,
    read_arrays,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.ImageFile import ImageFile

# ------------------------------------------------------------------------ Settings

SHARED = {
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "label_smoothing": 0.05,
    "schedule": "one-cycle",
}
RECIPES = {
    "default": SHARED
    | {
        "architecture": "16C5-MP3-64C5-10N",
        "epochs": 3,
        "batch_size": 32,
        "weight_decay": 1e-4,
    },
    "fast": SHARED
    | {
        "architecture": "12C4-MP3-64C4-10N",
        "epochs": 1,
        "batch_size": 32,
        "lr": 0.15,
    },
    "source": {
        "architecture": "8C4-MP4-10N",
        "epochs": 5,
        "batch_size": 32,
        "lr": 0.01,
        "momentum": 0.0,
    },
    "best": SHARED
    | {
        "architecture": "32C5-MP2-64C5-MP2-256N-10N",
        "epochs": 30,
        "batch_size": 64,
        "augment": 1.0,
        "averaging": 0.4,
    },
}
CONFIGURATIONS = (
    "10N",  # no convolution: the baseline
    "8C5-10N",  # one convolution, no pooling
    "8C4-MP4-10N",  # one convolution, coarse pooling: the source project's
    "8C5-MP2-10N",  # one convolution, fine pooling
    "8C5-MP3s2-10N",  # overlapping pooling
    "8C5-8C5-MP2-10N",  # two convolutions stacked before pooling
    "8C5-MP2-16C5-MP2-10N",  # convolution and pooling alternating
    "8C3-8C3-MP2-16C3-16C3-MP2-10N",  # stacked and alternating
)
# Where the axes of the comparison's figure are marked: accuracy 0..1, loss in nats.
MARKS = {
    "accuracy": (0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 1),
    "loss": (1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
}
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
HELD_OUT = 1 / 6  # of the training images, the last ones: for curves and choices
EMBEDDED_EPOCHS = 10  # times as many epochs on the embedded digits, 40 x fewer
DIGITS = Path(__file__).parent / "data" / "digits.npz"
MOST_SMALL = 5000  # images of 8x8 that are enlarged
PAGE = Path(__file__).parent / "data" / "draw.html"
# Of a run that is not finished, beside its results: the model, and what it learns from.
CHECKPOINT, ARGUMENTS = "checkpoint.npz", "checkpoint.json"
# The formats of pictures that are read, and how many million pixels of them at most:
# what is decoded in less than a second and 200 MB. A JPEG file may hold more of them,
# since it is decoded to a part of its size.
FORMATS = {"BMP": 12.5, "GIF": 12.5, "JPEG": 12.5, "PNG": 12.5, "TIFF": 12.5, "WEBP": 8}
JPEG_MEMORY = "100M"  # bytes; JPEG's progressive files are decoded as a whole
FINEST_PICTURE = 2000  # pixels on the longer side; a digit shows no more than 20
LARGEST_PICTURE = 20_000_000  # bytes; a drawing has about 5,000, a photograph more
MOST_AT_ONCE = 32  # connections of the page's server; others wait until one ends
PATIENCE = 10  # seconds for a request to arrive whole, and for its answer to leave


# ------------------------------------------------------------------------ Data


class Data(NamedTuple):
    """Images, uint8 of shape (n, 28, 28), and labels, uint8 of shape (n,)."""

    source: str
    embedded: bool
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_data(path: str | os.PathLike | None = None) -> Data:
    """Return MNIST from the first place that has it, or else the embedded digits.

    In this order: `path` or the environment variable MNIST_PATH (a Keras-style .npz, or
    a folder of the four IDX files, gzipped or not); the file that Keras has cached; a
    download through TensorFlow; the digits embedded in this project, said loudly.

    Raises
    ------
    OSError, ValueError
        If `path` or MNIST_PATH cannot be read; they are never silently passed over.
    """
    source, named = "--data", path
    if path is None:
        source, named = "MNIST_PATH", os.environ.get("MNIST_PATH") or None
    if named is not None:
        if not os.path.exists(named):
            required = f"{source} must be a file or a folder with MNIST"
            got = f"{os.fspath(named)!r}, where there is none"
            raise FileNotFoundError(f"{required}; got {got}")
        return read_data(Path(named))
    cached = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    cached = cached / "datasets" / "mnist.npz"
    failures = ["--data and MNIST_PATH: not given"]
    for place, read in (
        (str(cached), lambda: read_data(cached)),
        ("download through TensorFlow", lambda: download_mnist(cached)),
    ):
        try:
            return read()
        except Exception as error:  # Of many kinds, and none of them ends the run.
            failures.append(f"{place}: {error or type(error).__name__}")
    digits = read_data(DIGITS)
    banner = "*" * 78
    print(
        f"{banner}\nMNIST was not found. This run uses the embedded digits instead: "
        f"{len(digits.train_labels) + len(digits.test_labels):,} digits of 8x8 pixels.",
        *(f"  {failure}" for failure in failures),
        "To bring MNIST, put mnist.npz or its four IDX files anywhere, and say where:",
        "  python run.py --data PATH        or        export MNIST_PATH=PATH",
        banner,
        sep="\n",
        file=sys.stderr,
    )
    return digits


def read_data(path: Path) -> Data:
    """Read a Keras-style .npz file or a folder of IDX files.

    Raises
    ------
    OSError, ValueError
        If there is no such file, or it does not hold the images and labels of MNIST.
    """
    if path.is_dir():
        arrays = [read_idx(path, *part) for part in IDX_PARTS]
    else:
        arrays = read_npz(path)
    # Of the embedded digits' size; not so many that to enlarge them takes long.
    embedded = arrays[0].shape[1:] == (8, 8) and len(arrays[0]) <= MOST_SMALL
    size = (8, 8) if embedded else (28, 28)
    for images, labels in (arrays[:2], arrays[2:]):
        if images.dtype != np.uint8 or images.shape[1:] != size:
            required = f"uint8 images of shape (n, {size[0]}, {size[1]})"
            got = f"{images.dtype} of shape {images.shape}"
            raise ValueError(f"{path} must hold {required}; got {got}")
        if labels.shape != (len(images),) or labels.dtype.kind not in "iu":
            got = f"{labels.dtype} of shape {labels.shape} beside {len(images)} images"
            raise ValueError(f"{path} must hold an integer label an image; got {got}")
        if len(labels) < 5:  # A sixth of them, rounded, is held out.
            raise ValueError(f"{path} must hold at least 5 images; got {len(labels)}")
        if labels.min() < 0 or labels.max() > 9:
            got = f"{labels.min()}..{labels.max()}"
            raise ValueError(f"{path} must hold labels 0..9; got {got}")
    if embedded:
        arrays = [enlarge_digits(a) if a.ndim == 3 else a for a in arrays]
        return Data("embedded digits", True, *arrays)
    return Data(f"MNIST from {path}", False, *arrays)


def read_npz(path: Path) -> list[np.ndarray]:
    """Return the images and labels, to train and to test, of a Keras-style file."""
    names = ("x_train", "y_train", "x_test", "y_test")
    with open(path, "rb") as file:
        try:
            return list(read_arrays(file, names).values())
        except Exception as error:  # Whatever a damaged file may lead to.
            required = f"must be a .npz file with the arrays {', '.join(names)}"
            raise ValueError(f"{path} {required}; got: {error}") from error


IDX_PARTS = (
    ("train-images?idx3-ubyte*", 3),
    ("train-labels?idx1-ubyte*", 1),
    ("t10k-images?idx3-ubyte*", 3),
    ("t10k-labels?idx1-ubyte*", 1),
)


def read_idx(folder: Path, pattern: str, axes: int) -> np.ndarray:
    """Return the array of one IDX file, gzipped or not (format: MNIST's home page)."""
    found = sorted(path for path in folder.glob(pattern) if path.is_file())
    if not found:
        raise ValueError(f"{folder} must hold mnist's IDX files; got no {pattern}")
    required = f"{found[0]} must be an IDX file of bytes with {axes} axes"
    opener = gzip.open if found[0].suffix == ".gz" else open
    with opener(found[0], "rb") as file:
        try:
            start = file.read(4 * (1 + axes))
            if start[:4] != bytes((0, 0, 8, axes)):  # The magic number.
                raise ValueError(start.hex(" ") or "nothing")
            shape = struct.unpack(f">{axes}I", start[4:])
            size = math.prod(shape)
            check_unpacked(size, found[0].stat().st_size)
            content = file.read(size + 1)
            if len(content) != size:
                raise ValueError(f"{len(content):,} bytes or more for shape {shape}")
        except Exception as error:  # Whatever a damaged file may lead to.
            raise ValueError(f"{required}; got: {error}") from error
    return np.frombuffer(content, np.uint8).reshape(shape)


def enlarge_digits(digits: np.ndarray) -> np.ndarray:
    """Enlarge (n, 8, 8) with levels 0..16 to MNIST's layout: 20x20 in a field of 28x28.

    Their ink is known; it goes the last part of every picture's way.
    """
    imitate = HandwrittenNumberClassification.imitate_mnist
    fields = np.concatenate([imitate(digit)[..., 0] for digit in digits])
    return np.rint(255 * fields).astype(np.uint8)


def download_mnist(cached: Path) -> Data:
    """Return MNIST through TensorFlow, which checks its hash, and keep it at `cached`.

    It is downloaded under another name: what was cut short is never taken for MNIST.
    Where `cached` cannot be written, Keras itself keeps it elsewhere.
    """
    print("Downloading MNIST through TensorFlow ...", file=sys.stderr, flush=True)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(
        20
    )  # Seconds: a network that swallows all must not hang us.
    try:
        from tensorflow.keras.datasets import mnist

        if not os.access(cached.parents[1], os.W_OK):
            arrays = [array for part in mnist.load_data() for array in part]
            return Data("MNIST through TensorFlow", False, *arrays)
        write_file(cached, lambda temporary: mnist.load_data(temporary.name))
    finally:
        socket.setdefaulttimeout(patience)
    return read_data(cached)


class Split(NamedTuple):
    """The training images in two: to learn from, and held out, if any are."""

    images: np.ndarray
    labels: np.ndarray
    held_out: tuple[np.ndarray, np.ndarray] | None


def split_training(
    data: Data, limit: int | None = None, held_out: int | None = None
) -> Split:
    """Hold out the last `held_out` training images; take `limit` of the others."""
    images, labels = data.train_images, data.train_labels
    held_out = round(len(images) * HELD_OUT) if held_out is None else held_out
    if not 0 <= held_out < len(images):
        required = f"--held-out must be at least 0 and below {len(images)}"
        raise ValueError(f"{required}, the number of training images; got {held_out}")
    if limit is not None and limit < 1:
        raise ValueError(f"--limit must be at least 1; got {limit}")
    count = len(images) - held_out
    kept = count if limit is None else min(limit, count)
    validation = (images[count:], labels[count:]) if held_out else None
    return Split(images[:kept], labels[:kept], validation)


def count_held_out(split: Split) -> int:
    """Return the number of images held out."""
    return len(split.held_out[0]) if split.held_out else 0


def prepare_data(
    args: argparse.Namespace, models: list[HandwrittenNumberClassification]
) -> tuple[Data, Split]:
    """Load and split the data, say what they are, fit the default epochs to them."""
    data = load_data(args.data)
    split = split_training(data, args.limit, args.held_out)
    if data.embedded and args.epochs is None:
        for model in models:
            model.set_params(epochs=model.epochs * EMBEDDED_EPOCHS)
    print(
        f"Data: {data.source}; {len(split.images):,} images to train on, "
        f"{count_held_out(split):,} held out, {len(data.test_images):,} to test"
    )
    return data, split


# ------------------------------------------------------------------------ Train


def train(args: argparse.Namespace) -> int:
    """Train one network, test it, and write the model, the figures and the numbers."""
    args.recipe = args.recipe or "default"
    model = HandwrittenNumberClassification(
        **chosen_settings(args, RECIPES[args.recipe])
    )
    data, split = prepare_data(args, [model])
    output = make_folder(args.output or "results")
    set_aside(output)
    write_json(output / ARGUMENTS, describe_arguments(args, data))
    return finish_training(args, model, data, split, output)


def set_aside(output: Path) -> None:
    """Make room for a new run where an interrupted one lies, which goes on elsewhere.

    In this order a checkpoint never stands beside the arguments of another run.
    """
    if not (output / CHECKPOINT).exists():
        return
    aside = name_apart(output / "interrupted", set(output.iterdir()))
    aside.mkdir()
    for name in (CHECKPOINT, ARGUMENTS):
        with suppress(FileNotFoundError):  # Then it cannot go on anyway.
            os.replace(output / name, aside / name)
    going_on = shlex.join(["python", "run.py", "--resume", "--output", str(aside)])
    print(f"This begins anew. The interrupted run will go on with: {going_on}")


def resume(args: argparse.Namespace) -> int:
    """Go on with an interrupted training run, and end as it would have ended."""
    usual = vars(build_parser().parse_args(["--resume"]))
    others = {name for name, value in usual.items() if vars(args)[name] != value}
    got = [
        args.command.__name__ if name == "command" else f"--{name.replace('_', '-')}"
        for name in sorted(others - {"output"})
    ]
    if got:
        required = "--resume must stand alone or beside --output"
        raise ValueError(f"{required}; got {', '.join(got)}")
    output = Path(args.output or "results")
    model, arguments = read_checkpoint(output)
    # The epochs are settled; nothing multiplies them again.
    args = argparse.Namespace(**arguments, epochs=model.epochs, output=args.output)
    data, split = prepare_data(args, [model])
    if checksum(data) != args.checksum:
        required = "--resume must find the data of the interrupted run"
        raise ValueError(f"{required}; got others: {data.source}")
    return finish_training(args, model, data, split, output)


def describe_arguments(args: argparse.Namespace, data: Data) -> dict[str, Any]:
    """Return what, beside the checkpoint, it takes to go on with a run."""
    path = args.data or os.environ.get("MNIST_PATH")
    return {
        "recipe": args.recipe,
        "data": os.path.abspath(path) if path else None,
        "limit": args.limit,
        "held_out": args.held_out,
        "checksum": checksum(data),
    }


def checksum(data: Data) -> int:
    """Return a number by which to know all images and labels again."""
    total = 0
    for array in data[2:]:
        total = zlib.crc32(np.ascontiguousarray(array, np.uint8), total)
    return total


def read_checkpoint(
    output: Path,
) -> tuple[HandwrittenNumberClassification, dict[str, Any]]:
    """Return the model of an interrupted run, and what `describe_arguments` said."""
    required = f"--resume must find an interrupted run in {output}{os.sep}"
    try:
        arguments = json.loads((output / ARGUMENTS).read_text(encoding="utf-8"))
        model = HandwrittenNumberClassification.load(output / CHECKPOINT)
    except FileNotFoundError as error:
        got = f"no {Path(error.filename).name}"
        raise ValueError(
            f"{required}; got {got}: begin one, or name --output"
        ) from None
    except ValueError as error:
        raise ValueError(f"{required}; got a damaged one: {error}") from error
    names = ["recipe", "data", "limit", "held_out", "checksum"]
    if not isinstance(arguments, dict) or list(arguments) != names:
        raise ValueError(f"{required}; got a {ARGUMENTS} that does not say {names}")
    return model, arguments


def finish_training(
    args: argparse.Namespace,
    model: HandwrittenNumberClassification,
    data: Data,
    split: Split,
    output: Path,
) -> int:
    """Train to the end, from wherever the model stands, and report."""
    print(f"\n{model.summary()}\n")
    earlier, status = sum(model.history["seconds"]), 0
    started = time.perf_counter()
    try:
        if len(model.history["loss"]) < model.epochs:
            model.fit(
                split.images,
                split.labels,
                validation_data=split.held_out,
                checkpoint=output / CHECKPOINT,
            )
    except KeyboardInterrupt:
        status = INTERRUPTED
        print("\nInterrupted: what was learned so far is tested and written.")
    except FloatingPointError as error:
        status = 1
        print(f"\n{error}.")
    seconds = earlier + time.perf_counter() - started
    with undisturbed():
        if status == 1 and not model.history["loss"]:
            print("Nothing was learned before: results that were there stay.")
        else:
            report_training(args, model, data, split, output, seconds, status == 0)
        if status == INTERRUPTED:
            folder = f" --output {shlex.quote(str(output))}" if args.output else ""
            print(f"The training will go on with: python run.py --resume{folder}")
        else:
            (output / CHECKPOINT).unlink(missing_ok=True)
            (output / ARGUMENTS).unlink()
    return status


def report_training(
    args: argparse.Namespace,
    model: HandwrittenNumberClassification,
    data: Data,
    split: Split,
    output: Path,
    seconds: float,
    complete: bool,
) -> None:
    """Test a trained model, once, and write and print all that came of it."""
    model.save(output / "model.npz")
    probabilities = model.predict_proba(data.test_images)
    hits = probabilities.argmax(axis=1) == data.test_labels
    metrics = {
        "recipe": args.recipe,
        **describe(model, data, split),
        "history": model.history,
        "test_loss": model.compute_loss(probabilities, data.test_labels),
        "test_accuracy": float(hits.mean()),
        "seconds": seconds,
        "complete": complete,
    }
    test = (data.test_images, data.test_labels, probabilities)
    write_json(output / "metrics.json", metrics)
    write_figure(output / "training.png", model.plot_history())
    write_figure(output / "kernels.png", model.plot_kernels())
    write_figure(output / "confusion.png", model.plot_confusion(*test))
    write_figure(output / "mistakes.png", model.plot_mistakes(*test))
    print_report(metrics, output)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let no Ctrl-C come between results and the disk; it takes a few seconds."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def describe(
    model: HandwrittenNumberClassification, data: Data, split: Split
) -> dict[str, Any]:
    """Return what was trained on what, by name."""
    return {
        "settings": model.get_params() | {"dtype": np.dtype(model.dtype).name},
        "data": data.source,
        "training_images": len(split.images),
        "validation_images": count_held_out(split),
        "test_images": len(data.test_images),
        "parameters": sum(layer.parameters for layer in model.layers),
        "multiply_adds": sum(layer.multiply_adds for layer in model.layers),
    }


def print_report(metrics: dict[str, Any], output: Path) -> None:
    """Print the short table that a training run ends with."""
    history = metrics["history"]
    rows = [("", "loss", "accuracy")]
    for name, key in (("training, last epoch", ""), ("validation", "val_")):
        if history.get(f"{key}loss"):
            loss, accuracy = history[f"{key}loss"][-1], history[f"{key}accuracy"][-1]
            rows.append((name, f"{loss:.4f}", f"{accuracy:.2%}"))
    rows.append(
        ("test", f"{metrics['test_loss']:.4f}", f"{metrics['test_accuracy']:.2%}")
    )
    print()
    print_table(rows)
    smoothing = metrics["settings"]["label_smoothing"]
    if smoothing:
        print(
            f"\nA share of {smoothing:g} of each label is smoothed in the loss, so that"
        )
        print("a perfect network's would not be 0.")
    print(
        f"\n{metrics['seconds']:.1f} s of training; all results are in {output}{os.sep}"
    )


# ------------------------------------------------------------------------ Reproduce


def reproduce(args: argparse.Namespace) -> int:
    """Train and test a recipe with several seeds; go on where an earlier run ended."""
    if args.seeds < 1:
        raise ValueError(f"--seeds must be at least 1; got {args.seeds}")
    for name in ("architecture", "seed"):
        if getattr(args, name) is not None:
            got = f"got {getattr(args, name)!r}: the recipe and --seeds say it"
            raise ValueError(f"--{name} must be left out of reproduce; {got}")
    settings = chosen_settings(args, RECIPES[args.recipe])
    models = [
        HandwrittenNumberClassification(**settings | {"seed": seed})
        for seed in range(args.seeds)
    ]
    data, split = prepare_data(args, models)
    path = make_folder(args.output or "results") / f"reproduce-{args.recipe}.json"
    report = {"recipe": args.recipe, **describe(models[0], data, split)}
    del report["settings"]["seed"]
    rows = read_finished_seeds(path, report)
    finished = {row["seed"] for row in rows}
    try:
        for model in models:
            if model.seed in finished:
                continue
            print(f"\nSeed {model.seed} of 0 to {len(models) - 1}")
            row = try_seed(model, data, split)
            rows = sorted([*rows, row], key=lambda row: row["seed"])
            with undisturbed():
                write_json(path, report | {"summary": summarise(rows), "seeds": rows})
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with this seed.")
        return INTERRUPTED
    except FloatingPointError as error:
        print(f"\n{error}.")
        return 1
    print_seeds(rows)
    print(f"\nAll of this is in {path}")
    return 0


def try_seed(
    model: HandwrittenNumberClassification, data: Data, split: Split
) -> dict[str, Any]:
    """Train, test once, and return a seed's row."""
    started = time.perf_counter()
    model.fit(split.images, split.labels, validation_data=split.held_out)
    seconds = time.perf_counter() - started
    test_loss, test_accuracy = model.evaluate(data.test_images, data.test_labels)
    return {
        "seed": model.seed,
        "validation_accuracy": model.history.get("val_accuracy", [None])[-1],
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
        "seconds": seconds,
    }


def read_finished_seeds(path: Path, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier run of the same settings wrote, if any did."""
    if not path.exists():
        return []
    required = f"{path} must be of the same settings and data"
    remedy = "name another folder with --output, or delete it"
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        earlier = earlier["settings"] | earlier
        summarise(earlier["seeds"])
        sorted(row["seed"] for row in earlier["seeds"])
    except (ValueError, LookupError, TypeError) as error:
        raise ValueError(f"{required}; got no readable results: {remedy}") from error
    report = json.loads(json.dumps(report))  # As JSON has it, which knows no tuples.
    for name, value in (report["settings"] | report).items():
        if earlier.get(name) != value:
            got = f"{name} {earlier.get(name)} in it, and {value} now"
            raise ValueError(f"{required}; got {got}: {remedy}")
    return earlier["seeds"]


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation (of one seed: 0), least and most over seeds."""
    summary = {}
    for name in ("validation_accuracy", "test_accuracy", "seconds"):
        values = np.array([row[name] for row in rows], float)
        if np.isnan(values).any():
            continue
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        numbers = values.mean(), deviation, values.min(), values.max()
        names = ("mean", "standard_deviation", "minimum", "maximum")
        summary[name] = dict(zip(names, map(float, numbers), strict=True))
    return summary


def print_seeds(rows: list[dict[str, Any]]) -> None:
    """Print the seeds as a table, and what they have in common below."""
    summary = summarise(rows)
    table = [("seed", *(name.replace("_", " ") for name in summary))]
    named = {str(row["seed"]): row for row in rows}
    for statistic in summary["seconds"]:
        label = statistic.replace("_", " ")
        named[label] = {name: values[statistic] for name, values in summary.items()}
    for label, row in named.items():
        *accuracies, seconds = (row[name] for name in summary)
        places = 3 if label in ("mean", "standard deviation") else 2
        cells = (f"{accuracy:.{places}%}" for accuracy in accuracies)
        table.append((label, *cells, f"{seconds:.1f}"))
    print()
    print_table(table)


# ------------------------------------------------------------------------ Compare


def compare(args: argparse.Namespace) -> int:
    """Train and test several configurations on the same data, and draw the results."""
    if args.architecture:
        named = f"got {args.architecture!r}: name it behind compare"
        raise ValueError(f"--architecture must be left out of a comparison; {named}")
    settings = chosen_settings(args, RECIPES[args.recipe or "default"])
    models = [
        HandwrittenNumberClassification(**settings | {"architecture": architecture})
        for architecture in args.configurations or CONFIGURATIONS
    ]
    data, split = prepare_data(args, models)
    output = make_folder(args.output or "results")
    results, started, status = [], time.perf_counter(), 0
    try:
        for done, model in enumerate(models):
            left = time_left(models, done, time.perf_counter() - started)
            print(
                f"\nConfiguration {done + 1} of {len(models)}: "
                f"{model.architecture}{left}"
            )
            try:
                model.fit(split.images, split.labels)
            except FloatingPointError as error:
                status = 1
                print(f"Left out: {error}.")
                continue
            results.append(measure(model, data, split))
    except KeyboardInterrupt:
        status = INTERRUPTED
        print("\nInterrupted.")
    if not results:
        print("No configuration was finished: there is nothing to write.")
        return status
    with undisturbed():
        write_json(output / "comparison.json", {"configurations": results})
        write_figure(output / "comparison.png", draw_comparison(results))
        print_comparison(results)
        print(f"\nConfigurations: {len(results)}; all results are in {output}{os.sep}")
    return status


def measure(
    model: HandwrittenNumberClassification, data: Data, split: Split
) -> dict[str, Any]:
    """Return one configuration's row: its size, and what it reached when trained."""
    description = describe(model, data, split)
    # Smoothed losses are never small, and hide how good networks differ.
    model.set_params(label_smoothing=0.0)
    train_loss, train_accuracy = model.evaluate(split.images, split.labels)
    test_loss, test_accuracy = model.evaluate(data.test_images, data.test_labels)
    return {
        "architecture": model.architecture,
        **description,
        "seconds_per_epoch": float(np.mean(model.history["seconds"])),
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        "test_loss": test_loss,
        "test_accuracy": test_accuracy,
    }


def time_left(
    models: list[HandwrittenNumberClassification], done: int, seconds: float
) -> str:
    """Return the time left, as `done` of the models suggest, or nothing at first."""
    if not done:
        return ""
    work = [work_an_image(model) for model in models]
    left = seconds * sum(work[done:]) / sum(work[:done])
    return f", about {left // 60:.0f} min {left % 60:02.0f} s left"


def work_an_image(model: HandwrittenNumberClassification) -> float:
    """Estimate an image's work, as measured: products, maps to fill, and the rest."""
    maps = sum(np.prod(layer.output_shape) for layer in model.layers)
    return sum(layer.multiply_adds for layer in model.layers) + 20 * maps + 20_000


def print_comparison(results: list[dict[str, Any]]) -> None:
    """Print the comparison as a table, a row for each configuration."""
    head = ("configuration", "parameters", "multiply-adds", "s/epoch")
    rows = [(*head, "train loss", "test loss", "train acc.", "test acc.")]
    for row in results:
        sizes = (f"{row['parameters']:,}", f"{row['multiply_adds']:,}")
        losses = (f"{row['train_loss']:.4f}", f"{row['test_loss']:.4f}")
        accuracies = (f"{row['train_accuracy']:.2%}", f"{row['test_accuracy']:.2%}")
        seconds = f"{row['seconds_per_epoch']:.1f}"
        rows.append((row["architecture"], *sizes, seconds, *losses, *accuracies))
    print()
    print_table(rows)


def draw_comparison(results: list[dict[str, Any]]) -> Figure:
    """Draw accuracy and loss against the configurations, training beside test."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.6 + 0.55 * len(results)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for panel, quantity in zip(panels, ("accuracy", "loss"), strict=True):
        draw_panel(panel, results, quantity)
    panels[0].set_yticks(range(len(results)), [row["architecture"] for row in results])
    panels[0].set_ylim(len(results) - 0.4, -0.6)
    legend = panels[0].get_legend_handles_labels()
    figure.legend(*legend, loc="outside lower center", ncols=2)
    return figure


def draw_panel(panel: Axes, results: list[dict[str, Any]], quantity: str) -> None:
    """Draw one quantity of all configurations on a logarithmic axis.

    Equal steps stand for halved errors or losses: good configurations differ by little,
    and would else fall onto one another beside a bad one.
    """
    for part, label, colour, marker, size, above in (
        ("train", "training", "tab:blue", "o", 90, 13),
        ("test", "test", "tab:orange", "D", 30, -13),
    ):
        values = np.array([row[f"{part}_{quantity}"] for row in results])
        at = log_places(values, quantity)
        # Rings round diamonds: both are seen where they meet.
        face = "none" if part == "train" else colour
        style = {"marker": marker, "s": size, "edgecolors": colour, "label": label}
        panel.scatter(at, range(len(results)), facecolors=face, **style)
        for row, (place, value) in enumerate(zip(at, values, strict=True)):
            text = f"{100 * value:.2f}" if quantity == "accuracy" else f"{value:.3f}"
            style = {"ha": "center", "va": "center", "size": 9, "color": "0.25"}
            offset = {"xytext": (0, above), "textcoords": "offset points"}
            panel.annotate(text, (place, row), **offset, **style)
    panel.margins(x=0.12)
    low, high = panel.get_xlim()
    marks = np.array(MARKS[quantity])
    places = log_places(marks, quantity)
    marks = marks[(low <= places) & (places <= high)]
    if len(marks) < 2:  # Too little to read the axis by: the ends, then.
        parts = ("train", "test")
        values = [row[f"{part}_{quantity}"] for row in results for part in parts]
        marks = np.array([min(values), max(values)])
    scale = 100 if quantity == "accuracy" else 1
    labels = [f"{scale * mark:.4g}" for mark in marks]
    panel.set_xticks(log_places(marks, quantity), labels)
    panel.set_title(f"{quantity.capitalize()} vs. Configuration")
    unit = "%" if quantity == "accuracy" else "nats"
    panel.set_xlabel(f"{quantity} ({unit}), logarithmic")
    panel.grid(axis="x", alpha=0.3)


def log_places(values: np.ndarray, quantity: str) -> np.ndarray:
    """Return places on the axis: of an accuracy, that of its error."""
    if quantity == "accuracy":
        return -np.log(1.0005 - values)  # A whole 100 % has a place, too.
    return np.log(np.maximum(values, 1e-6))


# ------------------------------------------------------------------------ Predict


def predict(args: argparse.Namespace) -> int:
    """Read the digits in each image file with a saved model, and show how."""
    model = load_model(args.model)
    output = make_folder(args.output or "results")
    rows, figures, failed = [], {}, False
    for file in args.files:
        try:
            image = read_image(file)
            found = model.find_digits(image)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"{file}: {reason}", file=sys.stderr)
            failed = True
            continue
        probabilities = model.predict_proba(found.images)
        for name, shares in zip(
            model.name_digits(probabilities), probabilities, strict=True
        ):
            rows.append((file, name, *(f"{p:.1%}" for p in shares)))
        path = name_apart(output / f"read-{Path(file).name[-50:]}.png", figures)
        figures[path] = file
        write_figure(path, model.plot_reading(image, found))
    if rows:
        print_table(
            [("file", "digit", *(f"P({n})" for n in range(len(rows[0]) - 2))), *rows]
        )
        if any("?" in name for _, name, *_ in rows):
            print(
                f"\n?: in doubt, for no digit has a probability of {model.UNSURE:.0%}"
            )
        print()
        for path, file in figures.items():
            seen = " ".join(name for other, name, *_ in rows if other == file)
            print(f"{file}: {seen}, found as {path} shows")
    return 1 if failed else 0


def name_apart(path: Path, taken: Container[Path]) -> Path:
    """Return a path, or the first with a number behind its name that is not taken."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(name for name in chain([path], numbered) if name not in taken)


def load_model(path: str) -> HandwrittenNumberClassification:
    """Return a saved model that reads MNIST's kind of images."""
    try:
        model = HandwrittenNumberClassification.load(path)
    except FileNotFoundError:
        raise ValueError(
            f"--model must be a trained model; got {path}, where there is none. "
            "Train one first: python run.py"
        ) from None
    if tuple(model.input_shape) != (28, 28, 1):
        raise ValueError(f"--model must read 28x28x1 images; got {model.input_shape}")
    return model


def read_image(path: str | IO[bytes]) -> np.ndarray:
    """Return a picture as uint8, upright: (H, W), (H, W, 3) or (H, W, 4).

    It may be a stranger's, and is reduced to what is fine enough to be read.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    from PIL import Image

    os.environ.setdefault("JPEGMEM", JPEG_MEMORY)  # Read by the JPEG library.
    try:
        with warnings.catch_warnings():  # What Pillow warns of is damage, or refused.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=list(FORMATS)) as picture:
                return decode_picture(picture)
    except Exception as error:  # Of many kinds, where a file is damaged.
        if getattr(error, "errno", None):  # The system's: there is no such file, ...
            raise
        required = f"image must be a whole picture ({', '.join(FORMATS)})"
        raise ValueError(f"{required}; got: {error or type(error).__name__}") from error


def decode_picture(picture: ImageFile) -> np.ndarray:
    """Decode what Pillow has opened; what is wrong is raised as some error."""
    from PIL import ImageOps

    size = "x".join(map(str, picture.size))
    # JPEG alone is decoded smaller, to 1/2, 1/4 or 1/8, with no side below this.
    picture.draft(None, (FINEST_PICTURE // 2,) * 2)
    most = FORMATS.get(picture.format, FORMATS["JPEG"])  # Of a phone it may be MPO.
    if math.prod(picture.size) > 1e6 * most:
        got = f"{size} pixels in {picture.format}"
        raise ValueError(f"{got}, where {most:g} million can be decoded")
    ImageOps.exif_transpose(picture, in_place=True)
    layers = picture.getbands()
    transparent = layers[-1] == "A" or "transparency" in picture.info
    if picture.mode[0] in "IF":  # More levels than 256.
        mode = picture.mode[0]
    elif picture.mode in ("1", "L") and not transparent:
        mode = "L"
    else:
        mode = "RGBA" if transparent else "RGB"
    image = picture.convert(mode)
    image = image.reduce(math.ceil(max(image.size) / FINEST_PICTURE))
    levels = np.asarray(image)
    return levels if levels.dtype == np.uint8 else scale_levels(levels)


def scale_levels(levels: np.ndarray) -> np.ndarray:
    """Turn levels beyond 8 bits, white at 65535, or floats, into uint8.

    Of floats, white is the first of 1, 255 and 65535 that none of them goes beyond.
    """
    if not np.isfinite(levels).all():
        raise ValueError("levels that are nan or infinite")
    white = 65535
    if levels.dtype.kind == "f":
        white = next((w for w in (1, 255) if levels.max() <= w), white)
    return np.rint(np.clip(levels, 0, white) * (255 / white)).astype(np.uint8)


# ------------------------------------------------------------------------ Draw


def draw(args: argparse.Namespace) -> int:
    """Serve a page to draw digits on, to this machine alone, until Ctrl-C."""
    model = load_model(args.model)
    examples = load_data(args.data).test_images
    try:
        server = DrawingServer(args.port, model, examples)
    except OverflowError:
        raise ValueError(f"--port must be in 0..65535; got {args.port}") from None
    with server:
        address = f"http://127.0.0.1:{server.server_port}/"
        print(f"Draw a digit at {address}; Ctrl-C ends this.", flush=True)
        server.serve_until_interrupted(None if args.no_browser else address)
    return 0


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
        self.page = PAGE.read_bytes()
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
            with undisturbed():
                thread.start()
            if address:
                webbrowser.open(address)
            while thread.is_alive():
                thread.join(0.5)  # Windows hears Ctrl-C only between two of them.
        finally:
            with undisturbed():
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
            found = self.model.find_digits(image)
        except ValueError:  # There is no ink.
            return {"message": "draw a digit"}
        probabilities = self.model.predict_proba(found.images)
        names = self.model.name_digits(probabilities)
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
    picture = HandwrittenNumberClassification.lay_out_maps(maps)
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
        if path == "/":
            self.reply(200, "text/html; charset=utf-8", self.server.page)
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
        sources = "img-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
        inline = "script-src 'unsafe-inline'; style-src 'unsafe-inline'"
        policy = f"default-src 'none'; {inline}; {sources}"
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


# ------------------------------------------------------------------------ Files, tables


def make_folder(path: str) -> Path:
    """Return the folder for results, made before any work is done."""
    folder = Path(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside `path`, then rename: there is never half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write numbers as JSON."""
    text = json.dumps(content, indent=2) + "\n"
    write_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    write_file(path, lambda temporary: figure.savefig(temporary, format="png", dpi=120))


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows of text, the head first; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, (first, *others) in enumerate(rows):
        cells = (
            cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)
        )
        print("  ".join([first.ljust(widths[0]), *cells]))
        if number == 0:
            print("  ".join("-" * width for width in widths))


# ------------------------------------------------------------------------ Command line


def chosen_settings(args: argparse.Namespace, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe with what was given on the command line in its place."""
    names = ("architecture", "epochs", "batch_size", "lr", "momentum", "weight_decay")
    names += ("label_smoothing", "averaging", "augment", "seed")
    given = {name: getattr(args, name, None) for name in names}
    return recipe | {name: value for name, value in given.items() if value is not None}


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: flags to train with, or one of two commands."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=train)
    parser.add_argument(
        "--architecture",
        metavar="LAYERS",
        help=f"layers in the notation of the README ({recipe_values('architecture')})",
    )
    add_recipe_flags(parser)
    add_training_flags(parser)
    text = "go on with the run that was interrupted or killed in the folder for results"
    parser.add_argument("--resume", action="store_true", help=text)
    names = "reproduce, compare, predict, draw"
    commands = parser.add_subparsers(title="commands", metavar=names)
    add_reproduce(commands)
    add_compare(commands)
    add_predict(commands)
    add_draw(commands)
    return parser


def add_command(commands: Any, name: str, run: Callable, text: str) -> Any:
    """Add a command, and return its parser.

    What is left out after the command must not undo what was given before it.
    """
    style = {"argument_default": argparse.SUPPRESS, "allow_abbrev": False}
    parser = commands.add_parser(name, help=text, **style)
    parser.set_defaults(command=run)
    return parser


def add_reproduce(commands: Any) -> None:
    """Add the command that trains a recipe with several seeds."""
    text = "train and test a recipe with several seeds, on from where this ended"
    parser = add_command(commands, "reproduce", reproduce, text)
    parser.add_argument("recipe", choices=RECIPES, help="settings to train with")
    text = "number of seeds, counted from 0 (default: 10)"
    parser.add_argument("--seeds", type=int, metavar="N", default=10, help=text)
    add_training_flags(parser)


def add_compare(commands: Any) -> None:
    """Add the command that trains several configurations."""
    text = "train and test several configurations"
    parser = add_command(commands, "compare", compare, text)
    text = f"architectures (default: {' '.join(CONFIGURATIONS)})"
    style = {"nargs": "*", "default": [], "metavar": "LAYERS"}
    parser.add_argument("configurations", help=text, **style)
    add_recipe_flags(parser)
    add_training_flags(parser)


def add_predict(commands: Any) -> None:
    """Add the command that reads image files."""
    text = "read digits from image files"
    parser = add_command(commands, "predict", predict, text)
    parser.add_argument("files", nargs="+", metavar="FILE", help="PNG, JPEG, ...")
    text = "folder for figures of how the digits were found (default: results)"
    parser.add_argument("--output", metavar="FOLDER", help=text)
    add_model_flag(parser)


def add_draw(commands: Any) -> None:
    """Add the command that serves the page."""
    parser = add_command(commands, "draw", draw, "draw digits in a browser")
    text = "port of the page on 127.0.0.1 (default: any that is free)"
    parser.add_argument("--port", type=int, metavar="N", default=0, help=text)
    text = "only print the page's address"
    parser.add_argument("--no-browser", action="store_true", default=False, help=text)
    text = "MNIST, for the examples (default: as in training)"
    parser.add_argument("--data", metavar="PATH", help=text)
    add_model_flag(parser)


def add_model_flag(parser: argparse.ArgumentParser) -> None:
    """Add the flag that names a trained model."""
    text = "a trained model (default: %(default)s)"
    style = {"metavar": "FILE", "default": "results/model.npz"}
    parser.add_argument("--model", help=text, **style)


def add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of which a command that runs through recipe and seeds has none."""
    text = "settings to start from (default: default)"
    parser.add_argument("--recipe", choices=RECIPES, help=text)
    add_setting_flag(parser, "seed", int, "of all random numbers")


def add_training_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that all commands which train share."""
    for name, kind, text in (
        (
            "epochs",
            int,
            "passes over the training images; on the embedded digits, "
            f"which are fewer, the default is {EMBEDDED_EPOCHS} times as many",
        ),
        ("batch_size", int, "images in one step"),
        ("lr", float, "learning rate, in one-cycle schedules its peak"),
        ("momentum", float, "Nesterov momentum, 0 to below 1"),
        ("weight_decay", float, "L2 penalty"),
        ("label_smoothing", float, "share of the target spread over all classes"),
        ("averaging", float, "share of the steps over which parameters are averaged"),
        ("augment", float, "strength of the distortions of training images"),
    ):
        add_setting_flag(parser, name, kind, text)
    text = "number of training images, the last ones, held out for validation "
    text += "(default: a sixth, which is 10,000 of MNIST)"
    parser.add_argument("--held-out", type=int, metavar="N", help=text)
    text = "number of training images (default: all that are not held out)"
    parser.add_argument("--limit", type=int, metavar="N", help=text)
    text = "mnist.npz, or a folder of MNIST's IDX files (default: MNIST_PATH, Keras's "
    text += "cached file, a download through TensorFlow, the embedded digits)"
    parser.add_argument("--data", metavar="PATH", help=text)
    text = "folder for the results (default: results)"
    parser.add_argument("--output", metavar="FOLDER", help=text)


def add_setting_flag(
    parser: argparse.ArgumentParser, name: str, kind: type, text: str
) -> None:
    """Add the flag of one of the class's settings."""
    text = f"{text} ({recipe_values(name)})"
    flag = f"--{name.replace('_', '-')}"
    parser.add_argument(flag, type=kind, metavar="N", help=text)


def recipe_values(name: str) -> str:
    """Return what each recipe says of a setting, for the help."""
    usual = HandwrittenNumberClassification().get_params()[name]
    values = (f"{recipe}: {s.get(name, usual) or 0}" for recipe, s in RECIPES.items())
    return ", ".join(values)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    args = build_parser().parse_args(arguments)
    try:
        return (resume if args.resume else args.command)(args)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        remedy = "pip install -r requirements.txt"
        print(f"run.py: error: {error}: {remedy}", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
