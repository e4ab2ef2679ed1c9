"""Train and test many networks: one by one, side by side, or on a cluster."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from multiprocessing.managers import SyncManager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from digits.mnist import Split
from handwritten_classifier import (
    HandwrittenNumberClassification,
    holding_back_interrupts,
)

Model = HandwrittenNumberClassification
Row = dict[str, Any]


class Task(NamedTuple):
    """What each network is trained on and tested with, and how."""

    trial: Callable[..., Row]
    split: Split
    test: tuple[np.ndarray, np.ndarray]


# ------------------------------------------------------------------------ Trials
# Each trains a network and tests it, once, and returns a row of numbers.


def try_seed(model: Model, task: Task, **options: Any) -> Row:
    """Return the row of one seed of a recipe; `options` are those of `fit`."""
    (images, labels, held_out), started = task.split, time.perf_counter()
    model.fit(images, labels, validation_data=held_out, **options)
    seconds = time.perf_counter() - started
    loss, accuracy = model.evaluate(*task.test)
    return {
        "seed": model.seed,
        "validation_accuracy": model.history.get("val_accuracy", [None])[-1],
        "test_loss": loss,
        "test_accuracy": accuracy,
        "seconds": seconds,
    }


def try_configuration(model: Model, task: Task, **options: Any) -> Row:
    """Return the row of one seed of a configuration, with its curves."""
    images, labels, held_out = task.split
    model.fit(images, labels, validation_data=held_out, **options)
    # Smoothed losses are never small, and would hide differences of good networks.
    plain = copy.copy(model).set_params(label_smoothing=0.0)
    row = {"seed": model.seed}
    row["train_loss"], row["train_accuracy"] = plain.evaluate(images, labels)
    row["test_loss"], row["test_accuracy"] = plain.evaluate(*task.test)
    row["seconds_per_epoch"] = float(np.mean(model.history["seconds"]))
    return row | {"history": model.history}


def _try(task, model, threads=None, report=None):
    """Return a trial's row, or its error where the training diverged."""
    options = {} if report is None else {"verbose": 0, "callback": report}
    with _limit_blas(threads):
        try:
            return task.trial(model, task, **options)
        except FloatingPointError as error:
            return error


_KEPT: dict[str, Task] = {}  # by a process of a pool, which gets its task once


def _try_there(task, settings, threads, report):
    """Return what `_try` does with a new network, in another process.

    What is sent for each network is small: a pool whose processes are killed waits for
    ever to send what is larger than its pipe, as long as Python's has no remedy.
    """
    return _try(task or _KEPT["task"], Model(**settings), threads, report)


_LIMITED = SimpleNamespace(lock=threading.Lock(), trials=0)


@contextmanager
def _limit_blas(threads):
    """Limit BLAS to so many threads: fewer cores for the class; None is no limit.

    A worker of a cluster may train in several threads; the last one lifts the limit,
    for to lift it would change the bits of the others.
    """
    try:
        from threadpoolctl import ThreadpoolController
    except ModuleNotFoundError:
        threads = None
    if threads is None:
        yield
        return
    with _LIMITED.lock:
        if not _LIMITED.trials:
            _LIMITED.blas = ThreadpoolController().select(user_api="blas")
            _LIMITED.limits = _LIMITED.blas.limit(limits=threads)
            _let_any_thread_limit()
        _LIMITED.trials += 1
    try:
        yield
    finally:
        with _LIMITED.lock:
            _LIMITED.trials -= 1
            if not _LIMITED.trials:
                _LIMITED.limits.restore_original_limits()
                _let_any_thread_limit()


def _let_any_thread_limit():
    """Let another thread than this one lift the limit of BLAS, or set the next."""
    for library in _LIMITED.blas.lib_controllers:
        getattr(library, "clear_controlling_thread", lambda: None)()


# ------------------------------------------------------------------------ Many trials


def count_cores() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_trials(
    models: dict[str, Model],
    task: Task,
    jobs: int | None = None,
    cluster: str | None = None,
) -> Iterator[tuple[Model, Row | FloatingPointError]]:
    """Train and test networks; yield each with its row as soon as that is there.

    A training that diverges yields its error in place of a row. The numbers are the
    same bits however many train side by side, except for the seconds: each row says how
    many there were. Whatever ends the iteration ends all trainings.

    Parameters
    ----------
    models : dict of HandwrittenNumberClassification, by what is printed of each
    task : Task
    jobs : int, optional
        Networks at a time, each in a process of its own, which share the cores; by
        default one a core. One alone is trained in this process.
    cluster : str, optional
        Address of a Dask scheduler, whose workers train them instead.

    Raises ValueError for a cluster that does not answer or labels that a network does
    not have, and OSError if a process is killed.
    """
    for model in {model.architecture: model for model in models.values()}.values():
        model.check_examples(*task.split[:2])  # before the first one is trained
    many = min(jobs or count_cores(), len(models))
    clock = _Clock(models)
    if cluster is None and many <= 1:
        for name, model in models.items():
            print(f"\n{name}{clock.time_left()}")
            row = _try(task, model)
            clock.count(name)
            yield model, _mark(row, 1)
        return
    here = cluster is None
    opened = _open_processes(many, task) if here else _open_cluster(cluster, task)
    with opened as place:
        threads = max(1, count_cores() // many) if here else 1
        futures = place.submit(models, threads)
        for future in _follow(futures, place.reports, clock):
            row, name = future.result(), futures[future]
            yield models[name], _mark(row, place.many)
            # What is said to be finished has been kept by whoever takes the rows.
            clock.count(name)
            clock.write(f"{name}: {_result(row)}{clock.time_left()}")


def _result(row):
    """Return in short what a trial has led to."""
    diverged = isinstance(row, Exception)
    return "diverged" if diverged else f"test accuracy {row['test_accuracy']:.2%}"


def _mark(row, many):
    """Return the row with the number of networks that trained side by side."""
    return row if isinstance(row, Exception) else row | {"side_by_side": many}


class _Clock:
    """What is shown of networks in training, and of the time that is left."""

    def __init__(self, models: dict[str, Model]) -> None:
        self.started, self.done = time.perf_counter(), 0.0
        self.works = {name: self.work(model) for name, model in models.items()}
        self.bars: dict[str, Any] = {}

    @staticmethod
    def work(model: Model) -> float:
        """Estimate the work of a training: products, maps to fill, and the rest."""
        maps = sum(math.prod(layer.output_shape) for layer in model.layers)
        products = sum(layer.multiply_adds for layer in model.layers)
        return model.epochs * (products + 20 * maps + 20_000)

    def count(self, name: str) -> None:
        """Count a network as finished."""
        self.done += self.works[name]
        if name in self.bars:
            self.bars.pop(name).close()

    def time_left(self) -> str:
        """Estimate the time left from that of the finished networks, if any are."""
        work = sum(self.works.values())
        if not 0 < self.done < work:
            return ""
        seconds = round((time.perf_counter() - self.started) * (work / self.done - 1))
        return f", about {seconds // 60} min {seconds % 60:02} s left"

    def show(self, name: str, share: float) -> None:
        """Show on a terminal how much of a training is done."""
        from tqdm import tqdm

        if name not in self.bars:
            taken = {-bar.pos for bar in self.bars.values()}
            self.bars[name] = tqdm(
                desc=name,
                total=100,
                position=min(set(range(len(taken) + 1)) - taken),
                leave=False,
                disable=None,  # in a file or a pipe
                bar_format="{desc} {percentage:3.0f}%|{bar}| {remaining} left",
            )
        self.bars[name].n = 100 * share
        self.bars[name].refresh()

    @staticmethod
    def write(line: str) -> None:
        """Print a line above the bars."""
        from tqdm import tqdm

        tqdm.write(line)


class Report:
    """A callback of `fit` that tells, twice a second, how much of it is done."""

    def __init__(self, reports: Any, ended: Any, name: str, steps: int) -> None:
        self.reports, self.ended = reports, ended
        self.name, self.steps, self.next = name, steps, 0.0

    def __call__(self, model: Model, step: int, loss: float) -> None:
        """Put (name, share) into the queue; stop where nobody waits for the result."""
        now = time.monotonic()
        if now > self.next:
            self.next = now + 0.5
            self.reports.put((self.name, step / self.steps))
            if self.ended is not None and self.ended.is_set():
                raise CancelledError


class _Place(NamedTuple):
    """Where trials run: processes of this machine, or the workers of a cluster."""

    executor: Executor
    task: Any  # or what stands for it there; None where each process has it
    reports: Any  # a queue
    ended: Any  # an event, where a training cannot be killed
    many: int  # at a time
    images: int

    def submit(self, models: dict[str, Model], threads: int) -> dict[Future, str]:
        """Let models be trained; return what will hold their rows, and the names."""
        futures = {}
        with _ignoring_interrupts():  # So do processes that it starts.
            for name, model in models.items():
                steps = model.epochs * math.ceil(self.images / model.batch_size)
                report = Report(self.reports, self.ended, name, steps)
                sent = self.task, model.get_params(), threads, report
                future = self.executor.submit(_try_there, *sent)
                futures[future] = name
        return futures


def _follow(futures, reports, clock):
    """Yield the futures as they are done, and show the reports of the others.

    Unlike `concurrent.futures.wait`, a queue holds no locks of the futures, which
    would stay locked for ever where Ctrl-C came between them.
    """
    running, done = set(futures.values()), queue.SimpleQueue()
    with holding_back_interrupts():
        for future in futures:
            future.add_done_callback(done.put)
    while running:
        with suppress(queue.Empty):
            future = done.get(timeout=0.3)
            running.remove(futures[future])
            yield future
        try:
            news = [reports.get() for _ in range(reports.qsize())]
        except (ConnectionError, EOFError) as error:
            raise BrokenProcessPool("the one that keeps the reports") from error
        for name, share in news:
            if name in running:
                clock.show(name, share)


@contextmanager
def _open_processes(many, task):
    """Open a pool of processes; if its trainings are not awaited, kill them."""
    context = multiprocessing.get_context("spawn")
    executor = ProcessPoolExecutor(many, context, _begin_process, (task,))
    manager = SyncManager(ctx=context)
    with _ignoring_interrupts():
        manager.start(_begin_process)
    others, images = multiprocessing.active_children(), len(task.split.images)
    try:
        yield _Place(executor, None, manager.Queue(), None, many, images)
        executor.shutdown()
    except BrokenProcessPool as error:
        required = "--jobs must leave memory for each process that trains"
        raise OSError(f"{required}; got one that was killed: try fewer") from error
    finally:
        for process in set(multiprocessing.active_children()) - set(others):
            process.kill()
        executor.shutdown(cancel_futures=True)
        manager.shutdown()


def _begin_process(task=None):
    """Leave Ctrl-C to the process that started this one, and end with it."""
    from tqdm import tqdm

    _KEPT["task"] = task
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tqdm.set_lock(threading.RLock())  # Its own would outlive a killed process.

    def _end_with(parent):
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    parent = multiprocessing.parent_process()
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ignore Ctrl-C, as then do processes that are started, from their first line."""
    heard = threading.current_thread() is threading.main_thread()
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN) if heard else None
    try:
        yield
    finally:
        if heard:
            signal.signal(signal.SIGINT, handler)


@contextmanager
def _open_cluster(address, task):
    """Connect to the scheduler of a Dask cluster, and send it the data, once."""
    required = "--cluster must be the address of a Dask scheduler with workers"
    try:
        from dask.distributed import Client, Event, Queue
    except ModuleNotFoundError as error:
        got = f'got none: {error}: pip install "dask[distributed]"'
        raise ValueError(f"{required}; {got}") from error
    try:
        client = Client(address, timeout=5)
    except Exception as error:  # Dask has many for an address.
        raise ValueError(f"{required}; got {address}: {error}") from error
    with client:
        many = sum(client.nthreads().values())
        if not many:
            raise ValueError(f"{required}; got {address}, which has none")
        try:  # Dask would try for ever to send the task to one that cannot read it.
            client.run(count_cores)
        except Exception as error:  # as Dask tells what a worker raised
            required = "--cluster must have workers that are started in this folder"
            raise ValueError(f"{required}; got {error}") from error
        (sent,) = client.scatter([task], broadcast=True, hash=False)
        ended = Event(client=client)
        executor, reports = client.get_executor(pure=False), Queue(client=client)
        try:
            images = len(task.split.images)
            yield _Place(executor, sent, reports, ended, many, images)
        except CancelledError as error:
            got = "got one that lost what it was sent: has a worker been killed?"
            raise OSError(f"--cluster must keep its workers; {got}") from error
        finally:
            ended.set()
            executor.shutdown(wait=False)
