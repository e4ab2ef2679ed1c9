"""Training on the page: `fit` in a thread, which goes on, halts and goes back as told.

`Trainer` trains one network, or two in a race, step by step: after each, `fit` calls
it back, and it waits there until the next step is asked for. Nothing else is changed:
untouched, a training ends with the bits of `fit`. `digits.page.watching` keeps what is
to be seen.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digits.mnist import Split
from digits.own import OwnDigits
from digits.page.film import make_film
from digits.page.requests import check_integer, check_number
from digits.page.tracing import unwarned
from digits.page.watching import (
    AT_ONCE,
    Looks,
    Progress,
    Snapshot,
    find_overflow,
    find_trouble,
)
from handwritten_classifier import HandwrittenNumberClassification, replace_file

MOST_WORK = 50_000_000  # multiply-adds for an image
MOST_EPOCHS, MOST_BATCH = 200, 1000
LIVE = ("lr", "momentum", "weight_decay")  # settings that can change on the way
GIVEN_WAY = 0.15  # seconds that a training stands still for what somebody draws
LAST_STEP = 1.5  # seconds that the end of the program waits for a step
OWN_SHARE, MOST_TIMES = 0.2, 200  # of own digits among all, and of each in an epoch
TIMED = 3  # steps of which the time is taken


class Network(HandwrittenNumberClassification):
    """The class, with the bound of what is trained on a page."""

    MOST = 2_000_000


# ---------------------------------------------------------------------- Set-ups


@dataclass(frozen=True)
class Setup:
    """What is to be trained: settings of the class, and on how much, until when."""

    settings: dict[str, Any]
    limit: int | None = None  # training images
    stop_at: float | None = None  # accuracy at the held-out images that are looked at
    start: int | None = None  # the model that it begins with, or a new one
    own: bool = False  # whether own digits are a fifth of what is learned

    @classmethod
    def read(cls, fields: Any, models: int) -> Setup:
        """Check the fields of a request; the class checks its settings.

        Raises
        ------
        ValueError
            That names the field, what is required, and what arrived.
        """
        if not isinstance(fields, dict):
            raise ValueError(f"a set-up must be an object; got {fields!r:.40}")
        usual = Network().get_params()
        del usual["input_shape"], usual["dtype"], usual["verbose"]
        known = {*usual, "limit", "stop_at", "start", "own"}
        for name in fields.keys() - known:
            raise ValueError(f"a set-up must be of {sorted(known)}; got {name!r:.40}")
        given = {name: value for name, value in fields.items() if value is not None}
        limit, start = given.pop("limit", None), given.pop("start", None)
        stop_at, own = given.pop("stop_at", None), given.pop("own", False)
        if not isinstance(own, bool):
            raise ValueError(f"own must be true or false; got {own!r:.40}")
        if limit is not None:
            limit = check_integer("limit", limit, 10**6, least=1)
        if stop_at is not None:
            rule = (lambda share: 0 < share <= 1, "be above 0 and at most 1")
            stop_at = check_number("stop_at", stop_at, *rule)
        if start is not None:
            start = check_integer("start", start, models - 1)
        for name, most in (("epochs", MOST_EPOCHS), ("batch_size", MOST_BATCH)):
            if name in given:
                check_integer(name, given[name], most, least=1)
        return cls(usual | given, limit, stop_at, start, own)

    def describe(self, network: HandwrittenNumberClassification) -> dict[str, Any]:
        """Return what the page's fields show, as it is now."""
        now = {name: getattr(network, name) for name in self.settings}
        return now | {"limit": self.limit, "stop_at": self.stop_at, "own": self.own}

    def make(self, models: list[HandwrittenNumberClassification]) -> Network:
        """Return the network to train, or raise what is wrong with the settings."""
        settings = dict(self.settings)
        if self.start is not None:
            settings["architecture"] = models[self.start].architecture
        try:
            network = Network(**settings, verbose=0)
        except TypeError as error:
            raise ValueError(str(error)) from None
        work = sum(layer.multiply_adds for layer in network.layers)
        if work > MOST_WORK:
            required = f"architecture must need at most {MOST_WORK:,} multiply-adds"
            raise ValueError(f"{required} for an image; got {work:,}")
        if self.start is not None:
            Snapshot.take(models[self.start], 0).lay_into(network)
            for velocity in network.velocity.values():
                velocity[...] = 0
        return network


def measure(network: Network, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Return the size of a network, and the seconds that an epoch takes it."""
    trial, count = copy.deepcopy(network), min(len(images), network.batch_size * TIMED)
    times = []
    trial.set_params(schedule="constant", lr=1e-6, averaging=0.0)
    trial.fit(
        images[:count],
        labels[:count],
        epochs=1,
        callback=lambda *_: times.append(time.perf_counter()),
    )
    steps = math.ceil(len(images) / network.batch_size)
    seconds = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else None
    return {
        "parameters": sum(layer.parameters for layer in network.layers),
        "multiply_adds": sum(layer.multiply_adds for layer in network.layers),
        "seconds": seconds and seconds * steps,
        "steps": steps,
        "images": len(images),
    }


# ---------------------------------------------------------------------- Runs


class Run:
    """One network of a training: its data, its thread, and what is kept of it."""

    def __init__(
        self, setup: Setup, network: Network, pair: tuple, looks: Looks
    ) -> None:
        self.setup, self.network = setup, network
        self.images, self.labels = images, _ = pair
        in_epoch = math.ceil(len(images) / network.batch_size)
        self.progress = Progress(network, looks, in_epoch)
        self.progress.keep()
        # To make networks of snapshots of; it has no part in the training.
        self.template = copy.deepcopy(network)
        self.thread: threading.Thread | None = None
        self.message, self.state = None, "ready"
        self.scores: dict[str, dict] = {}  # before and after own digits are learned
        self.orders: deque[tuple] = deque()
        self.epochs = network.epochs

    @property
    def is_alive(self) -> bool:
        """Whether steps are still to come."""
        return self.state == "training"


class Trainer:
    """Trains for the page: one training at a time, of one network or two.

    Parameters
    ----------
    split : Split
        What is learned, and what is held out.
    tests : (images, labels)
    models : list of HandwrittenNumberClassification
        That a training can begin with.
    own : OwnDigits
        That can be learned as well.
    """

    def __init__(
        self, split: Split, tests: tuple, models: list, own: OwnDigits
    ) -> None:
        self.split, self.tests, self.models, self.own = split, tests, models, own
        self.changed = threading.Condition()
        self.runs: list[Run] = []
        self.goal, self.number, self.ended = 0.0, 0, False
        self.still_until = 0.0

    # ------------------------------------------------------------ What is asked

    def plan(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return the size of a set-up and the time it takes; raise what is wrong."""
        setup = Setup.read(fields.get("setup"), len(self.models))
        with unwarned():
            return measure(setup.make(self.models), *self.choose_images(setup))

    def obey(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Do what a request of the page says in ``do``, and return the state after it.

        Raises
        ------
        ValueError
            If there is no such order, or it is wrong or impossible now.
        """
        orders = {
            "start": self.start,
            "run": self.go_on,
            "pause": self.pause,
            "steps": self.take_steps,
            "epoch": self.take_epoch,
            "set": self.change_settings,
            "back": self.go_back,
        }
        order = fields.get("do")
        if not isinstance(order, str) or order not in orders:
            raise ValueError(f"do must be among {list(orders)}; got {order!r:.40}")
        if order != "start" and not self.runs:
            raise ValueError(f"{order} must follow a start; got nothing in training")
        orders[order](fields)
        return self.describe()

    def start(self, fields: dict[str, Any]) -> None:
        """Set up a training, which waits before its first step."""
        if self.is_running:
            raise ValueError("one training is possible at a time; got one that runs")
        setups = fields.get("setups")
        if not isinstance(setups, list) or not 1 <= len(setups) <= 2:
            raise ValueError("setups must be a list of one set-up, or two for a race")
        setups = [Setup.read(setup, len(self.models)) for setup in setups]
        networks = [setup.make(self.models) for setup in setups]
        runs = []
        for setup, network in zip(setups, networks, strict=True):
            pair = self.choose_images(setup)
            looks = Looks(pair, self.split.held_out, self.tests)
            runs.append(Run(setup, network, pair, looks))
        self.end()
        with self.changed:
            self.number += 1
            self.goal, self.runs = 0, runs
        for run in runs:
            self.begin(run)

    def choose_images(self, setup: Setup) -> tuple[np.ndarray, np.ndarray]:
        """Return the training images of a set-up, and their labels.

        Own digits are repeated until they are a share of all, but not without end.
        """
        pair = self.split.images[: setup.limit], self.split.labels[: setup.limit]
        if not setup.own:
            return pair
        own = self.own.read()
        if not len(own[1]):
            required = "own digits must be kept before they can be learned"
            raise ValueError(f"{required}; got none: draw one and say what it is")
        wanted = len(pair[1]) * OWN_SHARE / (1 - OWN_SHARE)
        times = round(min(max(wanted / len(own[1]), 1), MOST_TIMES))
        both = zip(pair, own, strict=True)
        return tuple(np.concatenate([a, b.repeat(times, axis=0)]) for a, b in both)

    def go_on(self, _: dict[str, Any]) -> None:
        """Train to the end, or on from it for as many epochs again."""
        self.set_goal(math.inf)

    def pause(self, _: dict[str, Any]) -> None:
        """Halt after the step that is being taken."""
        with self.changed:
            self.goal = 0
            self.changed.notify_all()

    def take_steps(self, fields: dict[str, Any]) -> None:
        """Take so many steps, and halt."""
        count = check_integer("count", fields.get("count", 1), 1000)
        asked = self.step < self.goal < math.inf  # Those before are still being taken.
        self.set_goal((self.goal if asked else self.step) + count)

    def take_epoch(self, _: dict[str, Any]) -> None:
        """Train to the end of the present epoch, and halt."""
        in_epoch = min(run.progress.in_epoch for run in self.runs)
        self.set_goal((self.step // in_epoch + 1) * in_epoch)

    def change_settings(self, fields: dict[str, Any]) -> None:
        """Change the rate, momentum or decay from the next step on."""
        run = self.find_run(fields)
        settings = fields.get("settings")
        if not isinstance(settings, dict) or not settings.keys() <= {*LIVE}:
            raise ValueError(f"settings must be of {list(LIVE)}; got {settings!r:.60}")
        try:
            Network("10N", **settings)
        except TypeError as error:
            raise ValueError(str(error)) from None
        self.order(run, ("set", settings))

    def go_back(self, fields: dict[str, Any]) -> None:
        """Make a network what it was after a step, from which it can go on."""
        run = self.find_run(fields)
        step = check_integer("step", fields.get("step"), 10**9)
        run.progress.find(step)
        self.pause({})
        self.order(run, ("back", step))
        with self.changed:
            if not run.is_alive:  # It waits, to be looked at and to go on.
                self.begin(run)

    def end(self) -> None:
        """End the present training; nothing is kept."""
        with self.changed:
            runs, self.runs = self.runs, []
            self.changed.notify_all()
        for run in runs:
            if run.thread:
                run.thread.join(LAST_STEP)

    def give_way(self) -> None:
        """Take no step for a moment: a drawing is read, which must not wait."""
        self.still_until = time.monotonic() + GIVEN_WAY

    def close(self) -> None:
        """End all, with the program."""
        self.ended = True
        self.end()

    def find_run(self, fields: dict[str, Any]) -> Run:
        """Return the run that a request names, or the first one."""
        return self.runs[check_integer("run", fields.get("run", 0), len(self.runs) - 1)]

    def find(self, run: int, step: int | None) -> tuple[Snapshot, Network]:
        """Return a snapshot, and a network to lay it into a copy of."""
        with self.changed:
            runs = self.runs
        if not runs:
            raise ValueError("there must be a training; got none: start one")
        chosen = runs[check_integer("run", run, len(runs) - 1)]
        return chosen.progress.find(step), chosen.template

    def save(
        self, fields: dict[str, Any], path: Path
    ) -> HandwrittenNumberClassification:
        """Write a network of the training to a file, and return it."""
        if not self.runs or fields.get("number", self.number) != self.number:
            required = "there must be the training whose network is to be used"
            raise ValueError(f"{required}; got none, or another: train it again")
        run = self.find_run(fields)
        snapshot = run.progress.find(fields.get("step"))
        settings = run.network.get_params()
        model = HandwrittenNumberClassification(**settings)
        snapshot.lay_into(model)
        model.metadata = {"trained": "on the page", "steps": snapshot.step}
        if path.exists():  # Nothing is lost.
            with replace_file(path.with_stem(f"{path.stem}-before")) as file:
                file.write(path.read_bytes())
        model.save(path)
        return model

    def film(self) -> bytes:
        """Return a film of the first kernels of the first network."""
        if not self.runs:
            raise ValueError("there must be a training; got none: start one")
        kept = [kernels for _, kernels in self.runs[0].progress.film.kept]
        if not kept:
            raise ValueError("a film must show trained kernels; got no step with any")
        return make_film(kept)

    # ------------------------------------------------------------ What is told

    @property
    def step(self) -> int:
        """The step that all networks have taken that go on."""
        alive = [run for run in self.runs if run.is_alive] or self.runs
        return min(run.progress.step for run in alive)

    @property
    def is_running(self) -> bool:
        """Whether a step is being taken, or is to be."""
        with self.changed:
            return any(self.may_go_on(run) for run in self.runs)

    def describe(self, generations: tuple = (), since: tuple = ()) -> dict[str, Any]:
        """Return the state of the training: of each run what is newer than a step."""
        with self.changed:
            runs, running = list(self.runs), self.is_running
        told = []
        for k, run in enumerate(runs):
            known = generations[k] if k < len(generations) else -1
            step = since[k] if k < len(since) else -1
            trouble, is_helped = find_trouble(run.progress)
            told.append(
                run.progress.describe(known, step)
                | {
                    "state": run.state,
                    "message": run.message,
                    "scores": run.scores,
                    "trouble": trouble,
                    "best": run.progress.best_step() if is_helped else None,
                    "setup": run.setup.describe(run.network),
                    "epochs": run.epochs,
                    "images": len(run.images),
                }
            )
            if known < 0:  # Else the page has it.
                told[-1]["looks_at"] = run.progress.looks.describe()
        head = {"number": self.number, "running": running, "time": time.monotonic()}
        return head | {"runs": told}

    # ------------------------------------------------------------ Threads

    def set_goal(self, goal: float) -> None:
        """Let all networks go on to a step; those that have ended begin anew."""
        with self.changed:
            self.goal = goal
            for run in self.runs:
                if not run.is_alive:
                    self.begin(run)
            self.changed.notify_all()

    def begin(self, run: Run) -> None:
        """Start the thread of a run: for the epochs that are left, or for all again."""
        left = run.epochs - run.progress.step // run.progress.in_epoch
        epochs = left if left > 0 else run.epochs
        run.state, run.message = "training", None
        work = threading.Thread(target=self.train, args=(run, epochs), daemon=True)
        run.thread = work
        work.start()

    def order(self, run: Run, order: tuple) -> None:
        """Have something done between two steps: by the run's thread while it lives."""
        with self.changed:
            run.orders.append(order)
            self.changed.notify_all()
            self.changed.wait_for(lambda: not (run.orders and run.is_alive))
            self.carry_out(run)  # if its thread has ended

    def carry_out(self, run: Run) -> None:
        """Do what has been ordered."""
        while run.orders:
            kind, value = run.orders.popleft()
            if kind == "set":
                run.network.set_params(**value)
            else:
                run.progress.go_back(value)
                run.message = None
        self.changed.notify_all()

    def may_go_on(self, run: Run) -> bool:
        """Return whether a run's next step may begin: in a race, all keep step."""
        others = [r.progress.step for r in self.runs if r.is_alive and r is not run]
        step = run.progress.step
        return run.is_alive and step < self.goal and all(step <= o for o in others)

    def train(self, run: Run, epochs: int) -> None:
        """Train a network, as its thread."""
        progress = run.progress
        try:
            with unwarned():
                progress.look()
                self.score(run, "before")
                if not self.wait(run):
                    run.network.fit(
                        run.images,
                        run.labels,
                        epochs,
                        callback=lambda _, step, loss: self.after_step(
                            run, loss, is_last=step == epochs * progress.in_epoch
                        ),
                    )
                    if self.ended or run not in self.runs:
                        return
                    progress.keep()  # With `averaging`, not what the last step left.
                    progress.last = None
                    progress.look()
                    self.score(run, "after")
            self.leave(run, "finished", run.message)
            self.look_at_all(run)
        except FloatingPointError as error:
            # `fit` has undone the epoch; what is shown is the last step.
            last = progress.find(None).lay_into(run.network)
            where = find_overflow(last, progress.looks.tests[0][:20])
            place = f"; the first result that overflows: {where}" if where else ""
            self.leave(run, "failed", f"{error}{place}")
        except Exception as error:
            self.leave(run, "failed", f"{type(error).__name__}: {error}")
            raise

    def leave(self, run: Run, state: str, message: str | None) -> None:
        """Say how a run has ended."""
        with self.changed:
            run.state, run.message = state, message
            self.changed.notify_all()

    def after_step(self, run: Run, loss: float, *, is_last: bool) -> bool:
        """Keep what a step has done; return whether the training ends with it."""
        progress = run.progress
        progress.note(loss)
        while (left := self.still_until - time.monotonic()) > 0 and not self.ended:
            time.sleep(left)
        if progress.is_time_to_look():
            last = progress.look()
            reached = last["held_out"] and last["held_out"][1]
            rule = run.setup.stop_at
            if rule and reached and reached >= rule and not run.message:  # once
                with self.changed:
                    self.goal = 0
                    share = f"{reached:.1%} of the held-out images"
                    run.message = f"halted at {share}, as set"
        return is_last or self.wait(run)

    def wait(self, run: Run) -> bool:
        """Wait until the next step may begin; return whether the training ends."""
        progress, looked = run.progress, False
        while True:
            with self.changed:
                self.carry_out(run)
                if self.ended or run not in self.runs:
                    return True
                if self.may_go_on(run):
                    if looked:
                        progress.start_clock()
                    return False
                halted = progress.step >= self.goal
                self.changed.notify_all()
                if not halted or (looked and progress.last):  # None after going back
                    self.changed.wait(0.5)
                    continue
            looked = True
            progress.look()
            if progress.step:
                self.look_at_all(run)

    def score(self, run: Run, when: str) -> None:
        """Evaluate a network at all test images and own digits, if it learns these."""
        if run.setup.own and run in self.runs:
            pairs = {"tests": self.tests, "own": self.own.read()}
            run.scores[when] = {
                name: {"accuracy": run.network.score(*pair), "images": len(pair[1])}
                for name, pair in pairs.items()
                if len(pair[1])
            }

    def look_at_all(self, run: Run) -> None:
        """Evaluate a network at all held-out images, unless it goes on meanwhile."""
        progress, pair = run.progress, run.progress.looks.all_held_out
        step, losses, hits = progress.step, 0.0, 0.0
        if not pair or (progress.whole and progress.whole["step"] == step):
            return
        count = len(pair[0])
        for at in range(0, count, AT_ONCE):
            with self.changed:
                left = self.ended or run not in self.runs or run.orders
                taken = run.thread is not threading.current_thread()
                if left or taken or self.may_go_on(run):
                    return
            part = [array[at : at + AT_ONCE] for array in pair]
            loss, accuracy = run.network.evaluate(*part)
            losses, hits = losses + loss * len(part[0]), hits + accuracy * len(part[0])
        mean = losses / count
        with progress.lock:
            progress.whole = {
                "step": step,
                "loss": mean if math.isfinite(mean) else None,
                "accuracy": hits / count,
                "images": count,
            }
