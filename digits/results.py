"""What a run leaves: a folder of its own, files that are whole, and printed tables.

`alone_in` keeps other runs out of a folder, `write_json` and `write_figure` replace a
file as a whole; the functions `print_...` print a table of results each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handwritten_classifier import holding_back_interrupts, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_folder(path: str) -> Path:
    """Return the folder for results, made before any work is done."""
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--output must be a folder; got {path}, which is a file")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder, by a lock that ends with this process."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        required = "--output must be a folder that no other run is using"
        raise ValueError(f"{required}; got {folder}{os.sep}") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no file that is open.
            Path(lock.lock_file).unlink()
        lock.release()


def name_apart(path: Path, taken: Container[Path]) -> Path:
    """Return a path, or the first with a number behind its name that is not taken."""
    numbered = (path.with_stem(f"{path.stem}-{number}") for number in count(2))
    return next(name for name in chain([path], numbered) if name not in taken)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write numbers as JSON."""
    with holding_back_interrupts(), replace_file(path) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def write_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG."""
    with replace_file(path) as file:
        figure.savefig(file, format="png", dpi=120)


def print_table(rows: list[tuple[str, ...]]) -> None:
    """Print rows of text, the head first; the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows = [rows[0], tuple("-" * width for width in widths), *rows[1:]]
    for first, *others in rows:
        cells = map(str.rjust, others, widths[1:])
        print("  ".join([first.ljust(widths[0]), *cells]))


def print_report(report: dict[str, Any]) -> None:
    """Print the short table that a training run ends with."""
    history, rows = report["history"], [("", "loss", "accuracy")]
    for name, key in (("training, last epoch", ""), ("validation", "val_")):
        if history.get(f"{key}loss", [None])[-1:] not in ([], [None]):
            loss, accuracy = history[f"{key}loss"][-1], history[f"{key}accuracy"][-1]
            rows.append((name, f"{loss:.4f}", f"{accuracy:.2%}"))
    loss, accuracy = report["test_loss"], report["test_accuracy"]
    print()
    print_table([*rows, ("test", f"{loss:.4f}", f"{accuracy:.2%}")])
    smoothing = report["settings"]["label_smoothing"]
    if smoothing:
        print(f"\nA share of {smoothing:g} of each label is smoothed in the loss:")
        print("even a perfect network's loss is above 0.")


def summarise(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation (of one seed: 0), minimum and maximum."""
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
    """Print the seeds as a table, and their statistics below."""
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
