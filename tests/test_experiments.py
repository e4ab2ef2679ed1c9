"""Many trainings side by side, in processes and on a cluster: the same numbers."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from conftest import ROOT
from helpers.program import assert_pictures, names, start_program
from threadpoolctl import ThreadpoolController

import run
from digits import experiments
from digits.comparison import plot_comparison, plot_curves
from digits.experiments import Task, run_trials, try_configuration, try_seed
from digits.mnist import load_data, split_training
from digits.results import combine, find_equals
from handwritten_classifier import HandwrittenNumberClassification

DIGITS = ROOT / "digits" / "digits.npz"
NAMES = ("10N", "2C5-MP4-10N", "4C5-MP4-10N")
FLAGS = ("--data", str(DIGITS), "--epochs", "1", "--limit", "300")
COMPARE = ("compare", *NAMES, *FLAGS)
posix = pytest.mark.skipif(os.name == "nt", reason="sends a POSIX signal")


@pytest.fixture(scope="module")
def task():
    data = load_data(DIGITS)
    test = data.test_images, data.test_labels
    return Task(try_seed, split_training(data, 300), test)


def without_times(rows):
    """Return rows, as in JSON, without what depends on the machine's mood."""
    text = json.dumps(rows)
    rows = json.loads(text)
    stack = [rows]
    while stack:
        part = stack.pop()
        if isinstance(part, dict):
            for name in [*part]:
                if "seconds" in name or name == "side_by_side":
                    del part[name]
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    return rows


def read(folder, name="comparison.json"):
    return json.loads((folder / "results" / name).read_text())


class TestSideBySide:
    @pytest.mark.usefixtures("undrawn")
    def test_the_numbers_are_those_of_one_after_the_other(
        self, program, process, tmp_path
    ):
        written = []
        for jobs, start in (("1", program), ("2", process)):
            output = ("--output", f"results-{jobs}")
            done = start(*COMPARE, "--seeds", "2", "--jobs", jobs, *output)
            assert done.returncode == 0, done.stderr
            path = tmp_path / f"results-{jobs}" / "comparison.json"
            written.append(json.loads(path.read_text())["configurations"])
        assert without_times(written[0]) == without_times(written[1])
        assert [row["architecture"] for row in written[1]] == [*NAMES]
        for row in written[1]:
            assert [one["seed"] for one in row["seeds"]] == [0, 1]
            values = [one["test_accuracy"] for one in row["seeds"]]
            assert row["test_accuracy"] == pytest.approx(np.mean(values))
            deviation = row["test_accuracy_deviation"]
            assert deviation == pytest.approx(np.std(values, ddof=1))
        sides = [row["side_by_side"] for rows in written for row in rows]
        assert sides == [1, 1, 1, 2, 2, 2]
        assert "measured while up to 2 networks trained side by side" in done.stdout
        lines = [line for line in done.stdout.splitlines() if "Configuration " in line]
        assert len(lines) == 6  # One a network.
        assert done.stderr == ""  # No bar in a pipe.

    def test_seeds_of_a_recipe_train_side_by_side(self, program, tmp_path):
        written = []
        for jobs in ("1", "2"):
            flags = ("reproduce", "source", *FLAGS, "--seeds", "3", "--jobs", jobs)
            done = program(*flags, "--output", f"results-{jobs}")
            assert done.returncode == 0, done.stderr
            path = tmp_path / f"results-{jobs}" / "reproduce-source.json"
            written.append(json.loads(path.read_text()))
        assert without_times(written[0]) == without_times(written[1])
        assert [row["seed"] for row in written[1]["seeds"]] == [0, 1, 2]

    def test_more_seeds_are_added_to_those_that_are_there(
        self, program, tmp_path, monkeypatch
    ):
        with monkeypatch.context() as patch:  # These figures are drawn over.
            patch.setattr(run, "write_figure", lambda *_: None)
            assert program(*COMPARE, "--seeds", "1", "--jobs", "1").returncode == 0
        before = read(tmp_path)["configurations"]
        done = program(*COMPARE, "--seeds", "2", "--curves")
        assert done.returncode == 0, done.stderr
        assert "3 of 6 are there already" in done.stdout
        after = read(tmp_path)["configurations"]
        assert [row["seeds"][:1] for row in after] == [row["seeds"] for row in before]
        assert [len(row["seeds"]) for row in after] == [2, 2, 2]
        pictures = {"comparison.png", "comparison-curves.png"}
        assert names(tmp_path / "results") == {"comparison.json"} | pictures
        assert_pictures(tmp_path / "results", pictures)
        monkeypatch.setattr(run, "write_figure", lambda *_: None)
        done = program(*COMPARE, "--seed", "1", "--seeds", "1")
        assert "3 of 3 are there already" in done.stdout

    @pytest.mark.usefixtures("undrawn")
    def test_what_diverges_is_left_out(self, program, process, tmp_path):
        assert program(*COMPARE, "--jobs", "1").returncode == 0
        flags = (*FLAGS, "--lr", "1e39", "--momentum", "0", "--jobs", "2")
        done = process("compare", *NAMES, *flags)
        assert done.returncode == 1
        assert done.stdout.count("Left out: lr must be small enough") == 3
        assert "nothing to write" in done.stdout
        assert len(read(tmp_path)["configurations"]) == 3
        done = program("reproduce", "source", *flags)
        assert done.returncode == 1
        assert done.stdout.count("lr must be small enough") == 1
        assert done.stderr == ""

    def test_it_uses_as_many_processes_as_asked(self, task):
        models = {
            str(seed): HandwrittenNumberClassification("10N", seed=seed)
            for seed in range(4)
        }
        watched = task._replace(trial=note_process)
        found = [row for _, row in run_trials(models, watched, jobs=2)]
        processes = {row["process"] for row in found}
        assert len(processes) == 2
        assert os.getpid() not in processes
        threads = max(1, experiments.count_cores() // 2)
        assert {row["threads"] for row in found} == {threads}
        alone = run_trials({"one": models["0"]}, watched, jobs=2)
        assert [row["process"] for _, row in alone] == [os.getpid()]

    def test_ctrl_c_while_it_waits_leaves_no_future_locked(self):
        def interrupt(*_):
            raise KeyboardInterrupt

        futures = sorted((Future() for _ in range(5)), key=id)
        locked = {"acquire": interrupt, "__enter__": interrupt}
        locked["__exit__"] = lambda *_: None
        futures[3]._condition = type("Locked", (), locked)()
        names = {future: str(number) for number, future in enumerate(futures)}
        with pytest.raises(KeyboardInterrupt):
            list(experiments._follow(names, queue.SimpleQueue(), None))
        with ThreadPoolExecutor(1) as thread:  # Whose locks are others.
            free = [f._condition.acquire for f in (*futures[:3], futures[4])]
            taken = thread.map(lambda acquire: acquire(blocking=False), free)
            assert list(taken) == [True] * 4

    @posix
    def test_ctrl_c_ends_all_and_keeps_what_is_finished(self, environment, tmp_path):
        flags = ("reproduce", "source", "--data", DIGITS, "--limit", "1000")
        flags += ("--epochs", "4", "--seeds", "1000", "--jobs", "2")
        with start_program(environment, tmp_path, *flags) as process:
            for line in process.stdout:
                if line.startswith("Seed 2 of 0 to 999"):
                    break
            children = list_children(process.pid)
            process.send_signal(signal.SIGINT)
            for child in children:  # As a terminal does.
                os.kill(child, signal.SIGINT)
            printed, errors = process.communicate(timeout=60)
        assert len(children) >= 3  # two that train, one that carries their reports
        assert process.returncode == 130
        assert errors == ""
        assert "The same command goes on" in printed
        finished = [
            row["seed"] for row in read(tmp_path, "reproduce-source.json")["seeds"]
        ]
        assert 2 in finished
        assert_ended(children)

    @posix
    @pytest.mark.parametrize("victim", ["parent", "child"])
    def test_a_killed_process_leaves_none_behind(self, environment, tmp_path, victim):
        flags = ("reproduce", "source", "--data", DIGITS, "--limit", "1000")
        flags += ("--epochs", "4", "--seeds", "1000", "--jobs", "2")
        with start_program(environment, tmp_path, *flags) as process:
            ended = (line for line in process.stdout if line.startswith("Seed "))
            next(ended), next(ended)  # The first is written before the second.
            children = list_children(process.pid)
            training = max(children, key=read_processor_time)
            os.kill(process.pid if victim == "parent" else training, signal.SIGKILL)
            _, errors = process.communicate(timeout=60)
        if victim == "child":
            assert process.returncode == 2
            assert "got one that was killed" in errors
            assert "Traceback" not in errors
        assert read(tmp_path, "reproduce-source.json")["seeds"]
        assert_ended(children)

    @pytest.mark.parametrize(
        ("flags", "message"),
        [
            (("--jobs", "0"), "--jobs must be at least 1; got 0"),
            (("--jobs", "1001"), "--jobs must be at most 1000; got 1001"),
            (("--jobs", "x"), "invalid int value"),
            (("--seeds", "0"), "--seeds must be at least 1; got 0"),
            (("--jobs", "2", "--cluster", "tcp://a:1"), "beside --cluster; got 2"),
            (("--cluster", "nonsense://x"), "--cluster must be the address"),
            (("--cluster", "tcp://127.0.0.1:9"), "--cluster must be the address"),
        ],
    )
    def test_flags_that_make_no_sense(self, program, tmp_path, flags, message):
        done = program(*COMPARE, *flags)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def note_process(model, task, **options):
    """Return which process this is, and how many threads BLAS may have in it."""
    from threadpoolctl import threadpool_info

    time.sleep(0.3)
    counts = [lib["num_threads"] for lib in threadpool_info() if "blas" in str(lib)]
    return {"process": os.getpid(), "threads": max(counts), "test_accuracy": 0.0}


def list_children(parent):
    """Return the processes that a process has started, without their own helpers."""
    folder = f"/proc/{parent}/task/{parent}/children"
    with open(folder) as file:
        return [int(number) for number in file.read().split()]


def read_processor_time(process):
    """Return the processor time that a process has used."""
    with open(f"/proc/{process}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def assert_ended(processes):
    """Wait until processes have ended."""
    until = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{process}") for process in processes):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.fixture(scope="module")
def anywhere():
    return {k: v for k, v in os.environ.items() if k != "MNIST_PATH"}


@pytest.fixture(scope="module")
def address(tmp_path_factory, anywhere):
    """Start a scheduler and two workers, as the README does; return its address."""
    pytest.importorskip("dask.distributed")
    folder = tmp_path_factory.mktemp("cluster")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    scheduler = [*dask, "scheduler", "--port", "0", "--host", "127.0.0.1"]
    scheduler += ["--scheduler-file", str(file), "--no-dashboard"]
    worker = [*dask, "worker", "--scheduler-file", str(file), "--nthreads", "1"]
    worker += ["--no-dashboard", "--local-directory", str(folder / "work")]
    commands = [scheduler, worker, worker]
    options = {"cwd": ROOT, "env": anywhere, "stderr": subprocess.DEVNULL}
    processes = [subprocess.Popen(command, **options) for command in commands]
    try:
        until = time.monotonic() + 60
        while not file.exists() or not file.read_text():
            assert time.monotonic() < until
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        from dask.distributed import Client

        with Client(address) as client:
            client.wait_for_workers(2, timeout=60)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(30)


class TestCluster:
    @pytest.mark.usefixtures("undrawn")
    def test_it_gives_what_this_machine_gives(self, program, address, tmp_path):
        done = program(*COMPARE, "--seeds", "2", "--cluster", address)
        assert done.returncode == 0, done.stderr
        rows = read(tmp_path)["configurations"]
        assert [row["side_by_side"] for row in rows] == [2, 2, 2]
        done = program(*COMPARE, "--seeds", "2", "--jobs", "1", "--output", "here")
        assert done.returncode == 0, done.stderr
        here = json.loads((tmp_path / "here" / "comparison.json").read_text())
        assert without_times(rows) == without_times(here["configurations"])

    def test_a_worker_of_another_folder_is_refused(
        self, program, address, tmp_path, anywhere
    ):
        worker = [sys.executable, "-m", "dask", "worker", address, "--no-dashboard"]
        elsewhere = {n: v for n, v in anywhere.items() if n != "PYTHONPATH"}
        options = {"cwd": tmp_path, "env": elsewhere, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen([*worker, "--nthreads", "1"], **options)
        try:
            from dask.distributed import Client

            with Client(address) as client:
                client.wait_for_workers(3, timeout=60)
            done = program(*COMPARE, "--cluster", address)
        finally:
            process.terminate()
            process.wait(30)
        assert done.returncode == 2
        required = "--cluster must have workers that are started in this folder"
        assert f"{required}; got ModuleNotFoundError" in done.stderr

    @pytest.mark.parametrize("address", ["", "nowhere"])
    def test_an_address_of_nothing_is_refused(self, program, address):
        pytest.importorskip("dask.distributed")
        done = program(*COMPARE, "--cluster", address)
        assert done.returncode == 2
        assert "--cluster must be the address of a Dask scheduler" in done.stderr


class TestLost:
    """What a cluster or a process that is killed leads to."""

    @pytest.fixture
    def lost(self, monkeypatch):
        """Let the first future of a cluster be one whose worker was killed."""
        distributed = pytest.importorskip("dask.distributed")

        class Client(contextlib.nullcontext):
            def __init__(self, *_, **options):
                super().__init__(self)

            def nthreads(self):
                return {"worker": 1}

            def run(self, *_):
                pass

            def scatter(self, tasks, **options):
                return tasks

            def get_executor(self, **options):
                return self

            def submit(self, *_):
                future = Future()
                future.cancel()
                future.set_running_or_notify_cancel()
                return future

            def shutdown(self, **options):
                pass

        monkeypatch.setattr(distributed, "Client", Client)
        monkeypatch.setattr(distributed, "Event", lambda **_: threading.Event())
        monkeypatch.setattr(distributed, "Queue", lambda **_: queue.Queue())

    @pytest.mark.usefixtures("lost")
    def test_a_worker_that_was_killed_is_named(self, program):
        done = program(*COMPARE, "--cluster", "here")
        assert done.returncode == 2
        assert "--cluster must keep its workers; got one that lost" in done.stderr

    @pytest.mark.parametrize("error", [BrokenPipeError, EOFError])
    def test_reports_that_break_off_are_those_of_a_killed_process(self, task, error):
        class Reports:
            def qsize(self):
                raise error

        message = "--jobs must leave memory .* got one that was killed"
        with pytest.raises(OSError, match=message):  # noqa: SIM117
            with experiments._open_processes(1, task):
                list(experiments._follow({Future(): "a"}, Reports(), None))

    def test_a_pipe_that_closes_elsewhere_is_no_killed_process(self, task):
        with pytest.raises(BrokenPipeError):  # noqa: SIM117
            with experiments._open_processes(1, task):
                raise BrokenPipeError

    def test_the_limit_of_blas_is_lifted_by_the_last_trial_in_any_thread(self):
        blas = ThreadpoolController().select(user_api="blas")

        def count():
            return {library.num_threads for library in blas.lib_controllers}

        trials = [experiments._limit_blas(1), experiments._limit_blas(1)]
        with (
            blas.limit(limits=3),
            ThreadPoolExecutor(1) as first,
            ThreadPoolExecutor(1) as second,
        ):
            for library in blas.lib_controllers:  # Else no other thread could set it.
                getattr(library, "clear_controlling_thread", lambda: None)()
            for thread, trial in ((first, trials[0]), (second, trials[1])):
                thread.submit(trial.__enter__).result()
                assert count() == {1}
            first.submit(trials[0].__exit__, None, None, None).result()
            assert count() == {1}
            second.submit(trials[1].__exit__, None, None, None).result()
            assert count() == {3}


def row(name, accuracies):
    """Return a configuration's row, of seeds with these test accuracies."""
    numbers = {"train_loss": 0.1, "test_loss": 0.2, "train_accuracy": 0.97}
    numbers |= {"seconds_per_epoch": 1.0, "side_by_side": 1}
    history = {"loss": [0.5, 0.4], "accuracy": [0.8, 0.9]}
    seeds = [
        numbers | {"seed": seed, "test_accuracy": accuracy, "history": history}
        for seed, accuracy in enumerate(accuracies)
    ]
    about = {"settings": {"architecture": name, "seed": 3}, "multiply_adds": 10**5}
    return combine(seeds, about)


class TestSpread:
    def test_differences_are_real_or_not(self):
        better = row("A", [0.991, 0.992, 0.993, 0.992, 0.991])
        alike = row("B", [0.992, 0.993, 0.991, 0.990, 0.992])
        worse = row("C", [0.981, 0.982, 0.983, 0.982, 0.981])
        assert find_equals([better, alike, worse]) == [("A", "B")]
        assert find_equals([row("A", [0.5, 0.6]), row("B", [0.9, 0.95])]) == [
            ("A", "B")
        ]

    def test_bars_reach_a_deviation_to_each_side(self):
        results = [row("A", [0.95, 0.97]), row("B", [0.98, 0.99])]
        figure = plot_comparison(results)
        titles = [panel.get_title() for panel in figure.axes]
        assert titles[2] == "Accuracy vs. Work"
        named = {text.get_text() for text in figure.axes[2].texts}
        assert named == {"A", "B"}
        bars = [
            segment
            for bars in figure.axes[0].collections
            if hasattr(bars, "get_segments")
            for segment in bars.get_segments()
        ]
        accuracy = results[0]["test_accuracy"]
        deviation = results[0]["test_accuracy_deviation"]
        ends = -np.log(1.0005 - np.array([accuracy - deviation, accuracy + deviation]))
        assert any(np.allclose(bar[:, 0], ends) for bar in bars)

    def test_names_beside_points_do_not_overlap(self):
        results = [row(f"8C5-MP2-{n}C5-10N", [0.98, 0.981]) for n in range(10, 13)]
        for number, one in enumerate(results):
            one["multiply_adds"] += 1000 * number
        figure = plot_comparison([*results, row("10N", [0.91, 0.92])])
        boxes = [text.get_window_extent() for text in figure.axes[2].texts]
        for place, box in enumerate(boxes):
            assert box.count_overlaps(boxes[:place]) == 0

    def test_curves_are_means_over_seeds(self):
        results = [row("A", [0.95, 0.97])]
        results[0]["seeds"][1]["history"] = {"loss": [0.7, 0.2], "accuracy": [0.9, 0.8]}
        accuracy, loss = plot_curves(results).axes
        assert accuracy.lines[0].get_ydata() == pytest.approx([85, 85])
        assert loss.lines[0].get_ydata() == pytest.approx([0.6, 0.3])
        assert loss.get_ylabel() == "training loss (nats)"

    def test_the_trials_of_a_comparison_keep_their_curves(self, task):
        model = HandwrittenNumberClassification("10N", epochs=2)
        found = try_configuration(model, task, verbose=0)
        assert len(found["history"]["val_loss"]) == 2

    def test_the_table_says_what_is_the_same(self, capsys):
        rows = [row(name, [0.99, 0.98, 0.985, 0.987]) for name in "AB"]
        rows.append(row("C", [0.7, 0.71, 0.72, 0.73]))
        for one in rows:
            one |= {"parameters": 5}
        run.print_comparison(rows)
        printed = capsys.readouterr().out
        assert "98.55% ± 0.42%" in printed
        assert printed.rstrip().endswith("A and B")
