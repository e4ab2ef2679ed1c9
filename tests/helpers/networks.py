"""Small networks for tests, and what training has made of them."""

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from numpy.testing import assert_array_equal

from handwritten_classifier import HandwrittenNumberClassification

SMALL = {"input_shape": (8, 8, 1)}


def small_model(**settings):
    """Return a network for images of 8x8 with 3 classes."""
    return HandwrittenNumberClassification("4C3-MP2-3N", **SMALL | settings)


def snapshot(model):
    """Return copies of the parameters by name."""
    return {name: array.copy() for name, array in model.parameters.items()}


def assert_same_parameters(model, expected):
    """Compare a model's parameters with arrays of the same names, bit for bit."""
    for name, array in model.parameters.items():
        assert_array_equal(array, expected[name], err_msg=name)


def saved(model):
    """Return all that a model's file holds: arrays by name, and texts as what they say.

    Beside the parameters these are the state of training: momentum as
    ``velocity.NAME``, and the random generator in ``training``.
    """
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "model.npz")
        with np.load(Path(folder) / "model.npz") as archive:
            content = dict(archive)
    return {
        name: json.loads(str(array)) if array.dtype.kind == "U" else array
        for name, array in content.items()
    }


def trained_arrays(model):
    """Return copies of the parameters and their momentum by name."""
    names = [*model.parameters, *(f"velocity.{name}" for name in model.parameters)]
    content = saved(model)
    return {name: content[name] for name in names}


def call_in_each_step(monkeypatch, step, call):
    """Let something happen wherever training reaches the step of this name.

    ``call(model, number, *arguments)`` is called first, `number` counted from 1; what
    it returns, if anything, the step gets as its arguments.
    """
    original = getattr(HandwrittenNumberClassification, step)
    numbers = itertools.count(1)

    def watch(self, *arguments, **options):
        changed = call(self, next(numbers), *arguments)
        return original(self, *(changed or arguments), **options)

    monkeypatch.setattr(HandwrittenNumberClassification, step, watch)
