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
import json
import os
import shlex
import sys
import time
import zlib
from collections.abc import Callable, Container
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from digits.figures import (
    plot_comparison,
    plot_confusion,
    plot_history,
    plot_kernels,
    plot_mistakes,
    plot_reading,
)
from digits.mnist import Data, Split, load_data, split_training
from digits.page.server import DrawingServer
from digits.pictures import UNSURE, find_digits, name_digits, read_image
from handwritten_classifier import (
    HandwrittenNumberClassification,
    holding_back_interrupts,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
HELD_OUT = 1 / 6  # of the training images, the last ones: for curves and choices
EMBEDDED_EPOCHS = 10  # times as many epochs on the embedded digits, 40 x fewer
# Of a run that is not finished, beside its results: the model, and what it learns from.
CHECKPOINT, ARGUMENTS = "checkpoint.npz", "checkpoint.json"


# ------------------------------------------------------------------------ Data


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
        f"{split.count_held_out:,} held out, {len(data.test_images):,} to test"
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
    print(f"\n{model}\n")
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
    with holding_back_interrupts():
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
    write_figure(output / "training.png", plot_history(model))
    write_figure(output / "kernels.png", plot_kernels(model))
    write_figure(output / "confusion.png", plot_confusion(model, *test))
    write_figure(output / "mistakes.png", plot_mistakes(model, *test))
    print_report(metrics, output)


def describe(
    model: HandwrittenNumberClassification, data: Data, split: Split
) -> dict[str, Any]:
    """Return what was trained on what, by name."""
    return {
        "settings": model.get_params() | {"dtype": np.dtype(model.dtype).name},
        "data": data.source,
        "training_images": len(split.images),
        "validation_images": split.count_held_out,
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
            with holding_back_interrupts():
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
    with holding_back_interrupts():
        write_json(output / "comparison.json", {"configurations": results})
        write_figure(output / "comparison.png", plot_comparison(results))
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


# ------------------------------------------------------------------------ Predict


def predict(args: argparse.Namespace) -> int:
    """Read the digits in each image file with a saved model, and show how."""
    model = load_model(args.model)
    output = make_folder(args.output or "results")
    rows, figures, failed = [], {}, False
    for file in args.files:
        try:
            image = read_image(file)
            found = find_digits(image)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"{file}: {reason}", file=sys.stderr)
            failed = True
            continue
        probabilities = model.predict_proba(found.images)
        for name, shares in zip(name_digits(probabilities), probabilities, strict=True):
            rows.append((file, name, *(f"{p:.1%}" for p in shares)))
        path = name_apart(output / f"read-{Path(file).name[-50:]}.png", figures)
        figures[path] = file
        write_figure(path, plot_reading(model, image, found))
    if rows:
        print_table(
            [("file", "digit", *(f"P({n})" for n in range(len(rows[0]) - 2))), *rows]
        )
        if any("?" in name for _, name, *_ in rows):
            print(f"\n?: in doubt, for no digit has a probability of {UNSURE:.0%}")
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
