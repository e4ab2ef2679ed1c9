"""What a training leaves to be seen: its curve, its snapshots, and what went wrong.

Each number belongs to a step, and all that is kept has a bound, however long a training
takes: of older steps, every second is forgotten as often as there are too many.
"""

from __future__ import annotations

import base64
import itertools
import math
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from handwritten_classifier import HandwrittenNumberClassification

Model = HandwrittenNumberClassification
RECENT, OLDER = 200, 50  # snapshots: of the last steps, and of all before them
MOST_KEPT = 400_000_000  # bytes of the snapshots of one network
MOST_POINTS = 4000  # of the curve
MOST_LOOKS = 500  # evaluations that are kept
MOST_PICTURES = 300  # of the film
AT_ONCE = 1000  # images that are evaluated between two looks at the clock
LOOKING = 0.05  # share of the time that goes into evaluation
PAUSE = 0.2  # seconds, at least, between two evaluations
EARLY = 1000  # steps in which most is learned: evaluated more often
LEARNED = 300  # training images that are looked at
BY_CLASS = 10  # test images of each class that are framed

_numbers = itertools.count(1)  # of snapshots


# ---------------------------------------------------------------------- Kept


@dataclass(frozen=True)
class Snapshot:
    """All that training has changed, after a step."""

    step: int
    parameters: dict[str, np.ndarray]
    velocity: dict[str, np.ndarray]
    number: int = field(default_factory=lambda: next(_numbers))  # of no other

    @classmethod
    def take(cls, model: Model, step: int) -> Snapshot:
        """Copy what a model has learned."""
        arrays = model.parameters, model.velocity
        return cls(step, *({n: a.copy() for n, a in kept.items()} for kept in arrays))

    def lay_into(self, model: Model) -> Model:
        """Return a network of the same kind with these numbers."""
        for kept, arrays in (
            (self.parameters, model.parameters),
            (self.velocity, model.velocity),
        ):
            for name, array in kept.items():
                arrays[name][...] = array
        return model


class Thinned:
    """At most so many of what comes step by step, spread over all steps."""

    def __init__(self, most: int) -> None:
        self.most, self.kept, self.every, self.seen = most, [], 1, 0

    def add(self, item: Any) -> None:
        """Keep an item, or pass it over."""
        if self.seen % self.every == 0:
            self.kept.append(item)
        self.seen += 1
        if len(self.kept) > self.most:
            del self.kept[1::2]
            self.every *= 2

    def cut(self, keep: Any) -> None:
        """Forget those that a test does not keep."""
        self.kept = [item for item in self.kept if keep(item)]
        self.seen = 0 if not self.kept else self.seen


class Curve:
    """Mean loss and learning rate over as many steps each as the bound demands."""

    def __init__(self) -> None:
        self.points: list[list[float]] = []  # [last step, mean loss, rate]
        self.every, self.sum, self.count = 1, 0.0, 0

    def add(self, step: int, loss: float, rate: float) -> bool:
        """Take up a step; return whether the points before it have changed."""
        self.sum, self.count = self.sum + loss, self.count + 1
        if self.count < self.every:
            return False
        self.points.append([step, self.sum / self.count, rate])
        self.sum, self.count = 0.0, 0
        if len(self.points) < MOST_POINTS:
            return False
        pairs = zip(self.points[::2], self.points[1::2], strict=True)
        self.points = [[b[0], (a[1] + b[1]) / 2, b[2]] for a, b in pairs]
        self.every *= 2
        return True

    def cut(self, step: int) -> None:
        """Forget what came after a step."""
        self.points = [point for point in self.points if point[0] <= step]
        self.sum, self.count = 0.0, 0


# ---------------------------------------------------------------------- Evaluation


class Looks:
    """What is looked at, at times: fixed images, and how a network does on them.

    Parameters
    ----------
    training, held_out, tests : pairs of (images, labels)
        Of these, `LEARNED`, `AT_ONCE` and `BY_CLASS` of each class are looked at,
        always the same.
    """

    def __init__(self, training: tuple, held_out: tuple | None, tests: tuple) -> None:
        self.training = tuple(array[:LEARNED] for array in training)
        self.all_held_out = held_out
        self.held_out = held_out and tuple(array[:AT_ONCE] for array in held_out)
        images, labels = tests
        chosen = [np.flatnonzero(labels == n)[:BY_CLASS] for n in range(10)]
        self.shown = np.concatenate(chosen)
        self.tests = images[self.shown], labels[self.shown]

    def look(self, model: Model, step: int) -> dict[str, Any]:
        """Evaluate a network after a step."""
        read = model.predict_proba(self.tests[0]).argmax(axis=1)
        found = {"step": step, "read": read.tolist(), "dead": self.find_dead(model)}
        for name in ("training", "held_out"):
            pair = getattr(self, name)
            found[name] = pair and _finite(model.evaluate(*pair))
        return found

    def find_dead(self, model: Model) -> dict[str, list[int]]:
        """Return of each convolution the maps that no test image teaches anything.

        A map whose ReLU is never alive has a bias without a gradient.
        """
        _, gradients = model.compute_gradients(*self.tests)
        tokens = [la.token for la in model.layers if la.kind == "convolution"]
        return {
            f"{index}:{token}": np.flatnonzero(
                gradients[f"biases.{index}"] == 0
            ).tolist()
            for index, token in enumerate(tokens)
        }

    def describe(self) -> dict[str, Any]:
        """Return which images these are, for the page."""
        held_out = self.all_held_out
        pixels = np.ascontiguousarray(self.tests[0], np.uint8)
        return {
            "tests": self.shown.tolist(),
            "labels": self.tests[1].tolist(),
            "pixels": base64.b64encode(pixels.tobytes()).decode(),
            "training": len(self.training[0]),
            "held_out": len(self.held_out[0]) if held_out else 0,
            "all_held_out": len(held_out[0]) if held_out else 0,
        }


def _finite(numbers):
    """Return loss and accuracy as JSON has them: no infinite ones."""
    return [float(n) if math.isfinite(n) else None for n in numbers]


def find_sizes(before: Snapshot, after: Snapshot) -> dict[str, float | None]:
    """Return the size of the last step of each array, as a share of its numbers'."""
    sizes = {}
    for name, new in after.parameters.items():
        old = before.parameters[name]
        size = float(np.linalg.norm(old))
        change = float(np.linalg.norm(new - old))
        share = change / size if size else math.inf
        sizes[name] = share if math.isfinite(share) else None
    return sizes


def find_overflow(model: Model, images: np.ndarray) -> str | None:
    """Return the title of the first step with a result that is not finite, if any."""
    with np.errstate(over="ignore", invalid="ignore"):
        for image in images:
            for title, array, _ in model.trace_steps(image)[0]:
                if not np.isfinite(array).all():
                    return title
    return None


# ---------------------------------------------------------------------- One network


class Progress:
    """What is kept of one network in training; threads share it by its lock."""

    def __init__(self, model: Model, looks: Looks, in_epoch: int) -> None:
        self.model, self.looks, self.in_epoch = model, looks, in_epoch
        self.lock = threading.RLock()
        self.step = self.generation = self.backs = 0
        self.curve, self.history = Curve(), Thinned(MOST_LOOKS)
        size = 2 * sum(p.nbytes for p in model.parameters.values())
        most = max(10, MOST_KEPT // size)  # Of large networks, fewer are kept.
        self.recent: deque[Snapshot] = deque(maxlen=min(RECENT, most * 4 // 5))
        self.older = Thinned(min(OLDER, most // 5))
        self.film = Thinned(MOST_PICTURES)
        self.last: dict[str, Any] | None = None  # the last look
        self.whole: dict[str, Any] | None = None  # at all held-out images
        self.looked_at, self.cost, self.speed = 0.0, 0.0, None
        self.since = (0.0, 0)  # when, and after which step, the present speed began

    def keep(self) -> None:
        """Keep what the network is now."""
        taken = Snapshot.take(self.model, self.step)
        with self.lock:
            if self.recent and self.recent[-1].step == self.step:
                self.recent.pop()  # At the end, averages take the place of the last.
            if len(self.recent) == self.recent.maxlen:
                self.older.add(self.recent[0])
            self.recent.append(taken)

    def note(self, loss: float) -> None:
        """Take up a step that has been done."""
        with self.lock:
            self.step += 1
            if self.curve.add(self.step, float(loss), float(self.model.rate)):
                self.generation += 1
        self.keep()
        if self.model.kernels:
            self.film.add((self.step, self.model.kernels[0].copy()))

    def is_time_to_look(self) -> bool:
        """Return whether it is long enough since the last evaluation."""
        waited = time.perf_counter() - self.looked_at
        usual = self.cost * (1 - LOOKING) / LOOKING
        return waited > max(PAUSE, usual * min(1, self.step / EARLY))

    def look(self) -> dict[str, Any]:
        """Evaluate the network, unless that has been done after this step."""
        if self.last and self.last["step"] == self.step:
            return self.last
        began = time.perf_counter()
        seconds, steps = began - self.since[0], self.step - self.since[1]
        found = self.looks.look(self.model, self.step)
        with self.lock:
            if steps > 0:
                self.speed = steps * self.model.batch_size / seconds
            kept = list(self.recent)[-2:]
            found["sizes"] = find_sizes(*kept) if len(kept) == 2 else {}
            self.last = found
            pairs = (found[name] or [None] * 2 for name in ("training", "held_out"))
            silent = len(find_dead_layers(self.model, found["dead"]))
            self.history.add([self.step, *pairs, silent])
        self.looked_at = time.perf_counter()
        self.cost = self.looked_at - began
        self.start_clock()
        return found

    def start_clock(self) -> None:
        """Count images a second from now on."""
        self.since = time.perf_counter(), self.step

    def find(self, step: int | None) -> Snapshot:
        """Return the snapshot of a step, or the last one; raise if it is forgotten."""
        with self.lock:
            kept = [*self.older.kept, *self.recent]
        for snapshot in reversed(kept):
            if step is None or snapshot.step == step:
                return snapshot
        known = f"{kept[0].step}..{kept[-1].step}, if it is still kept"
        raise ValueError(f"the step must be in {known}; got {step}")

    def go_back(self, step: int) -> None:
        """Make the network what it was after a step, and forget what came then."""
        snapshot = self.find(step)
        snapshot.lay_into(self.model)
        with self.lock:
            self.step, self.last, self.whole = step, None, None
            self.generation += 1
            self.backs += 1
            self.curve.cut(step)
            self.history.cut(lambda look: look[0] <= step)
            self.film.cut(lambda picture: picture[0] <= step)
            self.older.cut(lambda kept: kept.step < step)
            kept = [kept for kept in self.recent if kept.step < step]
            self.recent.clear()
            self.recent.extend([*kept, snapshot])
        self.start_clock()

    def best_step(self) -> int | None:
        """Return the kept step, the last one before or at the best look so far.

        With the fewest dead layers, and the least loss at the training images.
        """
        with self.lock:
            looks = [
                (dead, training[0], step)
                for step, training, _, dead in self.history.kept
                if training[0] is not None
            ]
            steps = [kept.step for kept in (*self.older.kept, *self.recent)]
        best = min(looks, default=None)
        before = [step for step in steps if best and step <= best[2]]
        return before[-1] if before else None

    def describe(self, generation: int, since: int) -> dict[str, Any]:
        """Return what is from a step on, or all if the curve was made anew."""
        with self.lock:
            new = since if generation == self.generation else -1
            snapshots = [kept.step for kept in (*self.older.kept, *self.recent)]
            return {
                "generation": self.generation,
                "backs": self.backs,
                "step": self.step,
                "in_epoch": self.in_epoch,
                "rate": float(self.model.rate),
                "points": [point for point in self.curve.points if point[0] >= new],
                "looks": [look for look in self.history.kept if look[0] >= new],
                "last": self.last,
                "whole": self.whole,
                "speed": self.speed,
                "snapshots": snapshots,
            }


# ---------------------------------------------------------------------- What goes wrong


def find_dead_layers(model: Model, dead: dict[str, list[int]]) -> list[str]:
    """Return the tokens of the convolutions without a living map."""
    sizes = zip(dead.items(), model.biases, strict=True)
    return [name.partition(":")[2] for (name, maps), b in sizes if len(maps) == len(b)]


def find_trouble(progress: Progress) -> tuple[str | None, bool]:
    """Return in words what goes wrong in a training, and whether going back helps."""
    last, model = progress.last, progress.model
    if last is None or last["step"] < 20:
        return None, True
    for token in find_dead_layers(model, last["dead"])[-1:]:
        return (
            f"all ReLUs of {token} are dead: no image that is looked at gives one of "
            "its maps a positive number, so that nothing up to it learns. "
            "A smaller rate from an earlier step, or another seed, helps"
        ), True
    (loss, accuracy), held_out = last["training"], last["held_out"]
    classes = len(model.B_dense)
    if loss is None or loss > 2 * math.log(classes):
        got = "is infinite" if loss is None else f"is {loss:.3g}"
        return (
            f"the loss {got}; guessing has {math.log(classes):.2f}: "
            "the rate is too high. Try a tenth of it, from an earlier step"
        ), True
    if last["step"] >= 200 and accuracy < 1.5 / classes:
        return (
            f"after {last['step']:,} steps the network still guesses "
            f"({accuracy:.1%} right): the rate is too high, or far too low"
        ), True
    if held_out and accuracy > 0.99 and held_out[1] < accuracy - 0.08:
        return (
            f"it memorises: {accuracy:.1%} of the training images are right, and "
            f"{held_out[1]:.1%} of those held out. More images or distortions help, "
            "from the beginning"
        ), False
    return None, True
