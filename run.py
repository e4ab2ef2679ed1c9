"""Train, compare and use the handwritten digit classifier.

python run.py                     train on MNIST, test, write results/
python run.py --recipe source     the same with the source project's settings
python run.py --own               train with digits of your own, too
python run.py --resume            go on with such a run that was interrupted or killed
python run.py reproduce RECIPE    train and test a recipe with several seeds
python run.py compare             train and test several configurations
python run.py predict FILE ...    read digits from image files
python run.py draw                draw digits, and see every number of the network
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from digits import doubts, figures, pictures
from digits.canvas import draw_to_files
from digits.experiments import Task, run_trials, try_configuration, try_seed
from digits.mnist import Data, Split, checksum, load_data, split_training
from digits.own import OWN_DIGITS, add_own
from digits.results import (
    CHECKPOINT,
    CONFIGURATION_NUMBERS,
    SEED_NUMBERS,
    alone_in,
    combine,
    make_folder,
    name_apart,
    print_comparison,
    print_report,
    print_seeds,
    print_table,
    read_finished_seeds,
    rename_results,
    set_aside,
    summarise,
    write_figure,
    write_json,
)
from handwritten_classifier import (
    HandwrittenNumberClassification,
    holding_back_interrupts,
)

# ------------------------------------------------------------------------ Settings

Model = HandwrittenNumberClassification
INTERRUPTED = 130  # exit status after Ctrl-C: 128 + SIGINT
EMBEDDED_EPOCHS = 10  # times as many epochs on the embedded digits, 40 x fewer
OWN_MODEL = Path("results", "model.npz")  # what the user has trained last
READY_MODEL = Path(__file__).parent / "digits" / "model.npz"  # to use without training

TUNED = {
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "label_smoothing": 0.05,
    "schedule": "one-cycle",
    "batch_size": 32,
}
RECIPES = {
    "default": TUNED
    | {"architecture": "16C5-MP3-64C5-10N", "epochs": 3, "weight_decay": 1e-4},
    "fast": TUNED | {"architecture": "12C4-MP3-64C4-10N", "epochs": 1, "lr": 0.15},
    "source": {"architecture": "8C4-MP4-10N", "epochs": 5},  # the class's defaults
    "best": TUNED
    | {"architecture": "32C3-32C3-MP2-64C3-64C3-MP2-256N-10N", "epochs": 20}
    | {"batch_size": 64, "augment": 1.0, "averaging": 0.4},
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
# The command line: those flags that change settings of the class, and all others.


def bounded(text: str) -> int:
    """Return an integer of the command line, all of which have a bound."""
    if len(text) > 12:
        raise argparse.ArgumentTypeError(f"must be below 10^12; got {len(text)} digits")
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"invalid int value: {text!r}") from None


INTEGER = {"type": bounded, "metavar": "N"}
NUMBER = {"type": float, "metavar": "N"}
SWITCH = {"action": "store_true", "default": False}
SETTINGS = {
    "--architecture": ("layers in the notation of the README", {"metavar": "LAYERS"}),
    "--seed": ("seed of all random numbers", INTEGER),
    "--epochs": (
        "passes over the training images; on the embedded digits, which are fewer, the "
        f"default is {EMBEDDED_EPOCHS} times as many",
        INTEGER,
    ),
    "--batch-size": ("images in one step", INTEGER),
    "--lr": ("learning rate, in one-cycle schedules its peak", NUMBER),
    "--momentum": ("Nesterov momentum, 0 to below 1", NUMBER),
    "--weight-decay": ("L2 penalty", NUMBER),
    "--label-smoothing": ("share of the target spread over all classes", NUMBER),
    "--averaging": ("share of the steps over which parameters are averaged", NUMBER),
    "--augment": ("strength of the distortions of training images", NUMBER),
}
FLAGS = {
    "--recipe": ("settings to start from (default: default)", {"choices": RECIPES}),
    "--held-out": (
        "number of training images, the last ones, held out for validation (default: a "
        "sixth, which is 10,000 of MNIST)",
        INTEGER,
    ),
    "--limit": ("number of training images (default: all not held out)", INTEGER),
    "--data": (
        "mnist.npz, or a folder of MNIST's IDX or CSV files (default: MNIST_PATH, "
        "Keras's cached file, a download, except to draw, the embedded digits)",
        {"metavar": "PATH"},
    ),
    "--output": ("folder for the results (default: results)", {"metavar": "FOLDER"}),
    "--own": (f"train with the digits in {OWN_DIGITS}, too", SWITCH),
    "--resume": ("go on with the run that was interrupted or killed there", SWITCH),
    "--seeds": (
        "number of seeds, from --seed or 0 on (default: reproduce: 10, compare: 1)",
        INTEGER | {"default": None},
    ),
    "--jobs": (
        "networks to train at a time, in processes that share the cores (default: one "
        "a core)",
        INTEGER | {"default": None},
    ),
    "--cluster": (
        "scheduler of a Dask cluster, as in tcp://host:8786, to train on instead",
        {"metavar": "ADDRESS", "default": None},
    ),
    "--curves": ("draw accuracy and loss by epoch, too", SWITCH),
    "--model": (
        "a trained model (default: results/model.npz, else digits/model.npz)",
        {"metavar": "FILE", "default": None},
    ),
    "--beside": ("another model, beside it", {"metavar": "FILE", "default": None}),
    "--port": ("port of the page (default: any free)", INTEGER | {"default": 0}),
    "--no-browser": ("only print the page's address", SWITCH),
    "recipe": ("settings to train with", {"choices": RECIPES}),
    "configurations": (
        f"architectures (default: {' '.join(CONFIGURATIONS)})",
        {"nargs": "*", "default": [], "metavar": "LAYERS"},
    ),
    "files": ("PNG, JPEG, ...", {"nargs": "+", "metavar": "FILE"}),
}


def chosen_settings(args: argparse.Namespace, recipe: dict[str, Any]) -> dict[str, Any]:
    """Return the recipe, changed by the flags that were given."""
    names = (flag.lstrip("-").replace("-", "_") for flag in SETTINGS)
    given = {name: getattr(args, name, None) for name in names}
    return recipe | {name: value for name, value in given.items() if value is not None}


# ------------------------------------------------------------------------ Data


class Job(NamedTuple):
    """What models are trained and tested on, and where the results go."""

    data: Data
    split: Split
    output: Path
    own: dict[str, int] | None  # number and checksum of the user's own digits, if any


@contextmanager
def prepare(args: argparse.Namespace, models: list[Model]) -> Iterator[Job]:
    """Load, split and name the data; keep other runs out of the folder for results.

    The default epochs of models are adapted to the data.
    """
    data = load_data(args.data)
    split = split_training(data, args.limit, args.held_out)
    split, own = add_own(split) if args.own else (split, None)
    told = f", {own['images']:,} of them your own" if own else ""
    if data.embedded and args.epochs is None:
        for model in models:
            model.set_params(epochs=model.epochs * EMBEDDED_EPOCHS)
    output = make_folder(args.output or "results")
    with alone_in(output):
        print(
            f"Data: {data.source}; {len(split.images):,} images to train on{told}, "
            f"{split.count_held_out:,} held out, {len(data.test_images):,} to test"
        )
        yield Job(data, split, output, own)


def describe(model: Model, job: Job) -> dict[str, Any]:
    """Return what was trained on what, by name."""
    return {
        "settings": model.get_params() | {"dtype": np.dtype(model.dtype).name},
        "data": job.data.source,
        "training_images": len(job.split.images),
        "validation_images": job.split.count_held_out,
        "test_images": len(job.data.test_images),
        "checksum": checksum(job.data[2:]),
        "parameters": sum(layer.parameters for layer in model.layers),
        "multiply_adds": sum(layer.multiply_adds for layer in model.layers),
    }


# ------------------------------------------------------------------------ Train


def train(args: argparse.Namespace) -> int:
    """Train one network, test it, and write the model, the figures and the numbers."""
    recipe = args.recipe or "default"
    model = Model(**chosen_settings(args, RECIPES[recipe]))
    with prepare(args, [model]) as job:
        set_aside(job.output)
        path = args.data or os.environ.get("MNIST_PATH")
        model.metadata = {
            "recipe": recipe,
            "data": os.path.abspath(path) if path else None,
            "limit": args.limit,
            "held_out": job.split.count_held_out,
            "checksum": checksum(job.data[2:]),
            "images": len(job.split.images),
            "own": job.own,
        }
        return finish_training(model, job)


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
    model = read_checkpoint(Path(args.output or "results"))
    # The number of epochs is settled: the data must not multiply it again.
    told = {"output": args.output, "epochs": model.epochs, **model.metadata}
    with prepare(argparse.Namespace(**told), [model]) as job:
        if checksum(job.data[2:]) != model.metadata["checksum"]:
            required = "--resume must find the data of the interrupted run"
            raise ValueError(f"{required}; got others: {job.data.source}")
        if job.own != model.metadata["own"]:
            required = "--resume must find the own digits of the interrupted run"
            remedy = "bring those back, or begin anew"
            raise ValueError(f"{required}; got others in {OWN_DIGITS}: {remedy}")
        if len(job.split.images) != model.metadata["images"]:
            required = f"--resume must train on {model.metadata['images']:,} images"
            got = f"{len(job.split.images):,} images to train on"
            raise ValueError(f"{required}; got {got}")
        return finish_training(model, job)


def read_checkpoint(output: Path) -> Model:
    """Return the model of an interrupted run, with metadata as `train` writes them."""
    required = f"--resume must find an interrupted run in {output}{os.sep}"
    try:
        model = Model.load(output / CHECKPOINT)
    except FileNotFoundError:
        got = f"no {CHECKPOINT}: begin one, or name --output"
        raise ValueError(f"{required}; got {got}") from None
    except ValueError as error:
        raise ValueError(f"{required}; got a damaged one: {error}") from error
    kinds = {"recipe": str, "data": str, "limit": int, "held_out": int}
    kinds |= {"checksum": int, "images": int, "own": dict}
    optional = ("data", "limit", "own")
    model.metadata.setdefault("own", None)  # Earlier runs do not say it.
    if list(model.metadata) != list(kinds) or not all(
        type(value) is kinds[name] or (value is None and name in optional)
        for name, value in model.metadata.items()
    ):
        raise ValueError(f"{required}; got one that does not say {list(kinds)}")
    return model


def finish_training(model: Model, job: Job) -> int:
    """Train to the end, from wherever the model stands, and report."""
    print(f"\n{model}\n")
    earlier, started, steps = sum(model.history["seconds"]), time.perf_counter(), []
    status = train_to_the_end(model, job, steps)
    seconds = earlier + time.perf_counter() - started
    # Another Ctrl-C does not come between the results and the disk.
    with suppress(KeyboardInterrupt), holding_back_interrupts():
        if status == 1 and not model.history["loss"]:
            print("Nothing was learned before: results that were there stay.")
        else:
            report = {"seconds": seconds, "complete": status == 0}
            report_training(model, job, steps, report)
        if status == INTERRUPTED:
            model.save(job.output / CHECKPOINT)
            named = ["--output", str(job.output)] * (job.output != Path("results"))
            command = shlex.join(["python", "run.py", "--resume", *named])
            print(f"The training will go on with: {command}")
        else:
            (job.output / CHECKPOINT).unlink(missing_ok=True)
    return status


def train_to_the_end(model: Model, job: Job, steps: list[tuple]) -> int:
    """Train with a checkpoint, and collect the steps; return the exit status."""
    images, labels, held_out = job.split
    options = {"validation_data": held_out, "checkpoint": job.output / CHECKPOINT}

    def _collect(model: Model, step: int, loss: float) -> None:
        steps.append((step, loss, model.rate))

    try:
        if len(model.history["loss"]) < model.epochs:
            model.fit(images, labels, callback=_collect, **options)
    except KeyboardInterrupt:
        print("\nInterrupted: what was learned so far is tested and written.")
        return INTERRUPTED
    except FloatingPointError as error:
        print(f"\n{error}.")
        return 1
    return 0


def report_training(
    model: Model, job: Job, steps: list[tuple], report: dict[str, Any]
) -> None:
    """Test a trained model, once; write the model, figures and numbers."""
    output, images, labels = job.output, job.data.test_images, job.data.test_labels
    model.save(output / "model.npz")
    probabilities = model.predict_proba(images)
    report = {"recipe": model.metadata["recipe"], **describe(model, job)} | report
    report["own"] = job.own
    report["history"] = model.history
    report["test_loss"] = model.compute_loss(probabilities, labels)
    report["test_accuracy"] = float((probabilities.argmax(axis=1) == labels).mean())
    write_json(output / "metrics.json", report)
    test = (images, labels, probabilities)
    write_figure(output / "training.png", figures.plot_history(model, steps))
    write_figure(output / "kernels.png", figures.plot_kernels(model))
    write_figure(output / "confusion.png", figures.plot_confusion(model, *test))
    write_figure(output / "mistakes.png", figures.plot_mistakes(model, *test))
    print_report(report)
    print(
        f"\n{report['seconds']:.1f} s of training; all results are in {output}{os.sep}"
    )


# ------------------------------------------------------------------------ Reproduce


def reproduce(args: argparse.Namespace) -> int:
    """Train and test a recipe with several seeds; go on where an earlier run ended."""
    for name in ("architecture", "seed"):
        if getattr(args, name) is not None:
            got = f"got {getattr(args, name)!r}: the recipe and --seeds say it"
            raise ValueError(f"--{name} must be left out of reproduce; {got}")
    settings = chosen_settings(args, RECIPES[args.recipe])
    seeds = range(check_count("--seeds", args.seeds, 10))
    models = [Model(**settings | {"seed": seed}) for seed in seeds]
    with prepare(args, models) as job:
        path = job.output / f"reproduce-{args.recipe}.json"
        report = {"recipe": args.recipe, **describe(models[0], job)}
        del report["settings"]["seed"]
        rows = read_finished_seeds(path, report)
        finished = {row["seed"] for row in rows}
        named = {f"Seed {model.seed} of 0 to {seeds[-1]}": model for model in models}
        todo = {name: m for name, m in named.items() if m.seed not in finished}
        try:
            for _, row in train_many(todo, try_seed, job, args):
                if isinstance(row, FloatingPointError):
                    print(f"\n{row}.")
                    return 1
                rows = sorted([*rows, row], key=lambda row: row["seed"])
                summary = summarise(rows, SEED_NUMBERS)
                write_json(path, report | {"summary": summary, "seeds": rows})
        except KeyboardInterrupt:
            print("\nInterrupted. The same command goes on with what is not finished.")
            return INTERRUPTED
    print_seeds(rows)
    print(f"\nAll of this is in {path}")
    return 0


def check_count(flag: str, given: int | None, usual: int) -> int:
    """Return the number that was asked for, or else the usual one."""
    if given is not None and not 1 <= given <= 1000:
        required = "at least 1" if given < 1 else "at most 1000"
        raise ValueError(f"{flag} must be {required}; got {given}")
    return given or usual


def train_many(
    models: dict[str, Model], trial: Callable, job: Job, args: argparse.Namespace
) -> Iterator[tuple[Model, dict[str, Any] | FloatingPointError]]:
    """Train and test models side by side, here or on a cluster, as the flags say."""
    check_count("--jobs", args.jobs, 1)
    if args.cluster is not None and args.jobs is not None:
        got = f"got {args.jobs}: the cluster has its own number"
        raise ValueError(f"--jobs must be left out beside --cluster; {got}")
    test = job.data.test_images, job.data.test_labels
    return run_trials(models, Task(trial, job.split, test), args.jobs, args.cluster)


# ------------------------------------------------------------------------ Compare


def compare(args: argparse.Namespace) -> int:
    """Train and test several configurations on the same data, and draw the results."""
    if args.architecture:
        named = f"got {args.architecture!r}: name it behind compare"
        raise ValueError(f"--architecture must be left out of a comparison; {named}")
    settings = chosen_settings(args, RECIPES[args.recipe or "default"])
    names = dict.fromkeys(args.configurations or CONFIGURATIONS)
    first = args.seed or 0
    seeds = range(first, first + check_count("--seeds", args.seeds, 1))
    # Seed by seed: interrupted, all configurations have been trained equally often.
    models = [
        Model(**settings | {"architecture": name, "seed": seed})
        for seed in seeds
        for name in names
    ]
    with prepare(args, models) as job:
        path = job.output / "comparison.json"
        rows = dict.fromkeys(names) | read_finished_configurations(path, models[0], job)
        status = try_configurations(models, job, rows, args, path)
        rows = [row for row in rows.values() if row]
        if not rows:
            print("No configuration was finished: there is nothing to write.")
            return status
        with suppress(KeyboardInterrupt), holding_back_interrupts():
            write_figure(path.with_suffix(".png"), figures.plot_comparison(rows))
            if args.curves:
                path = job.output / "comparison-curves.png"
                write_figure(path, figures.plot_curves(rows))
            print_comparison(rows)
            print(f"\nConfigurations: {len(rows)}; ", end="")
            print(f"all results are in {job.output}{os.sep}")
    return status


def try_configurations(
    models: list[Model],
    job: Job,
    rows: dict[str, Any],
    args: argparse.Namespace,
    path: Path,
) -> int:
    """Train and test what has no result yet; write all after each; return a status."""
    finished = {
        (name, one["seed"]) for name, row in rows.items() if row for one in row["seeds"]
    }
    todo = {}
    for place, model in enumerate(models, start=1):
        name = f"Configuration {place} of {len(models)}: {model.architecture}"
        name += f", seed {model.seed}" * (models[-1].seed > models[0].seed)
        if (model.architecture, model.seed) not in finished:
            todo[name] = model
    if len(todo) < len(models):
        print(f"\n{len(models) - len(todo)} of {len(models)} are there already.")
    status = 0
    try:
        for model, one in train_many(todo, try_configuration, job, args):
            if isinstance(one, FloatingPointError):
                status = 1
                print(f"Left out: {one}.")
                continue
            if not any(rows.values()):
                rename_results(path)
            earlier = (rows[model.architecture] or {"seeds": []})["seeds"]
            rows[model.architecture] = combine([*earlier, one], describe(model, job))
            write_json(path, {"configurations": [row for row in rows.values() if row]})
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on with what is not finished.")
        return INTERRUPTED
    return status


def read_finished_configurations(path: Path, model: Model, job: Job) -> dict[str, dict]:
    """Return the rows, by name, of an earlier comparison of the same kind and data."""

    def _kind(row: dict[str, Any]) -> list[Any]:
        settings = row["settings"] | {"architecture": "any", "seed": "any"}
        return [settings, row["checksum"], row["training_images"]]

    wanted = _kind(json.loads(json.dumps(describe(model, job))))
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["configurations"]
        for row in rows:
            summarise(row["seeds"], CONFIGURATION_NUMBERS)
        figures.plot_comparison(rows)
        return {row["architecture"]: row for row in rows if _kind(row) == wanted}
    except Exception:  # There is no such file, or it is no comparison.
        return {}


# ------------------------------------------------------------------------ Use


def choose_model(given: str | None) -> tuple[str | Path, Model]:
    """Return the model that is named, the user's own or the ready one; say which."""
    own = OWN_MODEL if os.path.lexists(OWN_MODEL) else READY_MODEL
    path = own if given is None else given
    model = load_model(path)
    text = f"{path}, {model.architecture}"
    if path == READY_MODEL:
        recipe, accuracy = map(model.metadata.get, ("recipe", "test_accuracy"))
        text = f"the ready one, digits/model.npz, {model.architecture}, recipe {recipe}"
        text += f", {accuracy:.2%} on MNIST's test images" if accuracy else ""
    print(f"Model: {text}\n")
    return path, model


def load_model(path: str | os.PathLike) -> Model:
    """Return a saved model that reads MNIST's kind of images."""
    try:
        model = Model.load(path)
    except OSError as error:
        got = f"got {path}: {error.strerror}"
        if isinstance(error, FileNotFoundError):
            got = f"got {path}, where there is none: "
            got += "leave it out, or train: python run.py"
        raise ValueError(f"--model must be a trained model; {got}") from None
    except ValueError as error:
        required = "--model must be a model that this program has trained"
        raise ValueError(f"{required}; got another file: {error}") from error
    if tuple(model.input_shape) != (28, 28, 1):
        raise ValueError(f"--model must read 28x28x1 images; got {model.input_shape}")
    return model


def predict(args: argparse.Namespace) -> int:
    """Read the digits in each image file with a saved model, and show how."""
    _, model = choose_model(args.model)
    output = make_folder(args.output or "results")
    rows, read, status = [], {}, 0
    for file in pictures.find_pictures(args.files):
        try:
            image = pictures.read_image(file)
            found = pictures.find_digits(image)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            print(f"{file}: {reason}", file=sys.stderr)
            status = 1
            continue
        probabilities = model.predict_proba(found.images)
        names = pictures.name_digits(probabilities, found.touching)
        for name, shares in zip(names, probabilities, strict=True):
            rows.append((file, name, *(f"{p:.1%}" for p in shares)))
        path = name_apart(output / f"read-{Path(file).stem[-50:]}.png", read)
        line = f"{file}: {' '.join(names)}, found as {path} shows"
        seen = image, found, probabilities, model.predict_proba
        read[path] = "\n  ".join([line, *doubts.explain_reading(*seen)])
        write_figure(path, figures.plot_reading(model, image, found))
    if rows:
        head = ("file", "digit", *(f"P({n})" for n in range(len(rows[0]) - 2)))
        print_table([head, *rows])
        if marks := doubts.describe_doubts([name for _, name, *_ in rows]):
            print(f"\n{marks}")
        print("", *read.values(), sep="\n")
    return status


def draw(args: argparse.Namespace) -> int:
    """Serve a page to draw digits on, to this machine alone, until Ctrl-C."""
    from digits.page.server import DrawingServer, listen

    models = dict([choose_model(args.model)])
    beside = args.beside or READY_MODEL
    models.setdefault(beside, load_model(beside))
    with listen(args.port) as listener:
        data = load_data(args.data, download=False)
        server = DrawingServer(models, *data[-2:], split_training(data), OWN_MODEL)
        address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
        print(f"Draw a digit at {address}; Ctrl-C ends this.", flush=True)
        server.run(listener, None if args.no_browser else address)
    return 0


# ------------------------------------------------------------------------ Command line


TRAINING = (*list(SETTINGS)[2:], "--held-out", "--limit", "--data", "--output")
PAGE = ("--port", "--no-browser", "--data", "--model", "--beside")
COMMANDS = {  # what each does, and its flags
    reproduce: (
        "train and test a recipe with several seeds, on from where this ended",
        ("recipe", "--seeds", "--jobs", "--cluster", *TRAINING),
    ),
    compare: (
        "train and test several configurations",
        (
            *("configurations", "--recipe", "--seed", "--seeds", "--curves"),
            *("--jobs", "--cluster", *TRAINING),
        ),
    ),
    predict: ("read digits from image files", ("files", "--output", "--model")),
    draw: ("draw digits, and see every number", PAGE),
}


class Parser(argparse.ArgumentParser):
    """A command line that says what a misspelt word may have meant."""

    def error(self, message: str) -> None:
        """End with the error, and the nearest word that there is."""
        wrong = re.search("argument (.*?): invalid choice: '(.*?)'", message)
        where, word = wrong.groups() if wrong else ("", "")
        commands = {run.__name__: run.__name__ for run in COMMANDS}
        recipes = {name: f"--recipe {name}" for name in RECIPES}
        known = {name: name for name in RECIPES} if "recipe" in where else {}
        known = known or commands | recipes
        given = (text.partition("=")[0] for text in Parser.given)
        flags = {flag: flag for flag in [*SETTINGS, *FLAGS, "--help"]}
        unknown = [f for f in given if f.startswith("--") and f not in flags]
        if unknown:
            word, known = unknown[0], flags
            message = f"unrecognized arguments: {word}"
        near = difflib.get_close_matches(word.replace("_", "-"), known, 1)
        hint = f"; did you mean: {known[near[0]]}" if near else ""
        super().error(message + hint)

    given: ClassVar = []  # arguments of the present call


def build_parser() -> argparse.ArgumentParser:
    """Return the command line: flags to train with, or one of the commands."""
    parser = Parser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    flags = ("--recipe", "--architecture", "--seed", *TRAINING, "--own", "--resume")
    add_flags(parser, train, flags)
    names = ", ".join(run.__name__ for run in COMMANDS)
    commands = parser.add_subparsers(title="commands", metavar=names)
    # Flags that are left out behind a command keep what was given before it.
    style = {"argument_default": argparse.SUPPRESS, "allow_abbrev": False}
    for run, (text, flags) in COMMANDS.items():
        add_flags(commands.add_parser(run.__name__, help=text, **style), run, flags)
    return parser


def add_flags(parser: argparse.ArgumentParser, run: Callable, flags: Iterable) -> None:
    """Add the flags of a command; a setting's help shows the value of each recipe."""
    parser.set_defaults(command=run)
    usual = Model().get_params()
    for flag in flags:
        text, options = (SETTINGS | FLAGS)[flag]
        if flag in SETTINGS:
            name = flag.lstrip("-").replace("-", "_")
            values = {key: r.get(name, usual[name]) or 0 for key, r in RECIPES.items()}
            if len(set(values.values())) == 1:
                values = {"default": values["default"]}
            text += f" ({', '.join(f'{key}: {v}' for key, v in values.items())})"
        parser.add_argument(flag, help=text, **options)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    Parser.given = sys.argv[1:] if arguments is None else arguments
    args = build_parser().parse_args(arguments)
    try:
        if args.own and args.command is not train:
            got = f"got it with {args.command.__name__}"
            raise ValueError(f"--own must stand beside flags of training alone; {got}")
        return (resume if args.resume else args.command)(args)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except ModuleNotFoundError as error:
        remedy = "pip install -r requirements.txt"
        print(f"run.py: error: {error}: {remedy}", file=sys.stderr)
        return 2
    except (OSError, ValueError, MemoryError) as error:
        print(f"run.py: error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    draw_to_files()
    sys.exit(main())
