"""What a run leaves: a folder of its own, files that are whole, and printed tables.

`alone_in` keeps other runs out of a folder, `set_aside` keeps an interrupted one, and
`rename_results` what others have left; `write_json` and `write_figure` replace a file
as a whole; the functions `print_...` print a table of results each.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import textwrap
from collections.abc import Container, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, combinations, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from handwritten_classifier import holding_back_interrupts, replace_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHECKPOINT = "checkpoint.npz"  # of a run that is not finished, beside its results


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


def set_aside(output: Path) -> None:
    """Move an interrupted run aside, so that it can still be resumed."""
    if (output / CHECKPOINT).exists():
        aside = name_apart(output / "interrupted", set(output.iterdir()))
        aside.mkdir()
        os.replace(output / CHECKPOINT, aside / CHECKPOINT)
        command = shlex.join(["python", "run.py", "--resume", "--output", str(aside)])
        print(f"This begins anew. The interrupted run will go on with: {command}")


def rename_results(path: Path) -> None:
    """Give results of other settings or data another name, so that they are kept."""
    if path.exists():
        kept = name_apart(path, set(path.parent.iterdir()))
        os.replace(path, kept)
        print(f"\nThe results of other settings or data that were there are now {kept}")


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


SEED_NUMBERS = ("validation_accuracy", "test_accuracy", "seconds")
CONFIGURATION_NUMBERS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
CONFIGURATION_NUMBERS += ("seconds_per_epoch",)


def summarise(
    rows: list[dict[str, Any]], names: Iterable[str]
) -> dict[str, dict[str, float]]:
    """Return mean, standard deviation (of one seed: 0), minimum and maximum."""
    summary = {}
    for name in names:
        values = np.array([row[name] for row in rows], float)
        if np.isnan(values).any():
            continue
        deviation = values.std(ddof=1) if len(values) > 1 else 0.0
        numbers = values.mean(), deviation, values.min(), values.max()
        kinds = ("mean", "standard_deviation", "minimum", "maximum")
        summary[name] = dict(zip(kinds, map(float, numbers), strict=True))
    return summary


def read_finished_seeds(path: Path, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier run of the same settings wrote, if any did."""
    if not path.exists():
        return []
    required = f"{path} must be of the same settings and data"
    remedy = "name another folder with --output, or delete it"
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        earlier = earlier["settings"] | earlier
        rows = earlier["seeds"]
        numbers = [row[n] for row in rows for n in ("test_accuracy", "seconds")]
        seeds = [row["seed"] for row in rows if type(row["seed"]) is int]
        finite = all(type(v) is float and math.isfinite(v) for v in numbers)
        if not finite or len({*seeds}) < len(rows) or not rows:
            raise ValueError("no rows of numbers")
        summarise(rows, SEED_NUMBERS)
    except Exception as error:  # Whatever a file may hold.
        raise ValueError(f"{required}; got no readable results: {remedy}") from error
    report = json.loads(json.dumps(report))  # As in JSON, which has no tuples.
    for name, value in (report["settings"] | report).items():
        if earlier.get(name) != value:
            got = f"{name} {earlier.get(name)} in it, and {value} now"
            raise ValueError(f"{required}; got {got}: {remedy}")
    return rows


def combine(seeds: list[dict[str, Any]], about: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's row: means over its seeds, deviations, and the seeds."""
    seeds = sorted(seeds, key=lambda one: one["seed"])
    row = {"architecture": about["settings"]["architecture"], **about}
    row["settings"] = row["settings"] | {"seed": seeds[0]["seed"]}
    for name, numbers in summarise(seeds, CONFIGURATION_NUMBERS).items():
        row[name] = numbers["mean"]
        row[f"{name}_deviation"] = numbers["standard_deviation"]
    row["side_by_side"] = max(one["side_by_side"] for one in seeds)
    return row | {"seeds": seeds}


def print_seeds(rows: list[dict[str, Any]]) -> None:
    """Print the seeds as a table, and their statistics below."""
    summary = summarise(rows, SEED_NUMBERS)
    table = [("seed", *(name.replace("_", " ") for name in summary))]
    named = {str(row["seed"]): row for row in rows}
    for statistic in summary["seconds"] if len(rows) > 1 else ():
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
    """Print the comparison: a row for each configuration, and what it tells apart."""
    head = ("configuration", "parameters", "multiply-adds", "s/epoch")
    rows = [(*head, "train loss", "test loss", "train acc.", "test acc.")]
    several = max(len(row["seeds"]) for row in results) > 1
    for row in results:
        sizes = (f"{row['parameters']:,}", f"{row['multiply_adds']:,}")
        seconds = f"{row['seconds_per_epoch']:.1f}" + "*" * (row["side_by_side"] > 1)
        cells = [f"{row[name]:.4f}" for name in ("train_loss", "test_loss")]
        for name in ("train_accuracy", "test_accuracy"):
            spread = f" ± {row[f'{name}_deviation']:.2%}" if several else ""
            cells.append(f"{row[name]:.2%}{spread}")
        rows.append((row["architecture"], *sizes, seconds, *cells))
    print()
    print_table(rows)
    most = max(row["side_by_side"] for row in results)
    if most > 1:
        print(f"\n*: measured while up to {most} networks trained side by side")
    if several:
        counts = sorted({len(row["seeds"]) for row in results})
        print(
            f"\nMean and standard deviation of {' or '.join(map(str, counts))} seeds."
        )
        if counts[0] < 4:
            print("Four seeds or more would tell which differences are real.")
            return
        same = [f"{first} and {second}" for first, second in find_equals(results)]
        line = (
            "All differences in test accuracy are real (permutation test of the means, "
        )
        line += f"p < 0.05), but for those of: {'; '.join(same) or 'none'}"
        print(textwrap.fill(line, 79, break_on_hyphens=False))


def find_equals(results: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return pairs of configurations whose difference in accuracy may be chance.

    It is, if the seeds' accuracies, dealt anew to the two, differ as much in more than
    5 % of all ways (Fisher: The design of experiments, 1935, section 21).
    """
    generator, equals = np.random.default_rng(0), []
    for first, second in combinations(results, 2):
        parts = [[one["test_accuracy"] for one in r["seeds"]] for r in (first, second)]
        both, count = np.concatenate(parts), len(parts[0])
        dealt = generator.permuted(np.tile(both, (20_000, 1)), axis=1)
        means = dealt[:, :count].mean(axis=1) - dealt[:, count:].mean(axis=1)
        found = abs(np.mean(parts[0]) - np.mean(parts[1]))
        if (abs(means) >= found - 1e-12).mean() > 0.05:
            equals.append((first["architecture"], second["architecture"]))
    return equals
