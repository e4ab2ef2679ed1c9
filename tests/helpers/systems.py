"""The class, Keras and PyTorch side by side, each in a process of its own.

All train the same networks on the same float32 images with the same steps.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from digits.keras_twin import to_keras
from digits.mnist import load_data
from handwritten_classifier import HandwrittenNumberClassification

FRAMEWORK_BATCH = 1000  # images at once in the inference of the frameworks


# ------------------------------------------------------------------------ Systems
# One of these lives in each worker process. All have the same four methods.


class NumpySystem:
    """The class of this project, or that of a file with an earlier version of it."""

    def __init__(self, data: str | None, path: Path | None = None) -> None:
        self.images, self.labels = load_floats(data)
        self.kind = load_class(path) if path else HandwrittenNumberClassification

    def build(self, settings: dict) -> None:
        self.model = self.kind(**settings)

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
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")  # Each network is traced once.
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


def load_class(path: Path) -> type:
    """Return the class of a file, as a module of its own."""
    loader = importlib.machinery.SourceFileLoader("earlier_classifier", str(path))
    specification = importlib.util.spec_from_loader(loader.name, loader)
    module = importlib.util.module_from_spec(specification)
    sys.modules[loader.name] = module  # Dataclasses look for their module there.
    loader.exec_module(module)
    return module.HandwrittenNumberClassification


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
    """A process for each system, by name; they take turns."""

    def __init__(self, systems: dict[str, Callable], data: str | None) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.pools = {
            name: ProcessPoolExecutor(1, spawn, start_worker, (system, data))
            for name, system in systems.items()
        }

    def __enter__(self) -> Workers:
        starting = [pool.submit(time.sleep, 0) for pool in self.pools.values()]
        for worker in starting:  # All at once: to import frameworks takes long.
            worker.result()
        return self

    def __exit__(self, *_) -> None:
        for pool in self.pools.values():
            pool.shutdown()

    def __getitem__(self, name: str) -> ProcessPoolExecutor:
        return self.pools[name]

    def build(self, **settings) -> None:
        """Build the same network in all systems."""
        for pool in self.pools.values():
            pool.submit(build_network, settings).result()

    def take_turns(self, number: int, task: str, count: int) -> dict[str, float]:
        """Return the seconds of a task in each system; each round begins with another.

        Only one of them computes at a time: each waits until the threads of the one
        before, which spin for a while after their work, have gone to sleep.
        """
        names, seconds = list(self.pools), {}
        first = number % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(0.3)
            seconds[name] = self.pools[name].submit(measure, task, count).result()
        return seconds


def installed_systems() -> dict[str, Callable]:
    """Return the class, and the frameworks that are installed."""
    systems = {"NumPy": (NumpySystem, "numpy"), "Keras": (KerasSystem, "tensorflow")}
    systems |= {"PyTorch": (TorchSystem, "torch")}
    found = {
        name: system
        for name, (system, package) in systems.items()
        if importlib.util.find_spec(package)
    }
    if len(found) < 2:
        raise SystemExit("TensorFlow or PyTorch must be installed; got neither")
    return found
